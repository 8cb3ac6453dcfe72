"""Figures to play with: what a slider, a switch or the pointer on the picture changes, in title and picture."""

import gc
import io
import os
import weakref
from pathlib import Path

import ipywidgets
import lab
import numpy as np
import pytest
from fake_time import FakeTime
from PIL import Image

from sam_nb import Prompt, play
from sam_nb.canvas.play import Player
from sam_nb.canvas.pointer import PointerEvent

GREY = np.full((60, 100, 3), 128, np.uint8)


def bar(level=3, side="left", dark=False):
    """Return a picture with a bar, and what it was asked for."""
    picture = GREY // 2 if dark else GREY.copy()
    picture[:, slice(None, 10 * level) if side == "left" else slice(-10 * level, None)] = (255, 0, 0)
    return picture, f"level {level} on the {side}"


def shown(player):
    """Return what the page shows, HxWx3 uint8."""
    return np.asarray(Image.open(io.BytesIO(player._layers.image.value)).resize((100, 60)))


def test_controls_are_made_of_what_is_given_and_begin_at_the_defaults():
    player = play(bar, level=(0, 9), side=["left", "right"], dark=False)
    kinds = {name: type(widget).__name__ for name, widget in player.controls.items()}
    assert kinds == {"level": "IntSlider", "side": "ToggleButtons", "dark": "Checkbox"}
    assert player.values == {"level": 3, "side": "left", "dark": False}
    assert player.title == "level 3 on the left"
    assert player.status.text == player.title
    assert np.array_equal(player.image, bar()[0])


def test_a_control_that_moves_draws_again():
    player = play(bar, level=(0, 9), side=["left", "right"])
    player.controls["level"].value = 8
    assert player.title == "level 8 on the left"
    player.controls["side"].value = "right"
    assert player.title == player.status.text == "level 8 on the right"
    red = shown(player)[30, :, 0].astype(int) - shown(player)[30, :, 1] > 100
    assert red[25:].all()
    assert not red[:15].any()


def test_code_moves_what_a_hand_moves():
    player = play(bar, level=(0, 9))
    player.set(level=5)
    assert player.controls["level"].value == 5
    assert player.title == "level 5 on the left"
    with pytest.raises(KeyError, match="no control 'lever': expected one of level"):
        player.set(lever=1)


def test_a_failure_is_shown_and_the_next_movement_draws_again():
    def fragile(level=1):
        if level == 2:
            raise ValueError("two is too much")
        return GREY, f"level {level}"

    player = play(fragile, level=(0, 4))
    player.controls["level"].value = 2
    assert player.status.text == "ValueError: two is too much"
    player.controls["level"].value = 3
    assert player.status.text == "level 3"


@pytest.mark.parametrize("returned", [GREY, (GREY, 3), None])
def test_what_draw_must_return(returned):
    with pytest.raises(ValueError, match="expected an image and its title"):
        play(lambda level: returned, level=(0, 4))


def test_what_a_control_can_be():
    with pytest.raises(TypeError, match=r"control 'level': expected \(low, high\)"):
        play(bar, level=object())
    with pytest.raises(TypeError, match="'levels'"):
        play(bar, levels=(0, 4))
    with pytest.raises(TypeError, match="there is one pointer"):
        play(lambda a, b: (GREY, ""), a=Prompt(points=[(1, 1)]), b=Prompt(points=[(1, 1)]))


def told(prompt):
    """Return a picture of 100 x 60 and what the prompt says."""
    box = None if prompt.box is None else prompt.box.round().astype(int).tolist()
    points = None if prompt.points is None else prompt.points.round().astype(int).tolist()
    return GREY, f"{points} {box}"


def at(player, x, y):
    """Return where a pixel of the picture lies on the canvas."""
    return player._view.to_canvas(x, y)


def test_a_click_moves_the_last_point():
    player = play(told, prompt=Prompt(points=[(10, 20), (30, 40)], labels=[1, 0]))
    for kind in ("down", "up"):
        player._on_event(PointerEvent(kind, *at(player, 70, 50)))
    assert player.title == "[[10, 20], [70, 50]] None"
    assert player.values["prompt"].labels.tolist() == [1, 0]


def test_a_drag_draws_the_box_in_any_direction_and_not_beyond_the_picture():
    player = play(told, prompt=Prompt(box=(10, 10, 20, 20)))
    player._on_event(PointerEvent("down", *at(player, 80, 50)))
    player._on_event(PointerEvent("up", *at(player, -30, 5)))
    assert player.title == "None [0, 5, 80, 50]"


def test_a_click_leaves_a_box_alone():
    player = play(told, prompt=Prompt(box=(10, 10, 20, 20)))
    for kind in ("down", "up"):
        player._on_event(PointerEvent(kind, *at(player, 50, 50)))
    assert player.title == "None [10, 10, 20, 20]"


def test_movements_that_come_faster_than_pictures_are_drawn_once():
    time, drawn = FakeTime(), []

    def slow(prompt):
        drawn.append(prompt.box.round().astype(int).tolist())
        time.sleep(0.1)
        return GREY, "slow"

    player = Player(slow, {"prompt": Prompt(box=(1, 1, 9, 9))}, clock=time, call_later=time.call_later)
    player.set(prompt=Prompt(box=(1, 1, 8, 8)))  # how long a drawing takes is known from now on
    drawn.clear()
    player._on_event(PointerEvent("down", *at(player, 10, 10)))
    for x in (20, 30, 40):
        player._on_event(PointerEvent("move", *at(player, x, 30)))
    assert drawn == []
    time.advance(0.2)
    assert drawn == [[10, 10, 40, 30]]
    player._on_event(PointerEvent("up", *at(player, 50, 40)))
    assert drawn[1:] == [[10, 10, 50, 40]]


