"""A simulated user, who knows the ground truth, clicks where a mask is most wrong, and draws noisy boxes in training.

Interactive segmentation is evaluated with such a user (Xu et al., "Deep interactive object selection", 2016), in the
SAM paper too (arXiv 2304.02643, section 7.1).
"""

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from sam_nb.masks import Masks, as_mask, bounding_box, iou
from sam_nb.prompts import Prompt, checked_integer

if TYPE_CHECKING:
    from sam_nb.model.embeddings import Embedding
    from sam_nb.model.sam import Sam

Mask = npt.NDArray[np.bool_]
Click = tuple[tuple[float, float], int]
"""A point (x, y) and its label, 1 on the object or 0 off it."""

BOX_NOISE = 0.1  # standard deviation, share of the side (SAM paper, appendix A)
MAX_BOX_NOISE = 20 / 1024  # share of the image's long side (SAM paper: 20 pixels of 1024)


def next_click(mask: Mask, ground_truth: Mask) -> Click | None:
    """Return the click that corrects a mask: the innermost pixel of the largest region of error.

    Parameters
    ----------
    mask, ground_truth : HxW numpy.ndarray of bool
        For an empty mask, the largest region of error is in the object itself: there the user begins.

    Returns
    -------
    ((float, float), int), or None
        The point (x, y), a pixel's index, and its label: 1 where the mask misses something, 0 where it has too much.
        None where mask and ground truth agree.

    Raises
    ------
    ValueError
        The two differ in size, or one is not a mask.
    """
    error = largest_error(mask, ground_truth)
    if error is None:
        return None
    x, y = innermost(error)
    return (x, y), int(ground_truth[int(y), int(x)])


def largest_error(mask: Mask, ground_truth: Mask) -> Mask | None:
    """Return the largest connected region where a mask is wrong, HxW bool; None if mask and ground truth agree."""
    mask, ground_truth = as_mask(mask, "mask"), as_mask(ground_truth, "ground_truth")
    if mask.shape != ground_truth.shape:
        raise ValueError(f"mask and ground truth differ in size: {mask.shape} and {ground_truth.shape} (height, width)")
    error = mask != ground_truth
    if not error.any():
        return None
    # 4-connected: regions that only touch at a corner are two mistakes to a user.
    _, regions, stats, _ = cv2.connectedComponentsWithStats(error.astype(np.uint8), connectivity=4)
    largest: Mask = regions == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()
    return largest


def innermost(region: Mask) -> tuple[float, float]:
    """Return the pixel (x, y) of a region, HxW bool and not empty, that is farthest from its border, floats."""
    (left, top), depth = depths(region)
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    return float(left + x), float(top + y)


def depths(region: Mask) -> tuple[tuple[int, int], npt.NDArray[np.float32]]:
    """Return how far each pixel of a region lies from the nearest one outside.

    Parameters
    ----------
    region : HxW numpy.ndarray of bool
        Not empty. Beyond the image is outside.

    Returns
    -------
    (int, int)
        Left and top of the window around the region.
    hxw numpy.ndarray of float32
        Distances in pixels within that window, 0 outside the region.
    """
    region = as_mask(region, "region")
    if not region.any():
        raise ValueError("region: expected a mask that is not empty")
    # Only the region's own window is searched: regions are small, images are not.
    left, top, right, bottom = bounding_box(region)
    window = region[top:bottom, left:right].astype(np.uint8)
    distances: npt.NDArray[np.float32] = np.asarray(cv2.distanceTransform(np.pad(window, 1), cv2.DIST_L2, 5))
    return (left, top), distances[1:-1, 1:-1]


def random_click(region: Mask, rng: np.random.Generator) -> tuple[float, float]:
    """Return a pixel (x, y) of a region, floats: at random, more often far from its border.

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


def noisy_box(region: Mask, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return the box around a region, 4 float32, with noise on each side.

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


def with_click(prompt: Prompt | None, click: Click, mask_input: npt.ArrayLike | None = None) -> Prompt:
    """Return a prompt with one more click.

    Parameters
    ----------
    prompt : Prompt, or None
        None starts a new one.
    click : ((float, float), int)
        As `next_click` returns it.
    mask_input : 1xhxw or hxw array-like of float32, optional
        Low-res logits that replace the prompt's.
    """
    point, label = click
    if prompt is None:
        return Prompt([point], [label], None, mask_input)
    if prompt.points is None or prompt.labels is None:
        return Prompt([point], [label], prompt.box, mask_input)
    return Prompt([*prompt.points, point], [*prompt.labels, label], prompt.box, mask_input)


def click_on(
    sam: "Sam",
    embedding: "Embedding",
    ground_truth: Mask,
    start: Prompt | None = None,
    *,
    feedback: bool = True,
) -> Iterator[tuple[Prompt, Masks]]:
    """Let the simulated user click on one object; yield each prompt with its masks.

    Parameters
    ----------
    sam : Sam
    embedding : Embedding
        Of the image.
    ground_truth : HxW numpy.ndarray of bool
        The object that the user means.
    start : Prompt, optional
        The first prompt, part of every later one, such as a box. Default: a click on the object's innermost pixel.
    feedback : bool
        Whether the next prompt has the logits of the last mask as its `mask_input`.

    Yields
    ------
    Prompt
        The first, then each with one more click.
    Masks
        Of this prompt. The user corrects the highest-scoring one.

    Raises
    ------
    ValueError
        The ground truth is empty.

    Notes
    -----
    It ends when mask and ground truth agree in every pixel, which may be never: bound it with `itertools.islice`.
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


def click_curve(
    sam: "Sam",
    embedding: "Embedding",
    ground_truth: Mask,
    start: Prompt | None = None,
    *,
    rounds: int = 8,
    feedback: bool = True,
) -> npt.NDArray[np.float64]:
    """Return the IoU after each prompt of the simulated user.

    Parameters
    ----------
    sam, embedding, ground_truth, start, feedback
        As in `click_on`.
    rounds : int
        Number of prompts. The first is `start` or the first click; each further one has one more click.

    Returns
    -------
    numpy.ndarray of float64, `rounds` long
        IoU of the highest-scoring mask with the ground truth. Once nothing is left to correct, the last IoU repeats.

    Raises
    ------
    ValueError
        The ground truth is empty, or `rounds` not an integer of 1 or more.
    """
    rounds = checked_integer(rounds, "rounds", 1)
    clicked = islice(click_on(sam, embedding, ground_truth, start, feedback=feedback), rounds)
    values = [iou(masks.best, ground_truth) for _, masks in clicked]
    return np.pad(np.array(values, np.float64), (0, rounds - len(values)), mode="edge")
