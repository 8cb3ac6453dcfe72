"""A simulated user, who knows the ground truth, clicks where a mask is most wrong, and in training has a shaky hand.

The literature measures interactive segmentation with such a user (Xu et al., "Deep interactive object selection",
2016), and so does the SAM paper (arXiv 2304.02643, section 7.1).
"""

from itertools import islice

import cv2
import numpy as np

from sam_nb.masks import as_mask, bounding_box, iou
from sam_nb.prompts import Prompt

BOX_NOISE = 0.1  # standard deviation, share of the side (SAM paper, appendix A)
MAX_BOX_NOISE = 20 / 1024  # share of the picture's long side (SAM paper: 20 pixels of 1024)


def next_click(mask, ground_truth):
    """Return the click that corrects a mask: the innermost pixel of the largest region of error.

    Parameters
    ----------
    mask, ground_truth : HxW numpy.ndarray of bool
        With an empty mask, the largest region of error is the object itself: this is where the user begins.

    Returns
    -------
    ((float, float), int), or None
        The point (x, y), a pixel's index, and its label: 1 where the mask misses something, 0 where it has too much.
        None where mask and ground truth agree.

    Raises
    ------
    ValueError
        The two differ in size, or are not masks.
    """
    error = largest_error(mask, ground_truth)
    if error is None:
        return None
    x, y = innermost(error)
    return (x, y), int(ground_truth[int(y), int(x)])


def largest_error(mask, ground_truth):
    """Return the largest connected region where a mask is wrong, HxW bool; None if mask and ground truth agree."""
    mask, ground_truth = as_mask(mask, "mask"), as_mask(ground_truth, "ground_truth")
    if mask.shape != ground_truth.shape:
        raise ValueError(f"mask and ground truth differ in size: {mask.shape} and {ground_truth.shape} (height, width)")
    error = mask != ground_truth
    if not error.any():
        return None
    # 4-connected: regions that only touch at a corner are two mistakes to a user.
    _, regions, stats, _ = cv2.connectedComponentsWithStats(error.astype(np.uint8), connectivity=4)
    return regions == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()


def innermost(region):
    """Return the pixel (x, y) of a region, HxW bool and not empty, that is farthest from its border, floats."""
    (left, top), depth = depths(region)
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    return float(left + x), float(top + y)


def depths(region):
    """Return how far each pixel of a region lies from the nearest one outside.

    Parameters
    ----------
    region : HxW numpy.ndarray of bool
        Not empty. What lies beyond the picture is outside.

    Returns
    -------
    (int, int)
        Left and top of the window around the region.
    hxw numpy.ndarray of float32
        Distances in pixels within that window, 0 outside the region.
    """
    # Only the region's own window is searched: regions are small and pictures are not.
    left, top, right, bottom = bounding_box(region)
    window = region[top:bottom, left:right].astype(np.uint8)
    return (left, top), cv2.distanceTransform(np.pad(window, 1), cv2.DIST_L2, 5)[1:-1, 1:-1]


def random_click(region, rng):
    """Return a pixel (x, y) of a region, floats: anywhere in it, with a preference for the inside.

    Parameters
    ----------
    region : HxW numpy.ndarray of bool
        Not empty.
    rng : numpy.random.Generator
    """
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
    limit = MAX_BOX_NOISE * max(region.shape)
    box += np.clip(rng.normal(0, BOX_NOISE, 4) * sides, -limit, limit)
    limits = np.tile(region.shape[::-1], 2)
    return np.clip(box, 0, limits).astype(np.float32)


def with_click(prompt, click, mask_input=None):
    """Return a prompt with one click more.

    Parameters
    ----------
    prompt : Prompt, or None
        None begins one.
    click : ((float, float), int)
        As `next_click` returns it.
    mask_input : 1xhxw or hxw array-like of float32, optional
        The logits to go with it, in place of the prompt's.
    """
    point, label = click
    if prompt is None or prompt.points is None:
        points, labels = [point], [label]
    else:
        points, labels = [*prompt.points, point], [*prompt.labels, label]
    return Prompt(points, labels, None if prompt is None else prompt.box, mask_input)


def click_on(sam, embedding, ground_truth, start=None, *, feedback=True):
    """Let the simulated user work on one object; yield each prompt with its answer.

    Parameters
    ----------
    sam : Sam
    embedding : Embedding
        Of the picture.
    ground_truth : HxW numpy.ndarray of bool
        What the user has in mind.
    start : Prompt, optional
        Asked first, and part of every later prompt: a box, for instance. Left out: a click on the object's middle.
    feedback : bool
        Whether the logits of the last answer go along with the next click, as `mask_input`.

    Yields
    ------
    Prompt
        The first, then each with one click more.
    Masks
        Its answer. The user looks at the best-scored mask.

    Raises
    ------
    ValueError
        There is nothing to click on: the ground truth is empty.

    Notes
    -----
    It goes on until mask and ground truth agree in every pixel, which may be never: `itertools.islice` stops it.
    """
    if start is None:
        first = next_click(np.zeros_like(ground_truth), ground_truth)
        if first is None:
            raise ValueError("nothing to click on: the ground truth is empty, expected an object, HxW bool")
        start = with_click(None, first, None)
    prompt = start
    while True:
        masks = sam.decode(embedding, prompt)
        yield prompt, masks
        click = next_click(masks.best, ground_truth)
        if click is None:
            return
        prompt = with_click(prompt, click, masks.logits[masks.best_index] if feedback else None)


def click_curve(sam, embedding, ground_truth, start=None, *, rounds=8, feedback=True):
    """Return how good the mask is after each prompt of the simulated user.

    Parameters
    ----------
    sam, embedding, ground_truth, start, feedback
        As in `click_on`.
    rounds : int
        How many prompts. The first is `start` or the first click, each further one brings one more click.

    Returns
    -------
    numpy.ndarray of float64, `rounds` long
        IoU of the highest-scoring mask with the ground truth. A user with nothing left to correct stops.
    """
    asked = islice(click_on(sam, embedding, ground_truth, start, feedback=feedback), rounds)
    values = [iou(masks.best, ground_truth) for _, masks in asked]
    return np.pad(values, (0, rounds - len(values)), mode="edge")
