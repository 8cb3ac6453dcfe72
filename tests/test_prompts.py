import json

import numpy as np
import pytest

from sam_nb.article import ARTICLE_PROMPTS
from sam_nb.prompts import Prompt


def test_fields_are_arrays_of_fixed_type():
    logits = -np.ones((8, 8))
    prompt = Prompt(points=[(20, 35), (18, 36)], labels=[1, 0], box=(4, 16, 101, 50), mask_input=logits)
    assert prompt.points.tolist() == [[20, 35], [18, 36]]
    assert prompt.labels.tolist() == [1, 0]
    assert prompt.box.tolist() == [4, 16, 101, 50]
    assert prompt.mask_input.shape == (1, 8, 8)
    types = (prompt.points.dtype, prompt.labels.dtype, prompt.box.dtype, prompt.mask_input.dtype)
    assert types == (np.float64, np.int64, np.float64, np.float32)


def test_labels_default_to_foreground_and_a_lone_point_needs_no_list():
    assert Prompt(points=[(1, 2), (3, 4)]).labels.tolist() == [1, 1]
    assert Prompt(points=(1, 2)).points.tolist() == [[1, 2]]


def test_a_prompt_does_not_change():
    own = np.array([[1.0, 2.0]])
    prompt = Prompt(points=own)
    own[0, 0] = 99
    assert prompt.points[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        prompt.points[0, 0] = 5
    with pytest.raises(AttributeError):
        prompt.box = (0, 0, 1, 1)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "an empty prompt: give points"),
        ({"labels": [1]}, "1 labels but no points"),
        ({"points": [(1, 2)], "labels": [1, 0]}, "1 points but 2 labels"),
        ({"points": [(1, 2)], "labels": [2]}, r"expected 1 \(on the object\) or 0 \(off it\), got \[2\]"),
        ({"points": [(1, 2)], "labels": [-1]}, r"got \[-1\]"),
        ({"points": [(1, 2, 3)]}, r"expected Nx2.*got the shape \(1, 3\)"),
        ({"points": []}, "expected Nx2"),
        ({"points": [(1, np.nan)]}, "points: expected finite numbers, got NaN or infinity"),
        ({"points": "here"}, "expected numbers"),
        ({"points": [(1, 2), (3,)]}, "expected numbers"),
        ({"box": (50, 10, 20, 40)}, r"reversed: expected .* that is \[20.0, 10.0, 50.0, 40.0\]"),
        ({"box": (10, 10, 10, 40)}, "no area"),
        ({"box": (10, 10, 20)}, r"expected four numbers.*got the shape \(3,\)"),
        ({"box": [(1, 2, 3, 4), (1, 2, 3, 4)]}, "decode_batch"),
        ({"box": (0, 0, np.inf, 5)}, "box: expected finite numbers, got NaN or infinity"),
        ({"mask_input": np.ones((256, 256), bool)}, "expected low-res logits"),
        ({"mask_input": np.ones((256, 256))}, "expected low-res logits"),
        ({"mask_input": np.full((3, 256, 256), 0.5)}, "logits of one mask.*choose one"),
        ({"mask_input": np.full((256, 256), np.nan)}, "NaN"),
    ],
)
def test_an_invalid_prompt_is_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        Prompt(**fields)


def test_a_prompt_far_outside_the_image_is_refused():
    Prompt(points=[(1280 + 100, 5)]).check_inside(720, 1280)  # up to a tenth of the side is allowed
    with pytest.raises(ValueError, match=r"point \(1500, 5\) lies far outside the image, which is 1280 wide and 720"):
        Prompt(points=[(1500, 5)]).check_inside(720, 1280)
    with pytest.raises(ValueError, match="are x and y swapped"):
        Prompt(points=[(300, 1100)]).check_inside(720, 1280)
    with pytest.raises(ValueError, match=r"box corner \(2000, 90\)"):
        Prompt(box=(0, 0, 2000, 90)).check_inside(720, 1280)


def test_json_both_ways():
    logits = np.random.default_rng(0).normal(size=(1, 256, 256)).astype(np.float32)
    prompts = [
        Prompt(points=[(500.25, 375), (1 / 3, 0.1)], labels=[1, 0]),
        ARTICLE_PROMPTS["box"][1],
        Prompt(points=[(1, 2)], box=(0, 1, 2, 3), mask_input=logits),
    ]
    for prompt in prompts:
        text = prompt.to_json()
        again = Prompt.from_json(text)
        assert again.to_json() == text
        for field in ("points", "labels", "box", "mask_input"):
            before, after = getattr(prompt, field), getattr(again, field)
            assert (before is None and after is None) or np.array_equal(before, after)
    assert set(json.loads(prompts[1].to_json())) == {"box"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ("[1, 2]", "expected a JSON object"),
        ('{"pionts": [[1, 2]]}', "fields among points, labels, box, mask_input, got .'pionts'"),
        ("{}", "an empty prompt"),
        ('{"box": [9, 9, 1, 1]}', "reversed"),
        ('{"mask_input": {"shape": [1, 8, 8], "float32": "AAAA"}}', "mask_input is damaged"),
    ],
)
def test_bad_json(text, words):
    with pytest.raises(ValueError, match=words):
        Prompt.from_json(text)


def test_repr_is_short():
    prompt = Prompt(points=[(1, 2)], box=(0, 1, 2, 3), mask_input=-np.ones((256, 256)))
    assert repr(prompt) == "Prompt(points=[[1.0, 2.0]], labels=[1], box=[0.0, 1.0, 2.0, 3.0], mask_input=1x256x256)"
