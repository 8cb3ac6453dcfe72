"""The canvas in Firefox: the tests of pointing and of the keys that Chromium passes, too."""

import firefox
import lab
import pytest
from hand import NOTEBOOK, Hand, serve_canvas
from test_widget_browser import (  # noqa: F401  (pytest runs them again, with the hand of this module)
    test_a_drag_backwards_is_the_same_box,
    test_a_drag_that_leaves_the_canvas_ends_at_its_edge,
    test_drag_draws_a_box,
    test_keys_undo_redo_next_new_and_delete,
    test_left_right_and_shift,
    test_the_preview_follows_the_mouse,
)


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
