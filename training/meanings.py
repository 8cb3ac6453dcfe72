"""All that one click can mean: the object, the part and the pair of objects that hold it, each learned by one mask.

SAM learns one meaning at a time, whichever was drawn, by the mask that is nearest to it (SAM paper, appendix A). With
a billion masks that makes three different masks. With few, and most of them whole objects, all three become the
whole. A scene whose targets are nested says more: the three masks learn all of them at once, each mask another one.
"""

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import numpy.typing as npt
import torch

from sam_nb.learning.losses import mask_loss
from sam_nb.masks import iou
from training.scenes import Target

MEANINGS = 3  # as many as there are masks
MIN_IOU_TO_BE_ONE = 0.8  # two targets that overlap more than this are one meaning


def meanings_of(
    target: Target, point: Sequence[float], targets: Sequence[Target], rng: np.random.Generator
) -> list[npt.NDArray[np.bool_]]:
    """Return everything that a click on a target can mean.

    Parameters
    ----------
    target : training.scenes.Target
        The one that was drawn.
    point : (float, float)
        The click, (x, y), a pixel of it.
    targets : sequence of training.scenes.Target
        Of the scene.
    rng : numpy.random.Generator

    Returns
    -------
    list of HxW numpy.ndarray of bool
        At most `MEANINGS`, no two alike; the target's own mask first.
    """
    x, y = (int(value) for value in point)
    # The rest of an object without a part of it needs a negative click to be meant.
    others = [other.mask for other in targets if other.kind != "rest" and other.mask[y, x]]
    found = [target.mask]
    for number in rng.permutation(len(others)):
        if len(found) < MEANINGS and all(iou(others[number], mask) < MIN_IOU_TO_BE_ONE for mask in found):
            found.append(others[number])
    return found


def meanings_loss(logits: torch.Tensor, meanings: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return the loss of three masks that learn a meaning each, for the cheapest assignment of masks to meanings.

    Parameters
    ----------
    logits : Px3xHxW torch.Tensor of float32
        Of the mask tokens 1 to 3.
    meanings : Px3xHxW torch.Tensor of float32
        0 or 1; all 0 where there are fewer.
    valid : PxHxW torch.Tensor of float32
        As in `sam_nb.learning.losses.mask_loss`.

    Returns
    -------
    P torch.Tensor of float32
        The mean over the meanings that there are.
    """
    present = meanings.flatten(2).any(2)
    # P x meanings x masks
    costs = torch.stack([mask_loss(logits, meaning, valid) for meaning in meanings.unbind(1)], dim=1)
    costs = costs * present[..., None]
    rows = torch.arange(costs.shape[1], device=costs.device)
    assignments = torch.tensor(list(permutations(range(logits.shape[1]), costs.shape[1])), device=costs.device)
    totals = costs[:, rows, assignments].sum(2)  # P x assignments
    return totals.min(1).values / present.sum(1).clamp(min=1)
