"""The losses of SAM, held against formulas written out for single pixels, and against other libraries."""

import torch
from torchvision.ops import sigmoid_focal_loss

from sam_nb.learning import losses


def test_padding_does_not_count():
    ground_truth = torch.zeros(1, 8, 8)
    ground_truth[:, 2:4, 2:4] = 1
    valid = torch.ones(1, 8, 8)
    valid[:, 6:] = 0
    logits = torch.where(ground_truth > 0, 9.0, -9.0)[:, None].repeat(1, 2, 1, 1)
    logits[:, 1, 6:] = 9
    loss = losses.mask_loss(logits, ground_truth, valid)
    assert loss[0, 0] == loss[0, 1]
    assert losses.true_iou(logits, ground_truth, valid).tolist() == [[1, 1]]


def test_the_mask_loss_is_torchvision_s_focal_loss_and_the_dice_coefficient():
    torch.manual_seed(0)
    logits, ground_truth = 3 * torch.randn(2, 4, 5, 7), (torch.rand(2, 5, 7) > 0.6).float()
    loss = losses.mask_loss(logits, ground_truth, torch.ones(2, 5, 7))
    for prompt in range(2):
        for token in range(4):
            mask, target = logits[prompt, token].sigmoid(), ground_truth[prompt]
            focal = sigmoid_focal_loss(logits[prompt, token], target, alpha=0.25, gamma=2, reduction="mean")
            dice = 1 - (2 * (mask * target).sum() + 1) / (mask.sum() + target.sum() + 1)
            torch.testing.assert_close(loss[prompt, token], 20 * focal + dice)


def test_three_masks_learn_from_ambiguous_prompts_alone_and_only_the_best_of_them():
    ground_truth, valid = torch.zeros(1, 8, 8), torch.ones(1, 8, 8)
    ground_truth[:, 2:6, 2:6] = 1
    offset = torch.tensor([0.0, -1, 2, -1]).view(1, 4, 1, 1)  # token 2 is wrong outside
    logits = (2 * ground_truth[:, None] - 1 + offset * (1 - ground_truth[:, None])).requires_grad_()
    predicted = torch.full((1, 4), 0.5, requires_grad=True)
    for ambiguous, learning in ((True, {0, 1}), (False, {0})):
        logits.grad = predicted.grad = None
        loss, found = losses.prompt_loss(logits, predicted, ground_truth, valid, ambiguous)
        loss.sum().backward()
        assert {token for token in range(4) if logits.grad[0, token].any()} == learning
        torch.testing.assert_close(predicted.grad, (predicted.detach() - found) / 2)
