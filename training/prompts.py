"""Prompts as a user gives them: points inside the object, boxes drawn by a shaky hand, clicks that correct a mask.

Coordinates are pixels (x, y) of the mask they are drawn from; a point is a pixel's index, as a click event reports it.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sam_nb.clicks import innermost, largest_error, noisy_box, random_click
from training.scenes import Target


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

    points: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float32]
    box: npt.NDArray[np.float32] | None


def click(region: npt.NDArray[np.bool_], rng: np.random.Generator | None, centre: bool = False) -> tuple[float, float]:
    """Return a point (x, y) of a region.

    Parameters
    ----------
    region : HxW numpy.ndarray of bool
        Not empty.
    rng : numpy.random.Generator, or None
        Unused if `centre`.
    centre : bool
        The pixel farthest from the border, as `sam_nb.clicks` has it; else anywhere, with a preference for the inside.
    """
    if centre:
        return innermost(region)
    return random_click(region, rng)


def first_prompt(target: Target, rng: np.random.Generator) -> FirstPrompt:
    """Draw a first prompt for a target.

    Most are a single point or a plain box, the usual ones. A target with an excluded region gets a negative point
    there: without it the prompt would mean the whole.

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


def next_click(
    mask: npt.NDArray[np.bool_],
    ground_truth: npt.NDArray[np.bool_],
    rng: np.random.Generator | None,
    centre: bool,
) -> tuple[tuple[float, float], int] | None:
    """Return the click that corrects a mask, as `sam_nb.clicks.next_click`, but not always at the centre.

    Parameters
    ----------
    mask, ground_truth : HxW numpy.ndarray of bool
    rng : numpy.random.Generator
    centre : bool
        As in `click`.

    Returns
    -------
    ((float, float), int), or None
        None where mask and ground truth agree.
    """
    error = largest_error(mask, ground_truth)
    if error is None:
        return None
    x, y = click(error, rng, centre)
    return (x, y), int(ground_truth[int(y), int(x)])
