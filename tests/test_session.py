"""The session by property: undo and redo reverse each other, and the JSON gives the same masks."""

import copy
import json
import pickle
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from sam_nb import Masks, Prompt, load_image
from sam_nb.article import ARTICLE_PROMPTS
from sam_nb.session import Choice, Session

HEIGHT, WIDTH = 48, 64


class Disc:
    """A model whose masks are discs around the points and whose logits tell how often they were fed back."""

    def __init__(self):
        self.prompts = []
        self.fails = False

    def __call__(self, prompt):
        self.prompts.append(prompt)
        if self.fails:
            raise RuntimeError("out of memory")
        ys, xs = np.mgrid[:HEIGHT, :WIDTH]
        lone = prompt.box is None and prompt.mask_input is None and len(prompt.points) == 1
        places = [] if prompt.points is None else prompt.points[prompt.labels == 1]
        bits = []
        for radius in (12, 8, 4) if lone else (10,):
            mask = np.zeros((HEIGHT, WIDTH), bool)
            for x, y in places:
                mask |= np.hypot(xs - x, ys - y) < radius
            if prompt.box is not None:
                x0, y0, x1, y1 = prompt.box
                mask |= (xs >= x0) & (xs < x1) & (ys >= y0) & (ys < y1)
            bits.append(mask)
        fed = 0.0 if prompt.mask_input is None else float(prompt.mask_input.max())
        logits = np.stack([np.full((8, 8), fed + 0.3 + index) for index in range(len(bits))]).astype(np.float32)
        scores = np.array([0.5, 0.9, 0.7] if lone else [0.8], np.float32)
        return Masks(scores, logits, "disc", (HEIGHT, WIDTH), bits.__getitem__)


@pytest.fixture
def model():
    return Disc()


@pytest.fixture
def session(model):
    return Session(model, (HEIGHT, WIDTH), "disc")


def act_at_random(session, rng):
    """Do one thing that a user can do."""
    x, y = rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT)
    kind = rng.integers(11)
    if kind < 4:
        session.add_point(x, y, int(rng.random() < 0.7))
    elif kind == 4:
        session.set_box(x / 2, y / 2, x / 2 + 10, y / 2 + 10)
    elif kind == 5 and session.masks is not None:
        session.choose(int(rng.integers(len(session.masks))))
    elif kind == 6:
        session.new_object()
    elif kind == 7:
        session.delete(int(rng.integers(len(session.objects))))
    elif kind == 8:
        session.clear()
    elif kind == 9:
        session.select(int(rng.integers(len(session.objects))))
    else:
        session.rename(int(rng.integers(len(session.objects))), f"thing {rng.integers(10**6)}", "wheel")


def all_masks(session):
    decoded = [session.decoded(item) for item in session.objects]
    return [None if one is None else one.mask for one in decoded]


