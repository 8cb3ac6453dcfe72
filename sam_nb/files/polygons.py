"""Masks as polygons, for the formats that hold nothing else.

A polygon has no holes, so a hole is cut into it from the side: the outline goes along a bridge to the hole, around it,
and along the same bridge back. The readers of COCO, YOLO and LabelMe rasterize that to the mask with its holes.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from sam_nb.masks import Segment, as_mask

PIXEL_OFFSET = 0.25
"""What YOLO and LabelMe add to a pixel's index: readers that round and readers that truncate both get the index."""

Points = npt.NDArray[np.float64]


def polygons(mask: npt.ArrayLike, *, scale: int = 1, tolerance: float = 0.0) -> list[Points]:
    """Return the outlines of a mask, one polygon for each connected component.

    Parameters
    ----------
    mask : HxW array-like of bool
    scale : int
        1 for outlines through the centres of the outermost pixels, whose indices are the coordinates: for readers that
        rasterize a polygon and its border (OpenCV, Pillow; so YOLO and LabelMe). More to trace the mask upscaled by
        this factor, nearly along the pixels' outer edges, where pixel 0 reaches from 0 to 1: for readers that test on
        which side a centre lies (COCO).
    tolerance : float
        Pixels by which the outline may be off to save points; 0 for all points that an exact mask needs.

    Returns
    -------
    list of Nx2 numpy.ndarray of float64
        (x, y) of at least three points each. Empty for an empty mask.
    """
    bits = as_mask(mask).astype(np.uint8)
    if scale > 1:
        bits = bits.repeat(scale, axis=0).repeat(scale, axis=1)
    contours, relations = cv2.findContours(bits, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if tolerance:
        contours = [cv2.approxPolyDP(contour, scale * tolerance, closed=True) for contour in contours]
    rings = [contour[:, 0].astype(np.float64) for contour in contours]
    outlines: dict[int, Points] = {}
    holes: dict[int, list[Points]] = {}
    parents = relations[0, :, 3].tolist() if rings else []
    for index, (ring, parent) in enumerate(zip(rings, parents, strict=True)):
        if parent < 0:
            outlines[index] = ring
        else:
            holes.setdefault(parent, []).append(ring)
    found = [_bridged(ring, holes.get(index, [])) for index, ring in outlines.items()]
    if scale > 1:
        found = [(points + 0.5) / scale for points in found]
    return [np.resize(points, (max(3, len(points)), 2)) for points in found]


def segment_polygons(segment: Segment, *, scale: int = 1, tolerance: float = 0.0) -> list[Points]:
    """Return the `polygons` of a segment's mask, at least one.

    Raises
    ------
    ValueError
        The mask is empty.
    """
    found = polygons(segment.mask, scale=scale, tolerance=tolerance)
    if not found:
        raise ValueError(f"{segment.name}: an empty mask has no outline; remove this segment")
    return found


def join_polygons(found: Sequence[Points]) -> Points:
    """Return polygons as a single one, Nx2, with bridges between components: for formats that hold one outline."""
    first, *others = sorted(found, key=len, reverse=True)
    return _bridged(first, others)


def _bridged(outline: Points, others: Sequence[Points]) -> Points:
    """Return an outline that visits other rings over bridges, Nx2.

    The nearest ring comes first, from the nearest place that has been visited: so a bridge crosses neither a ring nor
    the outline, because what it would cross would be nearer.
    """
    rings = [outline, *others]
    owner = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    begins = np.searchsorted(owner, np.arange(len(rings)))
    points = np.concatenate(rings)
    # For each point of a ring that waits: its distance to the nearest visited point, and which one that is.
    distance, source = np.full(len(points), np.inf), np.zeros(len(points), int)
    waits = owner > 0
    visited = [(0, 0)]  # rings, and the first point of each
    bridges: list[list[tuple[int, int]]] = [[] for _ in rings]  # from each ring: (its point, the other ring)
    while waits.any():
        newest = visited[-1][0]
        found, there = cKDTree(rings[newest]).query(points[waits])
        nearer = found < distance[waits]
        distance[waits] = np.where(nearer, found, distance[waits])
        source[waits] = np.where(nearer, begins[newest] + there, source[waits])
        nearest = np.flatnonzero(waits)[distance[waits].argmin()]
        ring, behind = int(owner[nearest]), int(owner[source[nearest]])
        bridges[behind].append((int(source[nearest] - begins[behind]), ring))
        visited.append((ring, int(nearest - begins[ring])))
        waits &= owner != ring
    return _walk(rings, visited, bridges)


def _walk(rings: list[Points], visited: list[tuple[int, int]], bridges: list[list[tuple[int, int]]]) -> Points:
    """Return the tour over all rings and bridges, Nx2.

    From the last ring visited to the first, each with those that hang on it, from its first point around to it again.
    """
    tours: dict[int, Points] = {}
    for number, first in reversed(visited):
        ring = np.roll(rings[number], -first, axis=0)
        parts: list[Points] = []
        done = 0
        for here, hanging in sorted(((here - first) % len(ring), other) for here, other in bridges[number]):
            parts += [ring[done : here + 1], tours.pop(hanging)]
            done = here
        tours[number] = np.concatenate([*parts, ring[done:], *([] if number == 0 else [ring[:1]])])
    return tours[0]
