"""Ground truth of the sample images: the masks that predicted masks are scored against."""

import json
from pathlib import Path
from typing import TypedDict, cast

import numpy as np
import numpy.typing as npt

from sam_nb.images import SAMPLES
from sam_nb.rasterize import rasterize

OUTLINES = Path(__file__).parent / "data" / "outlines.json"
"""Polygons drawn by hand, of the photographs among the samples."""

_PAINTED = Path(__file__).parent / "data" / "street_truth.npz"


class OutlinedObject(TypedDict):
    """An object of an `OutlinedImage`, the union of its polygons."""

    name: str
    kind: str
    polygons: list[list[list[float]]]


class _OutlinedImage(TypedDict):
    source: str
    file: str
    width: int
    height: int
    objects: list[OutlinedObject]


class OutlinedImage(_OutlinedImage, total=False):
    """An image of a file such as `OUTLINES`; ``sample`` is its name among `sam_nb.images.SAMPLES`, if it has one."""

    sample: str


def load_ground_truth(name: str) -> dict[str, npt.NDArray[np.bool_]]:
    """Return the masks of the objects and parts in a sample image.

    Parameters
    ----------
    name : str
        A sample's name, see `sam_nb.images.SAMPLES`.

    Returns
    -------
    dict of str to numpy.ndarray
        HxW bool arrays of the visible pixels:

        * "street", exact, because it is painted: "car", "front_wheel" (which is "tyre" and "hub" together), "tyre",
          "hub", "rear_wheel" and "small_window";
        * the photographs, outlined by hand, with an error of one or two pixels, more along fur: "mission_patch",
          "name_tag", "head" and "person" of "astronaut"; "left_eye" (as you see it), "nose" and "cat" of "cat"; "cup",
          "cup_on_saucer" (with the spoon) and "coffee" of "coffee"; "rocket" of "rocket"; "coin_1" to "coin_24" of
          "coins", row by row (smoothed outlines of a watershed, checked one by one).

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
    return next(outlined_masks(entry) for entry in read_outlines(OUTLINES) if entry.get("sample") == name)


def read_outlines(path: Path) -> list[OutlinedImage]:
    """Return the outlined images of a file such as `OUTLINES`.

    Each has ``source``, ``file``, ``width``, ``height`` and ``objects``, whose ``name``, ``kind`` ("object" or "part")
    and ``polygons`` are in pixels (x, y), pixel centres at integers. An object is the union of its polygons.
    """
    return cast("list[OutlinedImage]", json.loads(path.read_text(encoding="utf-8")))


def outlined_masks(entry: OutlinedImage) -> dict[str, npt.NDArray[np.bool_]]:
    """Return the masks of one of these images by their names, HxW bool."""
    size = entry["height"], entry["width"]
    return {
        thing["name"]: rasterize([np.round(polygon) for polygon in thing["polygons"]], size)
        for thing in entry["objects"]
    }
