import copy
import json
import pickle
import warnings
from decimal import Decimal
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch

from sam_nb.article import ARTICLE_PROMPTS
from sam_nb.prompts import Prompt, checked_integer, checked_number, warn_if_unlikely


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


class Fails:
    """An array that cannot be made, with an error of its own."""

    def __array__(self, *args, **options):
        raise KeyError("no array")


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
        ({"mask_input": np.full((256, 256), 1e300)}, "NaN or infinite"),
        ({"mask_input": [[1.5, -2], [3]]}, "mask_input: expected low-res logits"),
        ({"points": [(10**400, 1)]}, "points: expected numbers"),
        ({"points": torch.ones(1, 2, device="meta")}, r"points: expected numbers, \[\(x, y\), \.\.\.\], got tensor"),
        ({"points": [(1, 2)], "labels": torch.ones(1, device="meta")}, "labels: expected 1 .* for each point, got"),
        ({"points": [(1, 2)], "labels": [[1], [0, 1]]}, "labels: expected 1 .* for each point, got"),
        ({"points": [(1, 2)], "labels": "yes"}, r"labels: expected 1 .* for each point, got 'yes'"),
        (
            {"points": [(1, 2), (3, 4)], "labels": [[1], [0]]},
            r"one label, .* got the shape \(2, 1\)",
        ),
        ({"points": np.zeros((2, 3, 2))}, r"expected Nx2.*got the shape \(2, 3, 2\)"),
        ({"points": np.zeros((0, 2)), "labels": [1], "box": (1, 2, 3, 4)}, "0 points but 1 labels"),
        ({"points": np.zeros((0, 2)), "labels": []}, "at least one point, got none"),
        ({"labels": []}, "an empty prompt"),
        (
            {"points": [[1, 2], [3]]},
            r"points: expected .* got \[\[1, 2\], \[3\]\]; item 1 has 1 value and item 0 has 2: give each as many$",
        ),
        ({"points": [[1, 2], 3]}, "item 1 has 1 value and item 0 has 2"),
        ({"points": [[1, 2], np.float32(3)]}, "item 1 has 1 value and item 0 has 2"),
        ({"points": [(1, 2)], "labels": [1, [0, 1, 1]]}, "item 1 has 3 values and item 0 has 1: give each as many"),
        ({"box": [[1, 2], [3]]}, r"box: expected four numbers \(x0, y0, x1, y1\), got .* item 1 has 1 value"),
        ({"box": ["1", "2", "30", "40"]}, r"box: expected four numbers .*, got \['1', '2', '30', '40'\]$"),
        ({"points": np.array([[1 + 2j, 3]])}, "points: expected numbers, .* got an array of complex128$"),
        ({"points": np.array([["2020-01-01", "2020-01-02"]], "M8[D]")}, r"got an array of datetime64\[D\]$"),
        (
            {"points": [(1, 2)], "labels": np.zeros(1, "u1, f4")},
            "labels: expected 1 .* for each point, got an array of",
        ),
        ({"points": [(1, 2)], "labels": Decimal("sNaN")}, "labels: expected 1 .* for each point, got Decimal"),
        ({"points": [Fails()]}, r"points: expected numbers, \[\(x, y\), \.\.\.\], got \[<.*Fails"),
        ({"mask_input": [["a"]]}, r"mask_input: expected low-res logits, 1xhxw or hxw, got \[\['a'\]\]$"),
        ({"mask_input": np.array([[None, "a"]])}, "mask_input: expected low-res logits, .* got array"),
        ({"mask_input": np.zeros((0, 4))}, r"mask_input: expected low-res logits, .* got the shape \(0, 4\)"),
    ],
)
def test_an_invalid_prompt_is_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        Prompt(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"points": "a" * 5000},
        {"points": [[1, 2], ["a" * 5000]]},
        {"points": np.full((64, 2), np.nan)},
        {"box": np.full((64, 64), np.nan)},
        {"points": [(1, 2)], "labels": [7] * 5000},
        {"points": [(10**5000, 2)]},
    ],
)
def test_a_message_shows_at_most_a_line_of_a_value(fields):
    with pytest.raises(ValueError, match="expected") as caught:
        Prompt(**fields)
    assert len(str(caught.value)) < 250
    assert "\n" not in str(caught.value)


