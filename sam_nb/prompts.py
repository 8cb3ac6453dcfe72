"""Prompts: points, a box, the logits of an earlier mask, checked before the model sees them.

SAM takes almost anything: no prompt at all, a box with reversed corners, or an unknown label each give a mask, and a
wrong one. A `Prompt` raises an error that says why instead.
"""

import base64
import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MAX_OUTSIDE = 0.1  # share of the image's side: a click may slip over the edge, and a box may be loose


@dataclass(frozen=True, eq=False, init=False)
class Prompt:
    """A prompt for one object. All coordinates are pixels (x, y) of the original image.

    Parameters
    ----------
    points : Nx2 array-like of float, optional
        Clicks (x, y). All of them describe the same object.
    labels : N array-like of int, optional
        1 for a click on the object (foreground), 0 for a click off it (background). Default: all 1.
    box : 4 array-like of float, optional
        (x0, y0, x1, y1), left, top, right, bottom.
    mask_input : 1xhxw or hxw array-like of float32, optional
        Low-res logits of an earlier mask, one of `Masks.logits`; 256x256 in Meta's models. Not a binary mask.

    Raises
    ------
    ValueError
        The prompt is empty, shapes or counts do not match, a label is not 0 or 1, a box is reversed or has no area, or
        a number is NaN or infinite. The message says what was expected, what it got and how to fix it.

    Notes
    -----
    The fields are those of `segment_anything.SamPredictor.predict`: point_coords, point_labels, box and mask_input.
    They are kept as read-only arrays (float64 Nx2, int64 N, float64 4, float32 1xhxw) or None.
    """

    points: npt.NDArray[np.float64] | None
    labels: npt.NDArray[np.int64] | None
    box: npt.NDArray[np.float64] | None
    mask_input: npt.NDArray[np.float32] | None

    def __init__(
        self,
        points: npt.ArrayLike | None = None,
        labels: npt.ArrayLike | None = None,
        box: npt.ArrayLike | None = None,
        mask_input: npt.ArrayLike | None = None,
    ) -> None:
        if points is None and labels is not None:
            raise ValueError(f"{len(np.atleast_1d(labels))} labels but no points: give points=[(x, y), ...] too")
        if points is None and box is None and mask_input is None:
            raise ValueError(
                "an empty prompt: give points=[(x, y)], box=(x0, y0, x1, y1) or mask_input. "
                "(SAM itself would return a mask of nothing in particular.)"
            )
        checked = {
            "points": None if points is None else _points(points),
            "labels": None if points is None else _labels(labels, len(np.atleast_2d(points))),
            "box": None if box is None else _box(box),
            "mask_input": None if mask_input is None else _mask_input(mask_input),
        }
        for name, value in checked.items():
            if value is not None:
                value.flags.writeable = False
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        parts = []
        if self.points is not None:
            parts.append(f"points={self.points.tolist()}")
        if self.labels is not None:
            parts.append(f"labels={self.labels.tolist()}")
        if self.box is not None:
            parts.append(f"box={self.box.tolist()}")
        if self.mask_input is not None:
            parts.append(f"mask_input={'x'.join(map(str, self.mask_input.shape))}")
        return f"Prompt({', '.join(parts)})"

    def check_inside(self, height: int, width: int) -> None:
        """Raise a ValueError if a point or a corner lies far outside an image of this size.

        Parameters
        ----------
        height, width : int
            Of the original image, in pixels. Up to a tenth of a side beyond an edge is allowed.
        """
        corners = [] if self.box is None else self.box.reshape(2, 2).tolist()
        clicks = [] if self.points is None else self.points.tolist()
        for kind, coordinates in (("point", clicks), ("box corner", corners)):
            for x, y in coordinates:
                if not _inside(x, y, height, width):
                    swapped = _inside(y, x, height, width)
                    hint = "are x and y swapped? x runs right, y runs down" if swapped else "is it for another image?"
                    raise ValueError(
                        f"the {kind} ({x:g}, {y:g}) lies far outside the image, which is {width} wide and "
                        f"{height} high: {hint}"
                    )

    def to_json(self) -> str:
        """Return the prompt as JSON text that `from_json` turns back into the same numbers.

        Only fields that are not None are written. `mask_input` is written as the base64 of its float32 bytes, so that
        not a bit is lost.
        """
        record: dict[str, object] = {}
        if self.points is not None:
            record["points"] = self.points.tolist()
        if self.labels is not None:
            record["labels"] = self.labels.tolist()
        if self.box is not None:
            record["box"] = self.box.tolist()
        if self.mask_input is not None:
            data = base64.b64encode(self.mask_input.astype("<f4").tobytes()).decode("ascii")
            record["mask_input"] = {"shape": list(self.mask_input.shape), "float32": data}
        return json.dumps(record)

    @classmethod
    def from_json(cls, text: str) -> "Prompt":
        """Return the prompt that `to_json` wrote.

        Raises
        ------
        ValueError
            The text is not JSON, has fields that a prompt does not have, or describes a prompt that is not valid.
        """
        try:
            record = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"not JSON: {error}") from error
        known = ("points", "labels", "box", "mask_input")
        if not isinstance(record, dict) or not set(record) <= set(known):
            got = sorted(record) if isinstance(record, dict) else type(record).__name__
            raise ValueError(f"expected a JSON object with fields among {', '.join(known)}, got {got}")
        if "mask_input" in record:
            logits = record["mask_input"]
            try:
                flat = np.frombuffer(base64.b64decode(logits["float32"], validate=True), dtype="<f4")
                record["mask_input"] = flat.reshape(logits["shape"])
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    'mask_input is damaged: expected {"shape": [1, h, w], "float32": base64 of 4*h*w bytes}'
                ) from error
        return cls(**record)


