"""The simulated user against SciPy's distances, a model of discs, and `SamPredictor` by hand."""

from itertools import islice, pairwise

import numpy as np
import pytest
from discs import Discs
from scipy import ndimage

from sam_nb import Prompt, iou, load_ground_truth
from sam_nb.clicks import click_curve, click_on, innermost, next_click

HEIGHT, WIDTH = 60, 90


def ellipses(seed):
    """Return a few ellipses at random, over the edge of the image too, HxW bool."""
    rng = np.random.default_rng(seed)
    ys, xs = np.mgrid[:HEIGHT, :WIDTH]
    mask = np.zeros((HEIGHT, WIDTH), bool)
    for _ in range(rng.integers(1, 5)):
        x, y, a, b = rng.uniform((0, 0, 2, 2), (WIDTH, HEIGHT, 25, 15))
        mask |= ((xs - x) / a) ** 2 + ((ys - y) / b) ** 2 < 1
    return mask


@pytest.mark.parametrize("seed", range(20))
def test_the_next_click_is_the_innermost_pixel_of_the_largest_error(seed):
    mask, ground_truth = ellipses(seed), ellipses(seed + 100)
    (x, y), label = next_click(mask, ground_truth)
    assert label == ground_truth[int(y), int(x)]
    regions, count = ndimage.label(mask != ground_truth)  # 4-connected by default
    sizes = ndimage.sum_labels(mask != ground_truth, regions, range(1, count + 1))
    largest = regions == 1 + sizes.argmax()
    assert largest[int(y), int(x)]
    depth = ndimage.distance_transform_edt(np.pad(largest, 1))[1:-1, 1:-1]
    assert depth[int(y), int(x)] >= 0.95 * depth.max()  # OpenCV's distances are nearly exact


def test_the_first_click_is_in_the_middle(blob):
    (x, y), label = next_click(np.zeros_like(blob), blob)
    assert label == 1
    assert np.hypot(x - 25, y - 40) <= 3
    assert np.hypot(*np.subtract(innermost(blob), (25, 40))) <= 3


def test_beyond_the_image_is_outside():
    ground_truth = np.zeros((HEIGHT, WIDTH), bool)
    ground_truth[:20, 30:] = True
    (x, y), _ = next_click(np.zeros_like(ground_truth), ground_truth)
    assert 9 <= y <= 10
    assert 39 <= x <= 80


def test_regions_that_touch_at_a_corner_are_two_errors():
    ground_truth = np.zeros((HEIGHT, WIDTH), bool)
    ground_truth[10:16, 10:16] = ground_truth[16:22, 16:22] = True  # 36 pixels each, 72 together
    ground_truth[30:37, 50:59] = True  # 63
    (x, y), _ = next_click(np.zeros_like(ground_truth), ground_truth)
    assert 50 <= x < 59
    assert 30 <= y < 37


def test_nothing_to_correct(blob):
    assert next_click(blob, blob) is None
    with pytest.raises(ValueError, match=r"differ in size: \(60, 90\) and \(90, 60\)"):
        next_click(blob, blob.T)
    with pytest.raises(ValueError, match="the ground truth is empty"):
        next(click_on(Discs(HEIGHT, WIDTH), "encoded", np.zeros_like(blob)))


def test_each_prompt_has_one_more_click(blob):
    model = Discs(HEIGHT, WIDTH, radius=8, hole=3)
    prompts = [prompt for prompt, _ in islice(click_on(model, "encoded", blob), 4)]
    assert [len(prompt.points) for prompt in prompts] == [1, 2, 3, 4]
    for before, after in pairwise(prompts):
        assert np.array_equal(after.points[:-1], before.points)
        assert np.array_equal(after.labels[:-1], before.labels)
    assert [prompt.mask_input is None for prompt in prompts] == [True, False, False, False]
    without = [prompt for prompt, _ in islice(click_on(model, "encoded", blob, feedback=False), 4)]
    assert all(prompt.mask_input is None for prompt in without)
    assert all(
        blob[int(y), int(x)] == label for (x, y), label in zip(prompts[-1].points, prompts[-1].labels, strict=True)
    )


def test_the_first_prompt_stays_part_of_the_later_ones(blob):
    start = Prompt(box=(8, 30, 42, 52), points=[(25, 40)])
    model = Discs(HEIGHT, WIDTH, radius=2, hole=3)
    prompts = [prompt for prompt, _ in islice(click_on(model, "encoded", blob, start), 3)]
    assert prompts[0] is start
    assert all(np.array_equal(prompt.box, start.box) for prompt in prompts)
    assert [prompt.labels.tolist() for prompt in prompts] == [[1], [1, 0], [1, 0, 0]]  # the box covers too much


def test_a_user_with_nothing_to_correct_stops():
    model = Discs(HEIGHT, WIDTH, radius=10)
    ground_truth = np.hypot(model.xs - 60, model.ys - 20) < 10
    assert len(list(click_on(model, "encoded", ground_truth))) == 1
    assert click_curve(model, "encoded", ground_truth, rounds=3).tolist() == [1, 1, 1]


def test_the_curve_is_what_sam_predictor_gives(lite, photo):
    """The loop of the literature, written out with `segment_anything`'s own calls."""
    ground_truth = load_ground_truth("cat")["left_eye"]
    embedding = lite.encode(photo)
    predictor = lite.predictor(embedding)
    for feedback in (True, False):
        points, labels, mask, logits, expected = [], [], np.zeros_like(ground_truth), None, []
        for _ in range(3):
            point, label = next_click(mask, ground_truth)
            points.append(point)
            labels.append(label)
            masks, scores, low = predictor.predict(
                np.array(points), np.array(labels), mask_input=logits, multimask_output=len(points) == 1
            )
            mask = masks[scores.argmax()]
            logits = low[[scores.argmax()]] if feedback else None
            expected.append(iou(mask, ground_truth))
        np.testing.assert_allclose(click_curve(lite, embedding, ground_truth, rounds=3, feedback=feedback), expected)


def test_an_empty_region_has_no_innermost_pixel():
    with pytest.raises(ValueError, match="region: expected a mask that is not empty"):
        innermost(np.zeros((5, 6), bool))
    inside = np.zeros((5, 5), np.uint8)
    inside[1:4, 1:4] = 255
    assert innermost(inside) == (2, 2)


@pytest.mark.parametrize("rounds", [0, -1, 1.5, None])
def test_a_number_of_rounds_is_an_integer(lite, rounds):
    with pytest.raises(ValueError, match="rounds: expected an integer, 1 or more"):
        click_curve(lite, None, np.ones((3, 3), bool), rounds=rounds)