def test_a_prompt_far_outside_the_image_is_refused():
    Prompt(points=[(1280 + 100, 5)]).check_inside(720, 1280)  # up to a tenth of the side is allowed
    with pytest.raises(ValueError, match=r"point \(1500, 5\) lies far outside the image, which is 1280 wide and 720"):
        Prompt(points=[(1500, 5)]).check_inside(720, 1280)
    with pytest.raises(ValueError, match="are x and y swapped"):
        Prompt(points=[(300, 1100)]).check_inside(720, 1280)
    with pytest.raises(ValueError, match=r"box corner \(2000, 90\)"):
        Prompt(box=(0, 0, 2000, 90)).check_inside(720, 1280)


@pytest.mark.parametrize("box", [(1290, 10, 1330, 90), (10, 720, 90, 760), (-40, 10, 0, 90), (10, -40, 90, -1)])
def test_a_box_wholly_outside_is_refused_though_it_is_near(box):
    with pytest.raises(ValueError, match=r"box: all of .* lies outside the image, which is 1280 wide and 720 high"):
        Prompt(box=box).check_inside(720, 1280)
    Prompt(box=(-40, -40, 1, 1)).check_inside(720, 1280)
    Prompt(box=(1279, 719, 1330, 760)).check_inside(720, 1280)


def same(one, other):
    fields = ("points", "labels", "box", "mask_input")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in fields)


@pytest.mark.parametrize(
    ("fields", "plain"),
    [
        ({"points": [(1, 1), (2, 2)], "labels": [[1, 0]]}, {"points": [(1, 1), (2, 2)], "labels": [1, 0]}),
        ({"points": [[(1, 1), (2, 2)]], "labels": [[1, 0]]}, {"points": [(1, 1), (2, 2)], "labels": [1, 0]}),
        ({"points": torch.ones(1, 2, requires_grad=True)}, {"points": [(1, 1)]}),
        ({"points": [torch.tensor([1.0, 2.0], requires_grad=True)]}, {"points": [(1, 2)]}),
        ({"points": torch.ones(1, 2, dtype=torch.bfloat16), "labels": torch.tensor([True])}, {"points": [(1, 1)]}),
        ({"points": np.zeros((0, 2)), "labels": np.zeros(0), "box": (1, 1, 9, 9)}, {"box": (1, 1, 9, 9)}),
        ({"points": [], "box": (1, 1, 9, 9)}, {"box": (1, 1, 9, 9)}),
        ({"points": np.zeros((1, 0, 2)), "labels": np.zeros((1, 0)), "box": (1, 1, 9, 9)}, {"box": (1, 1, 9, 9)}),
        ({"labels": [], "box": (1, 1, 9, 9)}, {"box": (1, 1, 9, 9)}),
        ({"box": torch.tensor([[1.0, 1, 9, 9]], requires_grad=True)}, {"box": (1, 1, 9, 9)}),
        ({"points": [(Fraction(1, 2), Decimal("2.5"))]}, {"points": [(0.5, 2.5)]}),
        ({"mask_input": torch.full((1, 1, 8, 8), -2.0, requires_grad=True)}, {"mask_input": np.full((8, 8), -2.0)}),
    ],
)
def test_other_forms_of_a_valid_prompt_are_accepted(fields, plain):
    assert same(Prompt(**fields), Prompt(**plain))


def test_a_copy_and_a_pickled_prompt_are_the_same_and_do_not_change_either():
    prompt = Prompt(points=[(1, 2)], labels=[0], box=(0, 1, 2, 3), mask_input=-np.ones((8, 8)))
    for again in (copy.deepcopy(prompt), pickle.loads(pickle.dumps(prompt))):
        assert same(again, prompt)
        assert not any(array.flags.writeable for array in (again.points, again.labels, again.box, again.mask_input))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"points": [(0.5, 0.5)]}, "if these are shares of its sides, multiply x by 500 and y by 375"),
        ({"points": [(0.5, 0.5), (0, 1)]}, "shares of its sides"),
        ({"box": (0.1, 0.1, 0.9, 0.9)}, "shares of its sides"),
        ({"box": (0, 0, 1, 1)}, "shares of its sides"),
        ({"points": [(0, 0)], "box": (0, 0.25, 0.5, 1)}, "shares of its sides"),
        ({"points": [(250, 187)], "mask_input": np.full((256, 256), 0.4)}, r"if these are probabilities p, give log\("),
    ],
)
def test_a_likely_mistake_gets_a_warning(lite, fields, words):
    embedding = lite.encode(np.full((375, 500, 3), 90, np.uint8))
    with pytest.warns(UserWarning, match=words) as found:
        lite.decode(embedding, Prompt(**fields))
    with pytest.warns(UserWarning, match=words) as found_in_batch:
        lite.decode_batch(embedding, [Prompt(**fields), Prompt(**fields)])
    assert [each.filename for each in (*found, *found_in_batch)] == [__file__, __file__]  # where the mistake is


