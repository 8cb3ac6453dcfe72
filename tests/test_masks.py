import numpy as np
import pytest

from sam_nb.masks import Masks, as_mask, iou


@pytest.fixture
def masks(blob, known_masks):
    bits = np.stack([blob, np.zeros_like(blob), ~blob])
    return known_masks(bits, [0.5, 1.02, 0.9])


def test_best_areas_and_boxes(masks, blob):
    assert masks.best_index == 1
    assert not masks.best.any()
    assert masks.areas.tolist() == [blob.sum(), 0, blob.size - blob.sum()]
    y, x = np.nonzero(blob)
    assert masks.boxes.tolist() == [[x.min(), y.min(), x.max() + 1, y.max() + 1], [0, 0, 0, 0], [0, 0, 90, 60]]
    assert len(masks) == 3
    assert repr(masks) == "Masks(3 of 90x60 by lite, predicted IoU 0.500, 1.020, 0.900)"


def test_a_mask_is_enlarged_when_it_is_looked_at(blob):
    asked = []

    def upscale(index):
        asked.append(index)
        return [blob, ~blob][index]

    masks = Masks(np.float32([0.2, 0.8]), np.zeros((2, 256, 256), np.float32), "lite", blob.shape, upscale)
    assert repr(masks) == "Masks(2 of 90x60 by lite, predicted IoU 0.200, 0.800)"
    assert asked == []
    before = masks.nbytes
    assert np.array_equal(masks.best, ~blob)
    assert masks.best is masks.best
    assert asked == [1]
    assert masks.nbytes == before + blob.size
    alone = masks.only(0)
    assert (len(alone), alone.scores.tolist(), alone.logits.shape) == (1, [np.float32(0.2)], (1, 256, 256))
    assert np.array_equal(alone.best, blob)
    assert asked == [1, 0]
    assert np.array_equal(masks.bits, [blob, ~blob])
    assert np.array_equal(masks.mask(0), blob)
    assert asked == [1, 0, 0, 1]


def test_iou_by_counting():
    a, b = np.zeros((4, 5), bool), np.zeros((4, 5), bool)
    a[:, :2] = True
    b[:, 1:4] = True
    assert iou(a, b) == 4 / 16
    assert type(iou(a, b)) is float  # prints as a plain number in every NumPy
    assert iou(a, a) == 1
    assert iou(a, ~a) == 0
    assert iou(np.zeros((4, 5)), np.zeros((4, 5))) == 1
    assert iou(a[None], a.astype(np.uint8)) == 1


@pytest.mark.parametrize(
    ("mask", "ground_truth", "words"),
    [
        (np.zeros((4, 5)), np.zeros((5, 4)), r"differ in size: \(4, 5\) and \(5, 4\)"),
        (np.zeros((3, 4, 5)), np.zeros((4, 5)), "mask: expected one mask.*masks.best"),
        (np.zeros((4, 5)), np.full((4, 5), 0.3), "ground_truth: expected True and False.*`> 0`"),
    ],
)
def test_iou_refuses(mask, ground_truth, words):
    with pytest.raises(ValueError, match=words):
        iou(mask, ground_truth)


def test_as_mask_takes_a_torch_tensor(blob):
    import torch

    assert np.array_equal(as_mask(torch.from_numpy(blob)), blob)
