"""What the formats share: segments of the right size, the list of categories, and JSON records."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sam_nb.masks import Segment, as_mask


def checked_mask(segment: Segment, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return the mask of a segment, HxW bool.

    Raises
    ------
    ValueError
        It is not one mask, or its height and width are not `size`.
    """
    mask: npt.NDArray[np.bool_] = as_mask(segment.mask)
    if mask.shape != tuple(size):
        raise ValueError(
            f"{segment.name}: image and mask differ in size: {tuple(size)} and {mask.shape} (height, width)"
        )
    return mask


def category_names(segments: Sequence[Segment]) -> list[str]:
    """Return the categories of the segments, each once, in alphabetical order."""
    return sorted({segment.category for segment in segments})


def encode_json(record: Mapping[str, object]) -> bytes:
    """Return a record as the bytes of a JSON file, UTF-8, readable by people too."""
    return json.dumps(record, indent=1, ensure_ascii=False).encode("utf-8")


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
    try:
        record = json.loads(content)
    except ValueError as error:
        raise ValueError(f"not {kind}: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"not {kind}: expected an object with {', '.join(keys)}, got {type(record).__name__}")
    missing = [key for key in keys if key not in record]
    if missing:
        raise ValueError(f"not {kind}: it lacks {', '.join(missing)}")
    return record