def _inside(x: float, y: float, height: int, width: int) -> bool:
    return abs(x / width - 0.5) <= 0.5 + MAX_OUTSIDE and abs(y / height - 0.5) <= 0.5 + MAX_OUTSIDE


def _numbers(value: npt.ArrayLike, what: str, expected: str) -> npt.NDArray[np.float64]:
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what}: expected {expected}, got {value!r}") from error
    if not np.isfinite(array).all():
        raise ValueError(f"{what}: expected finite numbers, got NaN or infinity: {array.tolist()}")
    return array


def _points(value: npt.ArrayLike) -> npt.NDArray[np.float64]:
    array = np.atleast_2d(_numbers(value, "points", "numbers, [(x, y), ...]"))
    if array.ndim != 2 or array.shape[1] != 2 or len(array) == 0:
        raise ValueError(f"points: expected Nx2, [(x, y), ...] with at least one point, got the shape {array.shape}")
    return array


def _labels(value: npt.ArrayLike | None, count: int) -> npt.NDArray[np.int64]:
    if value is None:
        return np.ones(count, dtype=np.int64)
    array = np.atleast_1d(np.array(value))
    if array.shape != (count,):
        raise ValueError(f"{count} points but {array.size} labels: give one label, 1 or 0, for each point")
    if not np.isin(array, (0, 1)).all():
        raise ValueError(f"labels: expected 1 (on the object) or 0 (off it), got {array.tolist()}")
    return array.astype(np.int64)


def _box(value: npt.ArrayLike) -> npt.NDArray[np.float64]:
    array = _numbers(value, "box", "four numbers (x0, y0, x1, y1)")
    if array.shape != (4,):
        many = "; for several boxes make a Prompt for each and call decode_batch" if array.ndim == 2 else ""
        raise ValueError(f"box: expected four numbers (x0, y0, x1, y1), got the shape {array.shape}{many}")
    x0, y0, x1, y1 = array
    if x0 > x1 or y0 > y1:
        ordered = [float(side) for side in (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))]
        raise ValueError(
            f"box: the corners {array.tolist()} are reversed: expected (left, top, right, bottom), that is {ordered}"
        )
    if x0 == x1 or y0 == y1:
        raise ValueError(f"box: {array.tolist()} has no area; (x0, y0, x1, y1) are two corners, not corner and size")
    return array


def _mask_input(value: npt.ArrayLike) -> npt.NDArray[np.float32]:
    array = np.array(value)
    if not np.issubdtype(array.dtype, np.floating) or np.isin(array, (0, 1)).all():
        raise ValueError(
            f"mask_input: expected low-res logits (float, one of Masks.logits), got a binary mask of {array.dtype}. "
            "Logits are about -10 off the object and +10 on it"
        )
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.shape[0] != 1:
        raise ValueError(
            f"mask_input: expected the logits of one mask, 1xhxw or hxw, got the shape {array.shape}; choose one, "
            "masks.logits[masks.best_index]"
        )
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise ValueError("mask_input: the logits hold NaN or infinite values")
    return array
