"""A closer look: the surroundings of a small object, cropped, encoded as an image of their own and prompted again.

Every image is resized to the encoder's side (1024 pixels in Meta's models), and a mask comes as 256x256 logits of the
whole of it. What is small in the image is a few pixels there and fewer logits, with any model. The crop gives it more
of both; box and logits of the first mask, the latter resampled to the crop, tell the second look what is meant.
"""

import math
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from sam_nb.images import load_image
from sam_nb.masks import Masks, bounding_box
from sam_nb.model.sam import Sam, fitted_size
from sam_nb.prompts import Prompt

if TYPE_CHECKING:
    from sam_nb.images import ImageLike

MARGIN = 0.5  # on each side of the object, in lengths of its longer side
MIN_GAIN = 1.5  # times the pixels along a side: for less, the second look is not worth its encoding
MIN_SIDE = 64  # pixels of a crop: closer, even a clear image is a blur
OFF = -10.0  # a logit off the object, as low as SAM's own are where it is sure

Window: TypeAlias = tuple[int, int, int, int]
"""left, top, right, bottom of a crop, in pixels of the image; right and bottom are one past its last pixel"""


def look_closer(sam: Sam, image: "ImageLike", prompt: Prompt, masks: Masks | None = None) -> Masks:
    """Return the mask of a small object at the resolution of its surroundings, instead of that of the whole image.

    The object is looked at twice. The first look is `Sam.decode`. The second is at a crop: the prompt's box or, where
    it has none, the box of the first mask, with half of the longer side as margin all around. The crop is encoded, and
    the decoder gets the prompt, with that box, and the first look's logits. It costs a `Sam.encode` for each object.

    Parameters
    ----------
    sam : Sam
    image : HxWx3 numpy.ndarray of uint8, RGB
        Or anything else that `load_image` takes: the image itself, not its embedding.
    prompt : Prompt
        In pixels of the whole image. A mask_input counts for the first look only.
    masks : Masks, optional
        The first look, if you have it: what ``sam.decode(sam.encode(image), prompt)`` returns, which is the default. Of
        several masks the highest-scoring is looked at; of another one, give ``masks.only(index)``.

    Returns
    -------
    Masks
        One mask of the whole image, with the second look's logits and predicted IoU; it ends where the crop does. If no
        crop shows the object at least one and a half times as large, which is so of an object longer than a third of
        the image, the first look's mask itself.

    Raises
    ------
    ValueError
        As `Sam.encode` and `Sam.decode`; or `masks` are those of another image.
    """
    image = load_image(image)
    height, width = image.shape[:2]
    if masks is None:
        masks = sam.decode(sam.encode(image), prompt)
    prompt.check_inside(height, width)
    if masks.size != (height, width):
        raise ValueError(
            f"masks: expected those of this image, which is {width} wide and {height} high, got masks of one that is "
            f"{masks.size[1]} wide and {masks.size[0]} high: decode the prompt on this image, or leave masks out"
        )
    first = masks.only(masks.best_index)
    found = first.mask(0)
    if prompt.box is None and found.any():
        # A click alone may mean the whole or a part; logits alone do not hold the second look to what the first found.
        prompt = Prompt(prompt.points, prompt.labels, bounding_box(found))
    window = left, top, right, bottom = _window(prompt, height, width)
    if MIN_GAIN * max(right - left, bottom - top) > max(height, width):
        return first
    closer = _in_crop(prompt, window, _logits_of_crop(first, window))
    second = sam.decode(sam.encode(image[top:bottom, left:right]), closer)
    logits = _logits_of_image(second, window, first.size)
    return Masks(second.scores, logits[None], first.model, first.size, partial(_upscale, second, window, first.size))


