"""What the reader asks: points, a box, the logits of an earlier mask, checked before the model sees them.

SAM takes almost anything: no prompt at all, a box with its corners the wrong way round, or a label it does not know
each give a mask, and a wrong one. A `Prompt` says no in plain words instead.
"""

import base64
import json
from dataclasses import dataclass

import numpy as np

OUTSIDE = (
    0.1  # how far beyond the edge a prompt may lie, as a share of the picture's side: a hand slips, a box is loose
)


@dataclass(frozen=True, eq=False)
class Prompt:
    """One question about one object. All coordinates are pixels (x, y) of the original picture.

    Parameters
    ----------
    points : Nx2 array-like of float, optional
        Clicks (x, y). All of them describe the same object.
    labels : N array-like of int, optional
        1 for a click on the object (foreground), 0 for a click off it (background). Left out: all 1.
    box : 4 array-like of float, optional
        (x0, y0, x1, y1), left, top, right, bottom.
    mask_input : 1xhxw or hxw array-like of float32, optional
        Low-res logits of an earlier answer, one of `Masks.logits`; 256x256 in Meta's models. Not a yes/no mask.

    Raises
    ------
    ValueError
        Nothing was asked, shapes or counts do not fit, a label is not 0 or 1, a box is reversed or has no area, or a
        number is NaN. The message says what was expected, what came and how to mend it.

    Notes
    -----
    The fields are those of `segment_anything.SamPredictor.predict`: point_coords, point_labels, box and mask_input.
    They are kept as read-only arrays (float64 Nx2, int64 N, float64 4, float32 1xhxw) or None.
    """

    points: np.ndarray | None = None
    labels: np.ndarray | None = None
    box: np.ndarray | None = None
    mask_input: np.ndarray | None = None

    def __post_init__(self):
        if self.points is None and self.labels is not None:
            raise ValueError(f"{len(np.atleast_1d(self.labels))} labels but no points: give points=[(x, y), ...] too")
        if self.points is None and self.box is None and self.mask_input is None:
            raise ValueError(
                "an empty prompt: give points=[(x, y)], box=(x0, y0, x1, y1) or mask_input. "
                "(SAM itself would return a mask of nothing in particular.)"
            )
        checked = {
            "points": None if self.points is None else _points(self.points),
            "labels": None if self.points is None else _labels(self.labels, len(np.atleast_2d(self.points))),
            "box": None if self.box is None else _box(self.box),
            "mask_input": None if self.mask_input is None else _mask_input(self.mask_input),
        }
        for name, value in checked.items():
            if value is not None:
                value.flags.writeable = False
            object.__setattr__(self, name, value)

    def __repr__(self):
        parts = []
        if self.points is not None:
            parts += [f"points={self.points.tolist()}", f"labels={self.labels.tolist()}"]
        if self.box is not None:
            parts.append(f"box={self.box.tolist()}")
        if self.mask_input is not None:
            parts.append(f"mask_input={'x'.join(map(str, self.mask_input.shape))}")
        return f"Prompt({', '.join(parts)})"

    def check_inside(self, height, width):
        """Raise a ValueError if a point or a corner lies far outside a picture of this size.

        Parameters
        ----------
        height, width : int
            Of the original picture, in pixels. Up to a tenth of a side beyond an edge is allowed.
        """
        corners = [] if self.box is None else self.box.reshape(2, 2).tolist()
        clicks = [] if self.points is None else self.points.tolist()
        for kind, places in (("point", clicks), ("box corner", corners)):
            for x, y in places:
                if not _inside(x, y, height, width):
                    swapped = _inside(y, x, height, width)
                    hint = "are x and y swapped? x runs right, y runs down" if swapped else "was it meant for another?"
                    raise ValueError(
                        f"the {kind} ({x:g}, {y:g}) lies far outside the picture, which is {width} wide and "
                        f"{height} high: {hint}"
                    )

    def to_json(self):
        """Return the prompt as JSON text that `from_json` turns back into the same numbers.

        Only what was given is written. `mask_input` is written as the base64 of its float32 bytes, so that not a bit
        is lost.
        """
        record = {}
        if self.points is not None:
            record["points"] = self.points.tolist()
            record["labels"] = self.labels.tolist()
        if self.box is not None:
            record["box"] = self.box.tolist()
        if self.mask_input is not None:
            data = base64.b64encode(self.mask_input.astype("<f4").tobytes()).decode("ascii")
            record["mask_input"] = {"shape": list(self.mask_input.shape), "float32": data}
        return json.dumps(record)

    @classmethod
    def from_json(cls, text):
        """Return the prompt that `to_json` wrote.

        Raises
        ------
        ValueError
            The text is not JSON, has fields that a prompt does not have, or describes a prompt that is not valid.
        """
        try:
            record = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"this is not JSON: {error}") from error
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


def _inside(x, y, height, width):
    return abs(x / width - 0.5) <= 0.5 + OUTSIDE and abs(y / height - 0.5) <= 0.5 + OUTSIDE


def _numbers(value, what, expected):
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what}: expected {expected}, got {value!r}") from error
    if not np.isfinite(array).all():
        raise ValueError(f"{what}: NaN or infinite coordinates are no place in a picture, got {array.tolist()}")
    return array


def _points(value):
    array = np.atleast_2d(_numbers(value, "points", "numbers, [(x, y), ...]"))
    if array.ndim != 2 or array.shape[1] != 2 or len(array) == 0:
        raise ValueError(f"points: expected Nx2, [(x, y), ...] with at least one point, got the shape {array.shape}")
    return array


def _labels(value, count):
    if value is None:
        return np.ones(count, dtype=np.int64)
    array = np.atleast_1d(np.array(value))
    if array.shape != (count,):
        raise ValueError(f"{count} points but {array.size} labels: give one label, 1 or 0, for each point")
    if not np.isin(array, (0, 1)).all():
        raise ValueError(f"labels: expected 1 (on the object) or 0 (off it), got {array.tolist()}")
    return array.astype(np.int64)


def _box(value):
    array = _numbers(value, "box", "four numbers (x0, y0, x1, y1)")
    if array.shape != (4,):
        many = "; for several boxes make a Prompt of each and call decode_batch" if array.ndim == 2 else ""
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


def _mask_input(value):
    array = np.array(value)
    if not np.issubdtype(array.dtype, np.floating) or np.isin(array, (0, 1)).all():
        raise ValueError(
            f"mask_input: expected low-res logits (float, one of Masks.logits), got yes/no values of {array.dtype}. "
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
