import copy
import io
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from sam_nb.masks import Masks, Segment, as_labels, as_mask, bounding_box, iou
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
        (np.zeros((4, 5)), np.full((4, 5), -0.3), "ground_truth: expected True and False.*`> 0`"),
        (np.zeros((4, 5)), "mask.png", r"ground_truth: expected one mask.*load_mask\('mask.png'\) reads a file"),
    ],
)
def test_iou_refuses(mask, ground_truth, words):
    with pytest.raises(ValueError, match=words):
        iou(mask, ground_truth)


def test_as_mask_takes_a_torch_tensor(blob):
    import torch

    assert np.array_equal(as_mask(torch.from_numpy(blob)), blob)
    assert np.array_equal(as_mask(torch.from_numpy(blob * 0.9).requires_grad_()), blob)


def through(mask, kind, **how):
    """Return a mask as it comes back from a file of another program."""
    file = io.BytesIO()
    Image.fromarray(np.asarray(mask)).save(file, kind, **how)
    return np.asarray(Image.open(file))


def colours(mask, inside, outside=(0, 0, 0)):
    return np.where(mask[..., None], np.uint8(inside), np.uint8(outside))


FORMS = {
    "bool": lambda mask: mask,
    "0 and 1": lambda mask: mask.astype(np.int64),
    "0 and 1 as floats": lambda mask: mask.astype(np.float32),
    "0 and 255": lambda mask: mask * np.uint8(255),
    "0 and 255 as floats": lambda mask: mask * 255.0,
    "0 and 65535": lambda mask: mask * np.uint16(65535),
    "one label": lambda mask: mask * 7,
    "probabilities": lambda mask: np.where(mask, 0.9, 0.2),
    "few probabilities": lambda mask: np.where(mask, 0.6, 0),
    "lists": lambda mask: mask.tolist(),
    "1xHxW": lambda mask: mask[None],
    "HxWx1": lambda mask: mask[..., None] * np.uint8(255),
    "JPEG": lambda mask: through(mask * np.uint8(255), "JPEG", quality=75),
    "poor JPEG": lambda mask: through(mask * np.uint8(255), "JPEG", quality=40),
    "good JPEG": lambda mask: through(mask * np.uint8(255), "JPEG", quality=95),
    "JPEG as integers": lambda mask: through(mask * np.uint8(255), "JPEG").astype(np.int64),
    "RGB": lambda mask: colours(mask, (255, 255, 255)),
    "RGB JPEG": lambda mask: through(colours(mask, (255, 255, 255)), "JPEG"),
    "a red mask": lambda mask: colours(mask, (128, 0, 0)),
    "opaque RGBA": lambda mask: colours(mask, (255, 255, 255, 255), (0, 0, 0, 255)),
    "transparent RGBA": lambda mask: colours(mask, (20, 90, 200, 255), (255, 255, 255, 0)),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_mask_is_understood_in_every_form(blob, form):
    for mask in (blob, ~blob):
        found = as_mask(FORMS[form](mask))
        assert found.dtype == bool
        np.testing.assert_array_equal(found, mask)
        assert iou(FORMS[form](mask), mask) == iou(mask, FORMS[form](mask)) == 1
        assert bounding_box(FORMS[form](mask)) == bounding_box(mask)


@pytest.mark.parametrize("form", [form for form in FORMS if form not in ("one label", "poor JPEG")])
def test_all_and_nothing_are_masks_in_every_form(form):
    for mask in (np.zeros((16, 24), bool), np.ones((16, 24), bool)):
        if mask.all() and form == "transparent RGBA":
            continue  # opaque, and of one colour
        np.testing.assert_array_equal(as_mask(FORMS[form](mask)), mask)


def labels_of(blob, *numbers):
    """Return a map of labels: stripes over the blob, and the last number around it."""
    labels = np.array(numbers[:-1])[np.arange(blob.shape[1]) // 3 % (len(numbers) - 1)] * blob
    return np.where(np.roll(blob, 3, axis=0) & ~blob, numbers[-1], labels)


class Fails:
    """An array that cannot be made, with an error of its own."""

    def __array__(self, *args, **options):
        raise KeyError("no array")


NOT_ONE_MASK = {
    "labels": (lambda blob: labels_of(blob, 1, 2, 3, 4), r"got 5 values.*labels == 4 .*labels > 0"),
    "VOC's border": (lambda blob: labels_of(blob, 1, 15, 255), r"got 4 values, 0, 1, 15, 255; .*borders to ignore"),
    "VOC as uint8": (lambda blob: labels_of(blob, 3, 255).astype(np.uint8), "borders to ignore"),
    "all labels": (lambda blob: (np.arange(blob.size) % 256).reshape(blob.shape), r"got 256 values, 0, 1, 2, 3 \.\.\."),
    "one label everywhere": (lambda blob: np.full(blob.shape, 7), r"got one value, 7, everywhere"),
    "two grey values": (lambda blob: labels_of(blob, 50, 250).astype(np.uint8), r"got 3 values, 0, 50, 250"),
    "-1": (lambda blob: np.where(blob, 1, -1), r"got -1, 1; what is to be ignored, such as -1, is background"),
    "logits": (lambda blob: np.where(blob, 4.5, -3.5), "logits become a mask by `> 0`"),
    "NaN": (lambda blob: np.where(blob, 1, np.nan), "NaN"),
    "a photograph": (lambda blob: np.random.default_rng(0).integers(0, 256, blob.shape, np.uint8), "grey > 127"),
    "in colour": (lambda blob: np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8), "several colours"),
    "three masks": (lambda blob: np.stack([blob] * 3), r"choose one of them, masks.best"),
    "text": (lambda blob: np.full(blob.shape, "a"), "an array of <U1"),
    "nothing": (lambda blob: None, "expected one mask, HxW, got NoneType"),
    "a dict": (lambda blob: {"size": [9, 9], "counts": "x"}, "expected one mask, HxW, got {'"),
    "an array that fails": (lambda blob: Fails(), r"expected one mask, HxW, got <.*Fails"),
    "a tensor without values": (lambda blob: torch.ones(3, 4, device="meta"), "expected one mask, HxW, got tensor"),
    "complex": (lambda blob: np.full(blob.shape, 1j), "expected one mask, HxW, got an array of complex128"),
    "too much for float16": (lambda blob: np.full((3, 4), -np.inf, np.float16), "got NaN or infinite values"),
    "ragged": (
        lambda blob: [[1, 0], [1]],
        r"expected one mask, HxW, got \[\[1, 0\], \[1\]\]; item 1 has 1 value and item 0 has 2: give each as many$",
    ),
}


@pytest.mark.parametrize("case", NOT_ONE_MASK)
def test_what_is_not_one_mask_is_refused(blob, case):
    make, words = NOT_ONE_MASK[case]
    with pytest.raises(ValueError, match=f"ground_truth: .*{words}"):
        iou(blob, make(blob))


def test_masks_are_chosen_from_first(masks, blob):
    with pytest.raises(ValueError, match=r"got 3; choose one, masks.best or masks.mask\(0\)"):
        iou(masks, blob)


def test_labels_are_integers_or_one_mask(blob):
    labels = labels_of(blob, 3, 7, 255)
    for same in (labels, labels.astype(np.uint8), labels.astype(float)):
        found = as_labels(same)
        assert found.dtype.kind in "iu"
        np.testing.assert_array_equal(found, labels)
    for form in ("bool", "JPEG", "RGB JPEG", "poor JPEG", "a red mask", "transparent RGBA"):
        np.testing.assert_array_equal(as_labels(FORMS[form](blob)), blob)
    for wrong, words in (
        (np.where(blob, 2, -1), r"labels: expected integers from 0, got -1, 2; what is to be ignored, such as -1"),
        (blob * 0.9, "expected a mask of bool, or of integers .* `> 0.5`"),
        (np.where(blob, 1, np.nan), "NaN"),
    ):
        with pytest.raises(ValueError, match=words):
            as_labels(wrong)


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


@pytest.mark.parametrize("value", [1e300, 2.0**63, np.inf, np.nan, -1])
def test_labels_are_numbers_that_integers_can_hold(value):
    with pytest.raises(ValueError, match="labels: expected integers from 0, got"):
        as_labels(np.array([[0, 1, 2, value]]))
    np.testing.assert_array_equal(as_labels(np.array([[0.0, 1, 2, 2**53]])), [[0, 1, 2, 2**53]])
