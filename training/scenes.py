"""Compose images with exact ground truth: objects with parts and holes, pasted over photographs and textures.

A `Composer` draws a `Scene`; a scene lists its `Target`s, everything in it that a prompt may mean. The ground truth is
what stays visible after every later object has been pasted.
"""

from dataclasses import dataclass, replace
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from sam_nb.masks import bounding_box
from training.pasted_objects import (
    PartWithHole,
    PastedObject,
    assembled_object,
    painted_object,
    patch_object,
    texture,
    with_hole,
)
from training.sources import SourcePack

MIN_OBJECT = 600  # pixels below which an object is no target
MIN_PART = 200
MIN_DEPTH = 2.5  # pixels between a target's innermost pixel and its border: no slivers
MAX_HIDDEN = 0.4  # share of an object that a later one may hide
MIN_INSIDE = 0.6  # share of an object that lies inside the image, unless it is larger than the image
MIN_LARGEST_COMPONENT = 0.85  # share of a target in its largest connected component: scraps are no target

Layer: TypeAlias = tuple[npt.NDArray[np.bool_], list[PartWithHole]]

# How often each kind of target is meant, where the scene has it.
KINDS = {"object": 0.55, "part": 0.24, "rest": 0.13, "group": 0.08}


@dataclass(frozen=True)
class Target:
    """One object, or part of one, that a prompt may mean.

    Attributes
    ----------
    kind : {"object", "part", "rest", "group"}
        A whole object; a part, or the hole in a part; what is left of either without a part of it; an object and
        another that lies on it, like a cup and its saucer.
    mask : HxW numpy.ndarray of bool
        The ground truth.
    region : HxW numpy.ndarray of bool
        What a box prompt is drawn around: the mask, or a larger one of which `excluded` is cut out.
    excluded : HxW numpy.ndarray of bool, or None
        Where a negative point belongs if `region` is more than the mask (the hub of "the ring without its hub").
    """

    kind: str
    mask: npt.NDArray[np.bool_]
    region: npt.NDArray[np.bool_]
    excluded: npt.NDArray[np.bool_] | None = None

    def without(self, hidden: npt.NDArray[np.bool_]) -> "Target":
        """Return what stays visible of it outside of `hidden`, HxW bool."""
        excluded = None if self.excluded is None else self.excluded & ~hidden
        if excluded is None or not excluded.any():
            # With nothing left to exclude, the mask is the whole region.
            excluded = None
        return replace(self, mask=self.mask & ~hidden, region=self.region & ~hidden, excluded=excluded)


@dataclass(frozen=True)
class Scene:
    """An image, HxWx3 uint8 RGB, and its targets; the long side is the composer's `side`."""

    image: npt.NDArray[np.uint8]
    targets: list[Target]

    def draw(self, count: int, rng: np.random.Generator) -> list[Target]:
        """Return at most `count` different targets: first the kind is drawn, then one of that kind."""
        left = {kind: [target for target in self.targets if target.kind == kind] for kind in KINDS}
        drawn = []
        while len(drawn) < count and any(left.values()):
            kinds = [kind for kind, targets in left.items() if targets]
            probabilities = np.array([KINDS[kind] for kind in kinds])
            targets = left[kinds[rng.choice(len(kinds), p=probabilities / probabilities.sum())]]
            drawn.append(targets.pop(rng.integers(len(targets))))
        return drawn


