"""The sliders of everything-mode: each movement selects anew, and decodes nothing."""

import io
import os
from pathlib import Path

import lab
import numpy as np
import pytest
from PIL import Image

from sam_nb import MaskSliders, load_image, segment_everything, select
from sam_nb.draw import overlay_records

START = {"pred_iou_thresh": 0.4, "stability_score_thresh": 0.6, "box_nms_thresh": 0.7}


@pytest.fixture(scope="module")
def records(lite):
    return segment_everything(
        lite, load_image("street"), points_per_side=6, pred_iou_thresh=0, stability_score_thresh=0, box_nms_thresh=1
    )


def test_a_slider_selects_anew(lite, records, monkeypatch):
    image = load_image("street")
    monkeypatch.setattr(lite.model.mask_decoder, "forward", None)  # nobody may decode
    mask_sliders = MaskSliders(image, records, lite, **START)
    shown = []
    for name, value in (("pred_iou_thresh", 0.0), ("box_nms_thresh", 0.1), ("stability_score_thresh", 0.8)):
        mask_sliders.sliders[name].value = value
        settings = {name: slider.value for name, slider in mask_sliders.sliders.items()}
        assert settings[name] == value
        assert mask_sliders.selected == select(records, **settings)
        *_, status, shown_image = mask_sliders.children
        assert status.value == f"masks: {len(mask_sliders.selected)} of {len(records)} · lite"
        found = np.asarray(Image.open(io.BytesIO(shown_image.value)))
        expected = Image.fromarray(overlay_records(image, mask_sliders.selected)).resize(found.shape[1::-1])
        assert np.abs(found.astype(int) - np.asarray(expected)).mean() < 6
        shown.append(shown_image.value)
    assert len(set(shown)) == 3


def test_the_sliders_begin_where_it_suits_the_model(lite, records):
    mask_sliders = MaskSliders("street", records, lite, stability_score_thresh=0.25)
    values = {name: slider.value for name, slider in mask_sliders.sliders.items()}
    assert values == {
        "pred_iou_thresh": lite.thresholds.pred_iou_thresh,
        "stability_score_thresh": 0.25,
        "box_nms_thresh": lite.thresholds.box_nms_thresh,
    }


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


# What notebook 07 does, on fewer clicks.
IN_A_CELL = """
import json
from sam_nb import MaskSliders, load_image, load_sam, segment_everything
image = load_image("coins")
sam = load_sam("lite")
everything = segment_everything(
    sam, image, points_per_side=6, pred_iou_thresh=0, stability_score_thresh=0, box_nms_thresh=1
)
mask_sliders = MaskSliders(image, everything, sam, pred_iou_thresh=0.2, stability_score_thresh=0, box_nms_thresh=1)
mask_sliders
"""


@pytest.mark.usefixtures("need_chromium")
def test_a_slider_is_moved_in_jupyterlab(tmp_path):
    lab.write_notebook(tmp_path / "sliders.ipynb", IN_A_CELL)
    work = tmp_path / "work"
    work.mkdir()
    with lab.jupyter_lab(tmp_path, work) as (address, token), lab.chromium_page() as page:
        lab.open_notebook(page, address, token, "sliders.ipynb")
        lab.run_all_cells(page, timeout=120)
        overlay, handle = page.locator(".widget-image"), page.locator(".noUi-handle").first
        before, left = overlay.screenshot(), lab.ask(page, "len(mask_sliders.selected)")
        handle.focus()
        for _ in range(10):  # a key moves it by a hundredth; the kernel's reply comes in between
            for _ in range(10):
                handle.press("ArrowRight")
            if lab.ask(page, "mask_sliders.sliders['pred_iou_thresh'].value") > 0.5:
                break
        fewer = lab.ask(page, "len(mask_sliders.selected)")
        assert fewer < left
        page.get_by_text(f"masks: {fewer} of {lab.ask(page, 'len(everything)')} · lite").wait_for()
        assert overlay.screenshot() != before
        if folder := os.environ.get("SAM_NB_SCREENSHOTS"):
            page.locator(".jp-OutputArea-output .widget-vbox").scroll_into_view_if_needed()
            page.screenshot(path=Path(folder) / "sliders.png")
