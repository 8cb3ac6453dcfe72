"""Masks laid over images, as arrays: for figures, canvas and files."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sam_nb.images import ImageLike, load_image
from sam_nb.masks import as_mask
from sam_nb.palette import BOX, EXTRA, MISSING, NEGATIVE, PALETTE, POSITIVE, Color
from sam_nb.prompts import Prompt

WHITE: Color = (255, 255, 255)


Place = tuple[int, int]
"""(x, y) in pixels of an image."""


def overlay(
    image: ImageLike,
    masks: Sequence[npt.NDArray[np.bool_]] | npt.NDArray[np.bool_],
    colors: Sequence[Color] = PALETTE,
    alpha: float = 0.5,
    outline: int | None = None,
    *,
    zoom: int = 1,
    prompt: Prompt | None = None,
) -> npt.NDArray[np.uint8]:
    """Return the image with masks laid over it, each filled and outlined in its colour.

    Parameters
    ----------
    image : image-like
        Anything that `load_image` takes.
    masks : sequence of HxW numpy.ndarray of bool
        Later ones lie on top. One mask HxW is taken, too.
    colors : sequence of (int, int, int)
        RGB, taken in turn.
    alpha : float
        Of the fill, from 0 (outlines alone) to 1 (opaque).
    outline : int, optional
        Width of the opaque outline, pixels. Default: 1/400 of the image's long side.
    zoom : int
        Upscale the image this many times: outlines of many masks get finer lines.
    prompt : Prompt, optional
        Drawn on top as the canvas draws it: a green plus is a click on the object, an orange cross a click off it.

    Returns
    -------
    HxWx3 numpy.ndarray of uint8, RGB

    Raises
    ------
    ValueError
        A mask is not a mask, or has another size than the image.
    """
    pixels = load_image(image)
    height, width = pixels.shape[:2]
    outline = outline_width(height, width) if outline is None else outline
    size = (zoom * width, zoom * height)
    blended = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC), dtype=np.uint8)
    given = [masks] if isinstance(masks, np.ndarray) and masks.ndim == 2 else masks
    for index, bits in enumerate(given):
        mask, color = as_mask(bits, f"masks[{index}]"), colors[index % len(colors)]
        check_size(mask, pixels)
        if alpha > 0:
            inside = mask.repeat(zoom, axis=0).repeat(zoom, axis=1)
            blended[inside] = np.rint(blended[inside] * (1 - alpha) + np.array(color) * alpha).astype(np.uint8)
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        zoomed = [contour * zoom + zoom // 2 for contour in contours]
        cv2.drawContours(blended, zoomed, -1, color, outline, cv2.LINE_AA)
    if prompt is not None:
        _draw_prompt(blended, prompt, zoom)
    return blended


def _draw_prompt(image: npt.NDArray[np.uint8], prompt: Prompt, zoom: int) -> None:
    """Mark points and box in an image, HxWx3, that is upscaled `zoom` times, in sizes that suit the image's."""
    unit = max(image.shape) / 640  # the canvas' sizes are those for an image this long
    points: list[tuple[Place, int]] = []
    box = None
    if prompt.points is not None and prompt.labels is not None:
        places = (np.rint(prompt.points * zoom).astype(int) + zoom // 2).tolist()
        points = [((x, y), label) for (x, y), label in zip(places, prompt.labels.tolist(), strict=True)]
    if prompt.box is not None:
        x0, y0, x1, y1 = (np.rint(prompt.box * zoom).astype(int) + zoom // 2).tolist()
        box = (x0, y0), (x1, y1)
    draw_marks(image, points, box, radius=max(3, round(8 * unit)), edge=max(1, round(2 * unit)))


def draw_marks(
    image: npt.NDArray[np.uint8],
    points: Sequence[tuple[Place, int]],
    box: tuple[Place, Place] | None,
    *,
    radius: int = 8,
    edge: int = 2,
) -> None:
    """Draw the marks of points and a box into an image, HxWx3 RGB, with white edges around them.

    Parameters
    ----------
    image : HxWx3 numpy.ndarray of uint8, RGB
        Is changed.
    points : sequence of ((int, int), int)
        (x, y) in pixels of the image, and the label: 1 on the object, 0 off it.
    box : ((int, int), (int, int)), or None
        Its top left and bottom right corners.
    radius, edge : int
        Of a point's mark, and the width of its edge and of the box's line, pixels.
    """
    if box is not None:
        for color, width in ((WHITE, 2 * edge), (BOX, edge)):
            cv2.rectangle(image, *box, color, width)
    for place, label in points:
        cv2.circle(image, place, radius + edge, WHITE, -1, cv2.LINE_AA)
        cv2.circle(image, place, radius, POSITIVE if label else NEGATIVE, -1, cv2.LINE_AA)
        kind = cv2.MARKER_CROSS if label else cv2.MARKER_TILTED_CROSS
        cv2.drawMarker(image, place, WHITE, kind, radius + 1, edge, cv2.LINE_AA)


def check_size(mask: npt.NDArray[np.bool_], image: npt.NDArray[np.uint8]) -> None:
    """Raise a ValueError if a mask, HxW, and an image, HxWx3, differ in size."""
    if mask.shape != image.shape[:2]:
        raise ValueError(f"mask and image differ in size: {mask.shape} and {image.shape[:2]} (height, width)")


def overlay_records(image: ImageLike, records: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.uint8]:
    """Return the image with the masks of everything-mode laid over it, smaller masks on larger ones.

    A mask's colour depends on its point alone, so it stays when other masks come and go.

    Parameters
    ----------
    image : image-like
        Anything that `load_image` takes.
    records : list of dict
        With ``segmentation`` (HxW bool), ``area`` and ``point_coords``.

    Returns
    -------
    HxWx3 numpy.ndarray of uint8, RGB
    """
    ordered = sorted(records, key=lambda record: record["area"], reverse=True)
    points = [np.array(record["point_coords"][0], np.float64).tobytes() for record in ordered]
    colors = [PALETTE[zlib.crc32(point) % len(PALETTE)] for point in points]
    return overlay(image, [record["segmentation"] for record in ordered], colors)


def outline_width(height: float, width: float) -> int:
    """Return the width of an outline for an image of this size, 1/400 of the long side, pixels."""
    return max(1, round(max(height, width) / 400))


def comparison(
    mask: npt.NDArray[np.bool_], ground_truth: npt.NDArray[np.bool_], image: ImageLike
) -> npt.NDArray[np.uint8]:
    """Return an image of where a mask differs from the ground truth.

    Parameters
    ----------
    mask, ground_truth : HxW numpy.ndarray of bool
    image : image-like
        Anything that `load_image` takes. Shown in grey, bright where mask and ground truth agree on the object.

    Returns
    -------
    HxWx3 numpy.ndarray of uint8, RGB
        `MISSING` where the ground truth is not covered, `EXTRA` where the mask covers too much.

    Raises
    ------
    ValueError
        The sizes differ, or one is not a mask.
    """
    mask, ground_truth, pixels = as_mask(mask), as_mask(ground_truth, "ground_truth"), load_image(image)
    check_size(mask, pixels)
    check_size(ground_truth, pixels)
    grey = pixels.mean(axis=2, keepdims=True)
    compared = np.repeat(90 + grey * 0.25, 3, axis=2)
    compared[mask & ground_truth] = (110 + grey * 0.57).repeat(3, axis=2)[mask & ground_truth]
    compared[ground_truth & ~mask] = MISSING
    compared[mask & ~ground_truth] = EXTRA
    return np.rint(compared).astype(np.uint8)
