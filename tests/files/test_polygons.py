"""Masks become polygons, with slits to holes and bridges to components, and the polygons become the same masks."""

import cv2
import numpy as np
import PIL
import pycocotools.mask
import pytest
from packaging.version import Version
from PIL import Image, ImageDraw
from random_masks import COUNT, images_of_segments, noise_mask, oblong_mask, ragged_mask, random_mask

from sam_nb import iou
from sam_nb.files.polygons import PIXEL_OFFSET, joined_polygon, polygons, split_polygon
from sam_nb.rasterize import rasterize


def long_hole_below_a_small_one():
    """Return a mask where the straight way from the small hole to the nearest corner crosses the long hole."""
    mask = np.ones((80, 240), bool)
    mask[40:73, 20:220] = False
    mask[70:73, 120] = True  # a spike from the lower edge: the only corner near
    mask[36:39, 119:122] = False
    return mask


def dots(side):
    """Return a mask of (side / 2) ** 2 single pixels."""
    mask = np.zeros((side, side), bool)
    mask[::2, ::2] = True
    return mask


MASKS = {
    **{f"{make.__name__} {seed}": make(seed) for make in (random_mask, ragged_mask, oblong_mask) for seed in range(8)},
    **{f"noise_mask {seed}": noise_mask(seed) for seed in range(25)},
    "long hole": long_hole_below_a_small_one(),
    "rings in rings": np.add.outer(np.abs(np.arange(-15, 16)), np.abs(np.arange(-20, 21))) % 4 < 2,
    "one pixel": np.ones((1, 1), bool),
    "two pixels": np.eye(2, dtype=bool),
    "full": np.ones((5, 7), bool),
    "dots": dots(12),
    "holes": np.pad(~dots(13), 1, constant_values=True),
}
every_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)


def by_pillow(found, size):
    """Rasterize polygons as LabelMe does (`labelme.utils.shape_to_mask`)."""
    image = Image.new("L", size[::-1])
    for points in found:
        ImageDraw.Draw(image).polygon([tuple(point) for point in points], outline=1, fill=1)
    return np.asarray(image) > 0


def by_pycocotools(found, size):
    rles = pycocotools.mask.frPyObjects([points.ravel().tolist() for points in found], *size)
    return pycocotools.mask.decode(pycocotools.mask.merge(rles)) > 0


def by_ultralytics(points, size):
    """Rasterize a polygon as Ultralytics does: it adds points up to a thousand, then truncates them.

    Source: `resample_segments` and `polygon2mask` of Ultralytics 8.3.
    """
    closed = np.concatenate([points, points[:1]]).astype(np.float32)
    old = np.arange(len(closed))
    new = np.linspace(0, len(closed) - 1, max(0, 1000 - len(closed)))
    new = np.insert(new, np.searchsorted(new, old), old)
    more = np.stack([np.interp(new, old, closed[:, axis]) for axis in range(2)], axis=1)
    return cv2.fillPoly(np.zeros(size, np.uint8), [more.astype(np.int32)], 1) > 0


def test_the_random_masks_have_holes_components_and_touch_the_border():
    components, holes, at_border = 0, 0, 0
    for _, segments in images_of_segments():
        for segment in segments:
            _, relations = cv2.findContours(segment.mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
            components += (relations[0, :, 3] < 0).sum() > 1
            holes += (relations[0, :, 3] >= 0).any()
            at_border += not segment.mask.all() and segment.mask[0].any()
    assert min(components, holes, at_border) > COUNT / 2


@every_mask
def test_polygons_rasterize_to_the_same_mask(mask):
    found = polygons(mask)
    assert min(len(points) for points in found) >= 3
    assert np.array_equal(rasterize(found, mask.shape), mask)


@every_mask
@pytest.mark.skipif(Version(PIL.__version__) < Version("11.3"), reason="Pillow before 11.3 drew other outlines")
def test_pillow_rasterizes_them_to_the_same_mask(mask):
    assert np.array_equal(by_pillow([points + PIXEL_OFFSET for points in polygons(mask)], mask.shape), mask)


@every_mask
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
def test_pycocotools_rasterizes_them_to_the_same_mask(mask):
    assert np.array_equal(by_pycocotools(polygons(mask, scale=2), mask.shape), mask)


@every_mask
def test_one_polygon_holds_the_mask_and_splits_into_it(mask):
    joined = joined_polygon(mask)
    assert rasterize([joined], mask.shape)[mask].all()
    assert np.array_equal(rasterize(split_polygon(joined), mask.shape), mask)
    assert len(split_polygon(joined)) == cv2.connectedComponents(mask.astype(np.uint8))[0] - 1


@every_mask
@pytest.mark.parametrize("tolerance", [1.0, 3.0])
def test_with_a_tolerance_no_component_gets_lost(mask, tolerance):
    exact = polygons(mask)
    short = polygons(mask, tolerance=tolerance)
    assert len(short) == len(exact)
    near = cv2.dilate(mask.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    for found in (short, split_polygon(joined_polygon(mask, tolerance=tolerance))):
        assert len(found) == len(exact)
        assert not (rasterize(found, mask.shape) & ~near).any()


def test_thousands_of_components_and_holes_come_back():
    for mask in (dots(140), np.pad(~dots(139), 1, constant_values=True)):
        joined = joined_polygon(mask)
        assert np.array_equal(rasterize(split_polygon(joined), mask.shape), mask)


def test_bridges_between_components_are_the_shortest():
    mask = np.zeros((30, 60), bool)
    mask[5:15, 5:15] = mask[5:15, 20:30] = mask[17:25, 8:12] = mask[10, 50] = True
    wide = rasterize([joined_polygon(mask)], mask.shape) & ~mask
    assert wide[:, 15:20].sum() == 5
    assert wide[15:17].sum() == 2
    assert wide[:, 30:50].sum() == wide.sum() - 7 == 20


def test_ultralytics_is_off_by_bridges_and_corners():
    """The points that it adds on a diagonal are truncated to the pixel beside it, at most one away from the mask."""
    for seed in range(15):
        mask = oblong_mask(seed)
        found = by_ultralytics(joined_polygon(mask) + PIXEL_OFFSET, mask.shape)
        assert (found ^ mask).mean() < 0.005
        near = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        assert not (found & ~near).any()
        assert found[cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0].all()


@pytest.mark.parametrize(
    "points",
    [
        [(0, 0), (9, 0), (9, 9), (0, 0)],  # closed by its first point
        [(0, 0), (0, 0), (9, 0), (9, 9)],
        [(3, 3), (3, 3), (3, 3)],
        [(0, 0), (9, 0), (9, 0), (9, 9), (9, 9)],
        [(0, 0), (5, 0), (5, 0), (5, 5), (5, 0), (9, 0)],  # there on a bridge, back without its mark
    ],
)
def test_the_polygon_of_another_program_stays_whole(points):
    points = np.array(points, float)
    (found,) = split_polygon(points)
    assert np.array_equal(found, points)


def test_a_tolerance_saves_points():
    mask = cv2.circle(np.zeros((300, 400), np.uint8), (200, 150), 100, 1, -1).astype(bool)
    mask &= ~cv2.circle(np.zeros((300, 400), np.uint8), (200, 150), 40, 1, -1).astype(bool)
    (exact,), (short,) = polygons(mask), polygons(mask, tolerance=1)
    assert np.array_equal(rasterize([exact], mask.shape), mask)
    assert len(short) < len(exact) / 3
    assert iou(rasterize([short], mask.shape), mask) > 0.97


def test_an_empty_mask_has_no_polygon():
    assert polygons(np.zeros((9, 9), bool)) == []