class Composer:
    """Draws scenes from a pack.

    Parameters
    ----------
    pack : training.sources.SourcePack
    side : int
        Length of the images' long side, pixels.
    """

    def __init__(self, pack: SourcePack, side: int) -> None:
        self.pack = pack
        self.side = side
        # Photographs are fewer than renders and closer to what users bring: both are drawn equally often.
        sources = sorted({entry.source for entry in pack.cutouts})
        self._by_source = [[i for i, entry in enumerate(pack.cutouts) if entry.source == name] for name in sources]

    def compose(self, rng: np.random.Generator) -> Scene:
        """Return a `Scene` with at least one target.

        Parameters
        ----------
        rng : numpy.random.Generator
            The only source of randomness: the same state gives the same scene.
        """
        while True:
            scene = self._mosaic(rng) if rng.random() < 0.06 else self._pasted(rng)
            if scene.targets:
                return scene

    def paste_onto(self, scene: Scene, rng: np.random.Generator) -> Scene:
        """Return a scene with one to three more objects, which hide what they lie on.

        Parameters
        ----------
        scene : Scene
            Of a photograph: photographs rarely have annotations of small objects that lie on others.
        rng : numpy.random.Generator
        """
        canvas, targets, layers = scene.image.astype(np.float32), scene.targets, []
        wholes = [target.mask for target in targets if target.kind == "object"]
        for _ in range(rng.integers(1, 4)):
            layer = _paste(canvas, self._object(rng), wholes + [mask for mask, _ in layers], rng)
            if layer is None:
                continue
            visible = ~layer[0]
            wholes = [mask & visible for mask in wholes]
            targets = [target.without(layer[0]) for target in targets]
            layers = [(mask & visible, [_without(visible, *part) for part in parts]) for mask, parts in layers]
            layers.append(layer)
        min_area = {kind: MIN_PART if kind == "part" else MIN_OBJECT for kind in KINDS}
        targets = [target for target in targets if is_target(target.mask, min_area[target.kind])]
        return Scene(canvas.clip(0, 255).astype(np.uint8), targets + _targets(layers))

    def _size(self, rng: np.random.Generator) -> tuple[int, int]:
        """Return (height, width): squares, the usual formats of cameras, and anything in between."""
        short = round(self.side * rng.choice([1, 3 / 4, 2 / 3, 9 / 16, rng.uniform(0.45, 1)]))
        return (short, self.side) if rng.random() < 0.65 else (self.side, short)

    def _pasted(self, rng: np.random.Generator) -> Scene:
        height, width = self._size(rng)
        canvas = self._backdrop(height, width, rng).astype(np.float32)
        if rng.random() < 0.2:  # a shallow depth of field
            canvas = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(1, 6))
        layers, stacked = [], []
        # Copies of one object, like coins on a table, teach that a prompt means one of them.
        repeat = 0.7 if rng.random() < 0.2 else 0.0
        pasted = self._object(rng)
        for _ in range(rng.integers(1, 7)):
            layer = _paste(canvas, pasted, [mask for mask, _ in layers], rng)
            pasted = pasted if rng.random() < repeat else self._object(rng)
            if layer is None:
                continue
            stacked += [(row, len(layers)) for row, (mask, _) in enumerate(layers) if _overlap(mask, layer[0])]
            visible = ~layer[0]
            layers = [(mask & visible, [_without(visible, *part) for part in parts]) for mask, parts in layers]
            layers.append(layer)
        groups = [layers[lower][0] | layers[upper][0] for lower, upper in stacked]
        groups = [Target("group", mask, mask) for mask in groups if is_target(mask, MIN_OBJECT)]
        return Scene(degrade(canvas, rng), _targets(layers) + groups)

    def _mosaic(self, rng: np.random.Generator) -> Scene:
        """Return a scene that regions of different texture fill without a gap, like fields, walls and sky."""
        height, width = self._size(rng)
        ys, xs = np.mgrid[:height, :width].astype(np.float32)
        # Distances to random centres, distorted by a texture, so that borders curve or fray.
        bend = [texture(height, width, rng)[..., 0].astype(np.float32) * rng.uniform(0, 0.6) for _ in range(2)]
        centres = rng.uniform(0, 1, (rng.integers(2, 9), 2)) * (height, width)
        distances = [np.hypot(ys + bend[0] - cy, xs + bend[1] - cx) for cy, cx in centres]
        owner = np.argmin(distances, axis=0)
        canvas = np.empty((height, width, 3), np.float32)
        layers = []
        for index in range(len(centres)):
            region = owner == index
            canvas[region] = self._backdrop(height, width, rng)[region]
            count, labels, stats, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8))
            if count > 1:
                layers.append((labels == 1 + stats[1:, cv2.CC_STAT_AREA].argmax(), []))
        return Scene(degrade(canvas, rng), _targets(layers))

    def _backdrop(self, height: int, width: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        """Return HxWx3 uint8: a crop of a photograph or texture, or a blend of two."""
        if rng.random() < 0.12:
            return texture(height, width, rng)
        image = self._background(rng)
        if rng.random() < 0.2:
            image = np.rot90(image, rng.integers(1, 4))
        crop = _random_crop(image, height, width, rng)
        if rng.random() < 0.12:
            other = self._background(rng)
            crop = cv2.addWeighted(crop, 0.5, _random_crop(other, height, width, rng), 0.5, 0)
        if rng.random() < 0.15:
            crop = crop[..., rng.permutation(3)]
        return recolour(crop, rng)

    def _background(self, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        """Return a random photograph or texture of the pack, HxWx3 uint8."""
        return self.pack.background(rng.integers(len(self.pack.backgrounds)))

    def _object(self, rng: np.random.Generator) -> PastedObject:
        """Return an object to paste: mostly a cut-out, else painted, assembled, or a patch of a photograph."""
        kind = rng.random()
        if kind < 0.12:
            return painted_object(rng)
        if kind < 0.2:
            return patch_object(self._background(rng), rng)
        if kind < 0.34:
            return assembled_object([self._background(rng) for _ in range(2)], rng)
        rgba, part_masks = self._cutout(rng)
        pasted = PastedObject(rgba, [with_hole(mask) for mask in part_masks])
        if rng.random() < 0.3:
            pasted = pasted.with_sticker(self._cutout(rng)[0] if rng.random() < 0.4 else None, rng)
        return pasted

    def _cutout(self, rng: np.random.Generator) -> tuple[npt.NDArray[np.uint8], list[npt.NDArray[np.bool_]]]:
        """Return a random cut-out in other colours, hxwx4 uint8, and the masks of its parts."""
        indices = self._by_source[rng.integers(len(self._by_source))]
        rgba, part_masks = self.pack.cutout(indices[rng.integers(len(indices))])
        return np.dstack([recolour(rgba[..., :3], rng), rgba[..., 3]]), part_masks


def _without(
    visible: npt.NDArray[np.bool_], part: npt.NDArray[np.bool_], hole: npt.NDArray[np.bool_] | None
) -> PartWithHole:
    """Return what stays visible of a part and of the hole in it, which may be None."""
    return part & visible, None if hole is None else hole & visible


def _random_crop(
    image: npt.NDArray[np.uint8], height: int, width: int, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Return a random crop of an image, HxWx3 uint8, resized to height x width."""
    scale = rng.uniform(0.3, 1) * min(image.shape[0] / height, image.shape[1] / width)
    rows, columns = max(8, int(height * scale)), max(8, int(width * scale))
    top = rng.integers(image.shape[0] - rows + 1)
    left = rng.integers(image.shape[1] - columns + 1)
    crop = image[top : top + rows, left : left + columns]
    crop = crop[:, ::-1] if rng.random() < 0.5 else crop
    return cv2.resize(np.ascontiguousarray(crop), (width, height), interpolation=cv2.INTER_AREA)


def recolour(image: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return the image, HxWx3 uint8, with brightness, contrast, gamma, saturation and white balance changed."""
    values = np.arange(256, dtype=np.float32) / 255
    gain = rng.uniform(0.75, 1.3) * rng.uniform(0.88, 1.12, 3)
    curves = np.clip(values[:, None] ** rng.uniform(0.7, 1.5) * gain + rng.uniform(-0.1, 0.1), 0, 1)
    out = cv2.LUT(np.ascontiguousarray(image), (curves * 255).astype(np.uint8).reshape(1, 256, 3))
    grey = cv2.cvtColor(out, cv2.COLOR_RGB2GRAY)[..., None]
    saturation = rng.uniform(0.25, 1.4)
    return np.clip(grey + saturation * (out.astype(np.float32) - grey), 0, 255).astype(np.uint8)


def _paste(
    canvas: npt.NDArray[np.float32],
    pasted: PastedObject,
    others: list[npt.NDArray[np.bool_]],
    rng: np.random.Generator,
    max_tries: int = 4,
) -> Layer | None:
    """Paste an object onto the canvas, in place, at a random place, size and angle.

    Parameters
    ----------
    canvas : HxWx3 numpy.ndarray of float32
    pasted : training.pasted_objects.PastedObject
    others : list of HxW numpy.ndarray of bool
        What is visible of the objects pasted before; none of them is hidden too far.
    rng : numpy.random.Generator
    max_tries : int
        Random places to try.

    Returns
    -------
    (HxW bool, list of (HxW bool, HxW bool or None)), or None
        The mask and its parts with their holes; None where no good place was found.
    """
    for _ in range(max_tries):
        place = _Place.draw(canvas.shape[:2], pasted, rng)
        if place is not None and all(place.hides(mask) <= MAX_HIDDEN for mask in others):
            return _paste_at(canvas, pasted, place, rng)
    return None


@dataclass(frozen=True)
class _Place:
    """Where an object goes: a window of the canvas, the map into it, and the object's opacity there."""

    window: tuple[slice, slice]
    affine: npt.NDArray[np.float64]
    scale: float
    alpha: npt.NDArray[np.uint8]

    @classmethod
    def draw(cls, size: tuple[int, int], pasted: PastedObject, rng: np.random.Generator) -> "_Place | None":
        """Return a random place on a canvas of a size (height, width), or None if too little would be seen there."""
        height, width = size
        side = max(height, width)
        rows, columns = pasted.rgba.shape[:2]
        # Most are small, as most objects in an image are; every third is the image's subject: large and whole.
        subject = rng.random() < 0.35
        share = rng.uniform(0.45, 1.05) if subject else np.exp(rng.uniform(np.log(0.09), np.log(0.9)))
        scale = share * side / max(rows, columns)
        angle = np.deg2rad(rng.normal(0, 15) if rng.random() < 0.75 else rng.uniform(0, 360))
        mirror = -1 if rng.random() < 0.5 else 1
        stretch = np.exp(rng.normal(0, 0.12))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix = turn @ np.diag([scale * mirror * stretch, scale / stretch])
        spot = rng.normal(0.5, 0.1, 2).clip(0.2, 0.8) if subject else rng.uniform(0.08, 0.92, 2)
        centre = spot * (width, height)
        corners = np.array([[0, 0], [columns, 0], [0, rows], [columns, rows]]) - (columns / 2, rows / 2)
        reach = np.abs(corners @ matrix.T).max(0)
        # Everything happens inside the window that the object can touch.
        x0, y0 = np.maximum(np.floor(centre - reach - 2).astype(int), 0)
        x1, y1 = np.minimum(np.ceil(centre + reach + 2).astype(int), (width, height))
        offset = centre - (x0, y0) - matrix @ (columns / 2, rows / 2)
        place = cls((slice(y0, y1), slice(x0, x1)), np.hstack([matrix, offset[:, None]]), scale, np.empty(0))
        place = replace(place, alpha=place.warp(np.ascontiguousarray(pasted.rgba[..., 3])))
        seen = np.count_nonzero(place.solid)
        whole = np.count_nonzero(pasted.rgba[..., 3] > 127) * scale**2
        if seen < MIN_OBJECT or seen < MIN_INSIDE * min(whole, 0.5 * height * width):
            return None
        return place

    @property
    def solid(self) -> npt.NDArray[np.bool_]:
        """Where the object is, in the window, bool."""
        return self.alpha > 127

    def warp(self, layer: npt.NDArray[np.uint8], border: int = cv2.BORDER_CONSTANT) -> npt.NDArray[np.uint8]:
        """Return a layer of the object as it lies in the window."""
        # Far reductions alias under bilinear sampling: blur first, as INTER_AREA would.
        if self.scale < 0.6:
            layer = cv2.blur(layer, (round(1 / self.scale), round(1 / self.scale)))
        rows, columns = (side.stop - side.start for side in self.window)
        return cv2.warpAffine(layer, self.affine, (columns, rows), flags=cv2.INTER_LINEAR, borderMode=border)

    def hides(self, mask: npt.NDArray[np.bool_]) -> float:
        """Return the share of a mask, HxW bool, that the object would hide here."""
        return np.count_nonzero(mask[self.window] & self.solid) / max(1, np.count_nonzero(mask))


def _paste_at(canvas: npt.NDArray[np.float32], pasted: PastedObject, place: _Place, rng: np.random.Generator) -> Layer:
    height, width = canvas.shape[:2]
    solid = place.solid
    colour = place.warp(np.ascontiguousarray(pasted.rgba[..., :3]), cv2.BORDER_REPLICATE).astype(np.float32)
    view = canvas[place.window]
    colour = _harmonise(colour, solid, view, rng)
    opacity = place.alpha.astype(np.float32) / 255
    if rng.random() < 0.35:
        opacity = cv2.GaussianBlur(opacity, (0, 0), rng.uniform(0.4, 1.4))
    if rng.random() < 0.4:
        _cast_shadow(canvas, opacity, (place.window[1].start, place.window[0].start), rng)
    view += (colour - view) * opacity[..., None]

    def placed(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        whole = np.zeros((height, width), bool)
        whole[place.window] = (place.warp(mask.astype(np.uint8) * 255) > 127) & solid
        return whole

    parts = [(placed(part), None if hole is None else placed(hole)) for part, hole in pasted.parts]
    full = np.zeros((height, width), bool)
    full[place.window] = solid
    return full, parts


def _harmonise(
    colour: npt.NDArray[np.float32],
    solid: npt.NDArray[np.bool_],
    view: npt.NDArray[np.float32],
    rng: np.random.Generator,
) -> npt.NDArray[np.float32]:
    """Move the object's colours some way towards those around it: sometimes far enough for a low contrast."""
    strength = rng.choice([0, rng.uniform(0, 0.4), rng.uniform(0.4, 0.85)], p=[0.5, 0.35, 0.15])
    shift = view.reshape(-1, 3).mean(0) - colour[solid].mean(0)
    colour = colour + strength * shift
    if rng.random() < 0.3:  # light from one side
        rows, columns = colour.shape[:2]
        slope = rng.normal(0, 35, 2)
        ramp = np.linspace(-0.5, 0.5, rows)[:, None] * slope[0] + np.linspace(-0.5, 0.5, columns) * slope[1]
        colour = colour + ramp[..., None].astype(np.float32)
    return colour.clip(0, 255).astype(np.float32)


def _cast_shadow(
    canvas: npt.NDArray[np.float32], opacity: npt.NDArray[np.float32], corner: tuple[int, int], rng: np.random.Generator
) -> None:
    """Darken the canvas, in place, beside the object whose opacity (hxw, 0 to 1) has its corner (x, y) there."""
    height, width = canvas.shape[:2]
    shift = rng.normal(0, 0.06, 2) * max(opacity.shape)
    shade = np.zeros((height, width), np.float32)
    affine = np.array([[1, 0, corner[0] + shift[0]], [0, 1, corner[1] + shift[1]]])
    cv2.warpAffine(opacity, affine, (width, height), dst=shade)
    # Blurred at a quarter of the size: the shadow is smooth anyway.
    small = cv2.resize(shade, (width // 4, height // 4), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), rng.uniform(0.4, 4))
    canvas *= 1 - rng.uniform(0.15, 0.65) * cv2.resize(small, (width, height))[..., None]


def degrade(canvas: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return what a camera and a file format make of the canvas (HxWx3 float32): HxWx3 uint8.

    None of it moves a border, so the ground truth stays exact to a pixel.
    """
    height, width = canvas.shape[:2]
    if rng.random() < 0.25:  # uneven light
        light = rng.uniform(0.65, 1.25, (3, 3)).astype(np.float32)
        canvas = canvas * cv2.resize(light, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
    if rng.random() < 0.3:  # a small image, upscaled
        factor = rng.uniform(0.35, 0.9)
        small = cv2.resize(canvas, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        canvas = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    elif rng.random() < 0.3:
        canvas = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.4, 1.6))
    if rng.random() < 0.08:  # shaken
        kernel = np.zeros((9, 9), np.float32)
        cv2.line(kernel, (4, 4), tuple(int(v) for v in 4 + rng.uniform(-4, 4, 2).round()), 1)
        canvas = cv2.filter2D(canvas, -1, kernel / kernel.sum())
    if rng.random() < 0.35:
        noise = rng.standard_normal((height, width, 3), dtype=np.float32)
        noise = noise.mean(2, keepdims=True) * 1.7 if rng.random() < 0.5 else noise
        canvas = canvas + noise * rng.uniform(2, 13)
    image = canvas.clip(0, 255).astype(np.uint8)
    if rng.random() < 0.1:
        image = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    if rng.random() < 0.45:
        quality = int(rng.integers(30, 95))
        image = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
    return image


def _overlap(lower: npt.NDArray[np.bool_], upper: npt.NDArray[np.bool_]) -> bool:
    """Return whether two masks form a group: one lies on the other without hiding most of it."""
    shared = np.count_nonzero(lower & upper)
    smaller = min(np.count_nonzero(lower), np.count_nonzero(upper))
    return shared > 0.1 * smaller and shared < 0.7 * np.count_nonzero(lower)


def is_target(mask: npt.NDArray[np.bool_] | None, min_area: int) -> bool:
    """Return whether a prompt can mean this: at least `min_area` pixels, thick enough, and not in scraps."""
    if mask is None or np.count_nonzero(mask) < min_area:
        return False
    left, top, right, bottom = bounding_box(mask)
    window = np.pad(mask[top:bottom, left:right].astype(np.uint8), 1)
    _, _, stats, _ = cv2.connectedComponentsWithStats(window)
    if stats[1:, cv2.CC_STAT_AREA].max() < MIN_LARGEST_COMPONENT * np.count_nonzero(window):
        return False
    return cv2.distanceTransform(window, cv2.DIST_L2, 3).max() >= MIN_DEPTH


def _targets(layers: list[Layer]) -> list[Target]:
    """List the targets of the layers, each (mask, [(part, hole or None), ...])."""
    targets = []
    for mask, parts in layers:
        if is_target(mask, MIN_OBJECT):
            targets.append(Target("object", mask, mask))
        for part, hole in parts:
            if not is_target(part, MIN_PART):
                continue
            targets.append(Target("part", part, part))
            rest = mask & ~part
            if is_target(rest, MIN_OBJECT) and part.sum() > 0.05 * mask.sum():
                targets.append(Target("rest", rest, mask, part))
            if is_target(hole, MIN_PART):
                targets.append(Target("part", hole, hole))
                if is_target(part & ~hole, MIN_PART):
                    targets.append(Target("rest", part & ~hole, part, hole))
    return targets
