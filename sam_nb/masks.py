"""Masks with their scores, a mask with its name, and the agreement of two masks."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

MASK_THRESHOLD = 0.0  # mask where the logits are above it, in all of `segment_anything`'s models


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
                raise ValueError(f'{what}: expected text, as in Segment(mask, "front wheel", "wheel"), got {value!r}')
        object.__setattr__(self, "category", self.category if self.category.strip() else self.name)


def iou(mask: npt.ArrayLike, ground_truth: npt.ArrayLike) -> float:
    """Return the intersection over union (IoU) of two masks.

    Parameters
    ----------
    mask, ground_truth : HxW array-like of bool

    Returns
    -------
    float
        0 for nothing in common, 1 for identical masks. Two empty masks agree: 1.

    Raises
    ------
    ValueError
        The masks differ in size, are not HxW, or are not bool (0 and 1 of any type pass too).
    """
    found, expected = as_mask(mask, "mask"), as_mask(ground_truth, "ground_truth")
    if found.shape != expected.shape:
        raise ValueError(f"mask and ground truth differ in size: {found.shape} and {expected.shape} (height, width)")
    union = int(np.count_nonzero(found | expected))
    return int(np.count_nonzero(found & expected)) / union if union else 1.0


def as_mask(value: npt.ArrayLike, name: str = "mask") -> npt.NDArray[np.bool_]:
    """Return one mask as an HxW bool array.

    Parameters
    ----------
    value : HxW or 1xHxW array-like
        Bool, or 0 and 1 of any type. A tensor of torch on the CPU passes too.
    name : str
        What the error calls it.

    Raises
    ------
    ValueError
        The shape is another one, or the values are.
    """
    array = np.asarray(value)
    if array.ndim == 3 and len(array) == 1:
        array = array[0]
    if array.ndim != 2:
        many = "; choose one of them, masks.best or masks.bits[0]" if array.ndim == 3 else ""
        raise ValueError(f"{name}: expected one mask, HxW, got the shape {array.shape}{many}")
    if array.dtype != bool and not np.isin(array, (0, 1)).all():
        raise ValueError(f"{name}: expected True and False, got {array.dtype} values; logits become a mask by `> 0`")
    return array.astype(bool, copy=False)


def bounding_box(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Return the tightest box around a mask, HxW bool: (x0, y0, x1, y1), x1 and y1 one past the last pixel.

    An empty mask has the box (0, 0, 0, 0).
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
