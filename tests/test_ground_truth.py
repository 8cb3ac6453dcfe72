"""The masks of the ground truth cover what they are named after, in the sample images."""

import numpy as np
import pytest
from scipy import ndimage

from sam_nb.article import ARTICLE_PROMPTS
from sam_nb.ground_truth import load_ground_truth
from sam_nb.images import SAMPLES, load_image


def test_street_has_the_article_s_size_and_objects():
    image, ground_truth = load_image("street"), load_ground_truth("street")
    assert image.shape[0] >= 512
    assert image.shape[1] >= 1024
    assert set(ground_truth) == {"car", "front_wheel", "tyre", "hub", "rear_wheel", "small_window"}
    assert all(mask.shape == image.shape[:2] and mask.dtype == bool for mask in ground_truth.values())
    assert np.array_equal(ground_truth["front_wheel"], ground_truth["tyre"] | ground_truth["hub"])
    assert not (ground_truth["tyre"] & ground_truth["hub"]).any()
    for part in ("front_wheel", "rear_wheel", "small_window"):
        assert not (ground_truth[part] & ~ground_truth["car"]).any()


def test_the_article_s_prompts_mean_the_same_on_street():
    ground_truth = load_ground_truth("street")
    assert {name for name, _ in ARTICLE_PROMPTS.values()} <= set(ground_truth)
    for title in ("point", "two points"):
        name, prompt = ARTICLE_PROMPTS[title]
        for x, y in prompt.points.astype(int):
            assert ground_truth[name][y, x]
            assert not ground_truth["front_wheel"][y, x]
    _, ring = ARTICLE_PROMPTS["box and negative point: ring without hub"]
    ((x, y),) = ring.points.astype(int)
    assert ground_truth["hub"][y, x]
    boxes = {
        "car": ARTICLE_PROMPTS["box"][1].box,
        "front_wheel": ring.box,
        "rear_wheel": ARTICLE_PROMPTS["second of three boxes"][1].box,
        "small_window": ARTICLE_PROMPTS["third of three boxes"][1].box,
    }
    for name, box in boxes.items():
        y, x = np.nonzero(ground_truth[name])
        got = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1])
        assert np.abs(got - box).max() <= 20, (name, got)


# The box of each in its photograph, checked one by one: (x0, y0, x1, y1).
BOXES = {
    "astronaut": {
        "mission_patch": (133, 349, 208, 424),
        "name_tag": (279, 340, 329, 377),
        "head": (153, 17, 302, 190),
        "person": (22, 16, 363, 512),
    },
    "cat": {"left_eye": (136, 85, 204, 144), "nose": (239, 226, 293, 267), "cat": (0, 0, 400, 300)},
    "coffee": {"cup": (172, 17, 410, 309), "cup_on_saucer": (76, 17, 481, 392), "coffee": (204, 95, 371, 195)},
    "rocket": {"rocket": (311, 125, 335, 406)},
}


@pytest.mark.parametrize("sample", BOXES)
def test_outlines_lie_where_the_objects_are(sample):
    image, ground_truth = load_image(sample), load_ground_truth(sample)
    assert set(ground_truth) == set(BOXES[sample])
    for name, mask in ground_truth.items():
        assert mask.dtype == bool
        assert mask.shape == image.shape[:2]
        y, x = np.nonzero(mask)
        assert np.abs(np.subtract((x.min(), y.min(), x.max() + 1, y.max() + 1), BOXES[sample][name])).max() <= 3, name


@pytest.mark.parametrize(
    ("sample", "part", "whole"),
    [
        ("astronaut", "head", "person"),
        ("astronaut", "mission_patch", "person"),
        ("astronaut", "name_tag", "person"),
        ("cat", "left_eye", "cat"),
        ("cat", "nose", "cat"),
        ("coffee", "coffee", "cup"),
        ("coffee", "cup", "cup_on_saucer"),
    ],
)
def test_a_part_lies_in_its_whole(sample, part, whole):
    ground_truth = load_ground_truth(sample)
    assert np.count_nonzero(ground_truth[part] & ground_truth[whole]) > 0.9 * np.count_nonzero(ground_truth[part])
    assert np.count_nonzero(ground_truth[part]) < np.count_nonzero(ground_truth[whole])


def test_coins_lie_in_four_rows_of_six():
    ground_truth = load_ground_truth("coins")
    assert list(ground_truth) == [f"coin_{number}" for number in range(1, 25)]
    masks = np.array(list(ground_truth.values()))
    assert masks.shape == (24, *load_image("coins").shape[:2])
    assert masks.sum(axis=0).max() == 1, "no coin lies on another"
    y, x = np.array([ndimage.center_of_mass(mask) for mask in masks]).reshape(4, 6, 2).transpose(2, 0, 1)
    assert (np.diff(x, axis=1) > 30).all()
    assert (np.diff(y.mean(axis=1)) > 40).all()
    for mask in masks:
        rows, columns = (side.stop - side.start for side in ndimage.find_objects(mask.astype(int))[0])
        assert abs(np.count_nonzero(mask) / (rows * columns) - np.pi / 4) < 0.05, "a coin is round"


@pytest.mark.parametrize("sample", [*BOXES, "coins"])
def test_outlines_run_along_edges_in_the_image(sample):
    """Moved by a few pixels they cross fewer of them."""
    image = load_image(sample).astype(float)
    changes = [ndimage.gaussian_filter(image, (1, 1, 0), order=order) for order in ((1, 0, 0), (0, 1, 0))]
    edges = np.sqrt(np.square(changes).sum(axis=(0, 3)))
    for name, mask in load_ground_truth(sample).items():
        outline = mask & ~ndimage.binary_erosion(mask, border_value=1)
        moved = [np.roll(outline, step, axis=(0, 1)) for step in ((6, 6), (6, -6), (-6, 6), (-6, -6))]
        assert edges[outline].mean() > 1.2 * max(edges[other].mean() for other in moved), name


def test_only_samples_have_ground_truth():
    assert all(load_ground_truth(name) for name in SAMPLES)
    with pytest.raises(
        ValueError, match="no ground truth masks for 'dog': expected a sample, one of street, astronaut, cat"
    ):
        load_ground_truth("dog")
