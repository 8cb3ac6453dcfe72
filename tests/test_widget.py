"""The canvas without a browser: what events and code do to session, layers, buttons and status line."""

import asyncio
import html
import re
import time

import ipywidgets
import numpy as np
import pytest
from discs import Discs
from ipycanvas import Canvas
from ipycanvas import canvas as ipycanvas_module
from PIL import Image
from pycocotools.coco import COCO

from sam_nb import Prompt, PromptCanvas, load_ground_truth, load_image, segment
from sam_nb.canvas import widget

HEIGHT, WIDTH = 300, 500


@pytest.fixture
def model():
    return Discs(HEIGHT, WIDTH)


@pytest.fixture
def canvas(model):
    made = PromptCanvas(model, np.full((HEIGHT, WIDTH, 3), 90, np.uint8), hover=False)
    yield made
    made.close()


def send(canvas, kind, x=0.0, y=0.0, **more):
    """Do what the browser does, in pixels of the picture."""
    place = canvas.view.to_canvas(x, y)
    canvas._pointer._handle_custom_msg({"events": [{"type": kind, "x": place[0], "y": place[1], **more}]}, [])


def click(canvas, x, y, button=0, shift=False):
    send(canvas, "down", x, y, button=button, shift=shift, pointer="mouse")
    send(canvas, "up", x, y)


def drag(canvas, start, *stops, button=0):
    send(canvas, "down", *start, button=button, shift=False, pointer="mouse")
    for stop in stops:
        send(canvas, "move", *stop)
    send(canvas, "up", *stops[-1])


def status(canvas):
    return html.unescape(re.sub("<[^>]*>", "", canvas._status.value))


def test_buttons_and_shift(canvas):
    click(canvas, 100, 80)
    click(canvas, 120, 80, button=2)
    click(canvas, 90, 100, shift=True)
    assert [(p.x, p.y, p.label) for p in canvas.session.points] == [(100, 80, 1), (120, 80, 0), (90, 100, 0)]
    assert canvas.mask[60, 100]
    assert not canvas.mask[80, 120]


def test_modes(canvas):
    canvas._mode.value = "exclude"
    click(canvas, 100, 80)
    canvas._mode.value = "move"
    click(canvas, 100, 80)
    assert [p.label for p in canvas.session.points] == [0]
    assert canvas._pointer.touch_draws
    canvas._mode.value = "include"
    assert not canvas._pointer.touch_draws


def test_a_drag_is_a_box_however_it_goes(canvas):
    drag(canvas, (200, 150), (150, 120), (100, 80))
    box = canvas.session.box
    assert (box.x0, box.y0, box.x1, box.y1) == (100, 80, 200, 150)
    assert not canvas.session.points
    drag(canvas, (400, 200), (700, 900))
    assert (canvas.session.box.x1, canvas.session.box.y1) == (WIDTH - 1, HEIGHT - 1)


def test_a_trembling_click_is_a_click(canvas):
    drag(canvas, (200, 150), (201, 151))
    assert canvas.session.box is None
    assert len(canvas.session.points) == 1


def test_a_cancelled_drag_is_nothing(canvas):
    send(canvas, "down", 100, 80, button=0, shift=False, pointer="touch")
    send(canvas, "move", 150, 120)
    send(canvas, "cancel", 150, 120)
    send(canvas, "up", 150, 120)
    assert not canvas.session.current.steps


def test_without_the_relay_ipycanvas_events_do(canvas):
    x, y = canvas.view.to_canvas(100, 80)
    canvas._canvas._handle_custom_msg({"event": "mouse_down", "x": x, "y": y}, [])
    canvas._canvas._handle_custom_msg({"event": "mouse_up", "x": x, "y": y}, [])
    assert [(p.x, p.y, p.label) for p in canvas.session.points] == [(100, 80, 1)]


def test_keys(canvas):
    click(canvas, 100, 80)
    for name, expected in (("next", 2), ("next", 0), ("undo", 2), ("redo", 0)):
        send(canvas, "key", name=name)
        assert canvas.session.answer().index == expected
    send(canvas, "key", name="new")
    assert len(canvas.session.objects) == 2
    send(canvas, "key", name="delete")
    assert len(canvas.session.objects) == 1
    before = canvas.view
    send(canvas, "key", name="closer")
    assert canvas.view.scale > before.scale
    send(canvas, "key", name="fit")
    assert canvas.view == before