def assert_same_masks(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_segments_are_the_objects_that_have_a_mask(session):
    session.add_point(20, 10)
    session.choose(2)
    session.new_object()
    session.add_point(5, 5, 0)  # no prompt yet
    session.new_object()
    session.set_box(30, 20, 50, 40)
    session.rename(2, "door", "part")
    disc, door = session.segments()
    assert (disc.name, disc.category, disc.score) == ("object 1", "object", np.float32(0.7))
    assert (door.name, door.category, door.score) == ("door", "part", np.float32(0.8))
    ys, xs = np.mgrid[:HEIGHT, :WIDTH]
    assert np.array_equal(disc.mask, np.hypot(xs - 20, ys - 10) < 4)
    assert np.array_equal(door.mask, (xs >= 30) & (xs < 50) & (ys >= 20) & (ys < 40))


@pytest.mark.parametrize("seed", range(40))
def test_undoing_all_and_redoing_all_restores_everything(session, seed):
    rng = np.random.default_rng(seed)
    start = (session.objects, session.selected)
    for _ in range(rng.integers(1, 40)):
        act_at_random(session, rng)
        for _ in range(rng.integers(0, 3)):
            (session.undo if rng.random() < 0.7 else session.redo)()
    while session.can_redo:
        session.redo()
    end, masks = (session.objects, session.selected), all_masks(session)
    while session.can_undo:
        session.undo()
    assert session.objects == start[0]
    while session.can_redo:
        session.redo()
    assert (session.objects, session.selected) == end
    assert_same_masks(all_masks(session), masks)


@pytest.mark.parametrize("seed", range(40))
def test_replay_gives_the_same_masks(session, seed):
    rng = np.random.default_rng(100 + seed)
    for _ in range(25):
        act_at_random(session, rng)
    again = Session(Disc(), (HEIGHT, WIDTH))
    again.load_json(session.to_json())
    assert (again.objects, again.selected) == (session.objects, session.selected)
    assert_same_masks(all_masks(again), all_masks(session))
    again.undo()
    assert again.objects[0].steps == ()  # loading is one step, which undo takes back


@pytest.mark.parametrize("seed", range(10))
def test_every_step_of_undo_gives_the_mask_of_then(session, seed):
    rng = np.random.default_rng(200 + seed)
    seen = [all_masks(session)]
    while len(seen) < 12:
        before = session.objects
        session.add_point(rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT), int(rng.random() < 0.7))
        assert session.objects != before
        seen.append(all_masks(session))
    for expected in reversed(seen[:-1]):
        session.undo()
        assert_same_masks(all_masks(session), expected)


def test_a_lone_click_takes_the_highest_scoring_of_three(session):
    session.add_point(30, 20)
    assert session.decoded().index == 1
    np.testing.assert_array_equal(session.mask, session.masks.bits[1])


def test_further_clicks_feed_the_logits_of_the_chosen_mask_back(session, model):
    session.add_point(30, 20)
    session.choose(2)
    session.add_point(40, 20)
    assert session.mask is not None
    assert model.prompts[-1].mask_input.max() == np.float32(2.3)
    assert model.prompts[-1].points.tolist() == [[30, 20], [40, 20]]


def test_a_box_starts_over_and_replaces_the_box_before(session, model):
    session.add_point(30, 20)
    session.set_box(5, 6, 20, 22)
    session.set_box(7, 8, 21, 23)
    assert session.mask is not None
    assert model.prompts[-1].mask_input is None
    assert model.prompts[-1].box.tolist() == [7, 8, 21, 23]
    assert model.prompts[-1].points.tolist() == [[30, 20]]


def test_nothing_is_fed_back_after_a_new_object_a_clear_or_an_undo(session, model):
    def prompt_of_a_click():
        session.add_point(30, 20)
        assert session.mask is not None
        return model.prompts[-1]

    prompt_of_a_click()
    session.clear()
    session.add_point(31, 21)
    assert session.mask is not None
    assert model.prompts[-1].mask_input is None
    session.new_object()
    assert prompt_of_a_click().mask_input is None
    session.undo()
    session.add_point(33, 23)
    assert session.mask is not None
    assert model.prompts[-1].mask_input is None


def test_background_clicks_alone_are_no_prompt(session, model):
    session.add_point(30, 20, 0)
    assert session.mask is None
    assert not model.prompts
    session.add_point(35, 20)
    assert session.mask is not None
    assert model.prompts[-1].labels.tolist() == [0, 1]


def test_a_prompt_is_decoded_once(session, model):
    session.add_point(30, 20)
    for _ in range(3):
        assert session.mask is not None
    session.add_point(35, 20)
    session.undo()
    assert session.mask is not None
    assert len(model.prompts) == 1


def test_old_masks_are_evicted_and_decoded_again_when_needed(session, model, monkeypatch):
    monkeypatch.setattr("sam_nb.session.MAX_CACHE_BYTES", 4 * HEIGHT * WIDTH)
    masks = []
    for x in range(8):
        session.add_point(5 + 6 * x, 20)
        masks.append(session.mask)
    assert len(model.prompts) == 8
    for expected in reversed(masks):
        np.testing.assert_array_equal(session.mask, expected)
        session.undo()
    assert len(model.prompts) > 8


