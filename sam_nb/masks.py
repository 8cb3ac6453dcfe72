"""Masks with their scores, a mask with its name, and the agreement of two masks."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from sam_nb.prompts import as_array, shown

MASK_THRESHOLD = 0.0  # mask where the logits are above it, in all of `segment_anything`'s models
MAX_LABEL = 2**53  # every integer up to it is one in float64
MAX_TINT = 16  # between the channels of an image that is grey, after JPEG


@dataclass(frozen=True, eq=False)
class Masks:
    """The C masks for one prompt: C = 1, or 3 for an ambiguous prompt (whole, part, subpart, in no fixed order).

    Attributes
    ----------
    scores : C numpy.ndarray of float32
        Predicted IoU: the model's own estimate of each mask's IoU with the ground truth. A linear layer computes it, so
        it can leave [0, 1].
    logits : CxhxW numpy.ndarray of float32
        Low-res logits, 256x256 for the whole padded square; mask where above `MASK_THRESHOLD`. One of them can be the
        next prompt's `mask_input`.
    model : str
        Name of the model that made them, for the titles of figures.
    size : (int, int)
        Height and width of the original image, pixels.
    upscale : callable
        Takes a mask's index and returns its logits at the size of the original image, HxW float32. Picklable, if the
        masks are to be.

    Notes
    -----
    A mask is upscaled when it is first used, and then kept: often only one of three is, and for a large image upscaling
    takes longer than decoding. Threads may share one `Masks`.
    """

    scores: npt.NDArray[np.float32]
    logits: npt.NDArray[np.float32]
    model: str
    size: tuple[int, int]
    upscale: Callable[[int], npt.NDArray[np.float32]]
    _upscaled: dict[int, npt.NDArray[np.bool_]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _first: int = field(default=0, init=False, repr=False, compare=False)  # key in `_upscaled` of mask 0

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        height, width = self.size
        scores = ", ".join(f"{score:.3f}" for score in self.scores)
        return f"Masks({len(self)} of {width}x{height} by {self.model}, predicted IoU {scores})"

    def mask(self, index: int) -> npt.NDArray[np.bool_]:
        """Return one of the masks at the size of the original image, HxW bool, the same array at every call.

        Raises
        ------
        IndexError
            There is no such mask.
        """
        index = self._checked(index)
        key = self._first + index
        if key not in self._upscaled:
            # Two threads may both upscale a mask; both then get the one that was kept first.
            self._upscaled.setdefault(key, self.upscale(index) > MASK_THRESHOLD)
        return self._upscaled[key]

    def only(self, index: int) -> "Masks":
        """Return one of these masks by itself, with its score and logits. Raises as `mask`."""
        index = self._checked(index)
        upscale = partial(_upscale_fixed, self.upscale, index)
        one = Masks(self.scores[[index]], self.logits[[index]], self.model, self.size, upscale)
        # Both use the same dict, so that a mask is upscaled once, whichever of the two is used first.
        object.__setattr__(one, "_upscaled", self._upscaled)
        object.__setattr__(one, "_first", self._first + index)
        return one

    @property
    def bits(self) -> npt.NDArray[np.bool_]:
        """All masks at the size of the original image, CxHxW bool, a new array."""
        return np.stack([self.mask(index) for index in range(len(self))])

    @property
    def best_index(self) -> int:
        """Index of the highest-scoring mask."""
        return int(self.scores.argmax())

    @property
    def best(self) -> npt.NDArray[np.bool_]:
        """The highest-scoring mask, HxW bool."""
        return self.mask(self.best_index)

    @property
    def nbytes(self) -> int:
        """Memory of scores, logits and the masks upscaled so far, bytes."""
        own = range(self._first, self._first + len(self))
        upscaled = [mask.nbytes for key, mask in list(self._upscaled.items()) if key in own]
        return self.scores.nbytes + self.logits.nbytes + sum(upscaled)

    @property
    def areas(self) -> npt.NDArray[np.int64]:
        """Pixels in each mask, C int64."""
        return np.array([np.count_nonzero(self.mask(index)) for index in range(len(self))], dtype=np.int64)

    @property
    def boxes(self) -> npt.NDArray[np.int64]:
        """The tightest box (x0, y0, x1, y1) around each mask, Cx4 int64; x1 and y1 are one past the last pixel.

        An empty mask has the box (0, 0, 0, 0).
        """
        boxes = [bounding_box(self.mask(index)) for index in range(len(self))]
        return np.array(boxes, dtype=np.int64).reshape(-1, 4)

    def _checked(self, index: int) -> int:
        count = len(self)
        if not -count <= index < count:
            raise IndexError(f"no mask {index}: there are {count}, counted from 0")
        return int(index) % count


def _upscale_fixed(upscale: Callable[[int], npt.NDArray[np.float32]], index: int, _: int) -> npt.NDArray[np.float32]:
    """Return the logits of mask `index`, whatever the last argument: for a `Masks` that has this one only."""
    return upscale(index)


@dataclass(frozen=True, eq=False)
class Segment:
    """A mask with its name.

    Attributes
    ----------
    mask : HxW numpy.ndarray of bool
    name : str
        Of the object; files are named after it.
    category : str
        The object's class. Default: its name, so that `Segment(mask, "car")` is a car.
    score : float, optional
        Predicted IoU.

    Raises
    ------
    ValueError
        Name or category is not text, or the name is empty.
    """

    mask: npt.NDArray[np.bool_]
    name: str
    category: str = ""
    score: float | None = None

    def __post_init__(self) -> None:
        for what, value in (("name", self.name), ("category", self.category)):
            if not isinstance(value, str) or (what == "name" and not value.strip()):
                form = 'Segment(mask, "front wheel", "wheel")'
                raise ValueError(f"{what}: expected text, as in {form}, got {shown(value)}")
        object.__setattr__(self, "category", self.category if self.category.strip() else self.name)


def iou(mask: npt.ArrayLike, ground_truth: npt.ArrayLike) -> float:
    """Return the intersection over union (IoU) of two masks.

    Parameters
    ----------
    mask, ground_truth : HxW array-like of bool
        Or another form of one mask, see `as_mask`.

    Returns
    -------
    float
        0 for nothing in common, 1 for identical masks. Two empty masks agree: 1.

    Raises
    ------
    ValueError
        The masks differ in size, or one is not one mask.
    """
    found, expected = as_mask(mask, "mask"), as_mask(ground_truth, "ground_truth")
    if found.shape != expected.shape:
        raise ValueError(f"mask and ground truth differ in size: {found.shape} and {expected.shape} (height, width)")
    union = int(np.count_nonzero(found | expected))
    return int(np.count_nonzero(found & expected)) / union if union else 1.0


def as_mask(value: npt.ArrayLike, name: str = "mask") -> npt.NDArray[np.bool_]:
    """Return one mask as an HxW bool array: the door through which every mask enters, from arrays and from files.

    Parameters
    ----------
    value : HxW, 1xHxW, HxWx1, HxWx3 or HxWx4 array-like
        One of

        * bool;
        * numbers of any type, 0 outside and one other value inside, such as 0 and 1 or 0 and 255;
        * probabilities: floats in [0, 1], inside above 0.5;
        * such a mask after JPEG or resizing, grey from 0 to 255 and nearly all of it black or white: inside above 127;
        * an image, uint8: RGB in black and one colour, or in grey as above; RGBA, transparent outside or opaque.

        A tensor of torch passes too, on any device.
    name : str
        What the error calls it.

    Raises
    ------
    ValueError
        The shape is another one, or the values are: labels of several objects, negative values, NaN, a grey image.
    """
    array = _one_layer(value, name)
    if array.dtype == bool or array.size == 0:
        return array.astype(bool, copy=False)
    low, high = array.min(), array.max()
    if array.dtype.kind == "f" and low >= 0 and high <= 1:
        return array > 0.5
    is_flat = low == high and float(high) not in (0, 1, 255, 65535)  # inside or outside?
    if low >= 0 and np.isfinite(high) and not is_flat and ((array == 0) | (array == high)).all():
        return array > 0
    if _is_black_and_white(array):
        return array > 127
    raise ValueError(f"{name}: expected True and False, {_values_in_words(array)}")


def as_labels(value: npt.ArrayLike, name: str = "labels") -> npt.NDArray[np.bool_] | npt.NDArray[np.integer]:
    """Return the labels of an image: bool for one object, or integers, 0 for background and a number for each object.

    Parameters
    ----------
    value : HxW array-like
        Bool, integers from 0 (of any type, also floats), or an image of one mask as `as_mask` takes it. A grey image of
        a mask, as JPEG leaves it, is one object.
    name : str
        What the error calls it.

    Raises
    ------
    ValueError
        The shape is another one, or the values are: negative ones such as -1 for what is to be ignored, fractions, NaN.
    """
    array = _one_layer(value, name)
    if array.dtype == bool or array.size == 0:
        return array.astype(bool, copy=False)
    if not (array.min() >= 0 and float(array.max()) <= MAX_LABEL):
        raise ValueError(f"{name}: expected integers from 0, {_values_in_words(array)}")
    if _is_black_and_white(array):
        return array > 127
    if array.dtype.kind == "f":
        if (array % 1).any():
            raise ValueError(
                f"{name}: expected a mask of bool, or of integers with one for each object, got {array.dtype}; "
                "probabilities become a mask by `> 0.5`"
            )
        array = array.astype(np.int64)
    return array


def _one_layer(value: npt.ArrayLike, name: str) -> npt.NDArray[Any]:
    """Return the numbers of a mask, HxW, whichever way its colours are stored."""
    if isinstance(value, Masks):
        raise ValueError(f"{name}: expected one mask, HxW, got {len(value)}; choose one, masks.best or masks.mask(0)")
    if isinstance(value, str | PurePath):
        raise ValueError(f"{name}: expected one mask, HxW, got a name; load_mask({str(value)[:80]!r}) reads a file")
    array = as_array(value, name, "one mask, HxW")
    if array.ndim == 3 and len(array) == 1:
        array = array[0]
    elif array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim == 3 and array.shape[2] in (3, 4) and array.dtype == np.uint8:
        array = _one_colour(array, name)
    if array.ndim != 2:
        many = "; choose one of them, masks.best or masks.bits[0]" if array.ndim == 3 else ""
        kind = f"the shape {array.shape}{many}" if array.ndim else type(value).__name__
        raise ValueError(f"{name}: expected one mask, HxW, got {kind}")
    return array


def _one_colour(image: npt.NDArray[np.uint8], name: str) -> npt.NDArray[Any]:
    """Return where an image, HxWx3 or HxWx4, is not transparent; else how bright it is, if it has one colour."""
    if image.shape[2] == 4 and (image[:, :, 3] < 255).any():
        return image[:, :, 3] > 127
    brightest, darkest = image[:, :, :3].max(axis=2), image[:, :, :3].min(axis=2)
    if (brightest - darkest).max() <= MAX_TINT:
        return brightest
    coloured = image[:, :, :3][brightest > 0]
    if (coloured == coloured[0]).all():
        return brightest > 0
    raise ValueError(
        f"{name}: expected one mask, HxW, got the shape {image.shape}, an image in several colours; choose one, "
        "(image == colour).all(axis=2)"
    )


def _is_black_and_white(array: npt.NDArray[Any]) -> bool:
    """Tell whether numbers are a mask in grey, 0 to 255, blurred by JPEG or by resizing; and not labels."""
    if not (array.min() >= 0 and 250 <= array.max() <= 255):
        return False
    # Labels are spread over all numbers, or there are hardly any from 200 on: 255 for borders, perhaps 254.
    bright = array >= 200
    shades, area = len(np.unique(array[bright])), np.count_nonzero(bright)
    dim = np.count_nonzero(array) - area
    between = np.count_nonzero((array > 40) & ~bright)
    return bool((shades > 1 and dim <= area / 2) or (shades > 2 and between <= area / 2))


def _values_in_words(array: npt.NDArray[Any]) -> str:
    """Return what values an array has that is not one mask, and the cure."""
    if not np.isfinite(array).all():
        return "got NaN or infinite values: replace them, with numpy.nan_to_num(array)"
    values = np.unique(array)
    if len(values) == 1 and values[0] > 0:
        return f"got one value, {values[0]:g}, everywhere: choose by a comparison, such as labels == {values[0]:g}"
    if array.dtype.kind == "f" and (array % 1).any():
        return f"got {array.dtype} values from {values[0]:g} to {values[-1]:g}; logits become a mask by `> 0`"
    shown = ", ".join(f"{value:g}" for value in values[:4]) + (f" ... {values[-1]:g}" if len(values) > 4 else "")
    if values[0] < 0:
        return f"got {shown}; what is to be ignored, such as -1, is background, numpy.where(labels < 0, 0, labels)"
    return (
        f"got {len(values)} values, {shown}; of labels choose one, labels == {values[-1]:g} (255 often marks borders "
        "to ignore), or all, labels > 0; of a grey image what is bright, grey > 127"
    )


def bounding_box(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Return the tightest box around a mask, HxW bool: (x0, y0, x1, y1), x1 and y1 one past the last pixel.

    An empty mask has the box (0, 0, 0, 0). Takes other forms of one mask and raises a ValueError as `as_mask`.
    """
    mask = as_mask(mask)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