def test_clicks_land_where_they_are_seen_from_close_by(canvas):
    canvas._on_wheel({"x": 333, "y": 222, "turn": -1})
    canvas._on_wheel({"x": 333, "y": 222, "turn": -1})
    click(canvas, 200, 150)
    assert (canvas.session.points[0].x, canvas.session.points[0].y) == (200, 150)
    view = canvas.view
    canvas._heard({"type": "down", "x": 300, "y": 200, "button": 1})
    canvas._heard({"type": "move", "x": 320, "y": 205})
    canvas._heard({"type": "up", "x": 330, "y": 210})
    assert canvas.view.left == pytest.approx(view.left - 30 / view.scale)
    assert canvas.view.top == pytest.approx(view.top - 10 / view.scale)


def test_the_status_line_tells_the_truth(model):
    ground_truth = {"left": np.zeros((HEIGHT, WIDTH), bool), "right": np.zeros((HEIGHT, WIDTH), bool)}
    ground_truth["left"][50:110, 70:130] = True
    ground_truth["right"][:, 400:] = True
    canvas = PromptCanvas(model, np.full((HEIGHT, WIDTH, 3), 90, np.uint8), ground_truth=ground_truth, hover=False)
    assert status(canvas).startswith("discs is ready. Click: this.")
    click(canvas, 300, 80, shift=True)
    assert status(canvas).startswith("Only background clicks")
    canvas.undo()
    click(canvas, 100, 80)
    area = int(canvas.mask.sum())
    assert f"object 1 · mask 2 of 3 · {area:,} pixels (1.9 %) · predicted IoU 0.90 · true IoU 0.7" in status(canvas)
    assert status(canvas).endswith("(left) · discs")
    canvas.new_object()
    click(canvas, 250, 80)  # on neither
    assert "predicted IoU" in status(canvas)
    assert "true IoU" not in status(canvas)
    canvas.session.select(0)
    model.fails = True
    click(canvas, 120, 90)
    assert status(canvas) == "RuntimeError: the model has <no> memory left"
    assert "&lt;no&gt;" in canvas._status.value
    model.fails = False
    canvas.undo()
    assert "object 1 · mask 2 of 3" in status(canvas)


def test_a_truth_of_another_size_is_refused(model):
    with pytest.raises(ValueError, match=r"ground truth 'car': expected a mask of 500x300, got the shape \(10, 20\)"):
        PromptCanvas(model, np.zeros((HEIGHT, WIDTH, 3), np.uint8), ground_truth={"car": np.zeros((10, 20), bool)})


def test_a_broken_event_is_told_and_nothing_breaks(canvas):
    send(canvas, "dance")
    assert "AttributeError" in status(canvas)
    click(canvas, 100, 80)
    assert canvas.mask is not None


def test_code_and_hand_are_one(canvas):
    canvas.add_point(100, 80)
    canvas.choose(2)
    canvas.new_object()
    canvas.set_box(200, 100, 260, 160)
    assert canvas.session.objects[0].steps[-1].index == 2
    assert canvas.prompt.box.tolist() == [200, 100, 260, 160]
    assert len(canvas._rows.children) == 2
    canvas.session.delete(0)
    assert len(canvas._rows.children) == 1
    canvas.clear()
    assert canvas.masks is None
    canvas.undo()
    canvas.redo()
    assert canvas.mask is None


def test_the_rows_rename_select_and_delete(canvas):
    click(canvas, 100, 80)
    canvas.new_object()
    click(canvas, 300, 80)
    first, second = canvas._rows.children
    first._name.value = "wheel"
    first._category.value = "part"
    assert (canvas.session.objects[0].name, canvas.session.objects[0].category) == ("wheel", "part")
    second._name.value = "wheel"
    assert status(canvas) == "ValueError: the name 'wheel' is taken by another object"
    assert second._name.value == "object 2"
    assert canvas.session.objects[1].name == "object 2"
    first._color.click()
    assert canvas.session.selected == 0
    second.children[3].click()
    assert len(canvas.session.objects) == 1


