"""Painted pictures of cells whose outlines and kinds are known exactly: labels to train on, without a download.

Two looks, after two ways to see cells under a microscope:

- "halo", as in phase contrast: grey on grey, each cell with a dark rim and a bright halo. Every outline is there to
  see.
- "stain", as in stained tissue: a pale body around a dark nucleus. What stands out is the nucleus; only somebody who
  was told knows that a cell is all of it.
"""

from dataclasses import dataclass

import cv2
import numpy as np

SHADES = {"disc": -0.09, "rod": 0.02, "star": 0.08, "crescent": 0.0}  # of their insides, in the look "halo"

KINDS = tuple(SHADES)
"""Shapes that a cell can have."""

SIZE = (160, 240)  # height and width, pixels
RADIUS = (16, 25)  # pixels, of the disc with about a cell's area
GAP = 4  # pixels between two cells, at least
TRIES = 60  # places that are tried for a cell before it is left out


@dataclass(frozen=True, eq=False)
class SyntheticCells:
    """A painted picture and the ground truth about it.

    Attributes
    ----------
    image : HxWx3 numpy.ndarray of uint8, RGB
    labels : HxW numpy.ndarray of int64
        A map of the cells: 0 is background, n the n-th cell.
    kinds : tuple of str
        The kind of each cell, the first cell's first.
    """

    image: np.ndarray
    labels: np.ndarray
    kinds: tuple[str, ...]

    def __repr__(self):
        height, width = self.labels.shape
        return f"SyntheticCells({width}x{height}: {', '.join(self.kinds)})"

    @property
    def masks(self):
        """The mask of each cell, list of HxW bool."""
        return [self.labels == number for number in range(1, len(self.kinds) + 1)]

    def class_map(self, kinds):
        """Return which kind each pixel belongs to, HxW int64: 0 is background or another kind, n the n-th of `kinds`.

        Parameters
        ----------
        kinds : sequence of str
        """
        numbers = [kinds.index(kind) + 1 if kind in kinds else 0 for kind in self.kinds]
        return np.array([0, *numbers])[self.labels]


def synthetic_cells(seed, kinds=KINDS, look="halo", count=6):
    """Paint a picture of cells that do not touch.

    Parameters
    ----------
    seed : int
        The same seed gives the same picture.
    kinds : sequence of str
        Among `KINDS`; taken in turn, so that each is in every picture with at least that many cells.
    look : {"halo", "stain"}
    count : int
        Cells; a few less where no place is found for all.

    Returns
    -------
    SyntheticCells

    Raises
    ------
    ValueError
        There is no such kind or look.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise ValueError(f"no kind of cell {unknown[0] if unknown else kinds!r}: expected some of {', '.join(KINDS)}")
    if look not in _LOOKS:
        raise ValueError(f"no look {look!r}: expected one of {', '.join(_LOOKS)}")
    rng = np.random.default_rng(seed)
    labels, placed = np.zeros(SIZE, np.int64), []
    for kind in rng.permutation(np.resize(kinds, count)).tolist():
        for _ in range(TRIES):
            cell = _cell(kind, rng)
            if not labels[cv2.dilate(cell, np.ones((2 * GAP + 1, 2 * GAP + 1))) > 0].any():
                placed.append(kind)
                labels[cell > 0] = len(placed)
                break
    picture = _LOOKS[look](labels, placed, rng).clip(0, 255)
    return SyntheticCells(np.rint(picture).astype(np.uint8), labels, tuple(placed))


def _cell(kind, rng):
    """Return a cell somewhere in the picture, HxW uint8, 1 on the cell."""
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
    return cv2.fillPoly(np.zeros(SIZE, np.uint8), [outline], 1, shift=4)


def _halo(labels, kinds, rng):
    """Return the picture, HxWx3 float: dark rims inside, bright halos outside, the same grey elsewhere."""
    inside = (labels > 0).astype(np.uint8)
    to_rim, to_cell = (cv2.distanceTransform(mask, cv2.DIST_L2, 5) for mask in (inside, 1 - inside))
    shade = np.array([0, *(SHADES[kind] + rng.normal(0, 0.02) for kind in kinds)])[labels]
    grey = 0.5 + 0.03 * _noise(12, rng) + 0.02 * _noise(1, rng) + shade + inside * 0.04 * _noise(1.5, rng)
    grey -= 0.22 * inside * np.exp(-((to_rim / 2) ** 2))
    grey += 0.28 * (1 - inside) * np.exp(-(((to_cell - 1) / 4) ** 2))
    return _between((30, 34, 40), (215, 220, 214), grey)


def _stain(labels, _, rng):
    """Return the picture, HxWx3 float: pale bodies with grains and a dark nucleus, in a pink that has grains, too."""
    inside = labels > 0
    picture = _between((170, 120, 165), (250, 232, 240), 0.75 + 0.06 * _noise(14, rng) + 0.02 * _noise(1, rng))
    picture = _over(picture, (210, 164, 212), 0.8 * _soft(inside, 1))
    grains = rng.random(labels.shape) < np.where(inside, 0.03, 0.012)
    picture = _over(picture, (150, 85, 160), 0.6 * np.clip(5 * _soft(grains, 0.8), 0, 1))
    nuclei = np.zeros(labels.shape, np.uint8)
    for number in range(1, labels.max() + 1):
        depth = cv2.distanceTransform((labels == number).astype(np.uint8), cv2.DIST_L2, 5)
        y, x = rng.choice(np.argwhere(depth > 0.75 * depth.max())).tolist()
        radius = max(3, 0.42 * depth.max())
        cv2.ellipse(nuclei, ((x, y), (2.4 * radius, 1.8 * radius), rng.uniform(0, 180)), 1, -1)
    return _over(picture, (84, 44, 122), _soft(nuclei, 0.8))


_LOOKS = {"halo": _halo, "stain": _stain}


def _noise(size, rng):
    """Return smooth noise with spots of a size in pixels, HxW float32 of mean 0 and standard deviation 1."""
    noise = cv2.GaussianBlur(rng.standard_normal(SIZE).astype(np.float32), (0, 0), size)
    return (noise - noise.mean()) / noise.std()


def _soft(mask, width):
    """Return a mask with blurred edges, HxW float32."""
    return cv2.GaussianBlur(mask.astype(np.float32), (0, 0), width)


def _between(dark, light, share):
    """Return colours HxWx3 between two; a share HxW of 0 is the dark one."""
    return np.array(dark) + np.clip(share, 0, 1)[..., None] * (np.array(light) - np.array(dark))


def _over(picture, color, alpha):
    """Return a picture HxWx3 with a colour laid over it, its opacity HxW."""
    return picture + alpha[..., None] * (np.array(color) - picture)
