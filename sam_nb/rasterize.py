"""Polygons to masks."""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt


def rasterize(polygons: Sequence[npt.ArrayLike], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return the mask, HxW bool, that is the union of polygons, borders included.

    Parameters
    ----------
    polygons : sequence of Nx2 array-like
        (x, y) in pixels, pixel centres at integers.
    size : (int, int)
        Height and width.
    """
    mask = np.zeros(size, np.uint8)
    for points in polygons:
        # One at a time: in a single call, OpenCV leaves out what two polygons both cover.
        cv2.fillPoly(mask, [np.floor(points).astype(np.int32)], 1)
    return mask.view(bool)  # zeros and ones; a copy would take memory for all of a huge image
