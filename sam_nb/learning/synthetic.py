"""Synthetic images of cells whose outlines and kinds are known exactly: labels to train on, without a download.

Two looks, after two ways to see cells under a microscope:

- "halo", as in phase contrast: grey on grey, each cell with a dark rim and a bright halo. Every outline is
  visible.
- "stain", as in stained tissue: a pale body around a dark nucleus. The nucleus stands out; that the cell is
  all of it has to be learned.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from sam_nb.prompts import checked_integer

Floats: TypeAlias = npt.NDArray[np.floating]
Color: TypeAlias = tuple[int, int, int]

SHADES = {"disc": -0.09, "rod": 0.02, "star": 0.08, "crescent": 0.0}  # of their insides, in the look "halo"

KINDS = tuple(SHADES)
"""Shapes that a cell can have."""

SIZE = (160, 240)  # height and width, pixels
RADIUS = (16, 25)  # pixels, of the disc with about a cell's area
MIN_GAP = 4  # pixels between two cells
MAX_TRIES = 60  # random places that a cell gets; one that fits nowhere is skipped


@dataclass(frozen=True, eq=False)
class SyntheticCells:
    """A synthetic image and its ground truth.

    Attributes
    ----------
    image : HxWx3 numpy.ndarray of uint8, RGB
    labels : HxW numpy.ndarray of int64
        A map of the cells: 0 is background, n the n-th cell.
    kinds : tuple of str
        The kind of each cell, the first cell's first.
    """

    image: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    kinds: tuple[str, ...]

    def __repr__(self) -> str:
        height, width = self.labels.shape
        return f"SyntheticCells({width}x{height}: {', '.join(self.kinds)})"

    @property
    def masks(self) -> list[npt.NDArray[np.bool_]]:
        """The mask of each cell, list of HxW bool."""
        return [self.labels == number for number in range(1, len(self.kinds) + 1)]

    def class_map(self, kinds: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return which kind each pixel belongs to, HxW int64: 0 is background or another kind, n the n-th of `kinds`.

        Parameters
        ----------
        kinds : sequence of str
        """
        numbers = [kinds.index(kind) + 1 if kind in kinds else 0 for kind in self.kinds]
        return np.array([0, *numbers])[self.labels]


def synthetic_cells(seed: int, kinds: Sequence[str] = KINDS, look: str = "halo", count: int = 6) -> SyntheticCells:
    """Make an image of cells that do not touch.

    Parameters
    ----------
    seed : int
        The same seed gives the same image.
    kinds : sequence of str
        Among `KINDS`; taken in turn, so that each is in every image with at least that many cells.
    look : {"halo", "stain"}
    count : int
        Cells; fewer where no place is found for all.

    Returns
    -------
    SyntheticCells

    Raises
    ------
    ValueError
        A kind or the look is unknown, or a number is not an integer of 0 or more.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise ValueError(f"no kind of cell {unknown[0] if unknown else kinds!r}: expected some of {', '.join(KINDS)}")
    if look not in _LOOKS:
        raise ValueError(f"no look {look!r}: expected one of {', '.join(_LOOKS)}")
    rng = np.random.default_rng(checked_integer(seed, "seed", 0))
    labels = np.zeros(SIZE, np.int64)
    placed: list[str] = []
    for kind in rng.permutation(np.resize(kinds, checked_integer(count, "count", 0))).tolist():
        for _ in range(MAX_TRIES):
            cell = _cell(kind, rng)
            if not labels[cv2.dilate(cell, np.ones((2 * MIN_GAP + 1, 2 * MIN_GAP + 1))) > 0].any():
                placed.append(kind)
                labels[cell > 0] = len(placed)
                break
    image = _LOOKS[look](labels, placed, rng).clip(0, 255)
    return SyntheticCells(np.rint(image).astype(np.uint8), labels, tuple(placed))


def _cell(kind: str, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return a cell somewhere in the image, HxW uint8, 1 on the cell."""
    radius, turn = rng.uniform(*RADIUS), rng.uniform(0, 2 * np.pi)
    centre = rng.uniform(radius, np.array(SIZE[::-1]) - radius)
    angle = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    x, y = np.cos(angle), np.sin(angle)
    if kind == "rod":  # a superellipse
        x, y = (np.sign(side) * np.sqrt(np.abs(side)) * reach for side, reach in ((x, 1.45), (y, 0.5)))
    elif kind == "star":
        x, y = (side * (0.85 + 0.38 * np.cos(5 * angle)) for side in (x, y))
    elif kind == "crescent":  # the inner edge is a smaller bow
        x, y = 1.4 * x, np.where(angle < np.pi, 1.4 * y, -0.4 * y) - 0.5
    else:  # not quite round
        wobble = 1 + 0.06 * np.sin(2 * angle + rng.uniform(0, 6)) + 0.05 * np.sin(3 * angle + rng.uniform(0, 6))
        x, y = x * wobble, y * wobble
    turned = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], axis=1)
    outline = np.rint(16 * (centre + radius * turned)).astype(np.int32)  # sixteenths of a pixel: shift = 4
    cell = np.zeros(SIZE, np.uint8)
    cv2.fillPoly(cell, [outline], 1, shift=4)
    return cell