def test_an_error_of_the_model_leaves_the_session_as_it_was(session, model):
    model.fails = True
    session.add_point(30, 20)
    with pytest.raises(RuntimeError, match="out of memory"):
        session.mask  # noqa: B018
    assert len(session.points) == 1
    model.fails = False
    assert session.mask is not None
    session.undo()
    assert session.mask is None


def test_a_new_step_after_an_undo_ends_redo(session):
    session.add_point(30, 20)
    session.undo()
    session.add_point(10, 20)
    assert not session.can_redo
    session.redo()
    assert session.points[0].x == 10


def test_a_call_that_changes_nothing_is_no_step(session):
    session.clear()
    session.new_object()
    session.rename(0, "object 1", "object")
    assert not session.can_undo


def test_deleting_another_object_keeps_the_current_one(session):
    for x in range(3):
        session.add_point(10 + x, 20)
        session.new_object()
    session.select(2)
    session.delete(0)
    assert session.points[0].x == 12
    session.delete(2)
    assert session.points[0].x == 12


def test_listeners_are_called_after_every_change(session):
    heard = []
    session.on_change(lambda: heard.append(len(session.points)))
    session.add_point(30, 20)
    session.undo()
    session.undo()
    session.redo()
    session.select(0)
    assert heard == [1, 0, 1, 1]


def test_colours_differ_as_long_as_there_are_enough(session):
    for x in range(7):
        session.add_point(5 + x, 20)
        session.new_object()
    assert len({item.color for item in session.objects[:7]}) == 7
    kept = session.objects[3].color
    session.delete(1)
    assert session.objects[2].color == kept


def test_names_stay_different(session):
    for x in range(3):
        session.add_point(5 + x, 20)
        session.new_object()
    session.delete(0)
    session.add_point(9, 9)
    session.new_object()
    names = [item.name for item in session.objects]
    assert len(set(names)) == len(names)
    with pytest.raises(ValueError, match=r"the name 'object 2' is taken"):
        session.rename(1, "object 2")
    with pytest.raises(ValueError, match="must not be empty"):
        session.rename(1, "  ")


