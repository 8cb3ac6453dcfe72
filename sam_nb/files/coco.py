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

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pycocotools.mask

from sam_nb.files import records
from sam_nb.files.polygons import polygons
from sam_nb.masks import Segment, bounding_box
from sam_nb.prompts import shown
from sam_nb.storage import read_bytes, write_bytes

MAX_BITS = 40  # of a number in compressed text


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
        A mask is empty, or has another size than the image; a score is not finite; or the path does not end in .json.
    """
    records.check_suffix(path, ".json")
    content = encode_coco(segments, size, file_name=file_name, model=model, as_polygons=as_polygons)
    write_bytes(path, content, overwrite=overwrite)


def load_coco(path: str | Path) -> list[Segment]:
    """Return the segments of a COCO JSON file of one image, by this package or another program.

    Annotations of other images, which a file keeps that was cut down to one image, are not among them.

    Parameters
    ----------
    path : str or pathlib.Path

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        Not COCO JSON, COCO JSON of several images, or an annotation from which no mask can be made: without an outline,
        with numbers that are not finite or far outside the image, of an unknown category, or that covers no pixel. The
        message names the file and the annotation.
    """
    with records.naming(repr(str(path))):
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
    height, width = records.checked_size(size)
    categories = records.category_names(segments)
    annotations = []
    for number, segment in enumerate(segments, start=1):
        mask = records.checked_mask(segment, size)
        x0, y0, x1, y1 = (int(side) for side in bounding_box(mask))
        annotation = {
            "id": number,
            "image_id": 1,
            "category_id": 1 + categories.index(segment.category),
            "segmentation": _encode_polygons(mask) if as_polygons else _encode_rle(mask),
            "area": int(np.count_nonzero(mask)),
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "iscrowd": 0,
            "name": segment.name,
        }
        with records.naming(segment.name):
            score = _checked_score(segment.score)
        annotations.append(annotation | ({} if score is None else {"score": score}))
    record = {
        "info": {"description": f"masks by {model}" if model else "masks"},
        "images": [{"id": 1, "file_name": file_name, "height": height, "width": width}],
        "categories": [{"id": number, "name": name} for number, name in enumerate(categories, start=1)],
        "annotations": annotations,
    }
    return records.encode_json(record)


def decode_coco(content: bytes) -> list[Segment]:
    """Return the segments that the bytes of a COCO JSON file hold; see `load_coco`."""
    images = decode_coco_images(content)
    if len(images) != 1:
        raise ValueError(
            f"expected COCO JSON of one image, got one of {len(images)} images: load_dataset reads them all"
        )
    (image,) = images
    if isinstance(image, ValueError):
        raise image
    return records.all_of(image.objects())


@dataclass(frozen=True, eq=False)
class CocoImage:
    """An image of a COCO JSON file.

    Attributes
    ----------
    file_name : str
        Often with folders.
    size : (int, int)
        Height and width, pixels.
    annotations : tuple of dict
        Its own, as the file has them.
    categories : dict
        Names by ids.
    """

    file_name: str
    size: tuple[int, int]
    annotations: tuple[Mapping[str, Any], ...]
    categories: Mapping[object, str]

    def objects(self) -> Iterator[Segment | ValueError]:
        """Yield each annotation's segment, or why there is none."""
        for number, annotation in enumerate(self.annotations, start=1):
            try:
                yield _decode_annotation(annotation, number, self.categories, self.size)
            except ValueError as error:
                yield error


def decode_coco_images(content: bytes) -> list[CocoImage | ValueError]:
    """Return the images that the bytes of a COCO JSON file hold, or why one is none.

    Raises
    ------
    ValueError
        Not COCO JSON, or all its annotations are of other images.
    """
    record = records.decode_json(content, "COCO JSON", ("images", "annotations", "categories"))
    found = records.objects_in(record, "images")
    names = _category_names(record)
    annotations = records.objects_in(record, "annotations")
    alone = found[0].get("id") if len(found) == 1 else None
    by_image: dict[object, list[Mapping[str, Any]]] = {}
    for annotation in annotations:
        key = annotation.get("image_id", alone)  # a file of one image may do without
        by_image.setdefault(_key(key), []).append(annotation)
    if found and annotations and not any(_key(image.get("id")) in by_image for image in found):
        first, other = shown(found[0].get("id")), shown(annotations[0].get("image_id"))
        raise ValueError(f"expected annotations of the image with id {first}, got those of image_id {other}")
    images: list[CocoImage | ValueError] = []
    for number, image in enumerate(found):
        try:
            with records.naming("images" if len(found) == 1 else f"images, number {number}"):
                size = records.checked_size((image.get("height"), image.get("width")))
        except ValueError as error:
            images.append(error)
            continue
        own = by_image.get(_key(image.get("id")), [])
        images.append(CocoImage(str(image.get("file_name", "")), size, tuple(own), names))
    return images


def _category_names(record: Mapping[str, Any]) -> dict[object, str]:
    """Return the names of the categories by their ids."""
    names: dict[object, str] = {}
    for number, category in enumerate(records.objects_in(record, "categories")):
        with records.naming(f"categories, number {number}"):
            key, name = _checked_id(category.get("id")), records.text_in(category, "name")
            if names.setdefault(key, name) != name:
                both = f"{shown(names[key])} and {shown(name)}"
                raise ValueError(f"expected one name for each id, got {both} for {shown(key)}")
    return names


