"""The canvas as it is used: JupyterLab in Chromium, mouse, finger and keyboard."""

import os
from pathlib import Path

import lab
import pytest
from hand import FILL, NOTEBOOK, SIZE, Hand, near, serve_canvas

pytestmark = pytest.mark.usefixtures("need_chromium")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serve_canvas(tmp_path_factory.mktemp("jupyter")) as served:
        yield served


@pytest.fixture(scope="module")
def opened(server):
    with lab.chromium_page(has_touch=True) as page:
        yield from sitting(page, server)


@pytest.fixture(scope="module")
def narrow(opened, server):
    """A small window on a screen of twice the resolution: the browser shrinks the canvas."""
    small = {"width": 760, "height": 900}
    context = opened.page.context.browser.new_context(viewport=small, device_scale_factor=2, has_touch=True)
    yield from sitting(context.new_page(), server)
    context.close()


def sitting(page, server):
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    lab.open_notebook(page, *server, NOTEBOOK)
    hand = Hand(page)
    hand.start()
    yield hand
    # So anywidget calls one that was closed before the page came to it.
    assert not [problem for problem in problems if "Failed to initialize model" not in problem]


def photograph(hand, name):
    """Keep a screenshot of the page for whoever wants to look at it."""
    if folder := os.environ.get("SAM_NB_SCREENSHOTS"):
        hand.page.screenshot(path=Path(folder) / f"canvas-{name}.png")


@pytest.fixture
def hand(opened):
    opened.fresh()
    return opened


def test_left_right_and_shift(hand):
    hand.click(500, 300)
    hand.wait_for(530, 300, masked=True)
    hand.click(540, 300, button="right")
    hand.wait_for(530, 300, masked=False)
    hand.page.keyboard.down("Shift")
    hand.click(470, 330)
    hand.page.keyboard.up("Shift")
    hand.wait_for(480, 330, masked=False)
    near(hand.points(), [(500, 300, 1), (540, 300, 0), (470, 330, 0)])
    assert hand.page.locator(".lm-Menu").count() == 0


def test_drag_draws_a_box(hand):
    hand.drag((300, 200), (420, 330))
    hand.wait_for(310, 320, masked=True)
    box = hand.ask("[canvas.session.box.x0, canvas.session.box.y0, canvas.session.box.x1, canvas.session.box.y1]")
    assert box == pytest.approx([300, 200, 420, 330], abs=1.5)


def test_a_drag_that_leaves_the_canvas_ends_at_its_edge(hand):
    hand.drag((900, 500), (1200, 600))
    hand.wait_for(1000, 590, masked=True)
    box = hand.ask("[canvas.session.box.x0, canvas.session.box.y0, canvas.session.box.x1, canvas.session.box.y1]")
    assert box == pytest.approx([900, 500, 1023, 600], abs=1.5)


def test_a_drag_backwards_is_the_same_box(hand):
    hand.drag((420, 330), (300, 200))
    hand.wait_for(310, 320, masked=True)


def test_the_modes_do_the_same_for_a_finger(hand):
    hand.page.touchscreen.tap(*hand.place(500, 300))
    hand.wait_for(530, 300, masked=True)
    hand.page.get_by_role("button", name="Exclude").click()
    hand.page.touchscreen.tap(*hand.place(540, 300))
    hand.wait_for(530, 300, masked=False)
    near(hand.points(), [(500, 300, 1), (540, 300, 0)])


def test_keys_undo_redo_next_new_and_delete(hand):
    hand.click(500, 300)
    hand.wait_for(530, 300, masked=True)
    cells = "() => window.jupyterapp.shell.currentWidget.content.model.cells.length"
    before = hand.page.evaluate(cells)
    hand.wait_for_status("mask 2 of 3")
    hand.page.keyboard.press("m")
    hand.wait_for_status("mask 3 of 3")
    hand.page.keyboard.press("z")
    hand.page.keyboard.press("z")
    hand.wait_for(530, 300, masked=False)
    hand.page.keyboard.press("Control+Shift+z")
    hand.wait_for(530, 300, masked=True)
    hand.page.keyboard.press("n")
    hand.wait_for_status("is ready")
    assert hand.ask("len(canvas.session.objects)") == 2
    hand.page.keyboard.press("Delete")
    hand.wait_for_status("object 1")
    assert hand.ask("len(canvas.session.objects)") == 1
    assert hand.page.evaluate(cells) == before


