"""The canvas without a browser: what events and code do to session, layers, buttons and status line."""

import asyncio
import atexit
import copy
import gc
import itertools
import os
import pickle
import subprocess
import sys
import weakref
from pathlib import Path

import ipywidgets
import numpy as np
import pytest
from discs import Discs
from fake_time import FakeTime
from ipycanvas import Canvas
from ipycanvas import canvas as ipycanvas_module
from IPython.core.formatters import DisplayFormatter
from IPython.core.interactiveshell import InteractiveShell
from PIL import Image
from pycocotools.coco import COCO
from traitlets.config import Config

from sam_nb import Prompt, PromptCanvas, load_coco, load_ground_truth, load_image, segment
from sam_nb.canvas import cell, fallback
from sam_nb.canvas.layers import hold
from sam_nb.canvas.view import View
from sam_nb.model.loading import use_fast_layers
from sam_nb.model.sam import Sam

HEIGHT, WIDTH = 300, 500


@pytest.fixture
def clock():
    return FakeTime()


@pytest.fixture
def model(clock):
    return Discs(HEIGHT, WIDTH, sleep=clock.sleep)


@pytest.fixture
def make(model, clock):
    """Return a function that makes a canvas with the options of `PromptCanvas`."""
    made = []

    def make(image=None, **options):
        image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8) if image is None else image
        options = {"preview": False, "clock": clock, "call_later": clock.call_later} | options
        made.append(PromptCanvas(model, image, **options))
        return made[-1]

    yield make
    for canvas in made:
        canvas.close()


@pytest.fixture
def canvas(make):
    return make()


def send(canvas, kind, x=0.0, y=0.0, **more):
    """Do what the browser does, in pixels of the image."""
    x, y = canvas.view.to_canvas(x, y)
    report(canvas, type=kind, x=x, y=y, **more)


def report(canvas, **event):
    """Do what the browser does, in pixels of the canvas."""
    canvas.pointer._handle_custom_msg({"events": [event]}, [])


def click(canvas, x, y, button=0, shift=False):
    send(canvas, "down", x, y, button=button, shift=shift, pointer="mouse")
    send(canvas, "up", x, y)


def drag(canvas, start, *stops, button=0):
    send(canvas, "down", *start, button=button, shift=False, pointer="mouse")
    for stop in stops:
        send(canvas, "move", *stop)
    send(canvas, "up", *stops[-1])


def test_buttons_and_shift(canvas):
    click(canvas, 100, 80)
    click(canvas, 120, 80, button=2)
    click(canvas, 90, 100, shift=True)
    assert [(p.x, p.y, p.label) for p in canvas.session.points] == [(100, 80, 1), (120, 80, 0), (90, 100, 0)]
    assert canvas.mask[60, 100]
    assert not canvas.mask[80, 120]


def test_modes(canvas):
    canvas.controls.mode.value = "exclude"
    click(canvas, 100, 80)
    canvas.controls.mode.value = "move"
    click(canvas, 100, 80)
    assert [p.label for p in canvas.session.points] == [0]
    assert canvas.pointer.touch_draws
    canvas.controls.mode.value = "include"
    assert not canvas.pointer.touch_draws


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
    canvas.painter.layers.canvas._handle_custom_msg({"event": "mouse_down", "x": x, "y": y}, [])
    canvas.painter.layers.canvas._handle_custom_msg({"event": "mouse_up", "x": x, "y": y}, [])
    assert [(p.x, p.y, p.label) for p in canvas.session.points] == [(100, 80, 1)]


def test_keys(canvas):
    click(canvas, 100, 80)
    for name, expected in (("next", 2), ("next", 0), ("undo", 2), ("redo", 0)):
        send(canvas, "key", name=name)
        assert canvas.session.decoded().index == expected
    send(canvas, "key", name="new")
    assert len(canvas.session.objects) == 2
    send(canvas, "key", name="delete")
    assert len(canvas.session.objects) == 1
    before = canvas.view
    send(canvas, "key", name="zoom_in")
    assert canvas.view.scale > before.scale
    send(canvas, "key", name="fit")
    assert canvas.view == before