def test_the_chooser_shows_scores_and_chooses(canvas):
    click(canvas, 100, 80)
    assert [label for label, _ in canvas._chooser.options] == ["mask 1: 0.50", "mask 2: 0.90", "mask 3: 0.70"]
    assert canvas._chooser.value == 1
    canvas._chooser.value = 0
    assert canvas.session.answer().index == 0
    assert len(canvas.session.current.steps) == 2
    click(canvas, 120, 80)
    assert canvas._chooser.layout.visibility == "hidden"
    assert len(canvas.session.current.steps) == 3


@pytest.fixture
def shown_in_notebook(monkeypatch):
    """Return the list of what is displayed, (mimebundle, options); updates are told by update=True."""
    shown = []
    monkeypatch.setattr(widget, "display", lambda bundle, raw, **options: shown.append((bundle, options)))
    monkeypatch.setattr(
        widget, "update_display", lambda bundle, raw, **options: shown.append((bundle, {"update": True, **options}))
    )
    monkeypatch.delenv("VSCODE_PID", raising=False)
    return shown


def test_a_picture_stands_in_where_no_kernel_answers(canvas, shown_in_notebook):
    click(canvas, 100, 80)
    canvas._ipython_display_()
    (picture, named), (view, _) = shown_in_notebook
    assert len(picture.pop("image/jpeg")) > 1000
    assert picture == {"text/plain": "PromptCanvas(Session(500x300, discs: object 1 (1 steps)))"}
    assert named == {"display_id": canvas.model_id}
    assert "application/vnd.jupyter.widget-view+json" in view
    assert "image/jpeg" not in view
    shown = canvas.snapshot()
    x, y = canvas.view.to_canvas(100, 60)
    np.testing.assert_allclose(shown[round(y), round(x)], (60, 117, 172), atol=1)


def test_elsewhere_the_picture_is_the_second_form_of_one_output(canvas, shown_in_notebook, monkeypatch):
    monkeypatch.setenv("VSCODE_PID", "1")
    canvas._ipython_display_()
    ((bundle, options),) = shown_in_notebook
    assert {"application/vnd.jupyter.widget-view+json", "image/jpeg", "text/plain"} <= set(bundle)
    assert options == {}


def test_the_picture_follows_the_hand_and_not_the_code(canvas, shown_in_notebook, monkeypatch):
    monkeypatch.setattr(widget, "REST", 0.05)

    async def use():
        canvas._ipython_display_()
        before = shown_in_notebook[0][0]["image/jpeg"]
        canvas.add_point(100, 80)
        await canvas._task
        await asyncio.sleep(0.1)
        assert len(shown_in_notebook) == 2  # a cell that clicks leaves the outputs of other cells alone
        for x in (200, 300):
            click(canvas, x, 80)
            await canvas._task
        await asyncio.sleep(0.1)
        assert len(shown_in_notebook) == 3  # both clicks at once
        picture, options = shown_in_notebook[2]
        assert options == {"update": True, "display_id": canvas.model_id}
        assert picture["image/jpeg"] != before
        canvas.new_object()
        send(canvas, "hover", 50, 50)
        await canvas._task
        await asyncio.sleep(0.1)
        assert len(shown_in_notebook) == 3  # a mouse that moves about changes nothing

    asyncio.run(use())


def test_saving(canvas, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    canvas._save.click()
    assert status(canvas) == "ValueError: nothing to save: there is no mask yet"
    click(canvas, 100, 80)
    canvas.new_object()
    canvas._save.click()
    assert status(canvas).startswith("saved in segments: masks")
    assert (tmp_path / "segments" / "masks" / "object_1.png").exists()
    canvas._save.click()
    assert "'segments' exists already: choose another folder" in status(canvas)
    again = PromptCanvas(canvas.sam, canvas.image, hover=False)
    again.session.load_json((tmp_path / "segments" / "prompts.json").read_text(encoding="utf-8"))
    np.testing.assert_array_equal(
        again.session.answer(again.session.objects[0]).mask, mask_in_coco(tmp_path / "segments")
    )


def test_what_is_saved_names_the_picture_without_its_folder(model, tmp_path):
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "holiday.png")
    canvas = PromptCanvas(model, tmp_path / "holiday.png", hover=False)
    canvas.add_point(100, 80)
    (record,) = COCO(canvas.save(tmp_path / "segments") / "coco.json").loadImgs([1])
    canvas.close()
    assert record["file_name"] == "holiday.png"


