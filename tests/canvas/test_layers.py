"""What the browser is sent, decoded again."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from sam_nb.canvas.layers import MAX_OBJECTS, encode_image, encode_jpeg, encode_masks, snapshot
from sam_nb.canvas.view import View
from sam_nb.palette import BOX, NEGATIVE, POSITIVE
from sam_nb.session import Box, Point

RED, BLUE = (200, 10, 20), (10, 20, 220)


def decoded(file):
    return np.array(Image.open(io.BytesIO(file)).convert("RGBA"))


@pytest.fixture
def view():
    return View(60, 90, 60, 90, 1.0)


def test_a_mask_comes_through_exactly(blob, view):
    layer = decoded(encode_masks([(blob, RED)], view, 0.5))
    assert layer.shape == (60, 90, 4)
    visible = layer[..., 3] > 0
    # The outline is drawn on the mask's own border pixels, a little wide.
    assert not (blob & ~visible).any()
    assert np.count_nonzero(visible & ~blob) < 0.2 * blob.sum()
    assert (layer[visible][:, :3] == RED).all()
    assert layer[40, 25, 3] == 128
    assert layer[40, 25 - 15 + 1, 3] == 255


def test_holes_stay_holes(blob, view):
    blob[38:43, 20:30] = False
    layer = decoded(encode_masks([(blob, RED)], view, 0.5))
    assert layer[40, 25, 3] == 0
    assert layer[37, 25, 3] == 255  # and have an outline


def test_later_masks_lie_on_top(blob, view):
    other = np.zeros_like(blob)
    other[36:45, 20:60] = True
    layer = decoded(encode_masks([(blob, RED), (other, BLUE)], view, 0.5))
    assert tuple(layer[40, 27, :3]) == BLUE
    assert tuple(layer[47, 25, :3]) == RED


def test_many_objects_fit_into_the_palette(blob, view):
    painted = [(np.roll(blob, index, axis=1), (index, 0, 0)) for index in range(MAX_OBJECTS + 20)]
    assert decoded(encode_masks(painted, view, 0.5)).any()


def test_no_masks_are_nothing(view):
    assert not decoded(encode_masks([], view, 0.5)).any()


def test_from_close_by_a_pixel_is_a_square(blob):
    view = View(60, 90, 120, 180, 8.0, left=15, top=32)
    layer = decoded(encode_masks([(blob, RED)], view, 0.5))
    visible = layer[..., 3] > 0
    expected = blob[32:47, 15:37].repeat(8, axis=0).repeat(8, axis=1)[:120, :176]
    # The outline is about a pixel wide on the canvas.
    assert np.count_nonzero(visible[:, :176] ^ expected) < 0.04 * expected.size


def test_the_image_in_view(photo):
    whole = decoded(encode_image(photo, View(300, 451, 150, 226, 0.5)))[..., :3]
    assert whole.shape == (150, 226, 3)
    blocks = photo[:300, :450].reshape(150, 2, 225, 2, 3).mean((1, 3))
    assert np.abs(whole[:, :225].astype(float) - blocks).mean() < 4
    close = decoded(encode_image(photo, View(300, 451, 240, 320, 8.0, left=100, top=60)))[..., :3]
    part = photo[60:90, 100:140].repeat(8, axis=0).repeat(8, axis=1)
    assert np.abs(close.astype(float) - part).mean() < 4


@pytest.mark.parametrize(("height", "width"), [(1, 3000), (10, 30_000), (40, 30_000), (3000, 1), (1, 1), (300, 33_000)])
@pytest.mark.parametrize("closer", [1, 60])
def test_images_of_every_shape_are_shown(height, width, closer):
    """OpenCV resizes nothing to a side of 0, and OpenCV 4 warps nothing of more than 32,766 pixels along a side."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, width // 2 :] = (200, 100, 50)
    mask = image[..., 0] > 0
    view = View.fit(height, width, 640, 1024)
    view = view.zoomed(closer, view.canvas_width / 2, view.canvas_height / 2)
    shape = (view.canvas_height, view.canvas_width)
    seen = decoded(encode_image(image, view))[..., :3].astype(int)
    drawn = decoded(encode_masks([(mask, RED)], view, 0.5))
    assert seen.shape[:2] == drawn.shape[:2] == shape
    middle = round(view.to_canvas(width // 2 - 0.5, 0)[0]) if width > 1 else 0
    assert np.abs(seen[:, middle + 6 :] - (200, 100, 50)).max(initial=0) < 8
    assert seen[:, : max(0, middle - 6)].max(initial=0) < 8
    assert (drawn[:, middle + 3 :, 3] >= 128).all()
    assert not drawn[:, : max(0, middle - 3), 3].any()
    picture = snapshot(image, view, painted=[(mask, RED)], points=[], box=None, opacity=0.5)
    assert picture.shape == (*shape, 3)


def test_a_part_looks_as_it_does_within_the_whole(photo):
    """A shrunk part is cut out before it is shrunk; what is seen must not move."""
    large = photo.repeat(6, axis=0).repeat(6, axis=1)
    for view in (
        View.fit(1800, 2706, 600, 902).zoomed(1.7, 500, 300),
        View.fit(1800, 2706, 600, 902).zoomed(2.9, 7, 7),
    ):
        seen = decoded(encode_image(large, view))[..., :3].astype(float)
        rows, columns = view.pixels()
        smooth = cv2.blur(large, (3, 3))[rows[:, None], columns].astype(float)
        assert np.abs(seen - smooth).mean() < 5


def test_the_snapshot_shows_everything(blob, view):
    image = np.full((60, 90, 3), 100, np.uint8)
    points = [Point(70, 20, 1), Point(25, 40, 0)]
    drawn = snapshot(image, view, painted=[(blob, RED)], points=points, box=Box(50, 5, 85, 50), opacity=0.5)
    assert drawn.shape == (60, 90, 3)
    assert tuple(drawn[40, 38]) == (150, 55, 60)  # the mask at half strength
    assert tuple(drawn[55, 5]) == (100, 100, 100)
    assert tuple(drawn[16, 66]) == POSITIVE
    assert tuple(drawn[35, 25]) == NEGATIVE
    assert tuple(drawn[30, 85]) == BOX
    assert encode_jpeg(drawn)[:2] == b"\xff\xd8"
