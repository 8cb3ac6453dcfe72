"""What the formats share: what may be written and what may be read, the list of categories, and JSON records.

What a file holds is checked before anything is computed from it: a wrong number would become a wrong mask without a
word, or take all memory. The errors say where in the file it is.
"""

import contextlib
import json
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sam_nb.masks import Segment, as_mask
from sam_nb.prompts import parse_json, shown

MAX_PIXELS = 1_000_000_000  # of an image whose size stands in a file
MAX_OUTSIDE = 1.0  # widths or heights of the image by which an outline may reach beyond it
MAX_OUTLINE = 20_000_000  # pixels along an outline

# What is written --------------------------------------------------------------------------------------------------


def checked_mask(segment: Segment, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return the mask of a segment, HxW bool, with at least one pixel.

    Raises
    ------
    ValueError
        It is not one mask, it is empty, or its height and width are not `size`.
    """
    mask: npt.NDArray[np.bool_] = as_mask(segment.mask, segment.name)
    if mask.shape != tuple(size):
        raise ValueError(
            f"{segment.name}: image and mask differ in size: {tuple(size)} and {mask.shape} (height, width)"
        )
    if not mask.any():
        raise ValueError(f"{segment.name}: the mask is empty, so there is no object to save; remove this segment")
    return mask


def category_names(segments: Sequence[Segment]) -> list[str]:
    """Return the categories of the segments, each once, in alphabetical order."""
    return sorted({segment.category for segment in segments})


def check_suffix(path: str | Path, suffix: str) -> None:
    """Check that a file's name says what is written into it.

    Raises
    ------
    ValueError
        It ends otherwise.
    """
    path = Path(path)
    if path.suffix.lower() != suffix:
        raise ValueError(f"{str(path)!r}: expected a name that ends in {suffix}, such as {path.stem + suffix!r}")


def encode_json(record: Mapping[str, object]) -> bytes:
    """Return a record as the bytes of a JSON file, UTF-8, readable by people too."""
    try:
        return json.dumps(record, indent=1, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        # A file name that is not UTF-8 holds lone surrogates, which only JSON's own escapes can write.
        return json.dumps(record, indent=1).encode("ascii")


# What is read -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def naming(place: object) -> Iterator[None]:
    """Put a place in front of the words of a ValueError: a file, an annotation, a line."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def decode_json(content: bytes, kind: str, keys: Sequence[str]) -> dict[str, Any]:
    """Return the JSON object of a file.

    Parameters
    ----------
    content : bytes
    kind : str
        The format's name, for the message.
    keys : sequence of str
        Fields that the format cannot do without.

    Raises
    ------
    ValueError
        Not JSON, not an object, or one of the fields is missing.
    """
    with naming(f"not {kind}"):
        record = parse_json(content)
    if not isinstance(record, dict):
        raise ValueError(f"not {kind}: expected an object with {', '.join(keys)}, got {type(record).__name__}")
    missing = [key for key in keys if key not in record]
    if missing:
        raise ValueError(f"not {kind}: it lacks {', '.join(missing)}")
    return record


def objects_in(record: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """Return the list of objects that a field of a JSON object holds; ValueError if it holds something else."""
    found = record[key]
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise ValueError(f"{key}: expected a list of objects, [{{...}}, ...], got {shown(found)}")
    return found


def text_in(record: Mapping[str, Any], key: str) -> str:
    """Return the text that a field of a JSON object holds; ValueError if it is missing, empty or not text."""
    found = record.get(key)
    if not isinstance(found, str) or not found.strip():
        raise ValueError(f"{key}: expected text that is not empty, got {shown(found)}")
    return found


def checked_size(size: object) -> tuple[int, int]:
    """Return the height and width of an image, pixels; ValueError if they are not two integers of a sensible size."""
    try:
        height, width = (operator.index(side) for side in size)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        height, width = 0, 0
    if height < 1 or width < 1:
        raise ValueError(f"expected the image's (height, width) in pixels, as image.shape[:2] is, got {shown(size)}")
    if height * width > MAX_PIXELS:
        raise ValueError(f"expected an image of at most {MAX_PIXELS:,} pixels, got {width}x{height}")
    return height, width


def checked_numbers(value: object) -> npt.NDArray[np.float64]:
    """Return the numbers of a JSON list; ValueError if it holds anything else, NaN or infinity."""
    try:
        found = np.array(value)
    except ValueError:  # lists of different lengths
        found = np.array(None)
    if found.ndim == 0 or (found.size and found.dtype.kind not in "iuf"):
        raise ValueError(f"expected a list of numbers, got {shown(value)}")
    if not np.isfinite(found).all():
        raise ValueError(f"expected finite numbers, got NaN or infinity: {shown(value)}")
    return found.astype(np.float64)


def checked_outline(points: npt.NDArray[np.float64], size: tuple[int, int], *, minimum: int = 3) -> None:
    """Check the points (x, y) of an outline, Nx2, pixels.

    Raises
    ------
    ValueError
        There are too few, one of them lies far outside the image, or the outline is too long to be one.
    """
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < minimum:
        raise ValueError(f"expected at least {minimum} points (x, y), got {shown(points.tolist())}")
    height, width = size
    far = np.abs(points / (width, height) - 0.5).max(axis=1) > 0.5 + MAX_OUTSIDE
    if far.any():
        x, y = points[far.argmax()]
        raise ValueError(
            f"the point ({x:g}, {y:g}) lies far outside the image, which is {width} wide and {height} high: is it for "
            "another image?"
        )
    length = np.abs(np.diff(points, axis=0, append=points[:1])).sum()
    if length > MAX_OUTLINE:
        raise ValueError(f"expected an outline of at most {MAX_OUTLINE:,} pixels, got one of {int(length):,}")


def checked_covers(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return a mask that was read; ValueError if it is empty, as for one that is written."""
    if not mask.any():
        raise ValueError("it covers no pixel of the image; remove it from the file")
    return mask


def all_of(found: Iterable[Segment | ValueError]) -> list[Segment]:
    """Return the segments of a file; raise the first error that stands in the place of one.

    What reads a file yields either for each object: a data set leaves out an object of which no mask can be made, and
    keeps the others.
    """
    segments = []
    for each in found:
        if isinstance(each, ValueError):
            raise each
        segments.append(each)
    return segments
