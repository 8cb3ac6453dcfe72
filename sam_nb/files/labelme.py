"""Masks of one image as a LabelMe JSON, to be opened and corrected there.

Source: https://github.com/wkentaro/labelme. One file beside its image holds::

    {"version": "5.5.0", "flags": {}, "imagePath": "street.jpg", "imageData": null,
     "imageHeight": 534, "imageWidth": 800,
     "shapes": [{"label": "wheel", "points": [[250.25, 370.25], ...], "group_id": 1, "description": "front wheel",
                 "shape_type": "polygon", "flags": {}}]}

A shape is one polygon, so each connected component of a mask is a shape; those of one object share a ``group_id`` and a
``label``, which is the category; ``description`` is the name. Scores are not kept. With no tolerance, masks read back
exactly. Files of other programs may also hold rectangles, and shapes without a ``shape_type``, which are polygons.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sam_nb.files import records
from sam_nb.files.polygons import PIXEL_OFFSET, polygons
from sam_nb.masks import Segment
from sam_nb.prompts import shown
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
        A mask is empty, or has another size than the image; or the path does not end in .json.
    """
    records.check_suffix(path, ".json")
    write_bytes(path, encode_labelme(segments, size, file_name=file_name, tolerance=tolerance), overwrite=overwrite)


def load_labelme(path: str | Path) -> list[Segment]:
    """Return the segments of a LabelMe JSON: the shapes of one group that have the same label are one object.

    Parameters
    ----------
    path : str or pathlib.Path

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        Not a LabelMe JSON, a file without the image's size, or a shape from which no mask can be made: neither polygon
        nor rectangle, without a label, with numbers that are not finite or far outside the image, or that covers no
        pixel. The message names the file and the shape, counted from 0.
    """
    with records.naming(repr(str(path))):
        return decode_labelme(read_bytes(path))


def encode_labelme(
    segments: Sequence[Segment], size: tuple[int, int], *, file_name: str = "image", tolerance: float = 0.0
) -> bytes:
    """Return the bytes of a LabelMe JSON; see `save_labelme`."""
    height, width = records.checked_size(size)
    shapes = []
    for number, segment in enumerate(segments, start=1):
        mask = records.checked_mask(segment, size)
        shapes += [
            {
                "label": segment.category,
                "points": (points + PIXEL_OFFSET).tolist(),
                "group_id": number,
                "description": segment.name,
                "shape_type": "polygon",
                "flags": {},
            }
            for points in polygons(mask, tolerance=tolerance)
        ]
    record: dict[str, object] = {
        "version": VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": file_name,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }
    return records.encode_json(record)


def decode_labelme(content: bytes) -> list[Segment]:
    """Return the segments that the bytes of a LabelMe JSON hold; see `load_labelme`."""
    return records.all_of(decode_labelme_image(content).objects())


@dataclass(frozen=True, eq=False)
class LabelmeImage:
    """What a LabelMe JSON holds.

    Attributes
    ----------
    file_name : str
        The image's path as seen from the JSON file; "" if there is none.
    size : (int, int)
        Height and width, pixels.
    shapes : list of dict
        As the file has them.
    """

    file_name: str
    size: tuple[int, int]
    shapes: list[dict[str, Any]]

    def objects(self) -> Iterator[Segment | ValueError]:
        """Yield each object's segment, or why there is none; all its shapes must be right."""
        found = 0
        for members in self._groups():
            try:
                yield self._object(members, f"object {found + 1}")
                found += 1
            except ValueError as error:
                yield error

    def _groups(self) -> Iterable[list[int]]:
        """Return the numbers of the shapes of each object."""
        groups: dict[tuple[object, ...], list[int]] = {}
        for number, shape in enumerate(self.shapes):
            label, group = shape.get("label"), shape.get("group_id")
            is_grouped = isinstance(label, str) and isinstance(group, int | str)
            groups.setdefault((label, group) if is_grouped else (number,), []).append(number)
        return groups.values()

    def _object(self, members: Sequence[int], default: str) -> Segment:
        outlines = []
        for number in members:
            with records.naming(f"shape {number}"):
                label, group = records.text_in(self.shapes[number], "label"), self.shapes[number].get("group_id")
                if not isinstance(group, int | str | None):
                    raise ValueError(f"group_id: expected an integer, got {shown(group)}")
                outlines.append(_outline(self.shapes[number], self.size))
        names = [self.shapes[number].get("description") for number in members]
        name = next((name for name in names if isinstance(name, str) and name.strip()), default)
        with records.naming(f"shape {members[0]}"):
            return Segment(records.checked_covers(rasterize(outlines, self.size)), name, label)


def decode_labelme_image(content: bytes) -> LabelmeImage:
    """Return what the bytes of a LabelMe JSON hold, shapes unread; ValueError if it is none, or without a size."""
    record = records.decode_json(content, "LabelMe JSON", ("shapes", "imageHeight", "imageWidth"))
    with records.naming("imageHeight and imageWidth"):
        size = records.checked_size((record["imageHeight"], record["imageWidth"]))
    file_name = record.get("imagePath")
    return LabelmeImage(file_name if isinstance(file_name, str) else "", size, records.objects_in(record, "shapes"))


def _outline(shape: Mapping[str, Any], size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Return the outline of a shape, Nx2, pixels."""
    kind = shape.get("shape_type") or "polygon"
    if kind not in ("polygon", "rectangle"):
        raise ValueError(f"expected a polygon or a rectangle, got {shown(kind)}: draw it as a polygon, or remove it")
    with records.naming("points"):
        points = records.checked_numbers(shape.get("points"))
        records.checked_outline(points, size, minimum=3 if kind == "polygon" else 2)
    if kind == "rectangle" and len(points) == 2:
        (x0, y0), (x1, y1) = points
        return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    return points