def _window(prompt: Prompt, height: int, width: int) -> Window:
    """Return the crop for a prompt: a square around its box and positive clicks, cut off at the edges of the image."""
    corners = [] if prompt.box is None else prompt.box.reshape(2, 2).tolist()  # of what must be seen, (x, y)
    if prompt.points is not None and prompt.labels is not None:
        corners += prompt.points[prompt.labels == 1].tolist()
    if not corners:  # negative clicks alone, and nothing found
        return 0, 0, width, height
    seen = np.clip(corners, 0, (width, height))
    low, high = seen.min(axis=0), seen.max(axis=0)
    half = max((0.5 + MARGIN) * (high - low).max(), MIN_SIDE / 2)
    left, top = np.maximum(np.floor((low + high) / 2 - half), 0).astype(int).tolist()
    right, bottom = np.minimum(np.ceil((low + high) / 2 + half), (width, height)).astype(int).tolist()
    return left, top, right, bottom


def _in_crop(prompt: Prompt, window: Window, logits: npt.NDArray[np.float32]) -> Prompt:
    """Return a prompt in pixels of the crop, without negative clicks that lie outside; `logits` is its mask_input."""
    corner, opposite = np.array(window[:2]), np.array(window[2:])
    points = labels = box = None
    if prompt.points is not None and prompt.labels is not None:
        inside = ((prompt.points >= corner) & (prompt.points <= opposite)).all(axis=1) | (prompt.labels == 1)
        points, labels = np.clip(prompt.points[inside], corner, opposite) - corner, prompt.labels[inside]
    if prompt.box is not None:
        box = np.clip(prompt.box.reshape(2, 2), corner, opposite) - corner
    return Prompt(points, labels, None if box is None else box.ravel(), logits)


def _logits_of_crop(masks: Masks, window: Window) -> npt.NDArray[np.float32]:
    """Return the logits of an image's only mask as those of a crop of it, hxw float32; padding is off the object."""
    left, top, right, bottom = window
    (low_res,) = masks.logits
    side, per_pixel = len(low_res), len(low_res) / max(masks.size)
    rows, columns = fitted_size(bottom - top, right - left, side)
    crop = np.full_like(low_res, OFF)
    crop[:rows, :columns] = _resample(low_res, np.array(window) * per_pixel, rows, columns)
    return crop


def _logits_of_image(masks: Masks, window: Window, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Return the logits of a crop's only mask as low-res logits of the image of a size (height, width), hxw float32."""
    left, top = window[:2]
    (low_res,) = masks.logits
    image = np.full_like(low_res, OFF)
    per_pixel, per_crop_pixel = len(low_res) / max(size), len(low_res) / max(masks.size)
    x0, y0 = (math.ceil(edge * per_pixel) for edge in window[:2])
    x1, y1 = (math.floor(edge * per_pixel) for edge in window[2:])
    if x0 < x1 and y0 < y1:  # of a crop between two cells nothing is seen
        cells = (np.array([x0, y0, x1, y1]) / per_pixel - [left, top, left, top]) * per_crop_pixel
        image[y0:y1, x0:x1] = _resample(low_res, cells, y1 - y0, x1 - x0)
    return image


def _resample(
    logits: npt.NDArray[np.float32], box: npt.NDArray[np.float64], rows: int, columns: int
) -> npt.NDArray[np.float32]:
    """Return the part of hxw logits in a box, in cells, as rows x columns float32."""
    height, width = logits.shape
    x0, y0, x1, y1 = np.clip(box, 0, (width, height, width, height)).tolist()  # Pillow refuses what rounding adds
    return np.array(Image.fromarray(logits).resize((columns, rows), Image.Resampling.BILINEAR, box=(x0, y0, x1, y1)))


def _upscale(masks: Masks, window: Window, size: tuple[int, int], _: int) -> npt.NDArray[np.float32]:
    """Return the logits of a crop's only mask at the size of the image, HxW float32."""
    left, top, right, bottom = window
    image = np.full(size, OFF, np.float32)
    image[top:bottom, left:right] = masks.upscale(0)
    return image
