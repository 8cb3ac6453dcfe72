"""Masks of one image as a LabelMe JSON, to be opened and corrected there.

Source: https://github.com/wkentaro/labelme. One file beside its image holds::

    {"version": "5.5.0", "flags": {}, "imagePath": "street.jpg", "imageData": null,
     "imageHeight": 534, "imageWidth": 800,
     "shapes": [{"label": "wheel", "points": [[250.25, 370.25], ...], "group_id": 1, "description": "front wheel",
                 "shape_type": "polygon", "flags": {}}]}

A shape is one polygon, so each connected component of a mask is a shape; those of one object share a ``group_id``.
``label`` is the category, ``description`` the name. Scores are not kept. With no tolerance, masks read back exactly.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sam_nb.files.polygons import PIXEL_OFFSET, segment_polygons
from sam_nb.files.records import checked_mask, decode_json, encode_json
from sam_nb.masks import Segment
from sam_nb.rasterize import rasterize
from sam_nb.storage import read_bytes, write_bytes

VERSION = "5.5.0"  # of LabelMe, whose fields these are


def save_labelme(
    segments: Sequence[Segment],
    size: tuple[int, int],
    path: str | Path,
    *,
    file_name: str = "image",
    tolerance: float = 0.0,
    overwrite: bool = False,
) -> None:
    """Write masks as a LabelMe JSON, to be opened and corrected there.

    Parameters
    ----------
    segments : sequence of Segment
    size : (int, int)
        Height and width of the image.
    path : str or pathlib.Path
    file_name : str
        The image's path as seen from the JSON file.
    tolerance : float
        Pixels by which outlines may be off: 1 leaves far fewer points to drag.
    overwrite : bool
        Whether to replace an existing file.

    Raises
    ------
    FileExistsError
        The file exists, and `overwrite` is false.
    ValueError
        A mask is empty, or has another size than the image.
    """
    write_bytes(path, encode_labelme(segments, size, file_name=file_name, tolerance=tolerance), overwrite=overwrite)


def load_labelme(path: str | Path) -> list[Segment]:
    """Return the segments of a LabelMe JSON of polygons: the shapes of one group are one object.

    Parameters
    ----------
    path : str or pathlib.Path

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        Not a LabelMe JSON, or a shape is not a polygon.
    """
    return decode_labelme(read_bytes(path))


def encode_labelme(
    segments: Sequence[Segment], size: tuple[int, int], *, file_name: str = "image", tolerance: float = 0.0
) -> bytes:
    """Return the bytes of a LabelMe JSON; see `save_labelme`."""
    shapes = []
    for number, segment in enumerate(segments, start=1):
        checked_mask(segment, size)
        shapes += [
            {
                "label": segment.category,
                "points": (points + PIXEL_OFFSET).tolist(),
                "group_id": number,
                "description": segment.name,
                "shape_type": "polygon",
                "flags": {},
            }
            for points in segment_polygons(segment, tolerance=tolerance)
        ]
    height, width = size
    record: dict[str, object] = {
        "version": VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": file_name,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }
    return encode_json(record)


def decode_labelme(content: bytes) -> list[Segment]:
    """Return the segments that the bytes of a LabelMe JSON hold; see `load_labelme`."""
    record = decode_json(content, "LabelMe JSON", ("shapes", "imageHeight", "imageWidth"))
    size = record["imageHeight"], record["imageWidth"]
    groups: dict[object, list[dict[str, Any]]] = {}
    for number, shape in enumerate(record["shapes"]):
        if shape["shape_type"] != "polygon":
            raise ValueError(f"shape {number}: expected a polygon, got a {shape['shape_type']}")
        group = shape.get("group_id")
        groups.setdefault(("no group", number) if group is None else group, []).append(shape)
    return [
        Segment(
            rasterize([shape["points"] for shape in shapes], size),
            shapes[0].get("description") or f"object {number}",
            shapes[0]["label"],
        )
        for number, shapes in enumerate(groups.values(), start=1)
    ]
