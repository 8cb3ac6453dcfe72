"""Where things are on the canvas and in the image: there and back, and where they stay while coming closer."""

import numpy as np
import pytest

from sam_nb.canvas.view import MIN_SIDE, View


@pytest.mark.parametrize(("height", "width"), [(648, 1152), (3000, 4000), (4000, 900), (60, 90), (1, 500)])
def test_a_whole_image_fits(height, width):
    view = View.fit(height, width, 720, 1024)
    assert view.canvas_width <= 1024
    assert view.canvas_height <= 720
    assert view.scale <= 4
    assert min(view.canvas_width, view.canvas_height) >= MIN_SIDE
    assert view.canvas_width / view.canvas_height == pytest.approx(width / height, rel=0.02) or min(height, width) < 5


def test_corners_and_centres():
    view = View.fit(300, 600, 600, 1200)
    assert view.scale == 2
    assert view.to_image(0, 0) == (-0.5, -0.5)
    assert view.to_image(1, 1) == (0, 0)  # the centre of a pixel that covers four of the canvas
    assert view.to_canvas(599, 299) == (1199, 599)
    assert view.clamped(-3, 400) == (0, 299)


@pytest.mark.parametrize("seed", range(20))
def test_there_and_back_and_still_there_after_coming_closer(seed):
    rng = np.random.default_rng(seed)
    view = View.fit(int(rng.integers(50, 3000)), int(rng.integers(50, 3000)), 720, 1024)
    for _ in range(12):
        x, y = rng.uniform(0, view.canvas_width), rng.uniform(0, view.canvas_height)
        place = view.to_image(x, y)
        np.testing.assert_allclose(view.to_canvas(*place), (x, y), atol=1e-6)
        if rng.random() < 0.5:
            closer = view.zoomed(1.25, x, y)
            np.testing.assert_allclose(closer.to_canvas(*place), (x, y), atol=1e-6)
            view = closer
        else:
            view = view.moved(*rng.uniform(-300, 300, 2)).zoomed(rng.uniform(0.5, 1.5), x, y)
        corners = view.to_image(0, 0), view.to_image(view.canvas_width, view.canvas_height)
        slack = 1.5 / view.fitting + 0.5  # the canvas has whole pixels
        assert min(corners[0]) >= -0.5 - 1e-6
        assert corners[1][0] <= view.width + slack
        assert corners[1][1] <= view.height + slack


def test_farther_than_the_whole_image_is_the_whole_image():
    view = View.fit(648, 1152, 720, 1024)
    near = view.zoomed(3, 200, 100).moved(-50, 20)
    assert near != view
    assert near.zoomed(0.01, 7, 7) == view.whole()


@pytest.mark.parametrize(("height", "width"), [(1, 3000), (10, 30_000), (40, 30_000), (3000, 1), (1, 1), (2, 3)])
def test_a_thin_image_lies_in_the_middle_of_a_canvas_that_can_be_clicked(height, width):
    view = View.fit(height, width, 640, 1024)
    assert MIN_SIDE <= view.canvas_height <= 640
    assert MIN_SIDE <= view.canvas_width <= 1024
    middle = (view.canvas_width / 2, view.canvas_height / 2)
    np.testing.assert_allclose(view.to_canvas((width - 1) / 2, (height - 1) / 2), middle, atol=0.51)
    rows, columns = view.pixels()
    ends = (rows[0], rows[-1], columns[0], columns[-1])
    np.testing.assert_allclose(ends, (0, height - 1, 0, width - 1), atol=1 / view.scale)
    closer = view.zoomed(16, *middle).moved(1e9, 1e9)
    assert [line[0] for line in closer.pixels()] == [0, 0]  # moved as far as it goes
    assert closer.zoomed(1e-9, 1, 1) == view


def test_a_pixel_of_the_canvas_shows_the_pixel_of_the_image_that_a_click_on_it_means():
    for view in (View.fit(300, 451, 640, 1024), View.fit(2000, 3000, 640, 1024).zoomed(5, 300, 200)):
        rows, columns = view.pixels()
        for x, y in ((0, 0), (100, 200), (view.canvas_width - 1, view.canvas_height - 1)):
            column, row = view.clamped(*view.to_image(x + 0.5, y + 0.5))
            assert (columns[x], rows[y]) == (round(column), round(row))


def test_the_affine_map_is_the_same_geometry():
    view = View.fit(648, 1152, 720, 1024).zoomed(2.5, 300, 200)
    matrix = view.affine()
    for x, y in ((0, 0), (400.25, 77), (1151, 647)):
        cx, cy = view.to_canvas(x, y)
        np.testing.assert_allclose(matrix @ (x, y, 1), (cx - 0.5, cy - 0.5))