def test_clicks_land_where_they_are_seen_from_close_by(canvas):
    report(canvas, type="wheel", x=333, y=222, turn=-1)
    report(canvas, type="wheel", x=333, y=222, turn=-1)
    assert canvas.view.scale == pytest.approx(View.fit(HEIGHT, WIDTH, 640, 1024).scale * 1.25**2)
    click(canvas, 200, 150)
    assert (canvas.session.points[0].x, canvas.session.points[0].y) == (200, 150)
    view = canvas.view
    report(canvas, type="down", x=300, y=200, button=1)
    report(canvas, type="move", x=320, y=205)
    report(canvas, type="up", x=330, y=210)
    assert canvas.view.left == pytest.approx(view.left - 30 / view.scale)
    assert canvas.view.top == pytest.approx(view.top - 10 / view.scale)


def test_the_status_line_shows_the_true_iou(make, model):
    ground_truth = {"left": np.zeros((HEIGHT, WIDTH), bool), "right": np.zeros((HEIGHT, WIDTH), bool)}
    ground_truth["left"][50:110, 70:130] = True
    ground_truth["right"][:, 400:] = True
    canvas = make(ground_truth=ground_truth)
    assert canvas.status.text.startswith("discs is ready. Click: this.")
    click(canvas, 300, 80, shift=True)
    assert canvas.status.text.startswith("Only background clicks")
    canvas.undo()
    click(canvas, 100, 80)
    area = int(canvas.mask.sum())
    assert f"object 1 · mask 2 of 3 · {area:,} pixels (1.9 %) · predicted IoU 0.90 · true IoU 0.7" in canvas.status.text
    assert canvas.status.text.endswith("(left) · discs")
    canvas.new_object()
    click(canvas, 250, 80)  # on neither
    assert "predicted IoU" in canvas.status.text
    assert "true IoU" not in canvas.status.text
    canvas.session.select(0)
    model.fails = True
    click(canvas, 120, 90)
    assert canvas.status.text == "RuntimeError: the model has <no> memory left"
    assert "&lt;no&gt;" in canvas.status.value
    model.fails = False
    canvas.undo()
    assert "object 1 · mask 2 of 3" in canvas.status.text


def test_a_ground_truth_of_another_size_is_refused(model):
    with pytest.raises(ValueError, match=r"ground truth 'car': expected a mask of 500x300, got the shape \(10, 20\)"):
        PromptCanvas(model, np.zeros((HEIGHT, WIDTH, 3), np.uint8), ground_truth={"car": np.zeros((10, 20), bool)})


def test_an_unknown_event_is_reported_and_nothing_breaks(canvas):
    send(canvas, "dance")
    assert canvas.status.text.startswith("ValueError: no event 'dance': expected one of down, move")
    send(canvas, "key", name="dance")
    assert canvas.status.text.startswith("ValueError: no key 'dance': expected one of undo, redo")
    click(canvas, 100, 80)
    assert canvas.mask is not None


def test_code_and_hand_are_one(canvas):
    canvas.add_point(100, 80)
    canvas.choose(2)
    canvas.new_object()
    canvas.set_box(200, 100, 260, 160)
    assert canvas.session.objects[0].steps[-1].index == 2
    assert canvas.prompt.box.tolist() == [200, 100, 260, 160]
    assert len(canvas.controls.rows.children) == 2
    canvas.session.delete(0)
    assert len(canvas.controls.rows.children) == 1
    canvas.clear()
    assert canvas.masks is None
    canvas.undo()
    canvas.redo()
    assert canvas.mask is None


def test_the_rows_rename_select_and_delete(canvas):
    click(canvas, 100, 80)
    canvas.new_object()
    click(canvas, 300, 80)
    first, second = canvas.controls.rows.children
    first.name.value = "wheel"
    first.category.value = "part"
    assert (canvas.session.objects[0].name, canvas.session.objects[0].category) == ("wheel", "part")
    second.name.value = "wheel"
    assert canvas.status.text == "ValueError: the name 'wheel' is taken by another object"
    assert second.name.value == "object 2"
    assert canvas.session.objects[1].name == "object 2"
    first.color.click()
    assert canvas.session.selected == 0
    second.delete.click()
    assert len(canvas.session.objects) == 1