def test_the_keyboard_leaves_the_canvas(hand):
    focused = "() => document.activeElement.getAttribute('role')"
    hand.click(500, 300)
    assert hand.page.evaluate(focused) == "application"
    hand.page.keyboard.press("Tab")
    assert hand.page.evaluate(focused) != "application"
    hand.click(500, 300)
    hand.page.keyboard.press("Escape")
    assert hand.page.evaluate(focused) != "application"


def test_the_wheel_scrolls_the_notebook(hand):
    top = hand.layers.bounding_box()["y"]
    hand.page.mouse.move(*hand.place(500, 300))
    hand.page.mouse.wheel(0, 200)
    lab.wait_until(lambda: hand.layers.bounding_box()["y"] <= top - 50, "the notebook did not scroll")


def test_zoomed_clicks_land_where_they_are_seen(hand):
    x, y = hand.place(700, 200)
    hand.page.mouse.move(x, y)
    hand.page.keyboard.down("Control")
    for _ in range(4):
        hand.page.mouse.wheel(0, -100)
    hand.page.keyboard.up("Control")
    lab.wait_until(lambda: hand.ask("canvas.view.scale") >= 2.4, "the image did not come closer")
    hand.page.mouse.click(x, y)
    hand.wait_for(700 - 30, 200, masked=True)
    near(hand.points(), [(700, 200, 1)], tolerance=2)


def test_the_preview_follows_the_mouse(hand):
    hand.ask("setattr(canvas.controls.preview, 'value', True)")
    hand.page.mouse.move(*hand.place(200, 200))
    hand.page.mouse.move(*hand.place(600, 400), steps=20)
    lab.wait_until(lambda: hand.color(640, 400) != [90, 90, 90], "no preview")
    assert hand.color(250, 200) == [90, 90, 90]
    assert hand.points() == []
    hand.page.mouse.move(10, 10)
    lab.wait_until(lambda: hand.color(640, 400) == [90, 90, 90], "the preview stayed")


def test_the_preview_never_falls_behind(hand):
    hand.ask("[setattr(sam, 'wait', 0.15), setattr(canvas.controls.preview, 'value', True)] and 0")
    before = hand.ask("len(sam.prompts)")
    for sweep in range(3):
        hand.page.mouse.move(*hand.place(100 + 10 * sweep, 100), steps=30)
        hand.page.mouse.move(*hand.place(900, 500), steps=30)
    lab.wait_until(lambda: hand.color(930, 500) != [90, 90, 90], "no preview", 30)
    # Of 180 places the mouse was at, those that it had left were skipped.
    assert hand.ask("len(sam.prompts)") - before < 90


def test_fast_clicks_all_count(hand):
    hand.ask("setattr(sam, 'wait', 0.1)")
    places = [(100 + 80 * index, 300, 1) for index in range(10)]
    for x, y, _ in places:
        hand.click(x, y)
    hand.wait_for(100 + 80 * 9 + 30, 300, masked=True, seconds=20)
    near(hand.points(), places)


def test_a_thousand_clicks_and_moves_leave_nothing_behind(hand):
    hand.ask("setattr(sys.modules['sam_nb.session'], 'MAX_CACHE_BYTES', 2**24)")
    hand.ask("setattr(canvas.controls.preview, 'value', True)")
    corner, far = hand.place(0, 0), hand.place(900, 500)

    def storm(count):
        for number in range(count):
            x, y = (a + (b - a) * (number * step % 97) / 97 for a, b, step in zip(corner, far, (37, 53), strict=True))
            hand.page.mouse.move(x, y)
            hand.page.mouse.click(x + 20, y + 20)
            if number % 4 == 3:
                hand.page.keyboard.press("Delete")

    left = "[psutil.Process().memory_info().rss / 2**20, len(ipywidgets.widgets.widget._instances), len(sam.prompts)]"
    storm(100)
    memory, widgets, decoded = hand.ask(left)
    storm(900)
    lab.wait_until(lambda: hand.ask("not canvas.worker.is_busy"), "the worker does not come to rest", 120)
    memory_after, widgets_after, decoded_after = hand.ask(left)
    assert decoded_after - decoded > 50  # on a slow computer most objects are deleted before they were decoded
    assert widgets_after == widgets
    assert memory_after < memory + 40
    assert hand.ask("len(canvas.session.objects)") == 1
    hand.click(505, 405)
    hand.wait_for(535, 405, masked=True, seconds=20)


