"""What the model answers: masks with their scores, and how far a mask is from the ground truth."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

MASK_THRESHOLD = 0.0  # logits above it are mask, in all of `segment_anything`'s models


@dataclass(frozen=True, eq=False)
class Masks:
    """The C answers to one prompt: C = 1, or 3 for an ambiguous prompt (whole, part, subpart, in no fixed order).

    Attributes
    ----------
    scores : C numpy.ndarray of float32
        The model's own guess of each mask's IoU with what was meant ("predicted IoU"). A linear layer makes it, so it
        can leave [0, 1].
    logits : CxhxW numpy.ndarray of float32
        Low-res logits, 256x256 for the whole padded square; above `MASK_THRESHOLD` is mask. One of them can be the next
        prompt's `mask_input`.
    model : str
        The name of the model that made them, which every picture shows.
    size : (int, int)
        Height and width of the original picture.
    upscale : callable
        Takes the number of a mask and returns its logits in the size of the original picture, HxW. It is called when a
        mask is looked at: often only one of three is, and a large picture's masks take longer to enlarge than to make.
    """

    scores: np.ndarray
    logits: np.ndarray
    model: str
    size: tuple[int, int]
    upscale: Callable[[int], np.ndarray]

    def __len__(self):
        return len(self.scores)

    def __repr__(self):
        height, width = self.size
        scores = ", ".join(f"{score:.3f}" for score in self.scores)
        return f"Masks({len(self)} of {width}x{height} by {self.model}, predicted IoU {scores})"

    @cached_property
    def bits(self):
        """All masks in the size of the original picture, CxHxW bool."""
        return np.stack([self.upscale(index) > MASK_THRESHOLD for index in range(len(self))])

    def mask(self, index):
        """Return one of the masks in the size of the original picture, HxW bool."""
        # cached_property keeps its value under its own name.
        return self.bits[index] if "bits" in vars(self) else self.upscale(index) > MASK_THRESHOLD

    def only(self, index):
        """Return this answer with one of its masks alone."""
        return Masks(self.scores[[index]], self.logits[[index]], self.model, self.size, lambda _: self.upscale(index))

    @property
    def best_index(self):
        """Index of the mask with the highest score, int."""
        return int(self.scores.argmax())

    @cached_property
    def best(self):
        """The mask with the highest score, HxW bool."""
        return self.mask(self.best_index)

    @property
    def nbytes(self):
        """Memory that the arrays take so far, bytes."""
        made = [array for name, array in vars(self).items() if name in ("bits", "best")]
        return sum(array.nbytes for array in [self.scores, self.logits, *made])

    @property
    def areas(self):
        """Pixels in each mask, C int64."""
        return self.bits.sum(axis=(1, 2))

    @property
    def boxes(self):
        """The tightest box (x0, y0, x1, y1) around each mask, Cx4 int64; x1 and y1 are one past the last pixel.

        An empty mask has the box (0, 0, 0, 0).
        """
        return np.array([bounding_box(mask) for mask in self.bits], dtype=np.int64).reshape(-1, 4)


@dataclass(frozen=True, eq=False)
class Segment:
    """A mask with its name.

    Attributes
    ----------
    mask : HxW numpy.ndarray of bool
    name : str
        Becomes the files' name.
    category : str
        Its class.
    score : float, optional
        The model's predicted IoU.
    """

    mask: np.ndarray
    name: str
    category: str = "object"
    score: float | None = None


def iou(mask, ground_truth):
    """Return the intersection over union of two masks, the field's measure of agreement.

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
        The masks have different sizes, are not HxW, or are not bool (0 and 1 of any type will do).
    """
    mask, ground_truth = as_mask(mask, "mask"), as_mask(ground_truth, "ground_truth")
    if mask.shape != ground_truth.shape:
        raise ValueError(f"mask and ground truth differ in size: {mask.shape} and {ground_truth.shape} (height, width)")
    union = int(np.count_nonzero(mask | ground_truth))
    return int(np.count_nonzero(mask & ground_truth)) / union if union else 1.0


def as_mask(value, name="mask"):
    """Return `value` as an HxW bool array; a ValueError tells about anything that is not one mask."""
    array = np.asarray(value)
    if array.ndim == 3 and len(array) == 1:
        array = array[0]
    if array.ndim != 2:
        many = "; choose one of them, masks.best or masks.bits[0]" if array.ndim == 3 else ""
        raise ValueError(f"{name}: expected one mask, HxW, got the shape {array.shape}{many}")
    if array.dtype != bool and not np.isin(array, (0, 1)).all():
        raise ValueError(f"{name}: expected True and False, got {array.dtype} values; logits become a mask by `> 0`")
    return array.astype(bool)


def bounding_box(mask):
    """Return the tightest box around a mask, HxW bool: (x0, y0, x1, y1), x1 and y1 one past the last pixel.

    An empty mask has the box (0, 0, 0, 0).
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return 0, 0, 0, 0
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
