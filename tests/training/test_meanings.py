"""What a click can mean, and the loss with which three masks learn it."""

from itertools import permutations

import numpy as np
import torch

from sam_nb.learning.losses import mask_loss
from training.meanings import MEANINGS, meanings_loss, meanings_of
from training.scenes import Target


def rectangle(top, bottom, left, right):
    mask = np.zeros((40, 60), bool)
    mask[top:bottom, left:right] = True
    return mask


WHOLE, PART, SMALL = rectangle(5, 35, 5, 45), rectangle(10, 25, 10, 30), rectangle(12, 18, 12, 20)
TARGETS = [
    Target("object", WHOLE, WHOLE),
    Target("part", PART, PART),
    Target("part", SMALL, SMALL),
    Target("group", WHOLE | rectangle(5, 10, 45, 50), WHOLE),  # nearly the whole: no meaning of its own
    Target("rest", WHOLE & ~SMALL, WHOLE, SMALL),
    Target("object", rectangle(0, 5, 50, 60), rectangle(0, 5, 50, 60)),
]


def meant(target, point):
    found = meanings_of(target, point, TARGETS, np.random.default_rng(0))
    assert np.array_equal(found[0], target.mask)
    return sorted(mask.sum() for mask in found)


def test_a_click_means_everything_that_holds_it():
    whole_or_pair = WHOLE.sum(), TARGETS[3].mask.sum()
    assert meant(TARGETS[2], (14, 14)) in [sorted([SMALL.sum(), PART.sum(), one]) for one in whole_or_pair]
    assert meant(TARGETS[1], (28, 20)) in [sorted([PART.sum(), one]) for one in whole_or_pair]
    assert meant(TARGETS[5], (55, 2)) == [TARGETS[5].mask.sum()]


def test_never_more_meanings_than_masks():
    targets = [Target("part", rectangle(0, 2**n, 0, 2**n), rectangle(0, 2**n, 0, 2**n)) for n in range(1, 6)]
    found = meanings_of(targets[0], (0, 0), targets, np.random.default_rng(0))
    assert len(found) == MEANINGS


def test_masks_and_meanings_are_assigned_at_the_lowest_loss():
    torch.manual_seed(0)
    logits = torch.randn(4, 3, 12, 16)
    meanings = (torch.rand(4, 3, 12, 16) > 0.5).float()
    meanings[1, 2] = 0
    meanings[2, 1:] = 0
    valid = torch.ones(4, 12, 16)
    valid[:, 9:] = 0
    found = meanings_loss(logits, meanings, valid)
    for row in range(4):
        here = slice(row, row + 1)
        count = int(meanings[row].flatten(1).any(1).sum())
        cost = torch.stack([mask_loss(logits[here], meanings[here, m], valid[here])[0] for m in range(count)])
        best = min(sum(cost[m, mask] for m, mask in enumerate(order)) for order in permutations(range(3), count))
        torch.testing.assert_close(found[row], best / count)


def test_each_meaning_teaches_a_mask_of_its_own():
    """Two meanings, and one mask that lies between them: it goes to one of them, and another mask to the other."""
    whole, part = torch.zeros(12, 16), torch.zeros(12, 16)
    whole[1:11, 1:15] = 1
    part[1:11, 1:7] = 1
    logits = torch.stack([4 * whole - 2, 4 * whole - 2, torch.full_like(whole, -2)])[None].requires_grad_()
    meanings = torch.stack([whole, part, torch.zeros_like(whole)])[None]
    meanings_loss(logits, meanings, torch.ones(1, 12, 16)).sum().backward()
    taught = logits.grad[0].flatten(1).any(1)
    assert taught.sum() == 2
    right = (slice(None), slice(1, 11), slice(7, 15))  # of the whole, not of the part
    assert sorted(logits.grad[0][right].sum((1, 2)).sign().tolist())[:1] == [-1]
