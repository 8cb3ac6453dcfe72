import numpy as np
import pytest

from sam_nb.draw import comparison, overlay, overlay_records
from sam_nb.images import load_image
from sam_nb.palette import BOX, EXTRA, MISSING, NEGATIVE, PALETTE, POSITIVE
from sam_nb.prompts import Prompt


def test_overlay_mixes_inside_and_leaves_the_rest(blob):
    image = np.full((*blob.shape, 3), 100, np.uint8)
    drawn = overlay(image, [blob], colors=[(200, 0, 50)], alpha=0.5)
    assert (image == 100).all()
    assert drawn[40, 25].tolist() == [150, 50, 75]
    assert (drawn[:20] == 100).all()
    # The outline is opaque: redder than the fill, along the whole rim and nowhere else.
    outlined = drawn[..., 0] > 160
    y, x = np.nonzero(outlined)
    radius = np.hypot((x - 25) / 15, (y - 40) / 9)
    assert outlined.sum() > 50
    assert radius.min() > 0.7
    assert radius.max() < 1.25


def test_overlay_takes_colours_in_turn(blob):
    image = np.zeros((*blob.shape, 3), np.uint8)
    drawn = overlay(image, [blob, blob[:, ::-1]], alpha=1)
    assert tuple(drawn[40, 25]) == PALETTE[0]
    assert tuple(drawn[40, 64]) == PALETTE[1]
    assert np.array_equal(overlay(image, []), image)


def test_outlines_alone_leave_the_inside(blob):
    image = np.full((*blob.shape, 3), 100, np.uint8)
    drawn = overlay(image, [blob], alpha=0)
    changed = (drawn != 100).any(axis=2)
    assert not changed[40, 25]
    assert changed[40].any()


def test_overlay_zooms(blob):
    image = np.zeros((*blob.shape, 3), np.uint8)
    drawn, small = overlay(image, [blob], alpha=1, zoom=3), overlay(image, [blob], alpha=1)
    assert drawn.shape == (180, 270, 3)
    assert tuple(drawn[121, 76]) == PALETTE[0]
    filled, expected = drawn.any(axis=2).mean(), small.any(axis=2).mean()
    assert abs(filled - expected) < 0.2 * expected
    assert np.array_equal(overlay(image, [blob], zoom=1), overlay(image, [blob]))


def test_overlay_marks_a_prompt():
    image = np.full((320, 640, 3), 90, np.uint8)
    prompt = Prompt(points=[(100, 80), (500, 80)], labels=[1, 0], box=(40, 30, 560, 250))
    drawn = overlay(image, [], prompt=prompt)
    assert (image == 90).all()
    marks = {POSITIVE: (100, [(0, 0), (4, 0), (0, 4)], (4, 4)), NEGATIVE: (500, [(0, 0), (3, 3)], (0, 4))}
    for color, (x, white, filled) in marks.items():
        assert all(drawn[80 + dy, x + dx].min() > 200 for dx, dy in white)
        assert tuple(drawn[80 + filled[1], x + filled[0]]) == color
    assert tuple(drawn[250, 300]) == BOX
    assert (drawn[100:240, 60:540] == 90).all()
    zoomed = overlay(image, [], prompt=prompt, zoom=2)
    assert tuple(zoomed[501, 600]) == BOX
    assert zoomed[161, 201].min() > 200


def test_palette_colours_differ():
    assert len(set(PALETTE)) == len(PALETTE)


def test_comparison_colours_each_error(blob):
    image = np.full((*blob.shape, 3), 50, np.uint8)
    mask = np.roll(blob, 6, axis=1)
    drawn = comparison(mask, blob, image)
    assert np.array_equal((drawn == MISSING).all(axis=2), blob & ~mask)
    assert np.array_equal((drawn == EXTRA).all(axis=2), mask & ~blob)
    both, neither = drawn[mask & blob], drawn[~mask & ~blob]
    assert both.mean() > neither.mean()


def test_every_function_takes_what_load_image_takes(blob):
    grey = np.full(blob.shape, 100, np.uint8)
    rgb = np.repeat(grey[..., None], 3, axis=2)
    record = {"segmentation": blob, "area": int(blob.sum()), "point_coords": [[25.0, 40.0]]}
    assert np.array_equal(overlay(grey, [blob]), overlay(rgb, [blob]))
    assert np.array_equal(overlay_records(grey, [record]), overlay_records(rgb, [record]))
    assert np.array_equal(comparison(blob, blob, grey), comparison(blob, blob, rgb))
    assert np.array_equal(overlay("cat", []), load_image("cat"))


def test_overlay_takes_masks_of_zeros_and_ones(blob):
    image = np.full((*blob.shape, 3), 100, np.uint8)
    assert np.array_equal(overlay(image, [blob.astype(np.uint8)]), overlay(image, [blob]))


def test_a_mask_of_another_size_is_refused(blob):
    image = np.full((*blob.shape, 3), 100, np.uint8)
    words = r"mask and image differ in size: \(60, 89\) and \(60, 90\) \(height, width\)"
    with pytest.raises(ValueError, match=words):
        overlay(image, [blob[:, 1:]])
    with pytest.raises(ValueError, match=words):
        comparison(blob, blob[:, 1:], image)


def test_a_mask_keeps_its_colour_while_others_come_and_go():
    image = np.zeros((60, 200, 3), np.uint8)
    records = []
    for number in range(6):
        mask = np.zeros(image.shape[:2], bool)
        mask[10:50, 5 + 32 * number : 25 + 32 * number] = True
        records.append({"segmentation": mask, "area": 800, "point_coords": [[15 + 32 * number, 30]]})
    everything = overlay_records(image, records)
    assert len({tuple(everything[30, 15 + 32 * number]) for number in range(6)}) > 2
    assert np.array_equal(overlay_records(image, records[::-1]), everything)
    for record in records:
        mask = record["segmentation"]
        assert np.array_equal(overlay_records(image, [record])[mask], everything[mask])


def test_small_masks_lie_on_large_ones():
    large, small = np.ones((40, 60), bool), np.zeros((40, 60), bool)
    small[15:25, 20:30] = True
    records = [
        {"segmentation": small, "area": 100, "point_coords": [[25, 20]]},
        {"segmentation": large, "area": 2400, "point_coords": [[50, 5]]},
    ]
    image = np.zeros((40, 60, 3), np.uint8)
    both = overlay_records(image, records)
    assert np.array_equal(both, overlay_records(image, records[::-1]))
    assert not np.array_equal(both[20, 25], both[5, 5])
