"""What is pasted into scenes besides cut-outs: painted and assembled objects, patches, stickers; and textures."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

PartWithHole: TypeAlias = tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_] | None]

SIDE = 288  # pixels of the square that painted objects and patches are drawn on


@dataclass(frozen=True)
class PastedObject:
    """An object to paste.

    Attributes
    ----------
    rgba : hxwx4 numpy.ndarray of uint8
    parts : list of (hxw numpy.ndarray of bool, hxw numpy.ndarray of bool or None)
        Parts, each with the hole (a part of the part: hub, pupil, handle) in it, if any.
    """

    rgba: npt.NDArray[np.uint8]
    parts: list[PartWithHole] = field(default_factory=list)

    def with_sticker(self, sticker: npt.NDArray[np.uint8] | None, rng: np.random.Generator) -> "PastedObject":
        """Return the object with one more part painted on: a shape, often with a hole, or another cut-out.

        Parameters
        ----------
        sticker : hxwx4 numpy.ndarray of uint8, or None
            The cut-out; None for a shape.
        rng : numpy.random.Generator
        """
        rgba = self.rgba.copy()
        solid = rgba[..., 3] > 127
        rows, columns = solid.shape
        ys, xs = np.nonzero(solid)
        pick = rng.integers(len(ys))
        radius = np.sqrt(len(ys)) * rng.uniform(0.1, 0.35)
        centre = (int(xs[pick]), int(ys[pick]))
        hole = None
        if sticker is None:
            part = random_shape(rows, columns, centre, radius, rng) & solid
            rgba[part, :3] = _colours(rows, columns, rng)[part]
            if rng.random() < 0.6:
                hole = random_shape(rows, columns, centre, radius * rng.uniform(0.3, 0.65), rng) & part
                rgba[hole, :3] = _colours(rows, columns, rng)[hole]
        else:
            factor = 2 * radius / max(sticker.shape[:2])
            affine = np.array([[factor, 0, centre[0] - radius], [0, factor, centre[1] - radius]])
            placed = cv2.warpAffine(sticker, affine, (columns, rows), flags=cv2.INTER_AREA)
            part = (placed[..., 3] > 127) & solid
            rgba[part, :3] = placed[part, :3]
        if part.sum() < 0.01 * solid.sum():
            return self
        covered = [(old & ~part, None if inner is None else inner & ~part) for old, inner in self.parts]
        return PastedObject(rgba, [*covered, (part, hole)])


def with_hole(mask: npt.NDArray[np.bool_]) -> PartWithHole:
    """Return a part without its gaps, and the gaps if they are large: a tyre becomes the wheel, and what fills it.

    Parameters
    ----------
    mask : hxw numpy.ndarray of bool

    Returns
    -------
    (hxw numpy.ndarray of bool, hxw numpy.ndarray of bool or None)
    """
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(np.zeros(mask.shape, np.uint8), contours, -1, 1, -1) > 0
    gap = filled & ~mask
    return (filled, gap) if np.count_nonzero(gap) > 0.08 * np.count_nonzero(filled) else (mask, None)


def texture(height: int, width: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return height x width x 3 uint8: smooth noise of several sizes, stripes, a gradient, or almost one colour."""
    kind = rng.random()
    base = rng.uniform(0, 255, 3).astype(np.float32)
    if kind < 0.5:
        waves = np.zeros((height, width, 3), np.float32)
        for octave in range(rng.integers(1, 6)):
            cells = int(2 ** (octave + rng.integers(1, 4)))
            noise = rng.random((cells, cells, 3), dtype=np.float32)
            waves += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) / 1.4**octave
        waves -= waves.mean()
        image = base + waves / max(float(np.abs(waves).max()), 1e-6) * rng.uniform(10, 130)
    else:
        angle = rng.uniform(0, np.pi)
        ramp = np.cos(angle) * np.arange(width)[None] + np.sin(angle) * np.arange(height)[:, None]
        if kind < 0.65:
            wave = np.sin(ramp * 2 * np.pi / rng.uniform(4, 60))
            wave = np.sign(wave) if rng.random() < 0.5 else wave
            image = base + wave[..., None] * rng.normal(0, 40, 3)
        else:
            reach = rng.normal(0, 60, 3) if kind < 0.85 else rng.normal(0, 8, 3)
            image = base + (ramp / np.abs(ramp).max())[..., None] * reach
    return image.clip(0, 255).astype(np.uint8)


