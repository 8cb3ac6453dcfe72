"""Corrective clicks in training, for all prompts at once and on the masks' own device.

As in RITM (Sofiiuk et al., 2021) the click goes to the depths of the errors, where a circle that is wrong everywhere
is largest. The simulated user of the evaluation, `sam_nb.clicks`, looks for the largest region, one mask at a time.
"""

import torch
import torch.nn.functional as F

MAX_DEPTH = 24  # pixels of half the masks' size; what is deeper is equally deep


def depths(errors: torch.Tensor) -> torch.Tensor:
    """Return how deep inside an error each pixel is: 0 outside, 1 at its border, at most `MAX_DEPTH`.

    Parameters
    ----------
    errors : PxHxW torch.Tensor of bool
        What lies beyond the image is outside.

    Returns
    -------
    PxHxW torch.Tensor of float32
        In chessboard distance.
    """
    left = errors[:, None].float()
    depth = left.clone()
    for _ in range(MAX_DEPTH - 1):
        # The minimum of 3 x 3 pixels; beyond the image it is 0.
        left = -F.max_pool2d(F.pad(-left, (1, 1, 1, 1)), 3, stride=1)
        depth += left
    return depth[:, 0]


def next_clicks(
    masks: torch.Tensor, ground_truths: torch.Tensor, generator: torch.Generator, centred: float = 0.5
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw a click for every mask.

    Parameters
    ----------
    masks, ground_truths : PxHxW torch.Tensor of bool
        H and W even.
    generator : torch.Generator
        Of the masks' device.
    centred : float
        Probability that a click goes to the deepest pixel; the others go anywhere, with a preference for the inside.

    Returns
    -------
    points : Px2 torch.Tensor of float32
        Pixels (x, y) of the masks.
    labels : P torch.Tensor of float32
        1 where the mask misses something, 0 where it has too much. Where mask and ground truth agree the click goes
        into the object, and -1, no click, where there is none.
    """
    count, height, width = masks.shape
    errors = masks != ground_truths
    errors = torch.where(errors.flatten(1).any(1)[:, None, None], errors, ground_truths)
    # Missed and surplus pixels are two errors even where they touch. At half the size: a fifth of the time.
    halves = [F.max_pool2d((errors & kind)[:, None].float(), 2)[:, 0] > 0 for kind in (ground_truths, ~ground_truths)]
    depth = torch.stack([depths(half) for half in halves], 1).flatten(1)
    uniform = torch.rand(depth.shape, generator=generator, device=depth.device)
    # The Gumbel-max trick draws a pixel, weighted by a power of its depth: a high one for the deepest, else a low one.
    power = torch.where(torch.rand(count, 1, generator=generator, device=depth.device) < centred, 40.0, 1.5)
    place = (power * depth.clamp(min=1e-6).log() - (-uniform.clamp(1e-9, 1 - 1e-7).log()).log()).argmax(1)
    cell = place % (height // 2 * (width // 2))
    x, y = 2 * (cell % (width // 2)), 2 * (cell // (width // 2))
    # Of the four pixels of the cell, one that is wrong.
    rows = torch.arange(count, device=masks.device)
    wanted = errors & torch.where((place < depth.shape[1] // 2)[:, None, None], ground_truths, ~ground_truths)
    four = torch.stack([wanted[rows, y + down, x + across] for down in (0, 1) for across in (0, 1)], 1)
    pick = four.float().argmax(1)
    x, y = x + pick % 2, y + pick // 2
    labels = torch.where(four.any(1), ground_truths[rows, y, x].float(), -1.0)
    return torch.stack([x, y], 1).float(), labels
