"""Masks laid over images, as arrays: for figures, canvas and files."""

import zlib

import cv2
import numpy as np

from sam_nb.palette import EXTRA, MISSING, PALETTE


def overlay(image, masks, colors=PALETTE, alpha=0.5, outline=None):
    """Return the picture with masks laid over it, each filled and outlined in its colour.

    Parameters
    ----------
    image : HxWx3 numpy.ndarray of uint8, RGB
    masks : sequence of HxW numpy.ndarray of bool
        Later ones lie on top.
    colors : sequence of (int, int, int)
        RGB, taken in turn.
    alpha : float
        Of the fill, from 0 (invisible) to 1 (opaque).
    outline : int, optional
        Width of the opaque outline, pixels. Left out: a 400th of the picture's long side.

    Returns
    -------
    HxWx3 numpy.ndarray of uint8
    """
    picture = image.copy()
    if outline is None:
        outline = outline_width(*image.shape[:2])
    for index, mask in enumerate(masks):
        color = colors[index % len(colors)]
        picture[mask] = np.rint(picture[mask] * (1 - alpha) + np.array(color) * alpha).astype(np.uint8)
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, contours, -1, color, outline, cv2.LINE_AA)
    return picture


def overlay_records(image, records):
    """Return the picture with what everything-mode found laid over it, smaller masks on larger ones.

    A mask's colour depends on the place of its click alone, so it stays when others come and go.

    Parameters
    ----------
    image : HxWx3 numpy.ndarray of uint8, RGB
    records : list of dict
        With ``segmentation`` (HxW bool), ``area`` and ``point_coords``.

    Returns
    -------
    HxWx3 numpy.ndarray of uint8
    """
    ordered = sorted(records, key=lambda record: record["area"], reverse=True)
    places = [np.array(record["point_coords"][0], np.float64).tobytes() for record in ordered]
    colors = [PALETTE[zlib.crc32(place) % len(PALETTE)] for place in places]
    return overlay(image, [record["segmentation"] for record in ordered], colors)


def outline_width(height, width):
    """Return how wide an outline looks right in a picture of this size: a 400th of the long side, in whole pixels."""
    return max(1, round(max(height, width) / 400))


def comparison(mask, ground_truth, image):
    """Return a picture of how a mask differs from the ground truth.

    Parameters
    ----------
    mask, ground_truth : HxW numpy.ndarray of bool
    image : HxWx3 numpy.ndarray of uint8, RGB
        Shown in grey, bright where mask and ground truth agree on the object.

    Returns
    -------
    HxWx3 numpy.ndarray of uint8
        `MISSING` where the ground truth is not covered, `EXTRA` where the mask covers too much.
    """
    grey = image.mean(axis=2, keepdims=True)
    picture = np.repeat(90 + grey * 0.25, 3, axis=2)
    picture[mask & ground_truth] = (110 + grey * 0.57).repeat(3, axis=2)[mask & ground_truth]
    picture[ground_truth & ~mask] = MISSING
    picture[mask & ~ground_truth] = EXTRA
    return np.rint(picture).astype(np.uint8)
