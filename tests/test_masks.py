import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sam_nb.masks import Masks, Segment, as_mask, bounding_box, iou
from sam_nb.prompts import Prompt


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


class Upscale:
    """Gives known masks, and keeps which were upscaled."""

    def __init__(self, bits):
        self.bits, self.upscaled = bits, []

    def __call__(self, index):
        self.upscaled.append(index)
        return self.bits[index]


@pytest.fixture
def counted(blob):
    bits = np.stack([blob, ~blob, blob[::-1]])
    logits = np.arange(3 * 64, dtype=np.float32).reshape(3, 8, 8)
    return Masks(np.float32([0.2, 0.8, 0.5]), logits, "lite", blob.shape, Upscale(bits))


def test_a_mask_is_upscaled_when_it_is_first_used(counted, blob):
    assert repr(counted) == "Masks(3 of 90x60 by lite, predicted IoU 0.200, 0.800, 0.500)"
    before = counted.nbytes
    assert before == counted.scores.nbytes + counted.logits.nbytes
    assert counted.upscale.upscaled == []
    assert np.array_equal(counted.best, ~blob)
    assert counted.upscale.upscaled == [1]
    assert counted.nbytes == before + blob.size
    counted.bits  # noqa: B018
    assert counted.nbytes == before + 3 * blob.size


LOOKS = {
    "bits": lambda masks: masks.bits,
    "best": lambda masks: masks.best,
    "mask": lambda masks: [masks.mask(index) for index in (2, 0, -1, np.int64(1))],
    "only": lambda masks: [masks.only(index).best for index in (1, 2, 0)],
    "only, twice": lambda masks: masks.only(2).only(0).bits,
    "areas": lambda masks: masks.areas,
    "boxes": lambda masks: masks.boxes,
}


@pytest.mark.parametrize("first", LOOKS)
@pytest.mark.parametrize("second", LOOKS)
def test_a_mask_is_upscaled_once_whichever_way_it_is_looked_at(counted, first, second):
    LOOKS[first](counted)
    LOOKS[second](counted)
    LOOKS[first](counted)
    assert len(set(counted.upscale.upscaled)) == len(counted.upscale.upscaled)
    assert np.array_equal(counted.bits, counted.upscale.bits)
    assert sorted(counted.upscale.upscaled) == [0, 1, 2]
    assert counted.best is counted.mask(1)


def test_one_mask_by_itself(counted):
    for index in (0, 2, -1):
        alone = counted.only(index)
        assert (len(alone), alone.best_index, alone.model, alone.size) == (1, 0, "lite", (60, 90))
        assert alone.scores == counted.scores[index]
        assert np.array_equal(alone.logits[0], counted.logits[index])
        assert np.array_equal(alone.upscale(0), counted.upscale.bits[index])
        assert np.array_equal(alone.best, counted.upscale.bits[index])
        assert alone.best is counted.mask(index)
        assert alone.nbytes == alone.scores.nbytes + alone.logits.nbytes + alone.best.nbytes
        assert alone.boxes.tolist() == [counted.boxes[index].tolist()]


@pytest.mark.parametrize("way", ["mask", "only"])
@pytest.mark.parametrize("index", [3, -4])
def test_there_is_no_such_mask(counted, way, index):
    with pytest.raises(IndexError, match=f"no mask {index}: there are 3, counted from 0"):
        getattr(counted, way)(index)
    assert counted.upscale.upscaled == []


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda masks: pickle.loads(pickle.dumps(masks))])
@pytest.mark.parametrize("look", [None, *LOOKS])
def test_a_copy_has_the_same_masks(counted, copied, look):
    if look:
        LOOKS[look](counted)
    again, alone = copied(counted), copied(counted.only(2))
    assert repr(again) == repr(counted)
    assert np.array_equal(again.logits, counted.logits)
    assert np.array_equal(again.bits, counted.bits)
    assert not np.shares_memory(again.best, counted.best)
    assert np.array_equal(alone.best, counted.mask(2))
    assert np.array_equal(alone.logits, counted.logits[[2]])
    assert sorted(set(again.upscale.upscaled)) == sorted(again.upscale.upscaled)


def test_a_copy_of_the_model_s_masks(lite, photo):
    masks = lite.decode(lite.encode(photo), Prompt(points=[(170, 110)]))
    fresh = pickle.loads(pickle.dumps(masks))
    assert np.array_equal(fresh.bits, masks.bits)
    assert np.array_equal(copy.deepcopy(masks.only(1)).best, masks.mask(1))


def test_threads_get_the_same_array(blob):
    """Both upscale at once, and go on with one result."""
    both = threading.Barrier(2, timeout=10)

    def upscale(index):
        both.wait()
        return blob.copy()

    masks = Masks(np.float32([1]), np.zeros((1, 8, 8), np.float32), "lite", blob.shape, upscale)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: masks.best, range(2))
    assert first is second


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


def test_a_bounding_box_is_of_plain_integers(blob):
    assert [type(side) for side in bounding_box(blob)] == [int] * 4


def test_a_segment_s_second_argument_is_its_class_if_there_is_no_third(blob):
    assert Segment(blob, "car").category == Segment(blob, "car", score=0.5).category == "car"
    wheel = Segment(blob, "front wheel", "wheel", 0.5)
    assert (wheel.name, wheel.category, wheel.score) == ("front wheel", "wheel", 0.5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (("",), "name: expected text"),
        ((7,), "name: expected text, as in .* got 7"),
        (("a", 0.5), "category: .* got 0.5"),
    ],
)
def test_a_segment_s_name_and_class_are_text(blob, fields, message):
    with pytest.raises(ValueError, match=message):
        Segment(blob, *fields)
