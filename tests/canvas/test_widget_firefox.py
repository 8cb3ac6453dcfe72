"""The canvas in Firefox: the ways of pointing and the keys. What Chromium shows at length is not repeated here."""

import firefox
import lab
import pytest
from hand import NOTEBOOK, Hand, near, serve_canvas


@pytest.fixture(scope="module")
def opened(need_firefox, tmp_path_factory):
    with serve_canvas(tmp_path_factory.mktemp("jupyter")) as server, firefox.firefox_page() as page:
        lab.open_notebook(page, *server, NOTEBOOK)
        hand = Hand(page)
        hand.start()
        yield hand


@pytest.fixture
def hand(opened):
    opened.fresh()
    return opened


def test_left_and_right_click(hand):
    hand.click(500, 300)
    hand.wait_for(530, 300, masked=True)
    hand.click(540, 300, button="right")
    hand.wait_for(530, 300, masked=False)
    near(hand.points(), [(500, 300, 1), (540, 300, 0)])
    assert hand.page.locator(".lm-Menu").count() == 0


def test_drag_draws_a_box(hand):
    hand.drag((300, 200), (420, 330))
    hand.wait_for(310, 320, masked=True)
    box = hand.ask("[canvas.session.box.x0, canvas.session.box.y0, canvas.session.box.x1, canvas.session.box.y1]")
    assert box == pytest.approx([300, 200, 420, 330], abs=1.5)


def test_the_preview_follows_the_mouse(hand):
    hand.ask("setattr(canvas.controls.preview, 'value', True)")
    hand.page.mouse.move(*hand.place(200, 200))
    hand.page.mouse.move(*hand.place(600, 400), steps=20)
    lab.wait_until(lambda: hand.color(640, 400) != [90, 90, 90], "no preview")
    assert hand.points() == []
    hand.page.mouse.move(10, 10)
    lab.wait_until(lambda: hand.color(640, 400) == [90, 90, 90], "the preview stayed")


def test_keys(hand):
    hand.click(500, 300)
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