def test_an_invalid_step_is_refused_and_changes_nothing(session):
    session.add_point(30, 20)
    objects = session.objects
    with pytest.raises(ValueError, match="far outside the image"):
        session.add_point(500, 20)
    with pytest.raises(ValueError, match="labels: expected 1"):
        session.add_point(30, 20, 2)
    with pytest.raises(ValueError, match="reversed"):
        session.set_box(20, 20, 10, 30)
    with pytest.raises(ValueError, match="no mask 3: the last prompt gave 3 masks"):
        session.choose(3)
    with pytest.raises(ValueError, match="no object 1: there are 1"):
        session.select(1)
    assert session.objects == objects


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record.pop("objects"), "a damaged session: KeyError"),
        (lambda record: record.update(sam_nb_session=99), "format 99"),
        (lambda record: record.update(sam_nb_session=[9] * 5000), r"format \[9, .*\.\.\.: this version"),
        (lambda record: record["image"].update(width=[9] * 5000), r"an image of \[9, .*\.\.\.x48, but this image"),
        (lambda record: record["objects"][0]["steps"].append({"box": [[9] * 5000]}), r"numbers, got \[\[9, .*\.\.\.$"),
        (lambda record: record["objects"][0]["steps"].append({"bax": "9" * 5000}), r"or \"choose\", got \{'bax'"),
        (lambda record: record["objects"][0].update(color=[9] * 5000), r"from 0 to 255, got \[9, .*\.\.\.$"),
        (lambda record: record["image"].update(width=65), "an image of 65x48, but this image has 64x48"),
        (lambda record: record.pop("image"), "damaged session: KeyError: 'image'"),
        (lambda record: record.update(selected=7), "selected object must exist"),
        (lambda record: record["objects"][0]["steps"].append({"choose": 9}), "index of a mask"),
        (lambda record: record["objects"][0]["steps"].append({"point": [900, 1], "label": 1}), "far outside"),
        (lambda record: record["objects"][0].update(color=[1, 2]), "three numbers"),
        (lambda record: record["objects"][0].update(color=[1, 2, float("inf")]), "three numbers"),
        (lambda record: record["objects"][0].update(color="red"), "a damaged session: expected a colour"),
        (lambda record: record["objects"][0].update(name=" "), "must not be empty"),
        (lambda record: record.update(selected=float("inf")), "a damaged session: selected: expected an integer"),
        (lambda record: record.update(selected="x"), "a damaged session: selected: expected an integer"),
        (lambda record: record.update(image=None), "a damaged session: TypeError"),
        (lambda record: record["objects"].append(None), "a damaged session: TypeError"),
        (lambda record: record["objects"][0].update(steps=5), "a damaged session: TypeError"),
        (lambda record: record["objects"][0]["steps"].append("point"), "'object 1', step 2: expected a JSON object"),
        (
            lambda record: record["objects"][0]["steps"].append({"point": [1], "label": 1}),
            "step 2: points: expected Nx2",
        ),
        (lambda record: record["objects"][0]["steps"].append({"point": [[1, 2]], "label": 1}), "a list of numbers"),
        (lambda record: record["objects"][0]["steps"].append({"point": 5, "label": 1}), "a list of numbers"),
        (lambda record: record["objects"][0]["steps"].append({"point": [1, 1]}), "damaged session: KeyError: 'label'"),
        (
            lambda record: record["objects"][0]["steps"].append({"point": [1, 1], "label": [1]}),
            "label: expected an int",
        ),
        (lambda record: record["objects"][0]["steps"].append({"box": [1, 2]}), r"step 2: box: .* shape \(2,\)"),
        (lambda record: record["objects"][0]["steps"].append({"box": [1, 2, float("nan"), 4]}), "step 2: box: .*NaN"),
        (lambda record: record["objects"][0]["steps"].append({"choose": True}), "choose: expected an integer"),
    ],
)
def test_a_damaged_session_is_refused_whole(session, change, message):
    session.add_point(30, 20)
    record = json.loads(session.to_json())
    change(record)
    fresh = Session(Disc(), (HEIGHT, WIDTH))
    with pytest.raises(ValueError, match=message):
        fresh.load_json(json.dumps(record))
    assert not fresh.current.steps
    for text in ("{", "[" * 100_000, "9" * 5000 + "]"):
        with pytest.raises(ValueError, match="not JSON"):
            fresh.load_json(text)
    with pytest.raises(ValueError, match=r"expected JSON text, got PosixPath|WindowsPath.*read_text"):
        fresh.load_json(Path("prompts.json"))
    with pytest.raises(ValueError, match="not a session"):
        fresh.load_json('{"points": [[1, 2]]}')


def test_a_choice_of_an_absent_mask_is_refused(session):
    session.set_box(5, 5, 20, 20)
    record = json.loads(session.to_json())
    record["objects"][0]["steps"].append({"choose": 2})
    session.load_json(json.dumps(record))
    assert isinstance(session.current.steps[-1], Choice)
    with pytest.raises(ValueError, match="chooses mask 2 of 1"):
        session.mask  # noqa: B018


def test_hundreds_of_clicks_at_once_give_a_mask():
    """Two calls of Python for each click would end in a RecursionError."""
    fed_back = []

    def decode(prompt):
        fed_back.append(0 if prompt.mask_input is None else int(prompt.mask_input.max()))
        logits = np.full((1, 2, 2), len(prompt.points) + 0.5, np.float32)
        return Masks(np.ones(1, np.float32), logits, "fast", (HEIGHT, WIDTH), lambda _: np.ones((HEIGHT, WIDTH)))

    session = Session(decode, (HEIGHT, WIDTH))
    for number in range(600):
        session.add_point(number % WIDTH, number % HEIGHT)
    assert session.mask.all()
    assert fed_back == list(range(600))


def test_a_long_chain_begins_again_where_it_can(session, model):
    for x in range(20):
        session.add_point(5 + x, 20)
    assert session.mask is not None
    session.set_box(5, 5, 20, 20)
    session.add_point(9, 9)
    model.prompts.clear()
    assert session.mask is not None
    assert [None if prompt.box is None else len(prompt.points) for prompt in model.prompts] == [20, 21]


