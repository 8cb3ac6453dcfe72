"""One training step of the mask decoder: prompts of a simulated user, several rounds of them, and their gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from sam_nb.clicks import next_click, noisy_box, random_click, with_click
from sam_nb.learning.losses import prompt_loss
from sam_nb.prompts import Prompt

if TYPE_CHECKING:
    from sam_nb.learning.examples import LowResTargets
    from sam_nb.model.sam import Sam

MAX_GRADIENT_NORM = 1.0  # one odd prompt must not throw the decoder off


def train_step(
    sam: Sam,
    targets: Sequence[LowResTargets],
    optimizer: torch.optim.Optimizer,
    *,
    batch_size: int,
    rounds: int,
    rng: np.random.Generator,
) -> float:
    """Take one step and return its loss; where that is NaN or infinite, take none, and the decoder stays as it is.

    Parameters
    ----------
    sam : Sam
        Its mask decoder learns.
    targets : sequence of LowResTargets
    optimizer : torch.optim.Optimizer
        Of the decoder's parameters.
    batch_size : int
        Objects, each with a prompt of its own.
    rounds : int
        At most. See `finetune`.
    rng : numpy.random.Generator
    """
    loss, left = 0.0, batch_size
    while left > 0:
        target = targets[int(rng.integers(len(targets)))]
        chosen = rng.permutation(len(target.ground_truth))[:left]
        left -= len(chosen)
        share = len(chosen) / batch_size
        loss += _backward(sam, target, chosen, rounds=int(rng.integers(1, rounds + 1)), share=share, rng=rng)
    if not math.isfinite(loss):
        optimizer.zero_grad()
        return loss
    torch.nn.utils.clip_grad_norm_(sam.model.mask_decoder.parameters(), MAX_GRADIENT_NORM)
    optimizer.step()
    optimizer.zero_grad()
    return loss


def _backward(
    sam: Sam,
    target: LowResTargets,
    chosen: npt.NDArray[np.integer],
    *,
    rounds: int,
    share: float,
    rng: np.random.Generator,
) -> float:
    """Prompt the chosen objects of an image, add to the decoder's gradients, and return the loss, NaN or infinite too.

    Parameters
    ----------
    sam : Sam
    target : LowResTargets
    chosen : P numpy.ndarray of int
    rounds : int
        The first prompt, then a corrective click each.
    share : float
        What the loss is multiplied by: their share of the batch.
    rng : numpy.random.Generator
    """
    embedding, decoder = target.example.embedding, sam.model.mask_decoder
    features, ground_truth = embedding.features.to(sam.device), target.ground_truth[chosen].float().to(sam.device)
    rows, columns = target.shape
    valid = torch.zeros_like(ground_truth)
    valid[:, :rows, :columns] = 1
    by_box = rng.random() < 0.5
    prompts = [_first_prompt(mask, by_box, rng) for mask in target.example.masks(chosen)]
    total = 0.0
    for number in range(rounds):
        with torch.no_grad():
            sparse, dense = sam.encode_prompts(embedding, prompts)
            position = sam.model.prompt_encoder.get_dense_pe()
        logits, predicted = decoder.predict_masks(features, position, sparse, dense)
        losses, _ = prompt_loss(logits, predicted, ground_truth, valid, ambiguous=number == 0)
        loss = losses.mean() * share / rounds
        # Each round by itself: where the user clicks has no gradient, and the round's memory is free again.
        loss.backward()
        total += loss.item()
        if not math.isfinite(total):
            return total  # there is no mask to correct
        if number + 1 < rounds:
            lone_click = number == 0 and not by_box
            shown = _shown_logits(logits, predicted, lone_click)
            low_res = target.ground_truth[chosen].numpy()
            prompts = [corrected(target, *each, rng) for each in zip(prompts, shown, low_res, strict=True)]
    return total


def _first_prompt(mask: npt.NDArray[np.bool_], by_box: bool, rng: np.random.Generator) -> Prompt:
    return Prompt(box=noisy_box(mask, rng)) if by_box else Prompt(points=np.array([random_click(mask, rng)]))


def _shown_logits(logits: torch.Tensor, predicted: torch.Tensor, lone_click: bool) -> list[npt.NDArray[np.float32]]:
    """Return what a user would see: the highest-scoring of three masks after a lone click, else the single mask."""
    tokens = (1 + predicted[:, 1:].argmax(1)).tolist() if lone_click else [0] * len(logits)
    return [logits[row, token].detach().cpu().numpy() for row, token in enumerate(tokens)]


def corrected(
    target: LowResTargets,
    prompt: Prompt,
    logits: npt.NDArray[np.float32],
    ground_truth: npt.NDArray[np.bool_],
    rng: np.random.Generator,
) -> Prompt:
    """Return a prompt with one more click, which corrects its mask, and with that mask's logits.

    Parameters
    ----------
    target : LowResTargets
    prompt : Prompt
    logits, ground_truth : 256x256 numpy.ndarray of float32 and of bool
    rng : numpy.random.Generator
        Where nothing is wrong, the click goes anywhere into the object.
    """
    rows, columns = target.shape
    mask, ground_truth = logits[:rows, :columns] > 0, ground_truth[:rows, :columns]
    cell, label = next_click(mask, ground_truth) or (random_click(ground_truth, rng), 1)
    return with_click(prompt, (target.pixel(cell), label), logits)


def one_cycle(optimizer: torch.optim.Optimizer, lr: float, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """Return a schedule: the learning rate rises to `lr` over the first tenth of the steps and then falls to zero.

    Ten steps or fewer have no time to rise, and begin near the top. (`OneCycleLR` would divide by zero where the rise
    is one step long.)
    """
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, total_steps=max(2, steps), pct_start=0.1 if steps > 10 else 0.0
    )