def mask_in_coco(folder):
    coco = COCO(folder / "coco.json")
    return coco.annToMask(coco.loadAnns([1])[0])


def test_clicks_make_no_new_widgets(canvas):
    def live():
        return len(ipywidgets.widgets.widget._instances)

    def sitting():
        for index in range(20):
            click(canvas, 20 + 20 * index, 80)
        canvas.clear()

    sitting()
    before = live()
    for _ in range(3):
        sitting()
    assert live() == before


def test_an_exception_while_drawing_does_not_stop_all_drawing(monkeypatch):
    surface = Canvas(width=10, height=10)

    def draw():
        with widget._hold():
            surface.fill_rect(0, 0, 5)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        draw()
    sent = []
    monkeypatch.setattr(ipycanvas_module._CanvasManager, "send", lambda self, *content, **_: sent.append(content))
    surface.fill_rect(0, 0, 5)
    assert sent


def in_a_loop(action):
    """Run a coroutine function as a kernel's event loop would."""
    return asyncio.run(action())


async def until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def test_in_a_kernel_the_model_works_in_its_own_thread(model):
    async def scene():
        canvas = PromptCanvas(model, np.full((HEIGHT, WIDTH, 3), 90, np.uint8), hover=False)
        started = time.monotonic()
        click(canvas, 100, 80)
        assert time.monotonic() - started < 1
        assert canvas.session.points
        await until(lambda: "object 1 · mask 2 of 3" in status(canvas))
        canvas.close()

    model.wait = 0.2
    in_a_loop(scene)
    assert all(name.startswith("sam-nb") for name in model.threads)


def test_every_click_counts_and_only_the_last_answer_is_shown(model):
    shown = []

    async def scene():
        canvas = PromptCanvas(model, np.full((HEIGHT, WIDTH, 3), 90, np.uint8), hover=False)
        canvas._mask_image.observe(lambda change: shown.append(change["new"]), "value")
        await until(lambda: "ready" in status(canvas))
        for index in range(8):
            click(canvas, 50 + 50 * index, 80)
        await until(lambda: f"{int(canvas.mask.sum()):,} pixels" in status(canvas))
        assert len(canvas.prompt.points) == 8
        canvas.close()

    model.wait = 0.05
    in_a_loop(scene)
    assert len(model.asked) >= 8
    assert len(shown) < 8


def test_of_the_places_under_the_mouse_only_the_last_is_asked(model):
    async def scene():
        canvas = PromptCanvas(model, np.full((HEIGHT, WIDTH, 3), 90, np.uint8), hover=True)
        await until(lambda: "ready" in status(canvas))
        model.asked.clear()
        for x in range(100, 300):
            send(canvas, "hover", x, 150)
            if x % 20 == 0:
                await asyncio.sleep(0.02)
        await until(lambda: any(prompt.points[0][0] == 299 for prompt in model.asked))
        assert len(model.asked) < 20
        assert canvas._hover_image.value
        assert not canvas.session.points
        canvas.close()

    model.wait = 0.05
    in_a_loop(scene)


def test_the_preview_is_on_where_decoding_is_quick(model):
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    assert PromptCanvas(model, image)._pointer.hover
    model.wait = 0.15
    assert not PromptCanvas(model, image)._pointer.hover
    assert PromptCanvas(model, image, hover=True)._pointer.hover


def test_waiting_is_told(model):
    async def scene():
        canvas = PromptCanvas(model, np.full((HEIGHT, WIDTH, 3), 90, np.uint8), hover=False)
        await until(lambda: "encoding the picture, once for all clicks" in status(canvas))
        await until(lambda: "ready" in status(canvas))
        canvas.close()

    model.wait = 0.6
    in_a_loop(scene)


def test_with_the_embedded_model(lite):
    canvas = segment("street", lite, ground_truth=load_ground_truth("street"))
    canvas.add_point(500, 375)
    embedding = lite.encode(load_image("street"))
    np.testing.assert_array_equal(canvas.masks.bits, lite.decode(embedding, Prompt(points=[(500, 375)])).bits)
    assert "true IoU" in status(canvas)
