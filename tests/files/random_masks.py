"""Random masks with holes and several connected components, for the tests of the files' formats."""

from collections.abc import Iterator

import cv2
import numpy as np

from sam_nb import Segment

CATEGORIES = ["car", "wheel"]
COUNT = 200
PER_IMAGE = 10
SIZE = 67, 101  # height and width


def random_mask(seed: int) -> np.ndarray:
    """Return a mask with holes and several components, 67x101 bool, some of it at the border and one pixel wide."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.random((9, 14)).astype(np.float32), SIZE[::-1], interpolation=cv2.INTER_CUBIC)
    return coarse + 0.1 * rng.random(SIZE) > rng.uniform(0.4, 0.8)


def ragged_mask(seed: int) -> np.ndarray:
    """Return a mask of many components with holes, 60x90 bool."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((10, 15)).repeat(6, axis=0).repeat(6, axis=1)
    return (coarse + 0.3 * rng.random((60, 90))) > rng.uniform(0.4, 0.9)


def oblong_mask(seed: int) -> np.ndarray:
    """Return a mask of one component with about twenty long, low holes, 60x90 bool."""
    rng = np.random.default_rng(seed)
    mask = np.ones((60, 90), bool)
    for _ in range(20):
        y, x, height, width = rng.integers((2, 2, 1, 1), (55, 80, 6, 40))
        mask[y : min(58, y + height), x : min(88, x + width)] = False
    return mask


def noise_mask(seed: int) -> np.ndarray:
    """Return a mask of a random size up to 30x30 whose pixels know nothing of each other, at least one of them true."""
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 31, 2)) < rng.uniform(0.05, 0.95)
    mask.flat[rng.integers(mask.size)] = True
    return mask


def images_of_segments() -> Iterator[tuple[str, list[Segment]]]:
    """Yield an image's name without suffix and its ten segments, `COUNT` in all."""
    for number, start in enumerate(range(0, COUNT, PER_IMAGE)):
        seeds = range(start, start + PER_IMAGE)
        yield f"{number:02d}", [Segment(random_mask(seed), f"no. {seed}", CATEGORIES[seed % 2], 0.5) for seed in seeds]
