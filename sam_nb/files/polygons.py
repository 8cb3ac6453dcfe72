"""Masks as polygons, for the formats that hold nothing else.

A polygon has no holes, so a hole is cut into it from the side: the outline goes along a slit to the hole, around it,
and back along the same slit. A slit runs along a row over pixels of the mask, from the hole's leftmost point to the
first pixel that is not in the mask: that of the outside, or of a hole that lies further left. So it leads out in the
end, crosses nothing and changes no pixel. The readers of COCO, YOLO and LabelMe rasterize that to the mask with its
holes.

Where a format holds one outline for all of an object, its connected components are joined by bridges as well, which
run over the background. Other readers give them a width of one pixel; ours leaves them out, because a point that a
bridge leaves from is written twice.
"""

from collections import defaultdict
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree

from sam_nb.masks import as_mask

PIXEL_OFFSET = 0.25
"""What YOLO and LabelMe add to a pixel's index: readers that round and readers that truncate both get the index."""

MIN_POINTS = 3  # of a polygon

Points = npt.NDArray[np.float64]
Ring = npt.NDArray[np.int64]  # Nx2, the pixels (x, y) that a closed contour visits, one after the other
Pair = tuple[int, int]  # two pixels by their indices in the flat mask, to be connected by a line there and back


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
    rings, parents = _rings(bits)
    pairs = _slits(bits, rings, parents)
    found = _tours(rings, pairs, bits.shape, scale * tolerance, count=parents.count(-1))
    if scale > 1:
        found = [(points + 0.5) / scale for points in found]
    return [_at_least_three(points) for points in found]


def joined_polygon(mask: npt.NDArray[np.bool_], *, tolerance: float = 0.0) -> Points:
    """Return one polygon for all of a mask, Nx2, with bridges between its connected components.

    Parameters
    ----------
    mask : HxW numpy.ndarray of bool
        Not empty.
    tolerance : float
        As in `polygons`.
    """
    bits = mask.astype(np.uint8)
    rings, parents = _rings(bits)
    slits, bridges = _slits(bits, rings, parents), _bridges(bits, rings, parents)
    (tour,) = _tours(rings, [*slits, *bridges], bits.shape, tolerance, count=1)
    ways = {*bridges, *((there, here) for here, there in bridges)}
    places = (tour @ (1, bits.shape[1])).astype(np.int64)
    leaves = [way in ways for way in zip(places.tolist(), np.roll(places, -1).tolist(), strict=True)]
    return _at_least_three(tour.repeat(np.where(leaves, 2, 1), axis=0))


def split_polygon(points: Points) -> list[Points]:
    """Return what `joined_polygon` joined: the polygon of each connected component, Nx2, without bridges.

    A polygon of another program is returned as it is: it has no bridge whose ends are written twice on both ways.
    """
    doubled = (points[1:] == points[:-1]).all(axis=1).tolist()
    places = [tuple(point) for point in points.tolist()]
    found: list[list[int]] = []
    part: list[int] = []  # indices of the points of the component that is visited now
    waiting: list[tuple[list[int], tuple[object, object]]] = []  # components that were left, and over which bridge
    for number, place in enumerate(places):
        if number == 0 or not doubled[number - 1]:
            part.append(number)
            continue
        bridge = place, places[(number + 1) % len(places)]
        if bridge[0] == bridge[1]:
            return [points]
        if waiting and waiting[-1][1] == bridge[::-1]:
            found.append(part)
            part = waiting.pop()[0]
        else:
            waiting.append((part, bridge))
            part = []
    return [points] if waiting else [points[part] for part in (*found, part)]