def test_the_chooser_shows_scores_and_chooses(canvas):
    click(canvas, 100, 80)
    assert [label for label, _ in canvas.controls.chooser.options] == ["mask 1: 0.50", "mask 2: 0.90", "mask 3: 0.70"]
    assert canvas.controls.chooser.value == 1
    canvas.controls.chooser.value = 0
    assert canvas.session.decoded().index == 0
    assert len(canvas.session.current.steps) == 2
    click(canvas, 120, 80)
    assert canvas.controls.chooser.layout.visibility == "hidden"
    assert len(canvas.session.current.steps) == 3


@pytest.fixture
def shown_in_notebook(monkeypatch):
    """Return the list of what is displayed, (mimebundle, options); updates have update=True."""
    shown = []
    monkeypatch.setattr(fallback, "display", lambda bundle, raw, **options: shown.append((bundle, options)))
    monkeypatch.setattr(
        fallback, "update_display", lambda bundle, raw, **options: shown.append((bundle, {"update": True, **options}))
    )
    monkeypatch.delenv("VSCODE_PID", raising=False)
    return shown


def test_a_static_image_is_shown_where_no_kernel_answers(canvas, shown_in_notebook):
    click(canvas, 100, 80)
    canvas._ipython_display_()
    (static, named), (view, _) = shown_in_notebook
    assert len(static.pop("image/jpeg")) > 1000
    assert static == {"text/plain": "PromptCanvas(Session(500x300, discs: object 1 (1 steps)))"}
    assert named == {"display_id": canvas.model_id}
    assert "application/vnd.jupyter.widget-view+json" in view
    assert "image/jpeg" not in view
    shown = canvas.snapshot()
    x, y = canvas.view.to_canvas(100, 60)
    np.testing.assert_allclose(shown[round(y), round(x)], (60, 117, 172), atol=1)


def test_elsewhere_the_static_image_is_the_second_form_of_one_output(canvas, shown_in_notebook, monkeypatch):
    monkeypatch.setenv("VSCODE_PID", "1")
    canvas._ipython_display_()
    ((bundle, options),) = shown_in_notebook
    assert {"application/vnd.jupyter.widget-view+json", "image/jpeg", "text/plain"} <= set(bundle)
    assert options == {}


def test_the_static_image_follows_the_user_and_not_the_code(canvas, clock, shown_in_notebook):
    async def rest():
        await canvas.worker.join()
        clock.advance(2)

    async def scene():
        canvas._ipython_display_()
        before = shown_in_notebook[0][0]["image/jpeg"]
        canvas.add_point(100, 80)
        await rest()
        assert len(shown_in_notebook) == 2  # a cell that clicks leaves the outputs of other cells alone
        for x in (200, 300):
            click(canvas, x, 80)
            await canvas.worker.join()
            clock.advance(0.5)
        await rest()
        assert len(shown_in_notebook) == 3  # both clicks at once
        bundle, options = shown_in_notebook[2]
        assert options == {"update": True, "display_id": canvas.model_id}
        assert bundle["image/jpeg"] != before
        canvas.new_object()
        send(canvas, "hover", 50, 50)
        await rest()
        assert len(shown_in_notebook) == 3  # moving the mouse changes nothing

    asyncio.run(scene())