def test_the_static_picture_has_title_and_prompt():
    plain = play(told, prompt=Prompt(points=[(50, 30)]))._static()
    moved = play(told, prompt=Prompt(points=[(80, 30)]))._static()
    assert plain.shape == moved.shape
    assert plain.shape[0] > 200  # the small picture is upscaled, and a title stands above it
    title = np.s_[:25]
    assert (plain[title] < 128).any()
    green = np.abs(plain.astype(int) - (0, 158, 115)).sum(axis=2) < 60
    assert green.any()
    x = np.argwhere(green)[:, 1].mean()
    assert abs(x / plain.shape[1] - 0.505) < 0.02


def live():
    return len(ipywidgets.widgets.widget._instances)


def test_a_closed_player_leaves_nothing_behind_but_the_widgets_that_it_was_given():
    time = FakeTime()
    mine = ipywidgets.IntSlider(2, max=9)
    gc.collect()
    before, drawn = live(), []

    def draw(level, prompt, dark=False):
        drawn.append(level)
        return bar(level, dark=dark)

    controls = {"level": mine, "prompt": Prompt(points=[(10, 20)]), "dark": False}
    player = Player(draw, controls, clock=time, call_later=time.call_later)
    for kind, x in (("down", 10), ("move", 40)):
        player._on_event(PointerEvent(kind, *at(player, x, 30)))
    image = weakref.ref(player.image)
    player.close()
    assert live() == before
    assert mine.comm is not None
    drawn.clear()
    mine.value = 7
    time.advance(10)
    assert drawn == []  # neither its timer nor a foreign slider reaches it
    player.set(dark=True)
    assert player.title == "level 2 on the left"  # by code
    del player
    time.timers.clear()
    gc.collect()
    assert image() is None


def test_a_draw_that_fails_at_first_leaves_no_widgets():
    before = live()
    with pytest.raises(ZeroDivisionError):
        play(lambda level: (GREY, 1 / 0), level=(0, 4))
    assert live() == before


@pytest.mark.parametrize("shape", [(1, 3000), (3000, 1), (1, 1), (8, 2000)])
def test_a_thin_picture_can_be_seen_and_clicked(shape):
    def thin(prompt):
        return np.full((*shape, 3), (200, 100, 50), np.uint8), f"{prompt.points[0].round().astype(int).tolist()}"

    player = play(thin, prompt=Prompt(points=[(0, 0)]))
    size = player._view.canvas_height, player._view.canvas_width
    assert min(size) >= 40
    page = np.asarray(Image.open(io.BytesIO(player._layers.image.value)))
    assert page.shape == (*size, 3)
    assert np.abs(page.astype(int) - (200, 100, 50)).max() < 6
    for kind in ("down", "up"):
        player._on_event(PointerEvent(kind, *at(player, shape[1] // 2, shape[0] // 2)))
    assert player.title == f"[{shape[1] // 2}, {shape[0] // 2}]"
    assert player._static().shape[0] > 40


IN_A_CELL = """
import json
import numpy as np
from sam_nb import Prompt, play
image = np.full((60, 100, 3), 128, np.uint8)
def bar(prompt, level=3):
    picture = image.copy()
    picture[:, :10 * level] = (255, 0, 0)
    return picture, f"level {level}, box {prompt.box.round().astype(int).tolist()}"
player = play(bar, prompt=Prompt(box=(10, 10, 30, 30)), level=(0, 9))
player
"""


@pytest.mark.usefixtures("need_chromium")
def test_slider_and_pointer_are_moved_in_jupyterlab(tmp_path):
    lab.write_notebook(tmp_path / "play.ipynb", IN_A_CELL)
    work = tmp_path / "work"
    work.mkdir()
    with lab.jupyter_lab(tmp_path, work) as (address, token), lab.chromium_page() as page:
        lab.open_notebook(page, address, token, "play.ipynb")
        lab.run_all_cells(page, timeout=120)
        box = page.locator(".jp-OutputArea-output .widget-vbox").first
        canvas = box.locator("canvas").first
        canvas.wait_for()
        before = canvas.screenshot()
        box.locator(".noUi-handle").press("ArrowRight")
        box.get_by_text("level 4, box [10, 10, 30, 30]").wait_for()
        assert canvas.screenshot() != before
        place = canvas.bounding_box()
        page.mouse.move(place["x"] + 0.5 * place["width"], place["y"] + 0.5 * place["height"])
        page.mouse.down()
        page.mouse.move(place["x"] + 0.9 * place["width"], place["y"] + 0.9 * place["height"], steps=4)
        page.mouse.up()
        box.get_by_text("level 4, box [49, 29, 89, 53]").or_(
            box.get_by_text("level 4, box [50, 30, 90, 54]")
        ).wait_for()
        assert lab.ask(page, "player.title").startswith("level 4, box")
        # The static picture gives way to the living one, and follows it.
        assert not page.locator(".jp-RenderedImage").first.is_visible()
        if folder := os.environ.get("SAM_NB_SCREENSHOTS"):
            page.screenshot(path=Path(folder) / "play.png")