def test_an_error_within_a_chain_keeps_what_was_decoded_before(session, model):
    for x in range(6):
        session.add_point(5 + x, 20)
    decode = session._cache._decode

    def fails_at_five(prompt):
        if len(prompt.points) == 5:
            raise RuntimeError("out of memory")
        return decode(prompt)

    session._cache._decode = fails_at_five
    with pytest.raises(RuntimeError, match="out of memory"):
        session.mask  # noqa: B018
    session._cache._decode = decode
    model.prompts.clear()
    assert session.mask is not None
    assert [len(prompt.points) for prompt in model.prompts] == [5, 6]


def test_a_copy_is_a_session_of_its_own_with_the_same_model(session, model):
    heard = []
    session.add_point(30, 20)
    session.on_change(lambda: heard.append(1))
    mask = session.mask
    again = copy.deepcopy(session)
    assert again.mask is mask  # neither decoded again nor copied
    again.add_point(5, 5)
    again.undo()
    again.undo()
    assert again.mask is None
    assert session.mask is mask
    assert not heard
    assert len(model.prompts) == 1


def test_sessions_and_results_can_be_pickled(session):
    session.on_change(lambda: None)  # which cannot
    session.add_point(30, 20)
    session.rename(0, "wheel")
    again = pickle.loads(pickle.dumps(session))
    assert_same_masks(all_masks(again), all_masks(session))
    again.undo()
    assert again.current.name == "object 1"
    segments = pickle.loads(pickle.dumps(session.segments()))
    assert segments[0].name == "wheel"
    np.testing.assert_array_equal(segments[0].mask, session.mask)


def test_a_listener_can_be_removed(session):
    heard = []
    remove = session.on_change(lambda: (heard.append(1), remove()))
    session.on_change(lambda: heard.append(2))
    session.add_point(30, 20)
    session.undo()
    assert heard == [1, 2, 2]


def test_a_session_s_text_may_begin_with_a_byte_order_mark(session):
    session.add_point(30, 20)
    again = Session(Disc(), (HEIGHT, WIDTH))
    again.load_json("\ufeff" + session.to_json())
    assert again.objects == session.objects


def test_a_name_can_be_written_into_every_file(session):
    session.add_point(30, 20)
    session.rename(0, "half \ud83d", " \udcff ")
    assert (session.current.name, session.current.category) == ("half ?", "?")
    record = json.loads(session.to_json())
    record["objects"][0]["name"] = "half \ud83d"
    session.load_json(json.dumps(record))
    assert session.to_json().encode("utf-8")


def test_threads_share_one_decode(session, model):
    session.add_point(30, 20)
    threads = [threading.Thread(target=session.decoded) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(model.prompts) == 1


def test_with_the_embedded_model(lite):
    image = load_image("street")
    session = Session.on(lite, "street")
    first, second = ARTICLE_PROMPTS["two points"][1].points
    session.add_point(*first)
    embedding = lite.encode(image)
    np.testing.assert_array_equal(session.masks.bits, lite.decode(embedding, Prompt(points=[first])).bits)
    session.add_point(*second)
    again = Session(partial(lite.decode, embedding), image.shape[:2], lite.name)
    again.load_json(session.to_json())
    np.testing.assert_array_equal(again.mask, session.mask)
    assert json.loads(session.to_json())["model"] == "lite"
    assert json.loads(session.to_json())["image"] == {"width": image.shape[1], "height": image.shape[0]}


HEAVY = ("torch", "torchvision", "segment_anything", "scipy", "pycocotools", "cv2", "skimage", "matplotlib")
GUI = ("ipywidgets", "ipycanvas", "anywidget", "IPython")


def test_the_session_loads_neither_torch_nor_gui():
    code = "import sys, sam_nb.session; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"numpy", "sam_nb"} <= loaded
    assert not loaded & {*HEAVY, *GUI}


def test_a_session_has_at_most_25_methods():
    methods = [value for value in vars(Session).values() if callable(value) or isinstance(value, classmethod)]
    assert len(methods) <= 25