def _rings(bits: npt.NDArray[np.uint8]) -> tuple[list[Ring], list[int]]:
    """Return the contours of all connected components and holes, and for each hole its component's number, else -1.

    Components come first, the one with the longest outline at the head.
    """
    contours, relations = cv2.findContours(bits, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return [], []
    above = relations[0, :, 3].tolist()
    order = sorted(range(len(contours)), key=lambda number: (above[number] >= 0, -len(contours[number])))
    place = {number: position for position, number in enumerate(order)} | {-1: -1}
    return [contours[number][:, 0].astype(np.int64) for number in order], [place[above[number]] for number in order]


def _slits(bits: npt.NDArray[np.uint8], rings: Sequence[Ring], parents: Sequence[int]) -> list[Pair]:
    """Return for each hole the two ends of the pixels that lie to the left of its leftmost point."""
    width = bits.shape[1]
    found = []
    for ring, parent in zip(rings, parents, strict=True):
        if parent >= 0:
            x, y = ring[ring[:, 0].argmin()].tolist()
            left = bits[y, :x].tobytes().rfind(b"\0") + 1
            found.append((y * width + left, y * width + x))
    return found


def _bridges(bits: npt.NDArray[np.uint8], rings: Sequence[Ring], parents: Sequence[int]) -> list[Pair]:
    """Return the shortest bridges that join all connected components: a minimum spanning tree.

    Two components are neighbours where pixels that lie side by side are nearest to one and to the other. Where they
    are neighbours in several places, the shortest way counts.
    """
    count, width = parents.count(-1), bits.shape[1]
    if count < 2:
        return []
    owner, away = np.zeros(bits.shape, np.int32), np.ones(bits.shape, np.uint8)
    for number, (ring, parent) in enumerate(zip(rings, parents, strict=True)):
        owner[ring[:, 1], ring[:, 0]] = number if parent < 0 else parent
        away[ring[:, 1], ring[:, 0]] = 0
    _, nearest = cv2.distanceTransformWithLabels(away, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    borders = np.flatnonzero(away == 0)
    index = np.zeros(len(borders) + 1, np.int64)
    index[nearest.ravel()[borders]] = borders  # of each label: its pixel
    component = owner.ravel()[index][nearest]
    pairs = []
    for here, there in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        differ = component[here] != component[there]
        pairs.append(index[[nearest[here][differ], nearest[there][differ]]])
    ends = np.concatenate(pairs, axis=1)
    ends = np.take_along_axis(ends, owner.ravel()[ends].argsort(axis=0), axis=0)
    length = np.hypot(np.diff(ends // width, axis=0)[0], np.diff(ends % width, axis=0)[0])
    first, second = owner.ravel()[ends].astype(np.int64)
    # Of the ways between the same two components, only the shortest.
    order = np.lexsort([length, second, first])
    order = order[np.diff(first[order] * count + second[order], prepend=-1) != 0]
    first, second, ends, length = first[order], second[order], ends[:, order], length[order]
    tree = minimum_spanning_tree(coo_array((length, (first, second)), shape=(count, count)).tocsr()).tocoo()
    chosen = np.isin(first * count + second, tree.row.astype(np.int64) * count + tree.col)
    return list(zip(*ends[:, chosen].tolist(), strict=True))


def _tours(
    rings: Sequence[Ring], pairs: Sequence[Pair], size: tuple[int, int], tolerance: float, *, count: int
) -> list[Points]:
    """Return closed tours, Nx2, from each of the first `count` rings.

    A tour visits every line of a ring once, and that between a pair of pixels there and back. So as many lines leave a
    pixel as arrive, and there is a tour over all that hang together: an Eulerian circuit. What a polygon encloses
    depends on its lines alone, not on their order.
    """
    width = size[1]
    fixed = np.zeros(size[0] * width, bool)
    fixed[np.array(pairs, np.int64).ravel()] = True
    leaving: defaultdict[int, list[int]] = defaultdict(list)
    starts = []
    for ring in rings:
        places = _thinned(ring, fixed[ring @ (1, width)], tolerance) @ (1, width)
        starts.append(int(places[0]))
        for here, there in zip(places.tolist(), np.roll(places, -1).tolist(), strict=True):
            if here != there:
                leaving[here].append(there)
    for here, there in pairs:
        if here != there:
            leaving[here].append(there)
            leaving[there].append(here)
    tours = [np.array(_circuit(leaving, start)) for start in starts[:count]]
    return [np.stack([tour % width, tour // width], axis=1).astype(np.float64) for tour in tours]


def _circuit(leaving: defaultdict[int, list[int]], start: int) -> list[int]:
    """Return the pixels of an Eulerian circuit, by Hierholzer's algorithm; it takes the lines out of `leaving`."""
    way, circuit = [start], []
    while way:
        ahead = leaving[way[-1]]
        if ahead:
            way.append(ahead.pop())
        else:
            circuit.append(way.pop())
    return circuit[:0:-1] if len(circuit) > 1 else circuit


def _thinned(ring: Ring, fixed: npt.NDArray[np.bool_], tolerance: float) -> Ring:
    """Return a ring without the points that it does not need, those that are fixed kept."""
    if not tolerance:
        step = np.roll(ring, -1, axis=0) - ring
        is_corner = (step != np.roll(step, 1, axis=0)).any(axis=1)
        return ring[is_corner | fixed] if len(ring) > 1 else ring
    stops = np.flatnonzero(fixed)
    if not len(stops):
        return _approximated(ring, tolerance, closed=True)
    ring = np.roll(ring, -stops[0], axis=0)
    ends = [*(stops - stops[0])[1:].tolist(), len(ring)]
    closed = np.concatenate([ring, ring[:1]])
    parts = [closed[begin : end + 1] for begin, end in zip([0, *ends], ends, strict=False)]
    return np.concatenate([_approximated_way(part, tolerance)[:-1] for part in parts])


def _approximated_way(points: Ring, tolerance: float) -> Ring:
    """Return a way with fewer points, its ends kept."""
    if len(points) <= 2:
        return points
    if (points[0] == points[-1]).all():
        # From a pixel back to itself: OpenCV would leave nothing between them.
        far = int(np.abs(points - points[0]).sum(axis=1).argmax())
        first, second = points[: far + 1], points[far:]
        return np.concatenate([_approximated_way(first, tolerance)[:-1], _approximated_way(second, tolerance)])
    return _approximated(points, tolerance, closed=False)


def _approximated(points: Ring, tolerance: float, *, closed: bool) -> Ring:
    """Return points that are at most `tolerance` off, by the algorithm of Douglas and Peucker."""
    return cv2.approxPolyDP(points.astype(np.int32), tolerance, closed)[:, 0].astype(np.int64)


def _at_least_three(points: Points) -> Points:
    return np.resize(points, (max(MIN_POINTS, len(points)), 2))
