"""Masks laid over images, as arrays: for figures, canvas and files."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sam_nb.images import ImageLike, load_image
from sam_nb.masks import as_mask
from sam_nb.palette import EXTRA, MISSING, PALETTE, Color


def overlay(
    image: ImageLike,
    masks: Sequence[npt.NDArray[np.bool_]] | npt.NDArray[np.bool_],
    colors: Sequence[Color] = PALETTE,
    alpha: float = 0.5,
    outline: int | None = None,
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
        Of the fill, from 0 (invisible) to 1 (opaque).
    outline : int, optional
        Width of the opaque outline, pixels. Default: 1/400 of the image's long side.

    Returns
    -------
    HxWx3 numpy.ndarray of uint8, RGB

    Raises
    ------
    ValueError
        A mask is not a mask, or has another size than the image.
    """
    blended = load_image(image)
    height, width = blended.shape[:2]
    outline = outline_width(height, width) if outline is None else outline
    given = [masks] if isinstance(masks, np.ndarray) and masks.ndim == 2 else masks
    for index, bits in enumerate(given):
        mask, color = as_mask(bits, f"masks[{index}]"), colors[index % len(colors)]
        check_size(mask, blended)
        blended[mask] = np.rint(blended[mask] * (1 - alpha) + np.array(color) * alpha).astype(np.uint8)
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(blended, contours, -1, color, outline, cv2.LINE_AA)
    return blended


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