def _colours(rows: int, columns: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return the colour of a painted shape: mostly plain, as paint and plastic are."""
    if rng.random() < 0.35:
        return texture(rows, columns, rng)
    ramp = np.linspace(-0.5, 0.5, rows)[:, None, None] * rng.normal(0, 30)
    return (rng.uniform(0, 255, 3) + np.broadcast_to(ramp, (rows, columns, 1))).clip(0, 255).astype(np.uint8)


def random_shape(
    rows: int, columns: int, centre: tuple[int, int], radius: float, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Return rows x columns bool: a disc, an ellipse, a rounded or sharp polygon around a centre (x, y)."""
    canvas = np.zeros((rows, columns), np.uint8)
    kind = rng.random()
    if kind < 0.5:
        axes = (max(1, round(radius)), max(1, round(radius * (1 if kind < 0.25 else rng.uniform(0.4, 1)))))
        cv2.ellipse(canvas, centre, axes, rng.uniform(0, 180), 0, 360, 1, -1)
        return canvas > 0
    if kind < 0.72:  # a box, perhaps turned
        spread = np.array([rng.uniform(0.35, 1), rng.uniform(0.35, 1)]) * 2 * radius
        turn = rng.choice([0.0, rng.uniform(0, 90)])
        outline = cv2.boxPoints((tuple(map(float, centre)), tuple(map(float, spread)), turn))
    else:
        corners = rng.integers(3, 11)
        angles = (np.arange(corners) + rng.uniform(-0.35, 0.35, corners)) * 2 * np.pi / corners
        lengths = radius * rng.uniform(0.35, 1, corners)
        outline = np.array(centre) + np.stack([np.cos(angles), np.sin(angles)], 1) * lengths[:, None]
    cv2.fillPoly(canvas, [outline.round().astype(np.int32)], 255)
    if rng.random() < 0.5:  # round the corners
        canvas = cv2.GaussianBlur(canvas, (0, 0), max(0.5, radius * rng.uniform(0.03, 0.15)))
    return canvas > 127


def patch_object(image: npt.NDArray[np.uint8], rng: np.random.Generator) -> PastedObject:
    """Return a random shape cut out of a photograph: an object with no meaning but its border."""
    texture = _patch(image, rng)
    shape = random_shape(SIDE, SIDE, (SIDE // 2, SIDE // 2), SIDE * rng.uniform(0.35, 0.5), rng)
    return PastedObject(np.dstack([texture, shape.astype(np.uint8) * 255]))


def assembled_object(images: list[npt.NDArray[np.uint8]], rng: np.random.Generator) -> PastedObject:
    """Return an object put together from parts that differ as much from each other as from what is behind them.

    Only the outline shows what belongs to it, as on a car with its windows and wheels: its colours do not.

    Parameters
    ----------
    images : list of HxWx3 numpy.ndarray of uint8
        What some of the parts are cut out of; the others are painted.
    rng : numpy.random.Generator
    """
    rgb = np.zeros((SIDE, SIDE, 3), np.uint8)
    solid = np.zeros((SIDE, SIDE), bool)
    parts = []
    centre, radius = (SIDE // 2, SIDE // 2), SIDE * rng.uniform(0.25, 0.45)
    for _ in range(rng.integers(2, 6)):
        part = random_shape(SIDE, SIDE, centre, radius, rng)
        if parts and rng.random() < 0.4:  # wheels, ears and sleeves come in pairs
            part |= part[:, ::-1]
        fill = _patch(images[rng.integers(len(images))], rng) if rng.random() < 0.4 else _colours(SIDE, SIDE, rng)
        rgb[part] = fill[part]
        parts = [*(old & ~part for old in parts), part]
        solid |= part
        ys, xs = np.nonzero(solid)
        pick = rng.integers(len(ys))
        centre, radius = (int(xs[pick]), int(ys[pick])), SIDE * rng.uniform(0.08, 0.3)
    return PastedObject(np.dstack([rgb, solid.astype(np.uint8) * 255]), [(part, None) for part in parts])


def _patch(image: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return a random square of a photograph, SIDE x SIDE x 3 uint8."""
    rows = min(SIDE, *image.shape[:2])
    top, left = (rng.integers(length - rows + 1) for length in image.shape[:2])
    return cv2.resize(image[top : top + rows, left : left + rows], (SIDE, SIDE))


def painted_object(rng: np.random.Generator) -> PastedObject:
    """Return a painted object: rings, a vehicle with windows and wheels, a thin figure, or a shape with shapes."""
    draw = rng.choice([_rings, _vehicle, _strokes, _shape_with_parts], p=[0.25, 0.35, 0.15, 0.25])
    return draw(rng)


def _disc(centre: tuple[float, float], radius: float) -> npt.NDArray[np.bool_]:
    canvas = np.zeros((SIDE, SIDE), np.uint8)
    cv2.circle(canvas, (round(centre[0]), round(centre[1])), max(1, round(radius)), 1, -1)
    return canvas > 0


def _painted(solid: npt.NDArray[np.bool_], parts: list[PartWithHole], rng: np.random.Generator) -> PastedObject:
    """Colour an object: `solid` first, then each part, then its hole, SIDE x SIDE bool all of them."""
    rgb = _colours(SIDE, SIDE, rng).copy()
    kept = []
    inside = [(part & solid, None if hole is None else hole & part & solid) for part, hole in parts]
    for part, hole in inside:
        rgb[part] = _colours(SIDE, SIDE, rng)[part]
        if hole is not None:
            rgb[hole] = _colours(SIDE, SIDE, rng)[hole]
        covered = [(old & ~part, None if inner is None else inner & ~part) for old, inner in kept]
        kept = [*covered, (part, hole)]
    return PastedObject(np.dstack([rgb, solid.astype(np.uint8) * 255]), kept)


def _rings(rng: np.random.Generator) -> PastedObject:
    """Return a wheel, plate or target: concentric discs, the innermost the hole of the next."""
    centre, radius = (SIDE / 2, SIDE / 2), SIDE * 0.48
    rim = radius * rng.uniform(0.5, 0.8)
    return _painted(_disc(centre, radius), [(_disc(centre, rim), _disc(centre, rim * rng.uniform(0.2, 0.7)))], rng)


def _vehicle(rng: np.random.Generator) -> PastedObject:
    """Return a long body with a cabin, windows, and wheels with hubs, seen from the side."""
    canvas = np.zeros((SIDE, SIDE), np.uint8)
    top, bottom = SIDE * rng.uniform(0.38, 0.55), SIDE * rng.uniform(0.62, 0.72)
    roof = top - SIDE * rng.uniform(0.1, 0.25)
    left, right = SIDE * rng.uniform(0.1, 0.35), SIDE * rng.uniform(0.6, 0.95)
    slant = SIDE * rng.uniform(0, 0.12, 2)
    body = np.array([[4, bottom], [4 + slant[0] / 2, top], [SIDE - 5 - slant[1] / 2, top], [SIDE - 5, bottom]])
    cabin = np.array([[left, top], [left + slant[0], roof], [right - slant[1], roof], [right, top]])
    cv2.fillPoly(canvas, [body.astype(np.int32)], 255)
    cv2.fillPoly(canvas, [cabin.astype(np.int32)], 255)
    body_mask = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.5, 6)) > 127
    parts = []
    edges = np.linspace(left + slant[0], right - slant[1], rng.integers(2, 5))
    for start, end in pairwise(edges):
        window = np.zeros((SIDE, SIDE), np.uint8)
        corner = (round(start + 4), round(roof + 6))
        cv2.rectangle(window, corner, (max(corner[0], round(end - 4)), round(top - 2)), 1, -1)
        parts.append((window > 0, None))
    radius = SIDE * rng.uniform(0.08, 0.14)
    solid = body_mask
    for place in (rng.uniform(0.14, 0.3), rng.uniform(0.7, 0.86)):
        wheel = _disc((SIDE * place, bottom), radius)
        solid = solid | wheel
        parts.append((wheel, _disc((SIDE * place, bottom), radius * rng.uniform(0.25, 0.65))))
    return _painted(solid, parts, rng)


def _strokes(rng: np.random.Generator) -> PastedObject:
    """Return a thin object: a bent line, a letter, a frame."""
    canvas = np.zeros((SIDE, SIDE), np.uint8)
    thickness = int(rng.integers(5, 26))
    kind = rng.random()
    if kind < 0.4:
        steps = rng.uniform(0.1, 0.9, (rng.integers(2, 6), 2)) * SIDE
        cv2.polylines(canvas, [steps.astype(np.int32)], rng.random() < 0.3, 255, thickness)
    elif kind < 0.75:
        letter = chr(rng.integers(ord("A"), ord("Z") + 1))
        cv2.putText(canvas, letter, (SIDE // 8, SIDE * 7 // 8), int(rng.integers(0, 5)), 8, 255, thickness + 8)
    else:
        axes = tuple(int(v) for v in SIDE * rng.uniform(0.2, 0.42, 2))
        cv2.ellipse(canvas, (SIDE // 2, SIDE // 2), axes, 0, 0, 360, 255, thickness)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(canvas)
    return _painted(labels == 1 + stats[1:, cv2.CC_STAT_AREA].argmax(), [], rng)


def _shape_with_parts(rng: np.random.Generator) -> PastedObject:
    """Return a shape that carries up to three smaller ones, some with a hole."""
    solid = random_shape(SIDE, SIDE, (SIDE // 2, SIDE // 2), SIDE * 0.48, rng)
    ys, xs = np.nonzero(solid)
    parts = []
    for _ in range(rng.integers(1, 4)):
        pick = rng.integers(len(ys))
        centre, radius = (int(xs[pick]), int(ys[pick])), SIDE * rng.uniform(0.06, 0.2)
        hole = random_shape(SIDE, SIDE, centre, radius * 0.5, rng) if rng.random() < 0.4 else None
        parts.append((random_shape(SIDE, SIDE, centre, radius, rng), hole))
    return _painted(solid, parts, rng)
