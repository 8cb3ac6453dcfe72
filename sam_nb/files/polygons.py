"""Masks as polygons and back, for the formats that know nothing else.

A polygon has no holes, so a hole is cut into it from the side: the outline goes along a bridge to the hole, around it,
and along the same bridge back. COCO's, YOLO's and LabelMe's readers fill that as it is meant.
"""

import cv2
import numpy as np
from scipy.spatial import cKDTree

from sam_nb.masks import as_mask


def polygons(mask, *, finer=1, tolerance=0.0):
    """Return the outlines of a mask, one polygon for each of its pieces.

    Parameters
    ----------
    mask : HxW numpy.ndarray of bool
    finer : int
        1 for outlines through the centres of the outermost pixels, whose indices are the coordinates: for readers that
        fill a polygon and its border (OpenCV, Pillow; so YOLO and LabelMe). More for outlines nearly along the pixels'
        outer edges, where pixel 0 reaches from 0 to 1: for readers that ask on which side a centre lies (COCO).
    tolerance : float
        Pixels by which the outline may be off to save points; 0 for all that is needed to fill it exactly.

    Returns
    -------
    list of Nx2 numpy.ndarray of float64
        (x, y) of at least three points each.
    """
    mask = as_mask(mask).astype(np.uint8)
    if finer > 1:
        mask = mask.repeat(finer, axis=0).repeat(finer, axis=1)
    contours, relations = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if tolerance:
        contours = [cv2.approxPolyDP(contour, finer * tolerance, closed=True) for contour in contours]
    rings = [contour[:, 0].astype(np.float64) for contour in contours]
    outlines, holes = {}, {}
    for index, (ring, parent) in enumerate(zip(rings, relations[0, :, 3] if rings else (), strict=True)):
        if parent < 0:
            outlines[index] = ring
        else:
            holes.setdefault(parent, []).append(ring)
    found = [_with_holes(ring, holes.get(index, ())) for index, ring in outlines.items()]
    if finer > 1:
        found = [(points + 0.5) / finer for points in found]
    return [np.resize(points, (max(3, len(points)), 2)) for points in found]


def in_one(found):
    """Return the polygons as a single one, Nx2, with bridges from piece to piece: for formats that know only one."""
    first, *others = sorted(found, key=len, reverse=True)
    return _with_holes(first, others)


def _with_holes(outline, rings):
    """Return an outline that visits the rings over bridges, Nx2.

    The nearest ring comes first, from the nearest place that has been visited: so a bridge crosses neither a ring nor
    the outline, because what it would cross would be nearer.
    """
    rings = [outline, *rings]
    owner = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    begins = np.searchsorted(owner, np.arange(len(rings)))
    points = np.concatenate(rings)
    # Of each point of a ring that waits: how near it is to what was visited, and to which point of that.
    apart, source = np.full(len(points), np.inf), np.zeros(len(points), int)
    waits = owner > 0
    visited = [(0, 0)]  # rings, and the first point of each
    bridges = [[] for _ in rings]  # from each ring: (point, ring over there)
    while waits.any():
        newest = visited[-1][0]
        found, there = cKDTree(rings[newest]).query(points[waits])
        nearer = found < apart[waits]
        apart[waits] = np.where(nearer, found, apart[waits])
        source[waits] = np.where(nearer, begins[newest] + there, source[waits])
        best = np.flatnonzero(waits)[apart[waits].argmin()]
        ring, behind = owner[best], owner[source[best]]
        bridges[behind].append((source[best] - begins[behind], ring))
        visited.append((ring, best - begins[ring]))
        waits &= owner != ring
    # From the last visited to the first, each with those that hang on it, from its first point around to it again.
    whole = {}
    for number, first in reversed(visited):
        ring = np.roll(rings[number], -first, axis=0)
        pieces, done = [], 0
        for here, hanging in sorted(((here - first) % len(ring), other) for here, other in bridges[number]):
            pieces += [ring[done : here + 1], whole.pop(hanging)]
            done = here
        whole[number] = np.concatenate([*pieces, ring[done:], *([] if number == 0 else [ring[:1]])])
    return whole[0]
