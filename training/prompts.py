"""Prompts as a user gives them: points inside the thing, boxes drawn by a shaky hand, clicks that correct a mask.

Coordinates are pixels (x, y) of the mask they are drawn from; a point is a pixel's index, as a click event reports it.
"""

from dataclasses import dataclass

import numpy as np

from sam_nb.clicks import depths, innermost, largest_error
from sam_nb.masks import bounding_box

BOX_NOISE = 0.1  # standard deviation, share of the side (SAM paper, appendix A)
BOX_NOISE_MOST = 20 / 1024  # share of the picture's long side (SAM paper: 20 pixels of 1024)


@dataclass(frozen=True)
class FirstPrompt:
    """What a user gives before seeing any mask.

    Attributes
    ----------
    points : Nx2 numpy.ndarray of float32
        N may be 0.
    labels : N numpy.ndarray of float32
        1 for foreground, 0 for background.
    box : 4 numpy.ndarray of float32, or None
        (x0, y0, x1, y1).
    """

    points: np.ndarray
    labels: np.ndarray
    box: np.ndarray | None


def click(region, rng, centre=False):
    """Return a point (x, y) of a region.

    Parameters
    ----------
    region : HxW numpy.ndarray of bool
        Not empty.
    rng : numpy.random.Generator
        Unused if `centre`.
    centre : bool
        The pixel farthest from the border, as `sam_nb.clicks` has it; else anywhere, with a preference for the inside.
    """
    if centre:
        return innermost(region)
    (left, top), depth = depths(region)
    ys, xs = np.nonzero((depth > 0) & (depth >= depth.max() * rng.choice([0, 0.25, 0.5, 0.85])))
    pick = rng.integers(len(ys))
    return float(left + xs[pick]), float(top + ys[pick])


def noisy_box(region, rng):
    """Return the box around a region, 4 float32, each side moved by a shaky hand.

    Parameters
    ----------
    region : HxW numpy.ndarray of bool
        Not empty.
    rng : numpy.random.Generator
    """
    box = np.array(bounding_box(region), np.float32)
    sides = np.tile(box[2:] - box[:2], 2)
    most = BOX_NOISE_MOST * max(region.shape)
    box += np.clip(rng.normal(0, BOX_NOISE, 4) * sides, -most, most)
    limits = np.tile(region.shape[::-1], 2)
    return np.clip(box, 0, limits).astype(np.float32)


def first_prompt(target, rng):
    """Draw a first prompt for a target.

    Most are a single point or a plain box, the usual ones. A target with something excluded gets a negative point
    there: without it nobody could tell what is meant.

    Parameters
    ----------
    target : training.scenes.Target
    rng : numpy.random.Generator
    """
    draw = rng.random()
    points, labels, box = [], [], None
    if target.excluded is not None:
        points, labels = [click(target.excluded, rng)], [0]
        if draw < 0.75:
            box = noisy_box(target.region, rng)
        else:
            points, labels = [click(target.mask, rng), *points], [1, 0]
    elif draw < 0.42:
        points, labels = [click(target.mask, rng, centre=rng.random() < 0.2)], [1]
    elif draw < 0.82:
        box = noisy_box(target.region, rng)
    elif draw < 0.92:
        points, labels = [click(target.mask, rng) for _ in range(rng.integers(2, 4))], None
    else:
        box = noisy_box(target.region, rng)
        points, labels = [click(target.mask, rng)], [1]
    labels = [1] * len(points) if labels is None else labels
    return FirstPrompt(np.array(points, np.float32).reshape(-1, 2), np.array(labels, np.float32), box)


def next_click(mask, truth, rng, centre):
    """Return the click that corrects a mask, as `sam_nb.clicks.next_click`, but not always at the centre.

    Parameters
    ----------
    mask, truth : HxW numpy.ndarray of bool
    rng : numpy.random.Generator
    centre : bool
        As in `click`.

    Returns
    -------
    ((float, float), int), or None
        None where mask and truth agree.
    """
    error = largest_error(mask, truth)
    if error is None:
        return None
    x, y = click(error, rng, centre)
    return (x, y), int(truth[int(y), int(x)])