def test_saving(canvas, make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    canvas.controls.save.click()
    assert canvas.status.text == "ValueError: nothing to save: there is no mask yet"
    click(canvas, 100, 80)
    canvas.new_object()
    canvas.controls.save.click()
    assert canvas.status.text.startswith("saved in segments: masks")
    assert (tmp_path / "segments" / "masks" / "object_1.png").exists()
    again = make()
    again.session.load_json((tmp_path / "segments" / "prompts.json").read_text(encoding="utf-8"))
    np.testing.assert_array_equal(
        again.session.decoded(again.session.objects[0]).mask, mask_in_coco(tmp_path / "segments")
    )


def test_a_second_save_asks_whether_to_replace_the_first(canvas, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    click(canvas, 100, 80)
    save, replace = canvas.controls.save, canvas.controls.replace
    assert replace.layout.display == "none"
    save.click()
    assert replace.layout.display == "none"
    before = mask_in_coco(tmp_path / "segments")
    click(canvas, 200, 80)
    save.click()
    assert canvas.status.text == "segments exists already: change the name, or press Replace to overwrite its files"
    assert replace.layout.display is None
    np.testing.assert_array_equal(mask_in_coco(tmp_path / "segments"), before)  # nothing is overwritten unasked
    replace.click()
    assert canvas.status.text.startswith("saved in segments: masks")
    assert replace.layout.display == "none"
    assert mask_in_coco(tmp_path / "segments").sum() > before.sum()
    save.click()
    canvas.controls.folder.value = "elsewhere"
    assert replace.layout.display == "none"
    save.click()
    assert (tmp_path / "elsewhere" / "coco.json").exists()


def test_a_save_that_fails_offers_nothing(make):
    def save(*_, **__):
        raise OSError("No space left on device")

    canvas = make(save=save)
    click(canvas, 100, 80)
    canvas.controls.save.click()
    assert canvas.status.text == "OSError: No space left on device"
    assert canvas.controls.replace.layout.display == "none"


def test_what_is_saved_names_the_image_without_its_folder(make, tmp_path):
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "holiday.png")
    canvas = make(tmp_path / "holiday.png")
    canvas.add_point(100, 80)
    (record,) = COCO(canvas.save(tmp_path / "segments") / "coco.json").loadImgs([1])
    assert record["file_name"] == "holiday.png"


def test_the_way_to_save_is_an_argument(make):
    saved = []

    def save(segments, image, folder, **options):
        saved.append((segments, image, folder, options))
        return folder

    canvas = make(save=save)
    canvas.add_point(100, 80)
    assert canvas.save("there", overwrite=True) == "there"
    ((segments, image, folder, options),) = saved
    assert [segment.name for segment in segments] == ["object 1"]
    assert image is canvas.image
    assert folder == "there"
    expected = {"file_name": "image", "model": "discs", "overwrite": True, "prompts": canvas.session.to_json()}
    assert options == expected
    canvas.controls.folder.value = "elsewhere"
    canvas.controls.save.click()
    assert canvas.status.text.startswith("saved in elsewhere: masks")


def mask_in_coco(folder):
    (segment,) = load_coco(folder / "coco.json")
    return segment.mask


def live():
    return len(ipywidgets.widgets.widget._instances)


def test_a_closed_canvas_leaves_nothing_behind(model):
    gc.collect()
    before = live()
    canvas = PromptCanvas(model, np.full((HEIGHT, WIDTH, 3), 90, np.uint8), preview=False)
    click(canvas, 100, 80)
    for x in (10, 300):
        canvas.new_object()
        click(canvas, x, 80)
    canvas.session.delete(1)  # a row that is no longer on the page
    assert live() > before + 50
    image = weakref.ref(canvas.image)
    canvas.close()
    assert live() == before
    canvas.close()
    del canvas
    gc.collect()
    assert image() is None


def test_a_canvas_that_is_closed_while_the_model_computes_ends_with_it(make, model):
    async def scene():
        model.gate.clear()
        model.entered.clear()
        canvas = make()
        click(canvas, 100, 80)
        await asyncio.to_thread(model.entered.wait, 60)
        shown = canvas.status.text
        canvas.close()
        model.gate.set()
        await canvas.worker.join()
        assert canvas.status.text == shown
        assert not canvas.worker.is_busy
        for thread in canvas.worker._thread._threads:
            await asyncio.to_thread(thread.join, 60)
            assert not thread.is_alive()

    asyncio.run(scene())


def test_python_ends_without_a_word_about_open_canvases():
    code = "import numpy as np; from discs import Discs; from sam_nb import PromptCanvas, play\n"
    code += "image = np.zeros((30, 50, 3), np.uint8); canvas = PromptCanvas(Discs(30, 50), image, preview=False)\n"
    code += "canvas.add_point(5, 5); player = play(lambda level: (image, 'x'), level=(0, 4))"
    paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert (done.stdout, done.stderr) == ("", "")


def test_what_a_closed_canvas_holds_can_still_be_used(make, tmp_path, shown_in_notebook):
    canvas = make()
    click(canvas, 100, 80)
    mask, drawn = canvas.mask, []
    canvas.close()
    canvas.painter.layers.masks.observe(drawn.append, "value")
    canvas.add_point(200, 80)
    canvas.painter.fit()
    canvas.controls.undo.click()
    np.testing.assert_array_equal(canvas.mask, mask)
    assert canvas.save(tmp_path / "saved").is_dir()
    assert canvas.snapshot().any()
    assert not drawn
    canvas._ipython_display_()
    ((static, options),) = shown_in_notebook  # the widget is gone; what was clicked is there
    assert set(static) == {"image/jpeg", "text/plain"}
    assert options == {}


@pytest.fixture
def shell(monkeypatch, tmp_path):
    """Return an IPython that the canvas takes for its own, and that runs cells as a front end with cell IDs does."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    config = Config()
    config.HistoryManager.enabled = False
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])  # IPython's would let no test start a process
    shell = InteractiveShell(config=config)
    runs = itertools.count()

    def run(name, code):
        parent = {"metadata": {"cellId": name} if name else {}, "header": {"msg_id": str(next(runs))}}
        shell.get_parent = lambda: parent
        shell.run_cell(code, store_history=True).raise_error()

    shell.run = run
    monkeypatch.setattr(cell, "get_ipython", lambda: shell)
    monkeypatch.setattr(fallback, "display", lambda *_, **__: None)
    yield shell
    shell.atexit_operations()
    atexit.unregister(shell.atexit_operations)


def test_running_a_cell_again_closes_what_it_made_before(shell, make):
    shell.user_ns["make"] = make
    gc.collect()
    before = live()
    shell.run("first", "canvas = make(); other = make(); canvas.add_point(100, 80)\ncanvas")
    one, other = shell.user_ns["canvas"], shell.user_ns["other"]
    assert shell.user_ns["_oh"][1] is shell.user_ns["_"] is shell.user_ns["_1"] is one
    both = live() - before
    shell.run("second", "elsewhere = make()\nelsewhere")
    shell.run("first", "canvas = make(); other = make()\ncanvas")
    assert (one.is_closed, other.is_closed, shell.user_ns["elsewhere"].is_closed) == (True, True, False)
    assert 1 not in shell.user_ns["_oh"]
    assert "_1" not in shell.user_ns
    assert shell.user_ns["_"] is shell.user_ns["canvas"]
    assert shell.user_ns["__"] is shell.user_ns["elsewhere"]
    assert one.session.points  # what was clicked is not lost as long as somebody names it
    shell.run("third", "6 * 7")
    assert shell.user_ns["_"] == shell.displayhook._ == 42  # IPython's own history goes on
    shell.user_ns["elsewhere"].close()
    assert live() - before <= both
    held = [
        value for names in (shell.user_ns, shell.user_ns_hidden, vars(shell.displayhook)) for value in names.values()
    ]
    assert not any(value is one for value in held)


def test_where_cells_have_no_names_nothing_is_closed(shell, make):
    shell.user_ns["make"] = make
    shell.run(None, "one = make()")
    shell.run(None, "two = make()")
    assert not shell.user_ns["one"].is_closed


def test_an_output_widget_takes_a_canvas(canvas, monkeypatch):
    class Shell:
        display_formatter = DisplayFormatter()

        @classmethod
        def instance(cls):
            return cls

    monkeypatch.setattr("ipywidgets.widgets.widget_output.InteractiveShell", Shell)
    out = ipywidgets.Output()
    out.append_display_data(ipywidgets.IntSlider())
    out.append_display_data(canvas)
    kinds = [set(output["data"]) for output in out.outputs]
    assert kinds == [{"application/vnd.jupyter.widget-view+json", "text/plain"}] * 2
    assert out.outputs[1]["data"]["application/vnd.jupyter.widget-view+json"]["model_id"] == canvas.model_id


@pytest.mark.parametrize("copy_of", [copy.deepcopy, pickle.dumps])
def test_a_canvas_is_neither_copied_nor_pickled_and_says_what_is(canvas, copy_of):
    with pytest.raises(TypeError, match=r"keep session.to_json\(\)"):
        pickle.dumps(canvas.session)
    with pytest.raises(TypeError, match=r"keep session.to_json\(\)"):
        copy_of(canvas)


def test_clicks_make_no_new_widgets(canvas):
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
        with hold():
            surface.fill_rect(0, 0, 5)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        draw()
    sent = []
    monkeypatch.setattr(ipycanvas_module._CanvasManager, "send", lambda self, *content, **_: sent.append(content))
    surface.fill_rect(0, 0, 5)
    assert sent


def test_each_message_names_its_canvas(monkeypatch):
    surface = Canvas(width=10, height=10)
    sent = []
    monkeypatch.setattr(ipycanvas_module._CanvasManager, "_send_custom", lambda _, commands, __: sent.append(commands))
    for _ in range(2):  # a page that missed the first one still draws the second in its place
        with hold():
            surface.fill_rect(0, 0, 5)
    switch = [ipycanvas_module.COMMANDS["switchCanvas"], [f"IPY_MODEL_{surface.model_id}"]]
    assert [commands[0] for commands in sent] == [switch, switch]


def test_in_a_kernel_the_model_computes_in_its_own_thread(make, model):
    async def scene():
        model.gate.clear()
        canvas = make()
        click(canvas, 100, 80)
        assert canvas.session.points  # while the model computes
        model.gate.set()
        await canvas.worker.join()
        assert "object 1 · mask 2 of 3" in canvas.status.text

    asyncio.run(scene())
    assert all(name.startswith("sam-nb") for name in model.threads)


def test_every_click_counts_and_only_the_last_masks_are_shown(make, model):
    shown = []

    async def scene():
        canvas = make()
        await canvas.worker.join()
        canvas.painter.layers.masks.observe(lambda change: shown.append(change["new"]), "value")
        model.gate.clear()
        model.entered.clear()
        for index in range(8):
            click(canvas, 50 + 50 * index, 80)
            await asyncio.to_thread(model.entered.wait, 60)  # the first click's masks are under way
        model.gate.set()
        await canvas.worker.join()
        assert f"{int(canvas.mask.sum()):,} pixels" in canvas.status.text
        assert len(canvas.prompt.points) == 8

    asyncio.run(scene())
    assert len(model.prompts) == 8
    assert len(shown) == 1


def test_of_the_places_under_the_mouse_only_the_last_is_decoded(make, model):
    async def scene():
        canvas = make(preview=True)
        await canvas.worker.join()
        model.gate.clear()
        model.entered.clear()
        for x in range(100, 300):
            send(canvas, "hover", x, 150)
            await asyncio.to_thread(model.entered.wait, 60)
        model.gate.set()
        await canvas.worker.join()
        assert [tuple(prompt.points[0]) for prompt in model.prompts] == [(100, 150), (299, 150)]
        assert canvas.painter.layers.preview.value
        assert not canvas.session.points

    asyncio.run(scene())


def test_the_preview_is_on_where_decoding_is_quick(make, model):
    model.wait = 0.09
    assert make(preview=None).pointer.hover
    model.wait = 0.11
    assert not make(preview=None).pointer.hover
    assert make(preview=True).pointer.hover
    model.max_preview_seconds = 0.2
    assert make(preview=None).controls.preview.value


def test_waiting_is_reported(make, model, clock):
    async def scene():
        model.gate.clear()
        canvas = make()
        await asyncio.to_thread(model.entered.wait, 60)
        clock.advance(1.3)
        assert canvas.status.text == "discs: encoding the image, once for all clicks … 25% in 1 s"
        model.gate.set()
        await canvas.worker.join()
        assert canvas.status.text.startswith("discs is ready")
        model.gate.clear()
        model.entered.clear()
        click(canvas, 100, 80)
        await asyncio.to_thread(model.entered.wait, 60)
        clock.advance(0.4)
        assert canvas.status.text == "discs: decoding …"
        model.gate.set()
        await canvas.worker.join()
        assert "object 1" in canvas.status.text

    asyncio.run(scene())


def test_with_the_embedded_model(lite):
    canvas = segment("street", lite, ground_truth=load_ground_truth("street"))
    canvas.add_point(500, 375)
    embedding = lite.encode(load_image("street"))
    np.testing.assert_array_equal(canvas.masks.bits, lite.decode(embedding, Prompt(points=[(500, 375)])).bits)
    assert "true IoU" in canvas.status.text


def test_with_mobilesam(random_vit_t, photo):
    """Random weights do as well: what the canvas shows is what the model gives, after a click and after a box."""
    sam = Sam(use_fast_layers(copy.deepcopy(random_vit_t)), "vit_t", "random")
    canvas = PromptCanvas(sam, photo)
    canvas.add_point(281, 90)
    embedding = sam.encode(photo)
    np.testing.assert_array_equal(canvas.masks.bits, sam.decode(embedding, Prompt(points=[(281, 90)])).bits)
    canvas.set_box(37, 21, 251, 240)
    np.testing.assert_array_equal(canvas.mask, sam.decode(embedding, canvas.prompt).best)
    canvas.close()
