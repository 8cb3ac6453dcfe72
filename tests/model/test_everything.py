"""Everything-mode against `SamAutomaticMaskGenerator` on the same model."""

import warnings

import numpy as np
import pytest
import torch
from scipy import ndimage
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.utils import amg
from skimage.filters import sobel
from skimage.segmentation import watershed

from sam_nb import iou, load_image, segment_everything, select

# Thresholds at which there is something to compare on every image.
LOOSE = {"points_per_side": 8, "pred_iou_thresh": 0.4, "stability_score_thresh": 0.6, "box_nms_thresh": 0.7}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"crop_n_layers": 1, "crop_n_points_downscale_factor": 2},
        {"min_mask_region_area": 400},
        {"pred_iou_thresh": 0, "stability_score_thresh": 0, "points_per_side": 3},
    ],
    ids=["grid", "crops", "tidied", "unfiltered"],
)
def test_it_finds_what_upstream_finds(lite, settings):
    image = load_image("street")
    settings = LOOSE | settings
    theirs = SamAutomaticMaskGenerator(lite.model, **settings).generate(image)
    ours = segment_everything(lite, image, **settings)
    assert len(theirs) >= 4
    # Clicks are decoded in other batches, so logits differ in the last digits and a mask by a pixel here and there.
    assert len(ours) == len(theirs)
    equal = 0
    for mine, other in zip(ours, theirs, strict=True):
        assert set(mine) == set(other)
        assert iou(mine["segmentation"], other["segmentation"]) > 0.99
        assert mine["segmentation"].dtype == other["segmentation"].dtype == bool
        assert mine["area"] == np.count_nonzero(mine["segmentation"])
        assert mine["area"] == pytest.approx(other["area"], rel=0.01)
        if np.array_equal(mine["segmentation"], other["segmentation"]):
            assert mine["bbox"] == other["bbox"]
            equal += 1
        assert mine["crop_box"] == other["crop_box"]
        for name in ("predicted_iou", "stability_score"):
            assert mine[name] == pytest.approx(other[name], abs=1e-3, nan_ok=True)
        assert mine["point_coords"] == pytest.approx(np.array(other["point_coords"]))
    assert equal > len(ours) / 2


def test_output_modes_hold_the_same_masks(lite, photo):
    modes = {mode: segment_everything(lite, photo, **LOOSE, output_mode=mode) for mode in ("binary_mask", "coco_rle")}
    assert modes["binary_mask"]
    for mask, code in zip(modes["binary_mask"], modes["coco_rle"], strict=True):
        expected = amg.mask_to_rle_pytorch(torch.from_numpy(mask["segmentation"][None]))[0]
        assert code["segmentation"] == amg.coco_encode_rle(expected)
    plain = segment_everything(lite, photo, **LOOSE, output_mode="uncompressed_rle")
    theirs = SamAutomaticMaskGenerator(lite.model, **LOOSE, output_mode="uncompressed_rle").generate(photo)
    assert plain[0]["segmentation"] == theirs[0]["segmentation"]
    assert np.array_equal(amg.rle_to_mask(plain[0]["segmentation"]), modes["binary_mask"][0]["segmentation"])


def test_grids_of_your_own(lite, photo):
    records = segment_everything(
        lite, photo, points_per_side=None, point_grids=[[(0.5, 0.5)]], pred_iou_thresh=0, stability_score_thresh=0
    )
    assert {tuple(record["point_coords"][0]) for record in records} == {(225.5, 150.0)}


