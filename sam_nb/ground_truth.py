"""What is right: the exact masks of the sample pictures, which answers are held against."""

import json
from pathlib import Path

import numpy as np

from sam_nb.images import SAMPLES
from sam_nb.rasterize import rasterize

OUTLINES = Path(__file__).parent / "data" / "outlines.json"
"""Outlines drawn by hand, of the photographs among the samples."""

_PAINTED = Path(__file__).parent / "data" / "street_truth.npz"


def load_ground_truth(name):
    """Return the masks of what can be meant in a sample picture.

    Parameters
    ----------
    name : str
        A sample's name, see `sam_nb.images.SAMPLES`.

    Returns
    -------
    dict of str to numpy.ndarray
        HxW bool arrays of what is visible:

        * "street", exact, because it was painted: "car", "front_wheel" (which is "tyre" and "hub" together), "tyre",
          "hub", "rear_wheel" and "small_window";
        * the photographs, outlined by hand and so with an error of one or two pixels, more along fur: "mission_patch",
          "name_tag", "head" and "person" of "astronaut"; "left_eye" (as you see it), "nose" and "cat" of "cat"; "cup",
          "cup_on_saucer" (with the spoon) and "coffee" of "coffee"; "rocket" of "rocket"; "coin_1" to "coin_24" of
          "coins", row by row (smoothed outlines of a watershed, looked at one by one).

    Raises
    ------
    ValueError
        There is no such sample.
    """
    if name not in SAMPLES:
        raise ValueError(
            f"there are no ground truth masks for {name!r}: expected a sample, one of {', '.join(SAMPLES)}"
        )
    if name == "street":
        with np.load(_PAINTED) as ground_truth:
            return dict(ground_truth)
    return next(outlined_masks(entry) for entry in read_outlines(OUTLINES) if entry["sample"] == name)


def read_outlines(path):
    """Return the outlined pictures of a file such as `OUTLINES`, list of dict.

    Each has ``source``, ``file``, ``width``, ``height`` and ``objects``, whose ``name``, ``kind`` ("object" or "part")
    and ``polygons`` are in pixels (x, y), pixel centres at whole numbers. An object is the union of its polygons.
    """
    return json.loads(path.read_text(encoding="utf-8"))


def outlined_masks(entry):
    """Return the masks of one of these pictures, dict of str to HxW numpy.ndarray of bool."""
    size = entry["height"], entry["width"]
    return {
        thing["name"]: rasterize([np.round(polygon) for polygon in thing["polygons"]], size)
        for thing in entry["objects"]
    }
