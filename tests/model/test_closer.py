"""A closer look at a small object: the right crop, the same prompt in it, and a mask of the whole image."""

import pickle

import numpy as np
import pytest

from sam_nb import Masks, Prompt, bounding_box, iou, load_ground_truth, load_image, look_closer
from sam_nb.model.sam import fitted_size

HEIGHT, WIDTH = 200, 250
CENTRE, RADII = (190, 60), (12, 7)
BOX = (178, 53, 202, 67)
GRID = 256


def ellipse(x, y):
    """Return logits of the ellipse, above 0 within it."""
    return 10 - 10 * np.hypot((x - CENTRE[0]) / RADII[0], (y - CENTRE[1]) / RADII[1]).astype(np.float32)


def where(image):
    """Return the pixel at which a crop of `IMAGE` begins, and the crop's sides: its colours are its coordinates."""
    return *image[0, 0, :2].astype(int).tolist(), *image.shape[:2]


def low_res(x0, y0, height, width):
    """Return the ellipse's logits as a model gives them of a crop: 256x256 of the padded square."""
    step = max(height, width) / GRID
    y, x = (np.indices((GRID, GRID)) + 0.5) * step
    return ellipse(x0 + x, y0 + y)


class KnowsEllipse:
    """Has the methods of `Sam`; sees coordinates in the colours, so it segments the ellipse in every crop exactly."""

    side = 512

    def __init__(self):
        self.looks = []

    def encode(self, image):
        return image

    def decode(self, image, prompt):
        x0, y0, height, width = where(image)
        self.looks.append((prompt, (x0, y0, height, width)))
        y, x = np.indices((height, width)) + 0.5
        full = ellipse(x0 + x, y0 + y)
        logits = low_res(x0, y0, height, width)
        return Masks(np.ones(1, np.float32), logits[None], "knows", (height, width), lambda _: full)


@pytest.fixture
def image():
    y, x = np.indices((HEIGHT, WIDTH))
    return np.stack([x, y, 0 * x], axis=2).astype(np.uint8)


@pytest.fixture
def true_mask():
    y, x = np.indices((HEIGHT, WIDTH)) + 0.5
    return ellipse(x, y) > 0


def test_the_crop_is_the_box_with_half_its_length_all_around(image):
    sam = KnowsEllipse()
    look_closer(sam, image, Prompt(box=BOX))
    # The longer side is 24 pixels: a square of 48, which is less than the least crop of 64.
    assert [place for _, place in sam.looks] == [(0, 0, HEIGHT, WIDTH), (158, 28, 64, 64)]
    look_closer(sam, image, Prompt(box=(150, 50, 200, 70)))
    assert sam.looks[-1][1] == (125, 10, 100, 100)


def test_the_prompt_means_the_same_place_in_the_crop(image):
    sam = KnowsEllipse()
    prompt = Prompt(points=[CENTRE, (170.5, 61), (20, 30)], labels=[1, 0, 0], box=BOX)
    look_closer(sam, image, prompt)
    again, (x0, y0, *_) = sam.looks[1]
    assert np.array_equal(np.add(again.box, [x0, y0, x0, y0]), BOX)
    assert np.array_equal(np.add(again.points, [x0, y0]), [CENTRE, (170.5, 61)])  # the third lies outside
    assert again.labels.tolist() == [1, 0]


def test_the_first_look_s_logits_lie_in_the_crop_where_the_object_is(image):
    sam = KnowsEllipse()
    look_closer(sam, image, Prompt(box=(150, 0, 200, 40), points=[CENTRE]))
    again, place = sam.looks[1]
    assert place[2] != place[3]  # cut off at the top
    rows, columns = fitted_size(*place[2:], GRID)
    given, expected = again.mask_input[0], low_res(*place)
    inside = (slice(2, rows - 2), slice(2, columns - 2))
    assert np.abs(given[inside] - expected[inside]).max() < 0.5  # interpolated; a shift by a cell of 0.4 pixels: 0.6
    assert (given[rows:] < 0).all()
    assert (given[:, columns:] < 0).all()


def test_the_mask_is_one_of_the_whole_image(image, true_mask):
    masks = look_closer(KnowsEllipse(), image, Prompt(box=BOX))
    assert np.array_equal(masks.best, true_mask)
    assert masks.size == (HEIGHT, WIDTH)
    assert len(masks) == 1
    assert masks.model == "knows"


def test_its_logits_are_those_of_the_whole_image(image):
    masks = look_closer(KnowsEllipse(), image, Prompt(box=BOX))
    expected = low_res(0, 0, HEIGHT, WIDTH)
    near = np.abs(expected) < 5  # the tip of the cone is averaged
    assert np.abs(masks.logits[0] - expected)[near].max() < 0.2
    assert np.abs(masks.logits[0] - np.roll(expected, 1, axis=1))[near].max() > 0.6  # so a shift would be seen
    assert (masks.logits[0][:, :100] < -5).all()


