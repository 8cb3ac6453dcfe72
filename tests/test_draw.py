import numpy as np

from sam_nb.draw import comparison, overlay
from sam_nb.palette import EXTRA, MISSING, PALETTE


def test_overlay_mixes_inside_and_leaves_the_rest(blob):
    image = np.full((*blob.shape, 3), 100, np.uint8)
    picture = overlay(image, [blob], colors=[(200, 0, 50)], alpha=0.5)
    assert (image == 100).all()
    assert picture[40, 25].tolist() == [150, 50, 75]
    assert (picture[:20] == 100).all()
    # The outline is opaque: redder than the fill, along the whole rim and nowhere else.
    outlined = picture[..., 0] > 160
    y, x = np.nonzero(outlined)
    radius = np.hypot((x - 25) / 15, (y - 40) / 9)
    assert outlined.sum() > 50
    assert radius.min() > 0.7
    assert radius.max() < 1.25


def test_overlay_takes_colours_in_turn(blob):
    image = np.zeros((*blob.shape, 3), np.uint8)
    picture = overlay(image, [blob, blob[:, ::-1]], alpha=1)
    assert tuple(picture[40, 25]) == PALETTE[0]
    assert tuple(picture[40, 64]) == PALETTE[1]
    assert np.array_equal(overlay(image, []), image)


def test_palette_colours_differ():
    assert len(set(PALETTE)) == len(PALETTE)


def test_comparison_colours_each_error(blob):
    image = np.full((*blob.shape, 3), 50, np.uint8)
    mask = np.roll(blob, 6, axis=1)
    picture = comparison(mask, blob, image)
    assert np.array_equal((picture == MISSING).all(axis=2), blob & ~mask)
    assert np.array_equal((picture == EXTRA).all(axis=2), mask & ~blob)
    both, neither = picture[mask & blob], picture[~mask & ~blob]
    assert both.mean() > neither.mean()
