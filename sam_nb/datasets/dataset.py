"""A folder of labelled images as one value: images with the masks of their objects, read when they are looked at."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from sam_nb.images import load_image
from sam_nb.masks import Segment
from sam_nb.prompts import checked_integer, checked_number

Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.uint16]
Size = tuple[int, int]
"""Height and width, pixels."""

_MAX_SHOWN = 3  # reasons in a repr and a warning

UNREADABLE = (OSError, ValueError, MemoryError)
"""What reading an image or its labels may raise, in words."""


class Skipped(NamedTuple):
    """An image, an object or a file that is left out, and why."""

    name: str
    reason: str


class Labelled(NamedTuple):
    """What `LabelledImage.read` returns: an image HxWx3 uint8 RGB, its objects, and the objects without a mask."""

    image: npt.NDArray[np.uint8]
    segments: list[Segment]
    skipped: list[Skipped]


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """An image of a data set, unread.

    Attributes
    ----------
    name : str
        Its path below the data set's folder, with ``/``.
    path : pathlib.Path
    objects : callable
        Takes height and width of the image; yields the segment of each object, or the ValueError that says why there is
        none.
    """

    name: str
    path: Path
    objects: Callable[[Size], Iterator[Segment | ValueError]]

    def read(self) -> Labelled:
        """Read the image and its labels.

        Raises
        ------
        ValueError
            Not an image, labels for another size, or no object with a mask.
        OSError
            A file cannot be read.
        """
        image = load_image(self.path)
        segments, skipped = [], []
        for each in self.objects(image.shape[:2]):
            if isinstance(each, ValueError):
                skipped.append(Skipped(self.name, str(each)))
            else:
                segments.append(each)
        if not segments:
            raise ValueError(skipped[0].reason if skipped else "it has no objects")
        return Labelled(image, segments, skipped)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images, from `load_dataset`.

    It yields pairs for `finetune`: an image, HxWx3 uint8 RGB, and its ground truth, HxW uint16, 0 for background and a
    number for each object. Of objects that overlap, each further one comes in another pair with the same image. What
    cannot be read is left out with a warning; `checked` finds it beforehand.

    Attributes
    ----------
    images : tuple of LabelledImage
    skipped : tuple of Skipped
        What is left out, and why.
    """

    images: tuple[LabelledImage, ...]
    skipped: tuple[Skipped, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    @overload
    def __getitem__(self, index: int) -> LabelledImage: ...

    @overload
    def __getitem__(self, index: slice) -> Dataset: ...

    def __getitem__(self, index: int | slice) -> LabelledImage | Dataset:
        if isinstance(index, slice):
            return Dataset(self.images[index])
        return self.images[index]

    def __iter__(self) -> Iterator[tuple[npt.NDArray[np.uint8], Labels]]:
        for one in self.images:
            try:
                image, segments, _ = one.read()
            except UNREADABLE as error:
                warnings.warn(f"{one.name} is skipped: {error}", stacklevel=2)
                continue
            for labels in label_maps([segment.mask for segment in segments]):
                yield image, labels

    def __repr__(self) -> str:
        words = f"{len(self)} images"
        if self.skipped:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self.skipped[:_MAX_SHOWN])
            more = f"; and {len(self.skipped) - _MAX_SHOWN} more in .skipped" if len(self.skipped) > _MAX_SHOWN else ""
            words += f", {len(self.skipped)} skipped ({reasons}{more})"
        return f"Dataset({words})"

    def checked(self) -> Dataset:
        """Read everything once, with a progress bar; return the data set without the images that cannot be read.

        Objects of which no mask can be made are in `skipped`, too; their images stay if they have others.
        """
        good, skipped = [], list(self.skipped)
        for one in tqdm(self.images, unit="image", desc="check", leave=False):
            try:
                skipped += one.read().skipped
                good.append(one)
            except UNREADABLE as error:
                skipped.append(Skipped(one.name, str(error)))
        return Dataset(tuple(good), tuple(skipped))

    def split(self, *shares: float, seed: int = 0) -> tuple[Dataset, ...]:
        """Split by image, at random.

        Parameters
        ----------
        *shares : float
            Of each part, above 0, 1 in all: ``train, validation, test = dataset.split(0.7, 0.15, 0.15)``.
        seed : int
            The same seed gives the same parts.

        Returns
        -------
        tuple of Dataset
            Each image is in one of them, whichever way it is named: what is trained on is never in another part.

        Raises
        ------
        ValueError
            The shares are not as above, or a part gets no image.
        """
        parts = [checked_number(share, "shares", above=0) for share in shares]
        if not parts or not math.isclose(sum(parts), 1, abs_tol=1e-6):
            raise ValueError(f"shares: expected numbers above 0 that are 1 in all, such as 0.8, 0.2, got {shares}")
        seed = checked_integer(seed, "seed", 0)
        groups: dict[Path, list[LabelledImage]] = {}
        for one in self.images:
            groups.setdefault(one.path.resolve(), []).append(one)
        order = np.random.default_rng(seed).permutation(len(groups))
        ends = np.rint(np.cumsum(parts) * len(groups)).astype(int)
        found, together = [], list(groups.values())
        for start, end in zip([0, *ends[:-1]], ends, strict=True):
            found.append(Dataset(tuple(one for index in sorted(order[start:end]) for one in together[index])))
        if not all(found):
            raise ValueError(
                f"{len(groups)} images are too few for the shares {shares}: a part would have none. Label more images"
            )
        return tuple(found)


def label_maps(masks: Sequence[Mask]) -> list[Labels]:
    """Return masks as label maps, HxW uint16, as few as it takes that no two objects of a map overlap.

    Parameters
    ----------
    masks : sequence of HxW numpy.ndarray of bool
        Each with at least one pixel.
    """
    maps: list[Labels] = []
    for mask in masks:
        for labels in maps:
            if not labels[mask].any():
                break
        else:
            labels = np.zeros(mask.shape, np.uint16)
            maps.append(labels)
        labels[mask] = labels.max() + 1
    return maps


def named(images: Sequence[LabelledImage], skipped: Sequence[Skipped], folder: Path) -> Dataset:
    """Return a data set whose images are in the order of their names, each named by its path below a folder."""

    def below(path: Path) -> str:
        try:
            return path.relative_to(folder).as_posix()
        except ValueError:
            return path.as_posix()

    found = [replace(one, name=below(one.path)) for one in images]
    return Dataset(tuple(sorted(found, key=lambda one: one.name)), tuple(skipped))