def test_running_the_cell_again_leaves_nothing_of_the_canvas_before(hand):
    hand.click(100, 80)
    hand.wait_for(130, 80, masked=True)
    count = "len(ipywidgets.widgets.widget._instances)"
    hand.ask("globals().update(before=canvas) or 1")
    widgets = hand.ask(count)
    hand.start()
    assert hand.ask("before.is_closed and canvas is not before and len(before.session.points) == 1")
    assert hand.ask(count) <= widgets
    # IPython's history held it, too.
    assert (
        hand.ask(
            "(globals().update(before=None), __import__('gc').collect(), "
            "sum(isinstance(each, PromptCanvas) for each in __import__('gc').get_objects()))[2]"
        )
        == 1
    )
    assert hand.page.locator(".jp-OutputArea canvas").count() == 1
    hand.click(300, 200)
    hand.wait_for(330, 200, masked=True)


def test_a_canvas_closed_while_it_is_drawn_stops_no_other(hand):
    made = "[PromptCanvas(sam, image, preview=False) for _ in range(5)]"
    hand.ask(f"[(each.painter.redraw(), each.close()) for each in {made}] and 1")
    hand.click(500, 300)
    hand.wait_for(530, 300, masked=True)


def test_a_failing_model_is_reported_and_the_canvas_lives_on(hand):
    hand.ask("setattr(sam, 'fails', True)")
    hand.click(444, 333)  # nowhere that was decoded before
    hand.wait_for_status("RuntimeError: the model has <no> memory left")
    photograph(hand, "failing")
    hand.ask("setattr(sam, 'fails', False)")
    hand.click(470, 333)
    hand.wait_for(510, 333, masked=True)


def test_a_reloaded_page_shows_the_same(hand, server):
    hand.click(500, 300)
    hand.wait_for(530, 300, masked=True)
    hand.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    hand.page.wait_for_timeout(1000)
    hand.page.reload()
    lab.wait_for_kernel(hand.page)
    hand.layers.wait_for()
    hand.wait_until_still()
    hand.wait_for(530, 300, masked=True)
    hand.click(700, 300)
    hand.wait_for(730, 300, masked=True)


def test_a_lost_kernel_is_reported(hand):
    hand.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.restartKernel()")
    hand.page.get_by_text("The kernel was restarted").first.wait_for(timeout=20000)
    photograph(hand, "lost")
    hand.start()


def test_a_closed_notebook_shows_what_was_clicked(hand, server):
    hand.start()  # a page that was reloaded takes no new image until the cell runs again
    static = hand.page.locator(".jp-OutputArea .jp-RenderedImage img").first
    assert not static.is_visible()  # the canvas is alive
    hand.click(500, 300)
    hand.wait_for(530, 300, masked=True)
    hand.page.wait_for_timeout(2000)  # the hand rests
    assert not static.is_visible()
    hand.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    lab.shut_down_kernel(hand.page)
    hand.page.reload()
    static.wait_for()
    assert hand.layers.count() == 0
    color = static.evaluate(
        """(img) => {
            const canvas = new OffscreenCanvas(img.naturalWidth, img.naturalHeight);
            const context = canvas.getContext('2d');
            context.drawImage(img, 0, 0);
            const scale = img.naturalWidth / 1024;
            return [...context.getImageData(530 * scale, 300 * scale, 1, 1).data].slice(0, 3);
        }"""
    )
    assert color == pytest.approx(FILL, abs=12)
    photograph(hand, "closed")
    lab.wait_for_kernel(hand.page)
    hand.start()


def test_a_canvas_that_the_browser_shrinks(narrow):
    narrow.fresh()
    assert narrow.layers.bounding_box()["width"] < 0.75 * SIZE[1]
    narrow.click(500, 300)
    narrow.wait_for(530, 300, masked=True)
    narrow.drag((700, 400), (820, 500))
    narrow.wait_for(810, 490, masked=True)
    near(narrow.points(), [(500, 300, 1)])
    box = narrow.ask("[canvas.session.box.x0, canvas.session.box.y0, canvas.session.box.x1, canvas.session.box.y1]")
    assert box == pytest.approx([700, 400, 820, 500], abs=2)
    narrow.page.touchscreen.tap(*narrow.place(200, 100))
    narrow.wait_for(230, 100, masked=True)
    photograph(narrow, "narrow")
