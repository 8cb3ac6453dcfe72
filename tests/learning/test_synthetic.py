"""Synthetic cells come with ground truth: it is compared with the pixels, and with the kinds that were wanted."""

import cv2
import numpy as np
import pytest

from sam_nb.learning.synthetic import KINDS, MIN_GAP, synthetic_cells


@pytest.mark.parametrize("look", ["halo", "stain"])
def test_a_seed_is_an_image(look):
    first, again, other = (synthetic_cells(seed, look=look) for seed in (3, 3, 4))
    assert first.image.shape == (160, 240, 3)
    assert first.image.dtype == np.uint8
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert (first.image != other.image).any()


def test_looks_draw_the_same_cells():
    np.testing.assert_array_equal(synthetic_cells(5, look="halo").labels, synthetic_cells(5, look="stain").labels)


def test_every_kind_is_there_and_no_cell_touches_another():
    for seed in range(12):
        cells = synthetic_cells(seed, count=8)
        assert set(cells.kinds) == set(KINDS)
        assert set(np.unique(cells.labels)) == set(range(len(cells.kinds) + 1))
        for mask in cells.masks:
            near = cv2.dilate(mask.astype(np.uint8), np.ones((2 * MIN_GAP + 1,) * 2)) > 0
            assert not (near & ~mask & (cells.labels > 0)).any()
            assert cv2.connectedComponents(mask.astype(np.uint8))[0] == 2


def test_the_ground_truth_is_where_the_cells_are_seen():
    for seed in range(6):
        halo, stain = (synthetic_cells(seed, look=look) for look in ("halo", "stain"))
        for mask in halo.masks:
            around = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5))) > 0
            rim = mask & ~(cv2.erode(mask.astype(np.uint8), np.ones((3, 3)), borderValue=1) > 0)
            assert halo.image[around & ~mask].mean() > halo.image[rim].mean() + 50
        inside, outside = (stain.image[where, 1].astype(float) for where in (stain.labels > 0, stain.labels == 0))
        assert np.median(inside) < np.median(outside) - 25
        nuclei = stain.image[..., 1] < 65
        assert all((nuclei & mask).any() for mask in stain.masks)
        assert not (nuclei & (stain.labels == 0)).any()


def test_kinds_have_their_shapes():
    """Area, and how much of its convex hull a cell fills, tell the kinds apart."""
    found = {kind: [] for kind in KINDS}
    for seed in range(12):
        cells = synthetic_cells(seed)
        for kind, mask in zip(cells.kinds, cells.masks, strict=True):
            if not (mask[[0, -1]].any() or mask[:, [0, -1]].any()):
                contour = max(
                    cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0], key=len
                )
                sides = sorted(cv2.minAreaRect(contour)[1])
                fill = cv2.contourArea(contour) / cv2.contourArea(cv2.convexHull(contour))
                found[kind].append((sides[1] / sides[0], fill))
    long, fill = ({kind: np.mean(values, axis=0)[at] for kind, values in found.items()} for at in (0, 1))
    assert long["disc"] < 1.3
    assert long["rod"] > 2
    assert min(fill["disc"], fill["rod"]) > 0.9
    assert max(fill["star"], fill["crescent"]) < 0.85


def test_a_class_map_numbers_the_kinds_in_the_order_given():
    cells = synthetic_cells(1)
    classes = cells.class_map(("star", "disc"))
    for kind, mask in zip(cells.kinds, cells.masks, strict=True):
        assert set(np.unique(classes[mask])) == {{"star": 1, "disc": 2}.get(kind, 0)}
    assert not classes[cells.labels == 0].any()


def test_mistakes_are_refused():
    with pytest.raises(ValueError, match="no kind of cell 'triangle': expected some of disc, rod, star, crescent"):
        synthetic_cells(0, ("disc", "triangle"))
    with pytest.raises(ValueError, match="no kind of cell"):
        synthetic_cells(0, ())
    with pytest.raises(ValueError, match="no look 'oil': expected one of halo, stain"):
        synthetic_cells(0, look="oil")


@pytest.mark.parametrize(("options", "name"), [({"seed": -1}, "seed"), ({"seed": 0, "count": -1}, "count")])
def test_numbers_are_integers_of_zero_or_more(options, name):
    with pytest.raises(ValueError, match=f"{name}: expected an integer, 0 or more, got -1"):
        synthetic_cells(**options)
