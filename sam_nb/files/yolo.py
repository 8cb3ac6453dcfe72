"""Masks of one image as labels for the segmentation models of YOLO (Ultralytics).

Source: https://docs.ultralytics.com/datasets/segment. A text file beside each image holds a line for each object::

    1 0.312500 0.692884 0.318750 0.700375 0.325000 0.707865

that is the number of its class and its outline, x and y in turn, divided by the image's width and height. A line holds
one outline: connected components are joined by bridges one pixel wide, so a mask of several components does not read
back exactly. Names and scores are not kept.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sam_nb.files.polygons import PIXEL_OFFSET, join_polygons, segment_polygons
from sam_nb.files.records import category_names, checked_mask
from sam_nb.masks import Segment
from sam_nb.rasterize import rasterize
from sam_nb.storage import read_bytes, write_bytes

MIN_COORDINATES = 6  # of an outline: three points


def save_yolo(
    segments: Sequence[Segment],
    size: tuple[int, int],
    path: str | Path,
    *,
    categories: Sequence[str] | None = None,
    tolerance: float = 0.0,
    overwrite: bool = False,
) -> None:
    """Write masks as YOLO's segmentation labels: a line for each, its class and its normalized outline.

    Parameters
    ----------
    segments : sequence of Segment
        Connected components of one mask are joined by lines one pixel wide: a line of the file holds one outline.
    size : (int, int)
        Height and width of the image.
    path : str or pathlib.Path
    categories : sequence of str, optional
        The classes in the order of their numbers, as the training's data.yaml has them. Default: those of the segments,
        in alphabetical order.
    tolerance : float
        Pixels by which outlines may be off to save points.
    overwrite : bool
        Whether to replace an existing file.

    Raises
    ------
    FileExistsError
        The file exists, and `overwrite` is false.
    ValueError
        A mask is empty, has another size than the image, or a class that `categories` lacks.
    """
    write_bytes(path, encode_yolo(segments, size, categories=categories, tolerance=tolerance), overwrite=overwrite)


def load_yolo(path: str | Path, size: tuple[int, int], categories: Sequence[str]) -> list[Segment]:
    """Return the segments of YOLO's segmentation labels.

    Parameters
    ----------
    path : str or pathlib.Path
    size : (int, int)
        Height and width of the image, which the file does not hold.
    categories : sequence of str
        The classes in the order of their numbers.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        A line is not a label, or has a class that `categories` lacks.
    """
    return decode_yolo(read_bytes(path), size, categories)


def encode_yolo(
    segments: Sequence[Segment],
    size: tuple[int, int],
    *,
    categories: Sequence[str] | None = None,
    tolerance: float = 0.0,
) -> bytes:
    """Return the bytes of a file of YOLO's segmentation labels; see `save_yolo`."""
    names = category_names(segments) if categories is None else list(categories)
    lines = []
    for segment in segments:
        checked_mask(segment, size)
        if segment.category not in names:
            raise ValueError(f"{segment.name}: expected a category among {', '.join(names)}, got {segment.category!r}")
        outline = join_polygons(segment_polygons(segment, tolerance=tolerance))
        points = (outline + PIXEL_OFFSET) / size[::-1]
        numbers = " ".join(f"{value:.6f}" for value in points.ravel())
        lines.append(f"{names.index(segment.category)} {numbers}\n")
    return "".join(lines).encode("ascii")


def decode_yolo(content: bytes, size: tuple[int, int], categories: Sequence[str]) -> list[Segment]:
    """Return the segments that the bytes of YOLO's labels hold; see `load_yolo`."""
    segments = []
    for number, line in enumerate(content.decode("utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        index, *numbers = line.split()
        is_class = index.isdecimal() and int(index) < len(categories)
        if not is_class or len(numbers) < MIN_COORDINATES or len(numbers) % 2:
            raise ValueError(
                f"line {number}: expected a class from 0 to {len(categories) - 1} and at least three points, "
                f"got {line[:60]!r}"
            )
        points = np.array(numbers, float).reshape(-1, 2) * size[::-1]
        segments.append(Segment(rasterize([points], size), f"object {number}", categories[int(index)]))
    return segments
