"""The model: encode an image once, decode as many prompts as you like.

The work is done by `segment_anything`'s networks: `Sam.model` is its model, with attention computed in a faster order,
and `Sam.predictor` returns its `SamPredictor`. What this class adds: images and prompts are checked, the image
embedding is a value that is cached, and masks name their model.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image

from sam_nb.images import load_image
from sam_nb.masks import Masks
from sam_nb.model.embeddings import Embedding, EmbeddingCache, embedding_key
from sam_nb.networks import upstream
from sam_nb.prompts import Prompt, warn_if_unlikely
from sam_nb.storage import cache_dir

if TYPE_CHECKING:
    from segment_anything import SamPredictor

    from sam_nb.images import ImageLike

CHUNKS = {"cpu": 4}  # prompts decoded in one pass: more no longer fit a processor's cache, and take longer
OTHER_CHUNKS = 32  # on graphics cards: a hundred take gigabytes


@dataclass(frozen=True)
class Thresholds:
    """What a mask must reach in everything-mode, see `sam_nb.segment_everything`.

    Attributes
    ----------
    pred_iou_thresh : float
        Predicted IoU that a mask must exceed.
    stability_score_thresh : float
        Stability score that it must reach.
    box_nms_thresh : float
        IoU of two masks' boxes above which non-maximum suppression removes one.
    """

    pred_iou_thresh: float
    stability_score_thresh: float
    box_nms_thresh: float


META_THRESHOLDS = Thresholds(pred_iou_thresh=0.88, stability_score_thresh=0.95, box_nms_thresh=0.7)
"""The defaults of `segment_anything.SamAutomaticMaskGenerator`."""

THRESHOLDS = {
    # The best of 260 triples on 12 held-out photographs (6 of COCO, 4 of Open Images, 2 of CCP), 16 x 16 clicks each,
    # by the mean share of annotated objects that a mask matches at IoU 0.5 (0.60; with Meta's thresholds 0.00), minus
    # 0.01 for each mask that matches none (11 an image).
    "lite": Thresholds(pred_iou_thresh=0.525, stability_score_thresh=0.4, box_nms_thresh=0.5),
}
"""Model name -> `Sam.thresholds`, for those that differ from `META_THRESHOLDS`."""

# Beyond a tenth of a second a preview visibly lags behind the mouse.
MAX_PREVIEW_SECONDS = 0.1


class Sam:
    """A loaded model, returned by `load_sam`.

    Parameters
    ----------
    model : segment_anything.modeling.Sam
        The model itself, for everything that is written for `segment_anything`.
    name : str
        Its architecture: "lite", "vit_t", "vit_b", "vit_l" or "vit_h".
    weights : str
        SHA-256 of the weights.
    precision : {"float32", "bfloat16"}
        Of the image encoder's computation.
    cache : EmbeddingCache, optional
        Where image embeddings are kept. Default: one in `cache_dir()`.

    Attributes
    ----------
    model, name, weights, precision, cache
        As the parameters.
    """

    def __init__(
        self,
        model: upstream.Sam,
        name: str,
        weights: str,
        precision: str = "float32",
        cache: EmbeddingCache | None = None,
    ) -> None:
        self.model = model
        self.name = name
        self.weights = weights
        self.precision = precision
        self.cache = EmbeddingCache(cache_dir() / "embeddings") if cache is None else cache

    def __repr__(self) -> str:
        return f"Sam({self.name}, {self.millions} parameters, {self.device})"

    @property
    def millions(self) -> str:
        """Number of parameters, such as "7.2 M"."""
        return f"{sum(parameter.numel() for parameter in self.model.parameters()) / 1e6:.1f} M"

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.model.device

    @property
    def thresholds(self) -> Thresholds:
        """The `Thresholds` that suit this model in everything-mode; Meta's for an architecture without its own."""
        return THRESHOLDS.get(self.name, META_THRESHOLDS)

    @property
    def max_preview_seconds(self) -> float:
        """How long one decode may take for the canvas to preview the mask under the mouse by default, seconds."""
        return MAX_PREVIEW_SECONDS

    def encode(self, image: "ImageLike", progress: Callable[[float], None] | None = None) -> Embedding:
        """Return the `Embedding` of an image: the slow step, once per image.

        It is looked up first, by the image's pixels and the model's weights, in memory and on disk.

        Parameters
        ----------
        image : HxWx3 numpy.ndarray of uint8, RGB
            Or anything else that `load_image` takes.
        progress : callable, optional
            Called with the share that is done, 0 to 1, after each block of the encoder (vit_t and vit_b have 12,
            `lite` none).

        Returns
        -------
        Embedding
            With features equal to those of ``SamPredictor.set_image``.

        Raises
        ------
        ValueError
            Not an image, or one so thin that no row or column of it is left at the model's size.
        """
        image = load_image(image)
        key = embedding_key(image, self.weights, f"{self.side} {self.device.type} {self.precision}")
        embedding = self.cache.get(key)
        if embedding is None:
            resized = fit_to_side(image, self.side)
            pixels = torch.from_numpy(resized).to(self.device).permute(2, 0, 1).contiguous()[None]
            with torch.no_grad(), _reported(getattr(self.model.image_encoder, "blocks", ()), progress):
                features = self.model.image_encoder(self.model.preprocess(pixels))
            embedding = Embedding(
                features=features.cpu(),
                original_size=(image.shape[0], image.shape[1]),
                input_size=(resized.shape[0], resized.shape[1]),
                model=self.name,
                weights=self.weights,
                key=key,
            )
            self.cache.put(embedding)
        return embedding

    def predictor(self, embedding: Embedding) -> "SamPredictor":
        """Return a `segment_anything.SamPredictor` that holds this embedding, as if `set_image` had been called."""
        from segment_anything import SamPredictor  # noqa: PLC0415 - brings torchvision, see sam_nb.networks.upstream

        self._check_own(embedding)
        predictor = SamPredictor(self.model)
        predictor.original_size = embedding.original_size
        predictor.input_size = embedding.input_size
        predictor.features = embedding.features.to(self.device)
        predictor.is_image_set = True
        return predictor

    def decode(self, embedding: Embedding, prompt: Prompt, multimask_output: bool | None = None) -> Masks:
        """Return the `Masks` for one prompt: the fast step.

        Parameters
        ----------
        embedding : Embedding
            From `encode` of this model.
        prompt : Prompt
        multimask_output : bool, optional
            True for three masks (whole, part, subpart), False for one. Default: three for a lone click, which can mean
            any of them, and one for every other prompt, as in the SAM paper and its demo.

        Returns
        -------
        Masks
            Equal to the output of ``SamPredictor.predict``, bit for bit.

        Raises
        ------
        ValueError
            The prompt lies far outside the image, its mask_input has another size than the model's, or the embedding
            is another model's.
        """
        warn_if_unlikely([prompt], *embedding.original_size)
        return self._decode_batch(embedding, [prompt], multimask_output)[0]

    def decode_batch(
        self, embedding: Embedding, prompts: Sequence[Prompt], multimask_output: bool | None = None
    ) -> list[Masks]:
        """Return the `Masks` for each of several prompts of one image, each for its own object.

        Prompts of the same shape (as many points, a box or none) go through the decoder together.

        Parameters
        ----------
        embedding : Embedding
        prompts : sequence of Prompt
        multimask_output : bool, optional
            As in `decode`, for each prompt by itself by default.

        Returns
        -------
        list of Masks
            In the order of the prompts; equal to the output of ``SamPredictor.predict_torch`` for prompts of the same
            shape.

        Raises
        ------
        ValueError
            As `decode`.
        """
        warn_if_unlikely(prompts, *embedding.original_size)
        return self._decode_batch(embedding, prompts, multimask_output)

    def _decode_batch(
        self, embedding: Embedding, prompts: Sequence[Prompt], multimask_output: bool | None
    ) -> list[Masks]:
        """Return the `Masks` for prompts of any shapes."""
        same_shape: dict[tuple[int, bool, bool], list[int]] = {}
        for index, prompt in enumerate(prompts):
            self._check_prompt(prompt, embedding)
            same_shape.setdefault(_shape(prompt), []).append(index)
        decoded: dict[int, Masks] = {}
        for shape, indices in same_shape.items():
            # A lone click can mean the whole, a part or a subpart.
            several = shape == (1, False, False) if multimask_output is None else multimask_output
            masks = self._decode_same_shape(embedding, [prompts[index] for index in indices], several)
            decoded.update(zip(indices, masks, strict=True))
        return [decoded[index] for index in range(len(prompts))]

    def encode_prompts(self, embedding: Embedding, prompts: Sequence[Prompt]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the prompt encoder's output for prompts of the same shape: the decoder's input beside the features.

        Parameters
        ----------
        embedding : Embedding
            Of the prompts' image; only its sizes are used.
        prompts : sequence of P Prompt
            Each with as many points as the others, all or none with a box, all or none with a mask_input.

        Returns
        -------
        (PxNxC torch.Tensor, PxCxHxW torch.Tensor)
            The sparse embeddings, a token for each point and corner, and the dense ones, for each cell of the features.
        """
        (height, width), (rows, columns) = embedding.original_size, embedding.input_size
        per_pixel = np.array([columns / width, rows / height])  # of the encoder's input, along x and y

        def batch(field: str, scale: npt.NDArray[np.float64] | int = 1) -> torch.Tensor | None:
            values = [getattr(prompt, field) for prompt in prompts]
            if values[0] is None:
                return None
            # Apple's GPU has no float64.
            return torch.as_tensor(np.stack(values) * scale, dtype=torch.float32, device=self.device)

        points, boxes = batch("points", per_pixel), batch("box", np.tile(per_pixel, 2))
        return self.model.prompt_encoder(
            points=None if points is None else (points, batch("labels")), boxes=boxes, masks=batch("mask_input")
        )

    def _decode_same_shape(self, embedding: Embedding, prompts: list[Prompt], multimask_output: bool) -> list[Masks]:
        """Return the `Masks` for prompts of the same shape: `SamPredictor.predict_torch`, without full-size masks."""
        self._check_own(embedding)
        count, chunk_size = 3 if multimask_output else 1, CHUNKS.get(self.device.type, OTHER_CHUNKS)
        # Allocated at once: blocks that stay, between larger ones that are freed, would fragment the memory.
        scores = np.empty((len(prompts), count), np.float32)
        logits = np.empty((len(prompts), count, *self.model.prompt_encoder.mask_input_size), np.float32)
        with torch.inference_mode():
            position = self.model.prompt_encoder.get_dense_pe()
        for start in range(0, len(prompts), chunk_size):
            chunk = slice(start, start + chunk_size)
            predicted = self._decode_chunk(embedding, prompts[chunk], position, multimask_output)
            logits[chunk], scores[chunk] = (tensor.cpu().numpy() for tensor in predicted)
        size = embedding.original_size
        return [
            Masks(*pair, self.name, size, partial(_upscale_logits, pair[1], self.side, embedding.input_size, size))
            for pair in zip(scores, logits, strict=True)
        ]

    def _decode_chunk(
        self, embedding: Embedding, prompts: list[Prompt], position: torch.Tensor, multimask_output: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits PxCxhxw and predicted IoU PxC for prompts of the same shape."""
        with torch.inference_mode():
            sparse, dense = self.encode_prompts(embedding, prompts)
            return self.model.mask_decoder(
                image_embeddings=embedding.features.to(self.device),
                image_pe=position,
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=multimask_output,
            )

    @property
    def side(self) -> int:
        """Pixels of the encoder's input, a padded square."""
        return self.model.image_encoder.img_size

    def _check_prompt(self, prompt: Prompt, embedding: Embedding) -> None:
        prompt.check_inside(*embedding.original_size)
        expected = (1, *self.model.prompt_encoder.mask_input_size)
        if prompt.mask_input is not None and prompt.mask_input.shape != expected:
            raise ValueError(
                f"mask_input: {self.name} expects logits of shape {expected}, got {prompt.mask_input.shape}; take them "
                "from Masks.logits of this model"
            )

    def _check_own(self, embedding: Embedding) -> None:
        if embedding.weights != self.weights:
            other = f"other weights of {self.name}" if embedding.model == self.name else embedding.model
            raise ValueError(
                f"expected an embedding by these weights of {self.name}, got one by {other}: encode the image again "
                "with this model"
            )


def fit_to_side(image: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    """Return an image resized so that its longer side has `side` pixels, as `segment_anything` does it.

    Parameters
    ----------
    image : HxWx3 numpy.ndarray of uint8
    side : int
        Pixels.

    Returns
    -------
    hxwx3 numpy.ndarray of uint8

    Raises
    ------
    ValueError
        The image is so thin that no row or column of it would be left.
    """
    rows, columns = fitted_size(image.shape[0], image.shape[1], side)
    return np.array(Image.fromarray(image).resize((columns, rows), Image.Resampling.BILINEAR))


def fitted_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Return height and width of an image whose longer side is resized to `side` pixels; raises as `fit_to_side`."""
    scale = side / max(height, width)
    rows, columns = int(height * scale + 0.5), int(width * scale + 0.5)
    if min(rows, columns) < 1:
        raise ValueError(
            f"an image of {width}x{height} is too thin: resized to {side} pixels, its shorter side has less than one"
        )
    return rows, columns


def _upscale_logits(
    logits: npt.NDArray[np.float32],
    side: int,
    input_size: tuple[int, int],
    original_size: tuple[int, int],
    index: int,
) -> npt.NDArray[np.float32]:
    """Return one mask's logits at the image's size, HxW float32, as `Sam.postprocess_masks` upscales them.

    Parameters
    ----------
    logits : CxhxW numpy.ndarray of float32
        Of the padded square.
    side : int
        Of that square, in pixels of the encoder's input.
    input_size, original_size : (int, int)
        Height and width of the image in the square, and of the original image.
    index : int
        Which of the C masks.
    """
    scale = Fraction(side, logits.shape[-1])
    # Padding is not upscaled, but for one line, with which the image's last line is interpolated, and what completes
    # the last whole pixel: at a scale of 5/2 an even number of lines.
    needed = (math.ceil(length / scale) + 1 for length in input_size)
    height, width = (lines + -lines % scale.denominator for lines in needed)
    low_res = torch.from_numpy(logits[index, :height, :width])[None, None]
    square = F.interpolate(
        low_res, [int(scale * length) for length in low_res.shape[2:]], mode="bilinear", align_corners=False
    )
    full = F.interpolate(
        square[..., : input_size[0], : input_size[1]], original_size, mode="bilinear", align_corners=False
    )
    return full[0, 0].numpy()


@contextlib.contextmanager
def _reported(blocks: Sequence[torch.nn.Module], progress: Callable[[float], None] | None) -> Iterator[None]:
    """Call `progress` with the share of the blocks that have run."""
    hooks = []
    if progress is not None:
        for number, block in enumerate(blocks, start=1):
            hooks.append(block.register_forward_hook(partial(_report, progress, number / len(blocks))))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _report(progress: Callable[[float], None], share: float, *_: object) -> None:
    progress(share)


def _shape(prompt: Prompt) -> tuple[int, bool, bool]:
    """Return the number of points, and whether the prompt has a box and a mask_input."""
    points = 0 if prompt.points is None else len(prompt.points)
    return points, prompt.box is not None, prompt.mask_input is not None