def _halo(labels: npt.NDArray[np.int64], kinds: Sequence[str], rng: np.random.Generator) -> Floats:
    """Return the image, HxWx3 float: dark rims inside, bright halos outside, the same grey elsewhere."""
    inside = (labels > 0).astype(np.uint8)
    to_rim, to_cell = (cv2.distanceTransform(mask, cv2.DIST_L2, 5) for mask in (inside, 1 - inside))
    shade = np.array([0, *(SHADES[kind] + rng.normal(0, 0.02) for kind in kinds)])[labels]
    grey = 0.5 + 0.03 * _noise(12, rng) + 0.02 * _noise(1, rng) + shade + inside * 0.04 * _noise(1.5, rng)
    grey -= 0.22 * inside * np.exp(-((to_rim / 2) ** 2))
    grey += 0.28 * (1 - inside) * np.exp(-(((to_cell - 1) / 4) ** 2))
    return _between((30, 34, 40), (215, 220, 214), grey)


def _stain(labels: npt.NDArray[np.int64], _: Sequence[str], rng: np.random.Generator) -> Floats:
    """Return the image, HxWx3 float: pale bodies with grains and a dark nucleus, in a pink that has grains, too."""
    inside = labels > 0
    image: Floats = _between((170, 120, 165), (250, 232, 240), 0.75 + 0.06 * _noise(14, rng) + 0.02 * _noise(1, rng))
    image = _over(image, (210, 164, 212), 0.8 * _soft(inside, 1))
    grains = rng.random(labels.shape) < np.where(inside, 0.03, 0.012)
    image = _over(image, (150, 85, 160), 0.6 * np.clip(5 * _soft(grains, 0.8), 0, 1))
    nuclei = np.zeros(labels.shape, np.uint8)
    for number in range(1, labels.max() + 1):
        depth = cv2.distanceTransform((labels == number).astype(np.uint8), cv2.DIST_L2, 5)
        y, x = rng.choice(np.argwhere(depth > 0.75 * depth.max())).tolist()
        radius = max(3, 0.42 * depth.max())
        cv2.ellipse(nuclei, ((x, y), (2.4 * radius, 1.8 * radius), rng.uniform(0, 180)), 1, -1)
    return _over(image, (84, 44, 122), _soft(nuclei, 0.8))


_LOOKS: dict[str, Callable[[npt.NDArray[np.int64], Sequence[str], np.random.Generator], Floats]] = {
    "halo": _halo,
    "stain": _stain,
}


def _noise(size: float, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return smooth noise with spots of a size in pixels, HxW float32 of mean 0 and standard deviation 1."""
    noise = cv2.GaussianBlur(rng.standard_normal(SIZE).astype(np.float32), (0, 0), size)
    return (noise - noise.mean()) / noise.std()


def _soft(mask: npt.NDArray[np.bool_ | np.uint8], width: float) -> npt.NDArray[np.float32]:
    """Return a mask with blurred edges, HxW float32."""
    return np.asarray(cv2.GaussianBlur(mask.astype(np.float32), (0, 0), width), np.float32)


def _between(dark: Color, light: Color, share: Floats) -> Floats:
    """Return colours HxWx3 between two; a share HxW of 0 is the dark one."""
    return np.array(dark) + np.clip(share, 0, 1)[..., None] * (np.array(light) - np.array(dark))


def _over(image: Floats, color: Color, alpha: Floats) -> Floats:
    """Return an image HxWx3 with a colour laid over it, its opacity HxW."""
    return image + alpha[..., None] * (np.array(color) - image)
