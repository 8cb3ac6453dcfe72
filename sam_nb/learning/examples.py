"""Labelled images as fine-tuning needs them: checked, encoded, and as targets on the grid of the decoder's logits."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from sam_nb.images import load_image
from sam_nb.masks import as_labels

if TYPE_CHECKING:
    from sam_nb.images import ImageLike
    from sam_nb.model.embeddings import Embedding
    from sam_nb.model.sam import Sam

Labels: TypeAlias = npt.NDArray[np.bool_] | npt.NDArray[np.integer]
"""HxW: bool for one object, or integers, 0 for background and another number for each object."""

BORDER = 255  # in VOC, Cityscapes and others: pixels to ignore


@dataclass(frozen=True, eq=False)
class Example:
    """An encoded image and its labels.

    Attributes
    ----------
    embedding : Embedding
    labels : HxW numpy.ndarray of bool or int
    numbers : N numpy.ndarray of bool or int
        The values in `labels` that stand for objects.
    """

    embedding: Embedding
    labels: Labels
    numbers: Labels

    def masks(self, chosen: npt.NDArray[np.integer] | slice = np.s_[:]) -> list[npt.NDArray[np.bool_]]:
        """Return the masks of the chosen objects, list of HxW bool."""
        return [self.labels == number for number in self.numbers[chosen]]


def encode_examples(sam: Sam, pairs: Iterable[tuple[ImageLike, npt.ArrayLike]], name: str) -> list[Example]:
    """Return an `Example` for each pair; pairs of the same image share its embedding.

    Parameters
    ----------
    sam : Sam
    pairs : iterable of (image, mask)
        As in `sam_nb.learning.finetuning.finetune`.
    name : str
        What messages call the pairs.

    Raises
    ------
    ValueError
        There are no pairs, or one of them is not an image and its mask. The message names the pair.
    FileNotFoundError
        There is no such image.
    """
    if iter(pairs) is pairs:
        pairs = list(pairs)  # it can be gone through once only
    # All pairs are checked before the first of them is encoded, which takes long. A data set reads its files again for
    # that: all images together may be more than the memory holds.
    read = []
    for number, pair in enumerate(pairs):  # no comprehension: in some versions of Python it counts in `stacklevel`
        read.append(_read(pair, f"{name}[{number}]")[1:])
    if not read:
        raise ValueError(f"{name} is empty: expected at least one pair, (image, mask)")
    embeddings: dict[str, Embedding] = {}
    examples = []
    for pair, labelled in zip(tqdm(pairs, unit="image", desc=f"encode {name}", leave=False), read, strict=True):
        embedding = sam.encode(load_image(pair[0]))
        examples.append(Example(embeddings.setdefault(embedding.key, embedding), *labelled))
    return examples


def _read(pair: object, name: str) -> tuple[npt.NDArray[np.uint8], Labels, Labels]:
    """Return image HxWx3, labels HxW and the numbers that stand for objects; raise a ValueError that names the pair."""
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise ValueError(f"{name}: expected a pair, (image, mask), got {type(pair).__name__}")
    try:
        image = load_image(pair[0])
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"{name}: {error}") from error
    labels, size = as_labels(pair[1], f"{name}, mask"), image.shape[:2]
    if labels.shape != size:
        cure = "transpose it, mask.T" if labels.shape == size[::-1] else "give it in the image's size"
        raise ValueError(f"{name}: the mask is {labels.shape}, the image {size} (height, width): {cure}")
    numbers = np.setdiff1d(labels, [0])
    if not len(numbers):
        raise ValueError(f"{name}: the mask is empty, there is no object to prompt for; leave the pair out")
    if len(numbers) > 1 and numbers[-1] == BORDER and numbers[-2] < BORDER - 1:
        warnings.warn(
            f"{name}: 255 counts as one of {len(numbers)} objects. Where it marks borders to ignore, as in VOC and "
            "Cityscapes, make it background, numpy.where(labels == 255, 0, labels); a grey image of one mask, `> 127`",
            stacklevel=4,  # of the caller of `finetune`
        )
    return image, labels, numbers


@dataclass(frozen=True, eq=False)
class LowResTargets:
    """An example with its ground truth on the grid of the decoder's low-res logits.

    Attributes
    ----------
    example : Example
    ground_truth : Nx256x256 torch.Tensor of bool
        The mask of each object.
    stride : float
        Pixels of the encoder's input for each cell of the grid, along a side.
    """

    example: Example
    ground_truth: torch.Tensor
    stride: float

    @property
    def shape(self) -> tuple[int, int]:
        """How many rows and columns of the grid are image, not padding."""
        height, width = self.example.embedding.input_size
        return math.ceil(height / self.stride), math.ceil(width / self.stride)

    def pixel(self, cell: tuple[float, float]) -> tuple[float, float]:
        """Return where the middle of a cell (x, y) lies in the image, pixels (x, y)."""
        embedding = self.example.embedding
        per_side = zip(cell, embedding.original_size[::-1], embedding.input_size[::-1], strict=True)
        x, y = ((place + 0.5) * self.stride * original / seen - 0.5 for place, original, seen in per_side)
        return x, y


def low_res_targets(sam: Sam, examples: Sequence[Example], name: str) -> list[LowResTargets]:
    """Return examples' masks as their images go through the encoder: resized to its input size and padded.

    Objects that are too small to cover a cell of the grid are left out, with a warning that names the first.

    Parameters
    ----------
    sam : Sam
    examples : sequence of Example
    name : str
        What messages call them.

    Raises
    ------
    ValueError
        All objects are too small.
    """
    targets, small = [], []
    for number, example in enumerate(examples):
        ground_truth = _on_grid(sam, example)
        seen = ground_truth.flatten(1).any(1)
        for index in np.flatnonzero(~seen.numpy()):
            area = np.count_nonzero(example.masks(np.array([index]))[0])
            small.append(f"{name}[{number}]: object {example.numbers[index]} covers {area} pixels")
        if seen.any():
            stride = sam.model.image_encoder.img_size / ground_truth.shape[-1]
            large = replace(example, numbers=example.numbers[seen.numpy()])
            targets.append(LowResTargets(large, ground_truth[seen], stride))
    if not small:
        return targets
    words = (
        f"{small[0]}, too few for the model to see; crop the image around it, or set it to 0. (If the mask is a "
        "greyscale image, make it bool: `> 127`)"
    )
    if not targets:
        raise ValueError(words)
    warnings.warn(f"{len(small)} objects are left out, the first being {words}", stacklevel=3)
    return targets


def _on_grid(sam: Sam, example: Example) -> torch.Tensor:
    """Return an example's masks on the grid of the low-res logits, Nx256x256 bool."""
    side, cells = sam.model.image_encoder.img_size, sam.model.prompt_encoder.mask_input_size[0]
    height, width = example.embedding.input_size
    ground_truth = []
    for mask in example.masks():
        original = torch.from_numpy(mask)[None, None].float()
        resized = F.interpolate(original, (height, width), mode="bilinear", align_corners=False, antialias=True)
        padded = F.pad(resized, (0, side - width, 0, side - height))[0, 0].numpy()
        # A cell may be 2.5 pixels wide.
        ground_truth.append(cv2.resize(padded, (cells, cells), interpolation=cv2.INTER_AREA) > 0.5)
    return torch.from_numpy(np.stack(ground_truth))