@pytest.mark.parametrize(
    "prompts",
    [
        [],
        [Prompt(points=[(0, 0)], labels=[0])],
        [Prompt(points=[(1, 1)])],
        [Prompt(points=[(0.5, 0.5), (30, 0.5)])],
        [Prompt(points=[(0.5, 0.5)]), Prompt(points=[(5, 5)])],  # the first cells of a grid on a small image
        [Prompt(points=[(0.5, 0.5)], box=(0, 0, 20, 20))],
        [Prompt(mask_input=np.array([[-0.1, 0.5], [0.9, 1]]))],
    ],
)
def test_what_may_be_meant_gets_no_warning(prompts):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_unlikely(prompts, 375, 500)
        warn_if_unlikely([Prompt(points=[(0.5, 0.5)])], 1, 500)


def test_integers_and_numbers_are_checked_by_name():
    assert checked_integer(np.int16(3), "steps", 1) == 3
    for value in (0, -1, 1.0, True, "3", None, np.nan, [3]):
        with pytest.raises(ValueError, match="steps: expected an integer, 1 or more, got"):
            checked_integer(value, "steps", 1)
    assert checked_number(np.float32(0.5), "lr", above=0) == 0.5
    for value in (0, np.nan, np.inf, 10**400, "0.1", None, [1, 2]):
        with pytest.raises(ValueError, match="lr: expected a finite number, above 0, got"):
            checked_number(value, "lr", above=0)
    for check in (partial(checked_integer, at_least=10**9), partial(checked_number, above=-1, up_to=1)):
        for value in ("a" * 5000, [0] * 5000, 2.5):
            with pytest.raises(ValueError, match=r"ratio: expected") as caught:
                check(value, "ratio")
            assert len(str(caught.value)) < 200
    with pytest.raises(ValueError, match="at most 1, got <int>"):
        checked_number(10**5000, "ratio", up_to=1)
    with pytest.raises(ValueError, match=r"ratio: expected a finite number, above -1 and at most 1, got 1\.5"):
        checked_number(1.5, "ratio", above=-1, up_to=1)


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
        ("[" * 100_000, "not JSON that can be read: lists and objects in it lie too deep in each other$"),
        ("9" * 5000, "not JSON that can be read: it holds an integer of thousands of digits$|expected a JSON object"),
        (7, "expected JSON text, got int"),
        (b"\xff", "not JSON: 'utf-8' codec can't decode"),
        (json.dumps(dict.fromkeys(map(str, range(5000)))), r"fields among .*, got \['0', .*\.\.\.$"),
        ('{"points": [[1e999, 2]]}', "points: expected finite numbers"),
        ('{"points": [[' + "[" * 500 + "]" * 500 + "]]}", "points: expected numbers"),
        ('{"mask_input": {"shape": [1, 1e400, 8], "float32": "AAAAAA=="}}', "mask_input is damaged"),
        ('{"mask_input": {"shape": [99999999999999999999], "float32": "AAAAAA=="}}', "mask_input is damaged"),
        ('{"pionts": [[1, 2]]}', "fields among points, labels, box, mask_input, got .'pionts'"),
        ("{}", "an empty prompt"),
        ('{"box": [9, 9, 1, 1]}', "reversed"),
        ('{"mask_input": {"shape": [1, 8, 8], "float32": "AAAA"}}', "mask_input is damaged"),
    ],
)
def test_bad_json(text, words):
    with pytest.raises(ValueError, match=words):
        Prompt.from_json(text)


def test_a_byte_order_mark_is_passed_over():
    assert Prompt.from_json('\ufeff{"box": [1, 2, 3, 4]}').box.tolist() == [1, 2, 3, 4]


def test_repr_is_short():
    prompt = Prompt(points=[(1, 2)], box=(0, 1, 2, 3), mask_input=-np.ones((256, 256)))
    assert repr(prompt) == "Prompt(points=[[1.0, 2.0]], labels=[1], box=[0.0, 1.0, 2.0, 3.0], mask_input=1x256x256)"