def test_outside_the_crop_nothing_is_left_of_the_first_look(image, true_mask):
    """Looking at the whole, a model may take a far thing that looks alike for a part of a small one."""

    class FindsAllAtFirst(KnowsEllipse):
        def decode(self, image, prompt):
            known = super().decode(image, prompt)
            everything = np.full(known.size, 9, np.float32)
            if len(self.looks) > 1:
                return known
            return Masks(known.scores, known.logits, known.model, known.size, lambda _: everything)

    masks = look_closer(FindsAllAtFirst(), image, Prompt(box=(216, 50, 236, 70)))
    crop = np.zeros_like(true_mask)
    crop[28:92, 194:] = True  # cuts the ellipse in two
    assert np.array_equal(masks.best, true_mask & crop)
    assert masks.best.any()


@pytest.mark.parametrize(
    ("prompt", "seen"),
    [
        (Prompt(points=[CENTRE]), CENTRE),
        (Prompt(points=[(247, 3)]), (247, 3)),
        (Prompt(points=[(-3, 198)]), (0, 198)),  # slipped over the edge
        (Prompt(points=[(10, 10)], labels=[0]), CENTRE),
    ],
)
def test_without_a_box_the_crop_holds_the_mask_and_the_clicks(image, true_mask, prompt, seen):
    sam = KnowsEllipse()
    masks = look_closer(sam, image, prompt)
    assert np.array_equal(masks.best, true_mask)
    if len(sam.looks) == 2:
        again, (x0, y0, height, width) = sam.looks[1]
        for x, y in (CENTRE, seen):
            assert x0 <= x <= x0 + width
            assert y0 <= y <= y0 + height
        assert np.array_equal(np.add(again.box, [x0, y0, x0, y0]), bounding_box(true_mask))
        if again.points is not None:
            assert np.array_equal(np.add(again.points[0], [x0, y0]), seen)


def test_a_large_object_is_not_looked_at_again(image):
    sam = KnowsEllipse()
    masks = look_closer(sam, image, Prompt(box=(20, 20, 120, 90)))
    assert len(sam.looks) == 1
    assert np.array_equal(masks.logits[0], low_res(0, 0, HEIGHT, WIDTH))


def test_nothing_found_is_nothing_to_look_at(image):
    off = np.full((HEIGHT, WIDTH), -9, np.float32)
    empty = Masks(np.zeros(1, np.float32), np.full((1, GRID, GRID), -9, np.float32), "knows", off.shape, lambda _: off)
    sam = KnowsEllipse()
    masks = look_closer(sam, image, Prompt(points=[(10, 10)], labels=[0]), empty)
    assert not sam.looks
    assert not masks.best.any()


def test_a_first_look_that_is_there_is_not_made_again(image):
    sam = KnowsEllipse()
    prompt = Prompt(points=[CENTRE])
    first = sam.decode(image, prompt)
    several = Masks(
        np.array([0.2, 0.9], np.float32),
        np.stack([first.logits[0], first.logits[0] + 3]),
        "knows",
        first.size,
        lambda index: first.upscale(0) + 3 * index,
    )
    for chosen in (several, several.only(0)):
        look_closer(sam, image, prompt, chosen)
    assert len(sam.looks) == 3
    tips = [look.mask_input.max() for look, _ in sam.looks[1:]]
    assert tips[0] > tips[1] + 2.5  # the highest-scoring mask; then the one that was chosen


def test_masks_of_another_image_are_refused(image):
    sam = KnowsEllipse()
    first = sam.decode(image, Prompt(box=BOX))
    with pytest.raises(ValueError, match="249 wide and 200 high, got masks of one that is 250 wide"):
        look_closer(sam, image[:, :-1], Prompt(box=BOX), first)
    with pytest.raises(ValueError, match="far outside the image"):
        look_closer(sam, image, Prompt(box=(1780, 53, 2020, 67)), first)


def test_lite_draws_small_things_better(lite):
    image, ground_truth = load_image("coins"), load_ground_truth("coins")
    prompts = [Prompt(box=bounding_box(mask)) for mask in ground_truth.values()]
    far = lite.decode_batch(lite.encode(image), prompts)
    near = [look_closer(lite, image, prompt) for prompt in prompts]
    before, after = (
        np.array([iou(masks.best, true_mask) for masks, true_mask in zip(looks, ground_truth.values(), strict=True)])
        for looks in (far, near)
    )
    assert after.mean() > before.mean() + 0.015
    assert np.mean(after > before) > 0.8
    street, window = load_image("street"), load_ground_truth("street")["small_window"]
    prompt = Prompt(box=(720, 209, 772, 258))
    first = lite.decode(lite.encode(street), prompt)
    second = look_closer(lite, street, prompt)
    assert iou(second.best, window) > iou(first.best, window) + 0.05
    assert np.array_equal(pickle.loads(pickle.dumps(second)).best, second.best)
