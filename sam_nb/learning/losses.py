"""The losses of SAM: focal and dice on masks, squared error on the predicted IoU (SAM paper, appendix A).

None of them counts the padding: `SamPredictor` crops it, so what the network predicts there does not matter.
"""

import torch
import torch.nn.functional as F

FOCAL_WEIGHT = 20.0  # focal : dice = 20 : 1


def mask_loss(
    logits: torch.Tensor, ground_truth: torch.Tensor, valid: torch.Tensor, gamma: float = 2.0, alpha: float = 0.25
) -> torch.Tensor:
    """Return 20 x focal + dice of every mask.

    Parameters
    ----------
    logits : PxCxHxW torch.Tensor of float32
    ground_truth : PxHxW torch.Tensor of float32
        0 or 1.
    valid : PxHxW torch.Tensor of float32
        1 on the image, 0 on the padding.
    gamma, alpha : float
        Of the focal loss (Lin et al., "Focal loss for dense object detection", 2017).

    Returns
    -------
    PxC torch.Tensor of float32
    """
    ground_truth, valid = ground_truth[:, None].expand_as(logits), valid[:, None]
    probability = logits.sigmoid()
    cross_entropy = F.binary_cross_entropy_with_logits(logits, ground_truth, reduction="none")
    miss = probability + ground_truth - 2 * probability * ground_truth  # 1 - the probability of the right class
    weight = (1 - alpha) + (2 * alpha - 1) * ground_truth
    focal = (weight * miss**gamma * cross_entropy * valid).sum((2, 3)) / valid.sum((2, 3))
    probability = probability * valid
    overlap = (probability * ground_truth).sum((2, 3))
    dice = 1 - (2 * overlap + 1) / (probability.sum((2, 3)) + ground_truth.sum((2, 3)) + 1)
    return FOCAL_WEIGHT * focal + dice


def true_iou(logits: torch.Tensor, ground_truth: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return the IoU of every thresholded mask with the ground truth, PxC float32; arguments as in `mask_loss`."""
    mask = (logits > 0) & (valid[:, None] > 0)
    ground_truth = ground_truth[:, None] > 0
    return (mask & ground_truth).sum((2, 3)) / (mask | ground_truth).sum((2, 3)).clamp(min=1)


def prompt_loss(
    logits: torch.Tensor,
    predicted: torch.Tensor,
    ground_truth: torch.Tensor,
    valid: torch.Tensor,
    ambiguous: bool | torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss of every prompt, and the true IoU of its masks.

    Token 0 learns from every prompt; of tokens 1 to 3 the best one learns from an ambiguous prompt: three masks are for
    what can mean three objects. The predicted IoU learns from all four always, because any prompt may come with
    ``multimask_output=True``.

    Parameters
    ----------
    logits : Px4xHxW torch.Tensor of float32
        Of all four mask tokens, as `MaskDecoder.predict_masks` returns them.
    predicted : Px4 torch.Tensor of float32
        The predicted IoU.
    ground_truth, valid : PxHxW torch.Tensor of float32
        As in `mask_loss`.
    ambiguous : bool, or P torch.Tensor of bool
        Whether these, or which of them, are first prompts of a single point or a single box.

    Returns
    -------
    (P torch.Tensor of float32, Px4 torch.Tensor of float32)
    """
    with torch.no_grad():
        found = true_iou(logits, ground_truth, valid)
    loss = mask_loss(logits[:, :1], ground_truth, valid)[:, 0]
    rows = torch.nonzero(torch.as_tensor(ambiguous, device=logits.device).expand(len(logits)))[:, 0]
    if len(rows):
        of_three = mask_loss(logits[rows, 1:], ground_truth[rows], valid[rows])
        loss = loss.index_add(0, rows, of_three.min(1).values)
    return loss + (predicted - found).square().mean(1), found