def _decode_annotation(
    annotation: Mapping[str, Any], number: int, names: Mapping[object, str], size: tuple[int, int]
) -> Segment:
    label = annotation.get("id", number)
    with records.naming(f"annotation {label if isinstance(label, int) else shown(label)}"):
        category = _checked_id(annotation.get("category_id"))
        if category not in names:
            raise ValueError(f"category_id: expected one of categories, {shown([*names])}, got {shown(category)}")
        mask = records.checked_covers(_decode_segmentation(annotation.get("segmentation"), size))
        name = annotation.get("name")
        is_named = isinstance(name, str) and name.strip()
        score = _checked_score(annotation.get("score"))
    return Segment(mask, str(name) if is_named else f"object {label}", names[category], score)


def _key(value: object) -> object:
    """Return an id as a key of a dict, whatever the file holds in its place."""
    return value if isinstance(value, int | str | None) else repr(value)


def _checked_id(value: object) -> int | str:
    if not isinstance(value, int | str):
        raise ValueError(f"expected an id, an integer, got {shown(value)}")
    return value


def _checked_score(value: Any) -> float | None:
    if value is None:
        return None
    try:
        score = float(value)
    except (TypeError, ValueError, OverflowError):
        score = math.nan
    if not math.isfinite(score):
        raise ValueError(f"score: expected a finite number, got {shown(value)}")
    return score


def _encode_polygons(mask: npt.NDArray[np.bool_]) -> list[list[float]]:
    return [points.ravel().tolist() for points in polygons(mask, scale=2)]


def _encode_rle(mask: npt.NDArray[np.bool_]) -> dict[str, object]:
    rle = pycocotools.mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": rle["counts"].decode("ascii")}


def _decode_segmentation(form: object, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return the mask, HxW bool, of COCO's three forms: polygons, RLE as a list of numbers, RLE as text."""
    if not form:
        raise ValueError(
            "expected an outline in segmentation, polygons or a run-length encoding, got none; the mask of a box is "
            "what the model makes of Prompt(box=...)"
        )
    if isinstance(form, list):
        rle = pycocotools.mask.merge(pycocotools.mask.frPyObjects(_checked_polygons(form, size), *size))
        return _decode_rle(_run_lengths(rle["counts"]), size)
    if not isinstance(form, dict) or not isinstance(form.get("counts"), list | str):
        raise ValueError(f"expected polygons, [[x0, y0, x1, y1, ...], ...], or size and counts, got {shown(form)}")
    if form.get("size") != list(size):
        raise ValueError(
            f"expected a run-length encoding of the image's size {list(size)} (height, width), got "
            f"{shown(form.get('size'))}: is it for another image?"
        )
    counts = form["counts"]
    return _decode_rle(counts if isinstance(counts, list) else _run_lengths(counts.encode("utf-8")), size)


def _checked_polygons(form: Sequence[object], size: tuple[int, int]) -> list[list[float]]:
    found = []
    for number, polygon in enumerate(form, start=1):
        with records.naming(f"polygon {number} of {len(form)}"):
            if not isinstance(polygon, list):
                raise ValueError(f"expected a list of numbers, [x0, y0, x1, y1, ...], got {shown(polygon)}")
            numbers = records.checked_numbers(polygon)
            if numbers.ndim != 1 or len(numbers) % 2:
                raise ValueError(f"expected x and y in turn, [x0, y0, x1, y1, ...], got {shown(polygon)}")
            records.checked_outline(numbers.reshape(-1, 2), size)
            found.append(numbers.tolist())
    return found


# pycocotools.mask.decode gives the same mask, but hands NumPy 2 an array in a way that NumPy has deprecated: a
# DeprecationWarning for each mask, and an error one day.
def _decode_rle(runs: Sequence[int], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return the mask, HxW bool, of counts: background and mask in turn, column by column."""
    height, width = size
    if not all(isinstance(run, int) and run >= 0 for run in runs) or sum(runs) != height * width:
        raise ValueError(f"damaged run-length encoding: expected {height * width} pixels ({width}x{height})")
    mask = np.zeros((height, width), bool)  # of a huge image, only the part that is written takes memory
    if not any(runs[1::2]):
        return mask
    ends = np.cumsum(runs, dtype=np.int64)
    left, right = int(ends[0]) // height, -(-int(ends[len(ends) // 2 * 2 - 1]) // height)
    ends = np.clip(ends, left * height, right * height)
    bits = np.repeat(np.arange(len(ends)) % 2 == 1, np.diff(ends, prepend=left * height))
    columns = bits.reshape(right - left, height)
    rows = np.flatnonzero(columns.any(axis=0))
    mask[rows[0] : rows[-1] + 1, left:right] = columns[:, rows[0] : rows[-1] + 1].T
    return mask


def _run_lengths(counts: bytes) -> list[int]:
    """Return the counts that COCO's compressed text holds.

    Each number is written five bits at a time, the lowest first, as a character from "0" on; a sixth bit says that more
    follow, and the last's fifth bit is the sign. From the fourth on a number is the difference to the last but one.
    Source: rleFrString in pycocotools' maskApi.c. Of damaged text nothing is returned, which are no pixels.
    """
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        bits = character - 48
        if not 0 <= bits < 64 or shift > MAX_BITS:
            return []
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    return [] if shift else runs
