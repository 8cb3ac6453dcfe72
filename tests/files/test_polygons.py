"""Masks become polygons, with bridges to holes, and the polygons become the same masks again."""

import cv2
import numpy as np
import pytest
from random_masks import COUNT, images_of_segments

from sam_nb import Segment, iou
from sam_nb.files.polygons import join_polygons, polygons, segment_polygons
from sam_nb.rasterize import rasterize


def test_the_random_masks_have_holes_components_and_touch_the_border():
    components, holes, at_border = 0, 0, 0
    for _, segments in images_of_segments():
        for segment in segments:
            _, relations = cv2.findContours(segment.mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
            components += (relations[0, :, 3] < 0).sum() > 1
            holes += (relations[0, :, 3] >= 0).any()
            at_border += not segment.mask.all() and segment.mask[0].any()
    assert min(components, holes, at_border) > COUNT / 2


def test_polygons_rasterize_to_the_same_mask():
    for _, segments in images_of_segments():
        for segment in segments:
            found = polygons(segment.mask)
            assert min(len(points) for points in found) >= 3
            assert np.array_equal(rasterize(found, segment.mask.shape), segment.mask)


def test_joined_polygons_hold_the_whole_mask():
    for _, segments in images_of_segments():
        mask = rasterize([join_polygons(polygons(segments[0].mask))], segments[0].mask.shape)
        assert mask[segments[0].mask].all()


def test_a_tolerance_saves_points():
    mask = cv2.circle(np.zeros((300, 400), np.uint8), (200, 150), 100, 1, -1).astype(bool)
    mask &= ~cv2.circle(np.zeros((300, 400), np.uint8), (200, 150), 40, 1, -1).astype(bool)
    (exact,), (short,) = polygons(mask), polygons(mask, tolerance=1)
    assert np.array_equal(rasterize([exact], mask.shape), mask)
    assert len(short) < len(exact) / 3
    assert iou(rasterize([short], mask.shape), mask) > 0.97


def test_an_empty_mask_has_no_polygon():
    empty = np.zeros((9, 9), bool)
    assert polygons(empty) == []
    with pytest.raises(ValueError, match="nothing: an empty mask has no outline"):
        segment_polygons(Segment(empty, "nothing"))
