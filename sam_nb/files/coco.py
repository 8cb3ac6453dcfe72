"""Masks of one image as COCO JSON, the format of most detection and segmentation tools.

Source: https://cocodataset.org/#format-data. One file holds::

    {"info": {"description": "masks by vit_b"},
     "images": [{"id": 1, "file_name": "street.jpg", "height": 534, "width": 800}],
     "categories": [{"id": 1, "name": "car"}],
     "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": {"size": [534, 800], "counts": "..."},
                      "area": 1200, "bbox": [x, y, width, height], "iscrowd": 0, "name": "front wheel", "score": 0.93}]}

``segmentation`` is a run-length encoding (RLE), which is exact, or a list of polygons ``[x0, y0, x1, y1, ...]``, one
for each connected component, which pycocotools rasterizes to exactly the same mask. ``name`` and ``score`` (predicted
IoU) are additions; readers ignore them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pycocotools.mask

from sam_nb.files.polygons import segment_polygons
from sam_nb.files.records import category_names, checked_mask, decode_json, encode_json
from sam_nb.masks import Segment, bounding_box
from sam_nb.storage import read_bytes, write_bytes


def save_coco(
    segments: Sequence[Segment],
    size: tuple[int, int],
    path: str | Path,
    *,
    file_name: str = "image",
    model: str = "",
    as_polygons: bool = False,
    overwrite: bool = False,
) -> None:
    """Write masks as COCO JSON.

    Parameters
    ----------
    segments : sequence of Segment
    size : (int, int)
        Height and width of the image.
    path : str or pathlib.Path
    file_name : str
        The image's file name, for the JSON.
    model : str
        The name of the model that made the masks, for the JSON.
    as_polygons : bool
        Whether to write polygons, which some programs insist on. Default: run-length encoding.
    overwrite : bool
        Whether to replace an existing file.

    Raises
    ------
    FileExistsError
        The file exists, and `overwrite` is false.
    ValueError
        A mask has another size than the image, or an empty mask should become a polygon.
    """
    content = encode_coco(segments, size, file_name=file_name, model=model, as_polygons=as_polygons)
    write_bytes(path, content, overwrite=overwrite)


def load_coco(path: str | Path) -> list[Segment]:
    """Return the segments of a COCO JSON file of one image, by this package or another program.

    Parameters
    ----------
    path : str or pathlib.Path

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        Not COCO JSON, or COCO JSON of several images.
    """
    return decode_coco(read_bytes(path))


def encode_coco(
    segments: Sequence[Segment],
    size: tuple[int, int],
    *,
    file_name: str = "image",
    model: str = "",
    as_polygons: bool = False,
) -> bytes:
    """Return the bytes of a COCO JSON file; see `save_coco`."""
    height, width = size
    categories = category_names(segments)
    annotations = []
    for number, segment in enumerate(segments, start=1):
        mask = checked_mask(segment, size)
        x0, y0, x1, y1 = (int(side) for side in bounding_box(mask))
        annotation = {
            "id": number,
            "image_id": 1,
            "category_id": 1 + categories.index(segment.category),
            "segmentation": _encode_polygons(segment) if as_polygons else _encode_rle(mask),
            "area": int(np.count_nonzero(mask)),
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "iscrowd": 0,
            "name": segment.name,
        }
        annotations.append(annotation | ({} if segment.score is None else {"score": float(segment.score)}))
    record = {
        "info": {"description": f"masks by {model}" if model else "masks"},
        "images": [{"id": 1, "file_name": file_name, "height": height, "width": width}],
        "categories": [{"id": number, "name": name} for number, name in enumerate(categories, start=1)],
        "annotations": annotations,
    }
    return encode_json(record)


def decode_coco(content: bytes) -> list[Segment]:
    """Return the segments that the bytes of a COCO JSON file hold; see `load_coco`."""
    record = decode_json(content, "COCO JSON", ("images", "annotations", "categories"))
    if len(record["images"]) != 1:
        raise ValueError(f"expected COCO JSON of one image, got one of {len(record['images'])} images")
    (image,) = record["images"]
    size = image["height"], image["width"]
    names = {category["id"]: category["name"] for category in record["categories"]}
    return [
        Segment(
            _decode_segmentation(annotation["segmentation"], size),
            annotation.get("name", f"object {annotation['id']}"),
            names[annotation["category_id"]],
            annotation.get("score"),
        )
        for annotation in record["annotations"]
    ]


def _encode_polygons(segment: Segment) -> list[list[float]]:
    return [points.ravel().tolist() for points in segment_polygons(segment, scale=2)]


def _encode_rle(mask: npt.NDArray[np.bool_]) -> dict[str, object]:
    rle = pycocotools.mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": rle["counts"].decode("ascii")}


def _decode_segmentation(form: Any, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return the mask, HxW bool, of COCO's three forms: polygons, RLE as a list of numbers, RLE as text."""
    if isinstance(form, list):
        rle = pycocotools.mask.merge(pycocotools.mask.frPyObjects(form, *size))
        return _decode_rle(_run_lengths(rle["counts"]), size)
    counts = form["counts"]
    runs = counts if isinstance(counts, list) else _run_lengths(counts.encode("ascii"))
    return _decode_rle(runs, form["size"])


# pycocotools.mask.decode gives the same mask, but hands NumPy 2 an array in a way that NumPy has deprecated: a
# DeprecationWarning for each mask, and an error one day.
def _decode_rle(runs: Sequence[int], size: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Return the mask, HxW bool, of counts: background and mask in turn, column by column."""
    height, width = size
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise ValueError(f"damaged run-length encoding: expected {height * width} pixels ({width}x{height})")
    bits = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(bits.reshape(width, height).T)


def _run_lengths(counts: bytes) -> list[int]:
    """Return the counts that COCO's compressed text holds.

    Each number is written five bits at a time, the lowest first, as a character from "0" on; a sixth bit says that more
    follow, and the last's fifth bit is the sign. From the fourth on a number is the difference to the last but one.
    Source: rleFrString in pycocotools' maskApi.c.
    """
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        bits = character - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    return runs