def test_nothing_found(lite, photo):
    assert segment_everything(lite, photo, points_per_side=2, pred_iou_thresh=0.999) == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"output_mode": "png"}, "no output_mode 'png': expected one of binary_mask, uncompressed_rle, coco_rle"),
        ({"point_grids": [[(0.5, 0.5)]]}, "give points_per_side or point_grids"),
        ({"points_per_side": None}, "give points_per_side or point_grids"),
        ({"points_per_side": None, "point_grids": [[(0.5, 0.5)]], "crop_n_layers": 1}, "got 1"),
        ({"points_per_side": None, "point_grids": [[(0.5, 0.5)]] * 2}, "one for each layer of crops, 1, got 2"),
        ({"points_per_side": None, "point_grids": np.array([[0.5, 0.5]])}, r"Nx2, got the shape \(2,\); .* \[grid\]"),
        ({"points_per_side": None, "point_grids": [np.zeros((0, 2))]}, r"point_grids\[0\]: expected Nx2"),
        ({"points_per_side": None, "point_grids": [[(100, 90)]]}, "0 to 1, got values from 90 to 100"),
        ({"points_per_side": None, "point_grids": [[(np.nan, 0.5)]]}, "point_grids"),
        ({"points_per_side": None, "point_grids": ["here"]}, r"point_grids\[0\]: expected numbers"),
        ({"points_per_side": None, "point_grids": 5}, "point_grids: expected a list"),
        ({"points_per_side": 0}, "points_per_side: expected an integer, 1 or more, got 0"),
        ({"points_per_side": 2.5}, "points_per_side: expected an integer"),
        ({"points_per_batch": 0}, "points_per_batch: expected an integer, 1 or more"),
        ({"crop_n_layers": -1}, "crop_n_layers: expected an integer, 0 or more"),
        ({"crop_n_layers": 9}, "crop_n_layers: an image of 451x300 is too small for 9 layers"),
        ({"crop_n_layers": 10**9, "crop_n_points_downscale_factor": 2}, "451x300 is too small"),
        ({"points_per_side": 4, "crop_n_layers": 1, "crop_n_points_downscale_factor": 9}, "layer 1 has no click"),
        ({"crop_n_points_downscale_factor": 0}, "crop_n_points_downscale_factor: expected an integer, 1 or more"),
        ({"crop_overlap_ratio": 1}, "crop_overlap_ratio: expected a share"),
        ({"crop_overlap_ratio": np.nan}, "crop_overlap_ratio: expected a finite number"),
        ({"crop_nms_thresh": None}, "crop_nms_thresh: expected a finite number"),
        ({"pred_iou_thresh": np.nan}, "pred_iou_thresh: expected a finite number"),
        ({"stability_score_thresh": "0.9"}, "stability_score_thresh: expected a finite number"),
        ({"box_nms_thresh": np.inf}, "box_nms_thresh: expected a finite number"),
        ({"stability_score_offset": np.nan}, "stability_score_offset: expected a finite number"),
        ({"min_mask_region_area": -5}, "min_mask_region_area: expected an integer, 0 or more"),
    ],
)
def test_mistakes(lite, photo, settings, words, monkeypatch):
    monkeypatch.setattr(type(lite), "encode", None)  # before any work
    with pytest.raises(ValueError, match=words):
        segment_everything(lite, photo, **settings)


@pytest.mark.parametrize(
    ("size", "layers", "words"),
    [((1, 500), 1, "an image of 500x1 is too small for 1 layers of crops"), ((2, 4000), 1, "4000x2 is too thin")],
)
def test_crops_of_a_thin_image_are_refused_before_any_work(lite, size, layers, words, monkeypatch):
    monkeypatch.setattr(type(lite), "encode", None)
    with pytest.raises(ValueError, match=words):
        segment_everything(lite, np.zeros((*size, 3), np.uint8), points_per_side=2, crop_n_layers=layers)


@pytest.mark.parametrize("name", ["pred_iou_thresh", "stability_score_thresh", "box_nms_thresh"])
def test_thresholds_of_select_are_numbers(name):
    with pytest.raises(ValueError, match=f"{name}: expected a finite number, got nan"):
        select([], **{name: np.nan})


def test_a_small_image_is_searched_without_a_warning(lite):
    """Its first clicks lie between 0 and 1, as shares of its sides would."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        grid = [(0.01, 0.01), (0.03, 0.01), (0.9, 0.9)]
        image = np.full((30, 40, 3), 80, np.uint8)
        segment_everything(lite, image, points_per_side=None, point_grids=[grid], pred_iou_thresh=2)


def test_stricter_thresholds_need_no_decoding(lite):
    image = load_image("street")
    everything = segment_everything(
        lite, image, points_per_side=6, pred_iou_thresh=0, stability_score_thresh=0, box_nms_thresh=1
    )
    assert len(everything) == 6 * 6 * 3
    for settings in (
        {"pred_iou_thresh": 0.4, "stability_score_thresh": 0.6, "box_nms_thresh": 0.7},
        {"pred_iou_thresh": 0.5, "stability_score_thresh": 0, "box_nms_thresh": 0.3},
    ):
        directly = segment_everything(lite, image, points_per_side=6, **settings)
        selected = select(everything, **settings)
        assert 2 < len(selected) < 60
        assert [record["bbox"] for record in selected] == [record["bbox"] for record in directly]
        assert all(
            np.array_equal(one["segmentation"], other["segmentation"])
            for one, other in zip(selected, directly, strict=True)
        )
    assert select([]) == []
    assert len(select(everything)) == len(everything)


def coins(image):
    """Return the coins' masks by scikit-image's own example for them: a watershed of the edges."""
    grey = image[..., 0]
    seeds = np.select([grey < 30, grey > 150], [1, 2])
    labels, count = ndimage.label(ndimage.binary_fill_holes(watershed(sobel(grey), seeds) == 2))
    masks = [labels == number for number in range(1, count + 1)]
    return [mask for mask in masks if np.count_nonzero(mask) > 500]


def test_lite_finds_the_coins_with_its_own_thresholds(lite):
    image = load_image("coins")
    records = segment_everything(lite, image, points_per_side=16)
    kept = select(records, **vars(lite.thresholds))
    assert len(kept) == len(records) < 100
    best = [max(iou(record["segmentation"], coin) for record in records) for coin in coins(image)]
    assert len(best) == 24
    assert sum(value > 0.8 for value in best) >= 22
