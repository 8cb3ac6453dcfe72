"""Prompts: points, a box, the logits of an earlier mask, checked before the model sees them.

SAM takes almost anything: no prompt at all, a box with reversed corners, or an unknown label each give a mask, and a
wrong one. A `Prompt` raises an error that says why instead.
"""

import base64
import json
import math
import operator
import re
import reprlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

MAX_OUTSIDE = 0.1  # share of the image's side: a click may slip over the edge, and a box may be loose
MAX_SHOWN = 80  # characters of a wrong value in a message

_SHORT = reprlib.Repr()
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = _SHORT.maxset = MAX_SHOWN // 3
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = MAX_SHOWN


@dataclass(frozen=True, eq=False, init=False)
class Prompt:
    """A prompt for one object. All coordinates are pixels (x, y) of the original image.

    Parameters
    ----------
    points : Nx2 array-like of float, optional
        Clicks (x, y). All of them describe the same object. Beside a box or a mask_input there may be none, 0x2.
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
    They are kept as read-only arrays (float64 Nx2, int64 N, float64 4, float32 1xhxw) or None. Each may also have a
    leading dimension of 1, as a batch of one prompt (1xNx2, 1xN, 1x4, 1x1xhxw), and be a tensor of torch.
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
        clicks = None if points is None else _points(points)
        marks = None if labels is None else _labels(labels)
        checked_box = None if box is None else _box(box)
        logits = None if mask_input is None else _mask_input(mask_input)
        if clicks is None and marks is not None and len(marks):
            raise ValueError(f"{len(marks)} labels but no points: give points=[(x, y), ...] too")
        if clicks is not None and marks is not None and len(clicks) != len(marks):
            raise ValueError(f"{len(clicks)} points but {len(marks)} labels: give one label, 1 or 0, for each point")
        if clicks is not None and not len(clicks):
            if checked_box is None and logits is None:
                raise ValueError("points: expected Nx2, [(x, y), ...] with at least one point, got none")
            clicks = None
        if clicks is None and checked_box is None and logits is None:
            raise ValueError(
                "an empty prompt: give points=[(x, y)], box=(x0, y0, x1, y1) or mask_input. "
                "(SAM itself would return a mask of nothing in particular.)"
            )
        if clicks is None:
            marks = None
        elif marks is None:
            marks = np.ones(len(clicks), dtype=np.int64)
        checked = {"points": clicks, "labels": marks, "box": checked_box, "mask_input": logits}
        for name, value in checked.items():
            if value is not None:
                value.flags.writeable = False
            object.__setattr__(self, name, value)

    def __reduce__(self) -> tuple[type["Prompt"], tuple[object, ...]]:
        # Copied and pickled as it is made: NumPy's own way would give arrays that can be written.
        return Prompt, (self.points, self.labels, self.box, self.mask_input)

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
        """Raise a ValueError if a point or a corner lies far outside an image of this size, or all of the box outside.

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
        if self.box is not None:
            x0, y0, x1, y1 = self.box.tolist()
            if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
                raise ValueError(
                    f"box: all of {self.box.tolist()} lies outside the image, which is {width} wide and {height} high: "
                    "expected a box around an object in it, (left, top, right, bottom); is it for another image?"
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
        record = parse_json(text)
        known = ("points", "labels", "box", "mask_input")
        if not isinstance(record, dict) or not set(record) <= set(known):
            got = shown(sorted(record)) if isinstance(record, dict) else type(record).__name__
            raise ValueError(f"expected a JSON object with fields among {', '.join(known)}, got {got}")
        if "mask_input" in record:
            logits = record["mask_input"]
            try:
                flat = np.frombuffer(base64.b64decode(logits["float32"], validate=True), dtype="<f4")
                record["mask_input"] = flat.reshape(logits["shape"])
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise ValueError(
                    'mask_input is damaged: expected {"shape": [1, h, w], "float32": base64 of 4*h*w bytes}'
                ) from error
        return cls(**record)


def _inside(x: float, y: float, height: int, width: int) -> bool:
    return abs(x / width - 0.5) <= 0.5 + MAX_OUTSIDE and abs(y / height - 0.5) <= 0.5 + MAX_OUTSIDE


def warn_if_unlikely(prompts: Sequence[Prompt], height: int, width: int) -> None:
    """Warn where prompts are valid but look like a common mistake; at most one warning for each mistake.

    The mistakes: coordinates given as shares of the image's sides, as YOLO and others have them, and probabilities
    given as logits. A click on a corner of the image, in integers, is no such mistake.

    Parameters
    ----------
    prompts : sequence of Prompt
        Of one image. Coordinates are judged together: one beyond 1 shows that all are pixels.
    height, width : int
        Of the original image, in pixels.
    """
    if min(height, width) > 1 and _look_like_shares(prompts):
        _warn(
            f"all coordinates lie between 0 and 1, within one pixel of an image that is {width} wide and {height} "
            f"high: they are pixels; if these are shares of its sides, multiply x by {width} and y by {height}"
        )
    logits = [prompt.mask_input for prompt in prompts if prompt.mask_input is not None]
    if any(((each >= 0) & (each <= 1)).all() for each in logits):
        _warn(
            "mask_input: all values lie between 0 and 1, so every pixel belongs to the mask: expected logits, such as "
            "Masks.logits, about -10 off the object and +10 on it; if these are probabilities p, give log(p / (1 - p))"
        )


def parse_json(text: str | bytes, object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Return what JSON text holds; a byte-order mark, which some editors put in front of it, is passed over.

    Parameters
    ----------
    text : str or bytes
        Bytes of a file are decoded as UTF-8, or as UTF-16 or UTF-32 if they are.
    object_pairs_hook : callable, optional
        As for `json.loads`.

    Raises
    ------
    ValueError
        The text is not JSON, or not text.
    """
    if not isinstance(text, str | bytes):
        raise ValueError(f"expected JSON text, got {type(text).__name__}; of a file: path.read_text(encoding='utf-8')")
    try:
        return json.loads(
            text.removeprefix("\ufeff") if isinstance(text, str) else text, object_pairs_hook=object_pairs_hook
        )
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"not JSON: {error}") from error
    except RecursionError as error:
        raise ValueError("not JSON that can be read: lists and objects in it lie too deep in each other") from error
    except ValueError as error:  # Python's own words advise to lift its limit
        raise ValueError("not JSON that can be read: it holds an integer of thousands of digits") from error


def shown(value: object) -> str:
    """Return a value for a message, at most a line of it."""
    try:
        text = re.sub(r"\n\s*", " ", _SHORT.repr(value))
    except ValueError:  # an integer of thousands of digits
        text = f"<{type(value).__name__}>"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def checked_integer(value: object, name: str, at_least: int) -> int:
    """Return an integer of Python for any kind of integer; `name` is what the error calls it.

    Raises
    ------
    ValueError
        Not an integer, or a smaller one.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # what is not an integer raises a TypeError
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < at_least:
        raise ValueError(f"{name}: expected an integer, {at_least} or more, got {shown(value)}")
    return number


def checked_number(value: object, name: str, above: float = -math.inf, up_to: float = math.inf) -> float:
    """Return a finite number as a float; `name` is what the error calls it.

    Raises
    ------
    ValueError
        Not a number, not finite, not above `above`, or larger than `up_to`.
    """
    try:
        number = math.nan if isinstance(value, str | bytes) else float(value)  # type: ignore[arg-type]  # as above
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not (math.isfinite(number) and above < number <= up_to):
        limits = [f"above {above:g}"] * (above > -math.inf) + [f"at most {up_to:g}"] * (up_to < math.inf)
        wanted = f"a finite number{', ' * bool(limits)}{' and '.join(limits)}"
        raise ValueError(f"{name}: expected {wanted}, got {shown(value)}")
    return number


def _look_like_shares(prompts: Sequence[Prompt]) -> bool:
    """Tell whether all coordinates lie between 0 and 1, and not only on corners of a pixel, where clicks may be."""
    boxes = [prompt.box for prompt in prompts if prompt.box is not None]
    clicks = [prompt.points for prompt in prompts if prompt.points is not None]
    if not all(((each >= 0) & (each <= 1)).all() for each in [*boxes, *clicks]):
        return False
    return bool(boxes) or any((each % 1 != 0).any() for each in clicks)


def _warn(message: str) -> None:
    # Reported where a method of Sam was called: between are this function, its caller and that method.
    warnings.warn(message, UserWarning, stacklevel=4)


def _without_tensors(value: Any) -> Any:
    """Return what NumPy can read of a value in which there may be tensors, of any device and with gradients."""
    if isinstance(value, list | tuple):
        return [_without_tensors(each) for each in value]
    if not hasattr(value, "detach"):
        return value
    tensor = value.detach().cpu()
    try:
        return np.asarray(tensor)
    except TypeError:  # bfloat16, which NumPy does not have
        return np.asarray(tensor.float())


def as_array(value: object, name: str, expected: str) -> npt.NDArray[Any]:
    """Return the numbers of a value, bool, integers or floats: the value itself if it is such an array.

    Parameters
    ----------
    value : array-like
        Also a tensor of torch, on any device, or lists in which there are some.
    name, expected : str
        What the error calls it, and what it should be.

    Raises
    ------
    ValueError
        It holds anything else, or its lists differ in length.
    """
    try:
        array = np.asarray(_without_tensors(value))
        if array.dtype.kind == "O":  # fractions and the like
            array = array.astype(np.float64)
    except Exception as error:  # of somebody's class, of a tensor without values: anything
        raise ValueError(f"{name}: expected {expected}, got {shown(value)}{_odd_length(value)}") from error
    if array.dtype.kind not in "buif":
        got = f"an array of {array.dtype}" if isinstance(value, np.ndarray) else shown(value)
        raise ValueError(f"{name}: expected {expected}, got {got}")
    return array


def _odd_length(value: object) -> str:
    """Return which item of a list differs in length from the first, and the cure, to end a sentence; "" if none."""
    if not isinstance(value, list | tuple):
        return ""
    # An array of no dimensions has a length, but not one that can be taken.
    has_length = [isinstance(item, list | tuple) or bool(getattr(item, "shape", ())) for item in value]
    lengths = [len(item) if has else 1 for item, has in zip(value, has_length, strict=True)]
    number = next((number for number, length in enumerate(lengths) if length != lengths[0]), 0)
    if not number:
        return ""
    values = "1 value" if lengths[number] == 1 else f"{lengths[number]} values"
    return f"; item {number} has {values} and item 0 has {lengths[0]}: give each as many"


def _numbers(value: npt.ArrayLike, name: str, expected: str) -> npt.NDArray[np.float64]:
    with np.errstate(over="ignore"):  # becomes infinite
        array = as_array(value, name, expected).astype(np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity: {shown(array.tolist())}")
    return array


def _points(value: npt.ArrayLike) -> npt.NDArray[np.float64]:
    array = np.atleast_2d(_numbers(value, "points", "numbers, [(x, y), ...]"))
    if array.ndim == 3 and len(array) == 1:
        array = array[0]
    if array.size == 0 and array.ndim == 2:
        return np.empty((0, 2))
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"points: expected Nx2, [(x, y), ...] with at least one point, got the shape {array.shape}")
    return array


def _labels(value: npt.ArrayLike) -> npt.NDArray[np.int64]:
    array = np.atleast_1d(as_array(value, "labels", "1 (on the object) or 0 (off it) for each point"))
    if array.ndim == 2 and len(array) == 1:
        array = array[0]
    if array.ndim != 1:
        raise ValueError(f"labels: expected one label, 1 or 0, for each point, got the shape {array.shape}")
    if not np.isin(array, (0, 1)).all():
        raise ValueError(f"labels: expected 1 (on the object) or 0 (off it), got {shown(array.tolist())}")
    return array.astype(np.int64)


def _box(value: npt.ArrayLike) -> npt.NDArray[np.float64]:
    array = _numbers(value, "box", "four numbers (x0, y0, x1, y1)")
    if array.shape == (1, 4):
        array = array[0]
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
    array = as_array(value, "mask_input", "low-res logits, 1xhxw or hxw")
    if not array.size:
        raise ValueError(f"mask_input: expected low-res logits, 1xhxw or hxw, got the shape {array.shape}")
    if array.dtype.kind != "f" or np.isin(array, (0, 1)).all():
        raise ValueError(
            f"mask_input: expected low-res logits (float, one of Masks.logits), got a binary mask of {array.dtype}. "
            "Logits are about -10 off the object and +10 on it"
        )
    if array.ndim == 4 and len(array) == 1:
        array = array[0]
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.shape[0] != 1:
        raise ValueError(
            f"mask_input: expected the logits of one mask, 1xhxw or hxw, got the shape {array.shape}; choose one, "
            "masks.logits[masks.best_index]"
        )
    with np.errstate(over="ignore"):  # becomes infinite
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise ValueError("mask_input: the logits hold NaN or infinite values")
    return array
