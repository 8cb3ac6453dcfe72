# /// script
# requires-python = "==3.11.*"
# dependencies = ["bpy==5.0.1", "numpy==1.26.4", "pillow==13.0.0", "shapely==2.2.0"]
# ///
"""Paint "street": a long estate car parked at a kerb, with its exact ground truth masks.

Everything in the picture is modelled here, with no downloaded asset or texture,
and rendered with Blender's Cycles:

    uv run paint_street.py --out OUT --samples 64 --scale 100

OUT receives ``street.jpg`` (the image), ``street_ground_truth.npz`` (one boolean
mask per name in ``ANCHORS`` plus ``tyre`` and ``hub``) and ``check.png`` (the picture
with masks, boxes and points drawn over it).  The last thing printed is a table
of the boxes wanted and the boxes got; the exit status is 1 when one of them is
off by more than its tolerance, or when a click no longer lands on its object.

World axes, in metres: x runs from the car's nose to its tail, y away from the
camera across the street, z up.  The front axle is at x = 0 and the outer face
of the near wheels lies at y = 0.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from pathlib import Path

import bpy
import numpy as np
import shapely
from mathutils import Vector
from mathutils.geometry import delaunay_2d_cdt
from PIL import Image, ImageDraw
from shapely.geometry import Point, Polygon
from shapely.geometry import box as rectangle

SEED = 20
WIDTH, HEIGHT = 1152, 648
JPEG_QUALITY = 90
JPEG_LIMIT = 350_000  # bytes


@dataclass(frozen=True)
class Anchor:
    """Where the bounding box of one mask must land, in pixels."""

    box: tuple[int, int, int, int]
    tolerance: int


ANCHORS = {
    "car": Anchor((44, 160, 1011, 504), 12),
    "front_wheel": Anchor((250, 370, 410, 510), 8),
    "rear_wheel": Anchor((830, 338, 966, 458), 8),
    "small_window": Anchor((720, 209, 772, 258), 6),
}
CLICKS = {
    "car front": ((184, 359), "car"),
    "car side": ((500, 375), "car"),
    "hub centre": ((334, 438), "hub"),
}

# Camera.  These numbers, like the wheelbase, are a least-squares solution that makes
# the two wheels land on their anchors, for a focal length chosen by eye.  The horizon
# is moved up by lens shift instead of by tilting the camera, so that verticals stay
# vertical.
FOCAL = 2100.0  # pixels
PRINCIPAL = (541.5, 68.0)  # pixels
CAMERA = (-3.470, -10.930, 2.415)
CAMERA_YAW = math.radians(23.09)  # from +y towards +x
FOCUS = 11.6
F_NUMBER = 0.9

# Car.  Lengths along the car are x, heights z, widths are from the centre line.
WHEEL_RADIUS = 0.386
WHEEL_WIDTH = 0.335
HUB_RADIUS = 0.218
TREAD_BLOCKS = 62
WHEELBASE = 3.652
HALF_WIDTH = 0.97
SILL, BELT, ROOF = 0.36, 1.16, 1.605
SHOULDER = 0.06  # radius of the rolled edge between the flanks and the bonnet
SHOULDER_LENGTH = SHOULDER * math.pi / 2
FLANK_TOP = BELT - SHOULDER
NOSE, TAIL = -1.08, 4.34
NOSE_TOP = BELT - 0.135
BUMPER_Z = 0.52
HEADLAMPS = ((-0.645, 0.825), (0.645, 0.825))
SCREEN_FOOT, SCREEN_HEAD = 0.52, 1.04
SCREEN_LENGTH = math.hypot(SCREEN_HEAD - SCREEN_FOOT, ROOF - BELT)
SHUT_LINE = 0.009
DOORS = (0.56, 1.68, 2.86)  # shut lines: front door, rear door, rear quarter
WINDOW_LOW, WINDOW_HIGH = 1.205, 1.567
SMALL_WINDOW_BOX = (2.415, 1.262, 2.780, 1.566)

# Street.
KERB_Y, KERB_HEIGHT = 2.25, 0.13
FACADE_Y = 5.6
HOUSE_HEIGHT = 6.5
DOWNPIPE_X = 2.30
SUN_FROM = Vector((-0.68, -0.54, 0.50))

# Sub-pixels along each side of a pixel that vote on which masks it belongs to.
INDEX_OVERSAMPLING = 4


class Part(IntEnum):
    """What an object belongs to; written into Blender's object index."""

    STREET = 0
    BODY = 1
    FRONT_TYRE = 2
    FRONT_HUB = 3
    REAR_WHEEL = 4
    SMALL_WINDOW = 5


# --------------------------------------------------------------------------
# Materials
# --------------------------------------------------------------------------


Colour = tuple[float, float, float]


class Shader:
    """A thin wrapper round one Blender node material."""

    def __init__(self, name: str) -> None:
        self.material = bpy.data.materials.new(name)
        self.nodes = self.material.node_tree.nodes
        self.links = self.material.node_tree.links
        self.bsdf = self.nodes["Principled BSDF"]
        self.output = self.nodes["Material Output"]

    def set(self, **values: object) -> Shader:
        """Set inputs of the principled shader; ``coat_weight`` is "Coat Weight"."""
        for key, value in values.items():
            socket = self.bsdf.inputs[key.replace("_", " ").title().replace("Ior", "IOR")]
            is_colour = isinstance(value, tuple) and len(value) == 3
            socket.default_value = (*value, 1.0) if is_colour else value
        return self

    def node(self, kind: str, **settings: object):
        """Add a node; settings name its properties or, failing that, its inputs."""
        node = self.nodes.new(kind)
        for key, value in settings.items():
            if hasattr(node, key):
                setattr(node, key, value)
            else:
                node.inputs[key].default_value = value
        return node

    def link(self, source, target) -> None:
        """Connect an output socket to an input socket."""
        self.links.new(source, target)

    def noise(self, scale: float, detail: float = 6.0):
        """A noise texture in world coordinates, so that scale is per metre."""
        place = self.node("ShaderNodeNewGeometry")
        noise = self.node("ShaderNodeTexNoise", Scale=scale, Detail=detail)
        self.link(place.outputs["Position"], noise.inputs["Vector"])
        return noise

    def ramp(self, source, stops: Sequence[tuple[float, Colour]]):
        """Map a 0..1 value to colours."""
        ramp = self.node("ShaderNodeValToRGB")
        elements = ramp.color_ramp.elements
        while len(elements) < len(stops):
            elements.new(0.5)
        for element, (position, colour) in zip(elements, stops, strict=True):
            element.position = position
            element.color = (*colour, 1.0)
        self.link(source, ramp.inputs["Fac"])
        return ramp

    def colour_by_product(self, first, second) -> None:
        """Take the base colour from two colour nodes multiplied."""
        mix = self.node("ShaderNodeMix", data_type="RGBA", blend_type="MULTIPLY", Factor=1.0)
        self.link(first.outputs["Color"], mix.inputs["A"])
        self.link(second.outputs["Color"], mix.inputs["B"])
        self.link(mix.outputs["Result"], self.bsdf.inputs["Base Color"])

    def bump(self, source, strength: float, distance: float) -> None:
        """Perturb the normal by a height field."""
        bump = self.node("ShaderNodeBump", Strength=strength, Distance=distance)
        self.link(source, bump.inputs["Height"])
        self.link(bump.outputs["Normal"], self.bsdf.inputs["Normal"])


def plain(name: str, colour: Colour, roughness: float = 0.5, **more: object) -> bpy.types.Material:
    """A one-colour material."""
    return Shader(name).set(base_color=colour, roughness=roughness, **more).material


def car_paint(name: str, colour: Colour) -> bpy.types.Material:
    """Paint under a clear coat, with a trace of orange peel in the coat."""
    shader = Shader(name).set(base_color=colour, metallic=0.3, roughness=0.34, coat_weight=1.0, coat_roughness=0.02)
    peel = shader.node("ShaderNodeBump", Strength=0.02, Distance=0.002)
    shader.link(shader.noise(60.0, 1.0).outputs["Fac"], peel.inputs["Height"])
    shader.link(peel.outputs["Normal"], shader.bsdf.inputs["Coat Normal"])
    return shader.material


def thin_glass(name: str, tint: Colour) -> bpy.types.Material:
    """Sheet glass: mirror reflection over a tint, without refraction or caustics."""
    shader = Shader(name)
    clear = shader.node("ShaderNodeBsdfTransparent", Color=(*tint, 1.0))
    mirror = shader.node("ShaderNodeBsdfGlossy", Roughness=0.01)
    fresnel = shader.node("ShaderNodeFresnel", IOR=1.6)
    mix = shader.node("ShaderNodeMixShader")
    shader.link(fresnel.outputs["Fac"], mix.inputs["Fac"])
    shader.link(clear.outputs["BSDF"], mix.inputs[1])
    shader.link(mirror.outputs["BSDF"], mix.inputs[2])
    shader.link(mix.outputs["Shader"], shader.output.inputs["Surface"])
    return shader.material


def speckled(
    name: str,
    dark: Colour,
    light: Colour,
    scale: float,
    roughness: float = 0.85,
    bump: float = 0.0,
    bump_scale: float = 150.0,
) -> bpy.types.Material:
    """A mineral surface: large soft patches of two tones and a fine grain."""
    shader = Shader(name).set(roughness=roughness)
    patches = shader.ramp(shader.noise(scale).outputs["Fac"], [(0.3, dark), (0.7, light)])
    grain_noise = shader.noise(bump_scale, 3.0)
    grain = shader.ramp(grain_noise.outputs["Fac"], [(0.3, (0.72, 0.72, 0.72)), (0.7, (1.15, 1.15, 1.15))])
    shader.colour_by_product(patches, grain)
    if bump:
        shader.bump(grain_noise.outputs["Fac"], 1.0, bump)
    return shader.material


def asphalt_material() -> bpy.types.Material:
    """Old asphalt: broad stains, mottling, and pale and dark stones in the binder."""
    shader = Shader("asphalt").set(roughness=0.72)
    stains = shader.ramp(
        shader.noise(0.55, 8.0).outputs["Fac"],
        [(0.32, (0.165, 0.158, 0.150)), (0.68, (0.255, 0.243, 0.226))],
    )
    stones = shader.node("ShaderNodeTexVoronoi", Scale=75.0)
    place = shader.node("ShaderNodeNewGeometry")
    shader.link(place.outputs["Position"], stones.inputs["Vector"])
    shade = shader.node("ShaderNodeSeparateColor")
    shader.link(stones.outputs["Color"], shade.inputs["Color"])
    grey = shader.ramp(
        shade.outputs["Red"],
        [
            (0.0, (0.55, 0.55, 0.56)),
            (0.55, (0.95, 0.95, 0.94)),
            (0.9, (1.25, 1.23, 1.18)),
            (1.0, (2.1, 2.0, 1.85)),
        ],
    )
    shader.colour_by_product(stains, grey)
    shader.bump(stones.outputs["Distance"], 0.7, 0.006)
    return shader.material


def worn_marking_material() -> bpy.types.Material:
    """Road paint with patches worn through."""
    shader = Shader("marking").set(roughness=0.6, base_color=(0.62, 0.60, 0.55))
    worn = shader.ramp(shader.noise(45.0, 4.0).outputs["Fac"], [(0.40, (0.9, 0.9, 0.9)), (0.66, (0.1, 0.1, 0.1))])
    shader.link(worn.outputs["Color"], shader.bsdf.inputs["Alpha"])
    return shader.material


def leaf_material(name: str, dark: Colour, light: Colour) -> bpy.types.Material:
    """Leaves or petals in two tones, letting some light through."""
    shader = Shader(name).set(roughness=0.5)
    colour = shader.ramp(shader.noise(7.0, 2.0).outputs["Fac"], [(0.35, dark), (0.65, light)])
    shader.link(colour.outputs["Color"], shader.bsdf.inputs["Base Color"])
    through = shader.node("ShaderNodeBsdfTranslucent")
    shader.link(colour.outputs["Color"], through.inputs["Color"])
    mix = shader.node("ShaderNodeMixShader", Fac=0.35)
    shader.link(shader.bsdf.outputs["BSDF"], mix.inputs[1])
    shader.link(through.outputs["BSDF"], mix.inputs[2])
    shader.link(mix.outputs["Shader"], shader.output.inputs["Surface"])
    return shader.material


class Palette:
    """Every material of the scene, made once."""

    def __init__(self) -> None:
        self.paint = car_paint("paint", (0.004, 0.150, 0.160))
        self.cream_paint = car_paint("cream paint", (0.78, 0.70, 0.55))
        self.chrome = plain("chrome", (0.82, 0.82, 0.80), 0.09, metallic=1.0)
        self.steel = plain("wheel disc", (0.80, 0.74, 0.62), 0.32, coat_weight=0.6)
        # Satin, so that the cap does not stand out from the disc it sits on.
        self.hub_cap = plain("hub cap", (0.80, 0.77, 0.70), 0.36, metallic=0.45, coat_weight=0.3)
        self.tyre = speckled("tyre", (0.050, 0.049, 0.048), (0.068, 0.066, 0.063), 6.0, 0.75)
        self.rubber = plain("rubber", (0.02, 0.02, 0.02), 0.6)
        self.liner = plain("arch liner", (0.03, 0.03, 0.03), 0.9)
        self.under = plain("underbody", (0.015, 0.015, 0.015), 0.9)
        self.leather = plain("seats", (0.23, 0.11, 0.05), 0.5)
        self.suitcase = speckled("suitcase", (0.25, 0.10, 0.035), (0.33, 0.15, 0.06), 8.0, 0.45)
        self.suitcase_dark = speckled("dark suitcase", (0.16, 0.03, 0.025), (0.21, 0.045, 0.035), 8.0, 0.45)
        self.strap = plain("strap", (0.62, 0.48, 0.30), 0.5)
        self.trim = plain("interior trim", (0.06, 0.055, 0.05), 0.7)
        self.glass = thin_glass("car glass", (0.62, 0.68, 0.66))
        self.lamp = plain("lamp", (0.9, 0.9, 0.88), 0.08, metallic=0.7, coat_weight=1.0)
        self.amber = plain("amber", (0.85, 0.25, 0.02), 0.15, coat_weight=1.0)
        self.red = plain("tail lamp", (0.45, 0.012, 0.008), 0.12, coat_weight=1.0)
        self.plate = plain("plate", (0.85, 0.83, 0.75), 0.4)
        self.board = plain("board", (0.80, 0.42, 0.06), 0.2, coat_weight=1.0)
        self.stripe = plain("board stripe", (0.84, 0.80, 0.70), 0.25, coat_weight=1.0)
        self.asphalt = asphalt_material()
        self.marking = worn_marking_material()
        self.stone = speckled("kerb stone", (0.42, 0.39, 0.35), (0.52, 0.49, 0.44), 2.0, 0.75, 0.002)
        self.slab = speckled("slab", (0.43, 0.40, 0.35), (0.52, 0.48, 0.43), 0.8, 0.8, 0.002)
        self.joint = plain("joint", (0.13, 0.115, 0.10), 0.95)
        self.peach = speckled("peach plaster", (0.72, 0.46, 0.30), (0.80, 0.54, 0.36), 0.6, 0.9, 0.003, 60.0)
        self.cream = speckled("cream plaster", (0.78, 0.68, 0.50), (0.84, 0.75, 0.58), 0.6, 0.9, 0.003, 60.0)
        self.white = speckled("white plaster", (0.76, 0.73, 0.67), (0.84, 0.81, 0.76), 0.6, 0.9, 0.003, 60.0)
        self.shutter = plain("shutter", (0.21, 0.32, 0.33), 0.55)
        self.wood = plain("door wood", (0.20, 0.085, 0.035), 0.45, coat_weight=0.3)
        self.frame = plain("window frame", (0.78, 0.74, 0.66), 0.5)
        self.house_glass = thin_glass("house glass", (0.75, 0.78, 0.78))
        self.room = plain("room", (0.035, 0.03, 0.027), 0.9)
        self.glow = plain("glow", (1.0, 0.7, 0.4), emission_color=(1.0, 0.62, 0.28), emission_strength=6.0)
        self.curtain = plain("curtain", (0.72, 0.68, 0.60), 0.9)
        self.canvas = plain("canvas", (0.80, 0.74, 0.62), 0.85)
        self.canvas_red = plain("striped canvas", (0.55, 0.13, 0.06), 0.85)
        self.pane = plain("far window", (0.035, 0.045, 0.05), 0.05, specular_ior_level=0.8)
        self.terracotta = speckled("terracotta", (0.48, 0.19, 0.09), (0.58, 0.26, 0.14), 3.0, 0.85)
        self.leaf = leaf_material("leaf", (0.045, 0.11, 0.02), (0.12, 0.22, 0.04))
        self.dry_leaf = leaf_material("dry leaf", (0.30, 0.15, 0.03), (0.48, 0.28, 0.06))
        self.flower = leaf_material("flower", (0.60, 0.06, 0.16), (0.80, 0.16, 0.28))
        self.bark = speckled("bark", (0.11, 0.08, 0.055), (0.20, 0.16, 0.12), 9.0, 0.9, 0.02, 30.0)


# --------------------------------------------------------------------------
# Geometry helpers
# --------------------------------------------------------------------------


def add_object(name: str, data, material: bpy.types.Material, part: Part = Part.STREET):
    """Put mesh or curve data into the scene as one object of one material."""
    thing = bpy.data.objects.new(name, data)
    thing.pass_index = int(part)
    data.materials.append(material)
    bpy.context.scene.collection.objects.link(thing)
    return thing


def add_mesh(name: str, vertices, faces, material: bpy.types.Material, part=Part.STREET, smooth=True):
    """Build a mesh object from vertex and face lists."""
    mesh = bpy.data.meshes.new(name)
    mesh.from_pydata([tuple(map(float, v)) for v in vertices], [], [tuple(map(int, f)) for f in faces])
    mesh.polygons.foreach_set("use_smooth", [smooth] * len(mesh.polygons))
    mesh.update()
    return add_object(name, mesh, material, part)


Box = tuple[tuple[float, float, float], tuple[float, float, float]]
BOX_FACES = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))


def add_boxes(
    name: str,
    boxes: Iterable[Box],
    material: bpy.types.Material,
    part=Part.STREET,
    bevel: float = 0.01,
):
    """Build any number of axis-aligned boxes, (low, high) each, as one bevelled object."""
    vertices, faces = [], []
    for low, high in boxes:
        first = len(vertices)
        vertices += [(x, y, z) for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])]
        faces += [tuple(first + i for i in face) for face in BOX_FACES]
    thing = add_mesh(name, vertices, faces, material, part, smooth=False)
    if bevel:
        modifier = thing.modifiers.new("bevel", "BEVEL")
        modifier.width, modifier.segments = bevel, 3
        modifier.harden_normals = True
        thing.data.polygons.foreach_set("use_smooth", [True] * len(thing.data.polygons))
    return thing


def add_tube(
    name: str,
    points,
    radius: float,
    material: bpy.types.Material,
    part=Part.STREET,
    closed: bool = False,
):
    """Build a round tube along a polyline."""
    curve = bpy.data.curves.new(name, "CURVE")
    curve.dimensions = "3D"
    curve.bevel_depth, curve.bevel_resolution = radius, 4
    curve.use_fill_caps = True
    spline = curve.splines.new("POLY")
    spline.points.add(len(points) - 1)
    for target, point in zip(spline.points, points, strict=True):
        target.co = (*map(float, point), 1.0)
    spline.use_cyclic_u = closed
    spline.use_smooth = True
    return add_object(name, curve, material, part)


def grid_faces(rows: int, columns: int, wrap: bool) -> list[tuple[int, int, int, int]]:
    """Quads joining a rows x columns array of vertices, closing each row when ``wrap``."""
    return [
        (
            r * columns + c,
            r * columns + (c + 1) % columns,
            (r + 1) * columns + (c + 1) % columns,
            (r + 1) * columns + c,
        )
        for r in range(rows - 1)
        for c in range(columns if wrap else columns - 1)
    ]


def add_lathe(
    name: str,
    profile,
    centre,
    material: bpy.types.Material,
    part=Part.STREET,
    axis="y",
    segments: int = 96,
):
    """Turn a profile of (radius, height along the axis) pairs about an axis."""
    angles = np.linspace(0, 2 * math.pi, segments, endpoint=False)
    vertices = []
    for radius, along in profile:
        ring = np.stack([radius * np.cos(angles), radius * np.sin(angles), np.full(segments, along)], 1)
        if axis == "y":
            ring = ring[:, [0, 2, 1]]
        elif axis == "x":
            ring = ring[:, [2, 0, 1]]
        vertices.append(ring + np.asarray(centre))
    faces = grid_faces(len(profile), segments, wrap=True)
    return add_mesh(name, np.concatenate(vertices), faces, material, part)


def add_sweep(name: str, section, path, material: bpy.types.Material, part=Part.STREET):
    """Sweep a closed (outwards, up) section along a horizontal path, capping its ends."""
    path, section = np.asarray(path, float), np.asarray(section, float)
    along = np.gradient(path[:, :2], axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    outward = np.stack([along[:, 1], -along[:, 0]], 1)
    vertices = [
        (p[0] + n[0] * s[0], p[1] + n[1] * s[0], p[2] + s[1])
        for p, n in zip(path, outward, strict=True)
        for s in section
    ]
    count = len(section)
    faces = grid_faces(len(path), count, wrap=True)
    faces += [tuple(range(count)), tuple(range(len(vertices) - 1, len(vertices) - count - 1, -1))]
    return add_mesh(name, vertices, faces, material, part)


def rounded_section(depth: float, height: float, radius: float, steps: int = 6) -> np.ndarray:
    """A rounded rectangle centred on the origin, as the section of a sweep."""
    outline = rectangle(-depth / 2, -height / 2, depth / 2, height / 2)
    outline = outline.buffer(-radius).buffer(radius, quad_segs=steps)
    return np.asarray(outline.exterior.coords)[:-1]


class Surface:
    """A smooth sheet in space: a map from 2-D drawing coordinates to 3-D points.

    ``outward`` is a rough direction that tells which side of the sheet is outside.
    """

    def __init__(self, place: Callable[[np.ndarray], np.ndarray], outward) -> None:
        self.place = place
        self.outward = np.asarray(outward, float)

    def at(self, flat: np.ndarray, depth=0.0) -> np.ndarray:
        """Points ``depth`` below the sheet (a number, or one per point)."""
        points = self.place(flat)
        return points - self.normals(flat) * np.broadcast_to(depth, len(flat))[:, None]

    def normals(self, flat: np.ndarray) -> np.ndarray:
        """Unit normals, by central differences."""
        step = 1e-4
        du, dv = np.array([step, 0.0]), np.array([0.0, step])
        normal = np.cross(
            self.place(flat + du) - self.place(flat - du),
            self.place(flat + dv) - self.place(flat - dv),
        )
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        return normal * np.sign(normal @ self.outward)[:, None]

    def sunk(self, depth: float) -> Surface:
        """A parallel sheet ``depth`` further in, or further out when negative."""
        return Surface(lambda flat: self.at(flat, depth), self.outward)

    def mirrored(self) -> Surface:
        """The same sheet on the far side of the car."""
        flip = np.array([1.0, -1.0, 1.0])
        shift = np.array([0.0, 2 * HALF_WIDTH, 0.0])
        return Surface(lambda flat: self.place(flat) * flip + shift, self.outward * flip)


def ring_normals(ring: np.ndarray) -> np.ndarray:
    """2-D unit normals of a closed ring, to the right of its direction."""
    along = np.roll(ring, -1, axis=0) - np.roll(ring, 1, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    return np.stack([along[:, 1], -along[:, 0]], 1)


def triangulate(shape: Polygon, rings: list[np.ndarray], step: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Triangulate a polygon with its rings as constraints and a grid of inner points."""
    points = np.concatenate(rings)
    edges, first = [], 0
    for ring in rings:
        count = len(ring)
        edges += [(first + i, first + (i + 1) % count) for i in range(count)]
        first += count
    left, low, right, high = shape.bounds
    grid = np.stack(np.meshgrid(np.arange(left, right, step[0]), np.arange(low, high, step[1])), -1).reshape(-1, 2)
    keep = shapely.contains_xy(shape.buffer(-0.4 * min(step)), grid[:, 0], grid[:, 1])
    points = np.concatenate([points, grid[keep]])
    vertices, _, triangles, *_ = delaunay_2d_cdt([Vector(p) for p in points], edges, [], 0, 1e-7)
    vertices = np.array([tuple(v) for v in vertices])
    triangles = np.array(triangles)
    centres = vertices[triangles].mean(1)
    return vertices, triangles[shapely.contains_xy(shape, centres[:, 0], centres[:, 1])]


def add_panel(
    name: str,
    shape: Polygon,
    surface: Surface,
    material: bpy.types.Material,
    part: Part = Part.BODY,
    edge: float = 0.006,
    thickness: float = 0.03,
    step: tuple[float, float] = (0.05, 0.03),
):
    """Press a sheet-metal panel: a drawn outline laid on a surface, edges rolled inwards."""
    flat_part = shapely.geometry.polygon.orient(shape.buffer(-edge))
    loops = [flat_part.exterior, *flat_part.interiors]
    rings = [np.asarray(loop.segmentize(0.02).coords)[:-1] for loop in loops]
    flat, triangles = triangulate(flat_part, rings, step)
    vertices, faces = [surface.at(flat)], [triangles]
    count = len(flat)
    turns = [(math.sin(a), 1 - math.cos(a)) for a in np.linspace(0, math.pi / 2, 5)]
    for ring in rings:
        outward = ring_normals(ring)
        layers = [surface.at(ring + outward * edge * out, edge * down) for out, down in turns]
        layers.append(surface.at(ring + outward * edge, thickness))
        vertices += layers
        faces.append(np.array([f[::-1] for f in grid_faces(len(layers), len(ring), wrap=True)]) + count)
        count += len(ring) * len(layers)
    face_list = [tuple(face) for block in faces for face in block]
    return add_mesh(name, np.concatenate(vertices), face_list, material, part)


def rounded(shape: Polygon, radius: float) -> Polygon:
    """The polygon with its convex and concave corners rounded."""
    return shape.buffer(-radius).buffer(2 * radius, quad_segs=12).buffer(-radius, quad_segs=12)


def add_rim_tube(
    name: str,
    shape: Polygon,
    surface: Surface,
    radius,
    material: bpy.types.Material,
    part,
    depth=0.0,
):
    """Lay a tube along the outline of a polygon drawn on a surface."""
    ring = np.asarray(shape.exterior.segmentize(0.03).coords)[:-1]
    return add_tube(name, surface.at(ring, depth), radius, material, part, closed=True)


# --------------------------------------------------------------------------
# The car's surfaces
# --------------------------------------------------------------------------


def belt_height(x):
    """Height of the shoulder line: level along the cabin, dropping to the nose."""
    return BELT - 0.10 * np.clip((0.5 - x) / 1.6, 0, 1) ** 1.4


def flank_inset(x, s):
    """How far the flank lies inside the widest point of the car."""
    v = (s - SILL) / (FLANK_TOP - SILL)
    tuck = 0.07 * np.clip((0.5 - v) / 0.5, 0, 1) ** 2 + 0.025 * np.clip((v - 0.6) / 0.4, 0, 1) ** 2
    swage = -0.009 * np.exp(-(((s - 0.915) / 0.022) ** 2))
    nose = 0.13 * np.clip((-0.45 - x) / 0.75, 0, None) ** 2.2
    tail = 0.07 * np.clip((x - 3.6) / 0.7, 0, None) ** 2
    return 0.012 + tuck + swage + nose + tail


def flank_point(flat):
    """(x, s) to space; s is the height, then the length along the rolled shoulder."""
    x, s = flat[:, 0], flat[:, 1]
    upright = np.minimum(s, FLANK_TOP)
    stretch = (belt_height(x) - SHOULDER - SILL) / (FLANK_TOP - SILL)
    turn = np.clip((s - FLANK_TOP) / SHOULDER, 0, None)
    y = flank_inset(x, upright) + SHOULDER * (1 - np.cos(turn))
    z = SILL + (upright - SILL) * stretch + SHOULDER * np.sin(turn)
    return np.stack([x, y, z], 1)


def cabin_inset(x, z):
    """How far the window band lies inside the widest point of the car."""
    tail = 0.07 * np.clip((x - 3.6) / 0.7, 0, None) ** 2
    return 0.105 + 0.20 * (z - BELT) + 0.04 * np.clip(z - BELT, 0, None) ** 2 + tail


def cabin_point(flat):
    """(x, z) to space, for the window band."""
    x, z = flat[:, 0], flat[:, 1]
    return np.stack([x, cabin_inset(x, z), z], 1)


def bonnet_point(flat):
    """(x, distance from the centre line) to space, for the bonnet."""
    x, v = flat[:, 0], flat[:, 1]
    bulge = 0.025 / (1 + np.exp((np.abs(v) - 0.38) / 0.025))
    lip = 0.9 * np.clip(NOSE + 0.02 - x, 0, None) ** 1.5
    z = belt_height(x) + 0.055 * (1 - (v / 0.9) ** 2) + bulge - 0.02 - lip
    return np.stack([x, HALF_WIDTH + v, z], 1)


def nose_x(v, z):
    """Where the nose panel stands; bowed in plan and leaning back a little."""
    return NOSE - 0.075 + 0.075 * (v / 0.8) ** 2 + 0.04 * (z - 0.5)


def nose_point(flat):
    """(distance from the centre line, z) to space, for the nose panel."""
    v, z = flat[:, 0], flat[:, 1]
    return np.stack([nose_x(v, z), HALF_WIDTH + v, z], 1)


def tail_point(flat):
    """(distance from the centre line, z) to space, for the tailgate."""
    v, z = flat[:, 0], flat[:, 1]
    x = TAIL + 0.03 * (1 - (v / 0.9) ** 2) - 0.25 * np.clip(z - BELT, 0, None)
    return np.stack([x, HALF_WIDTH + v, z], 1)


def screen_point(flat):
    """(distance from the centre line, length up the slope) to space, for the windscreen."""
    v, t = flat[:, 0], flat[:, 1] / SCREEN_LENGTH
    x = SCREEN_FOOT + (SCREEN_HEAD - SCREEN_FOOT) * t - 0.10 * (1 - (v / 0.86) ** 2)
    return np.stack([x, HALF_WIDTH + v, BELT + (ROOF - BELT) * t], 1)


def roof_point(flat):
    """(x, distance from the centre line) to space, for the roof."""
    x, v = flat[:, 0], flat[:, 1]
    brow = 0.03 * np.clip((1.5 - x) / 0.5, 0, 1) ** 2 + 0.03 * np.clip((x - 3.6) / 0.7, 0, 1) ** 2
    return np.stack([x, HALF_WIDTH + v, ROOF + 0.062 - 0.05 * (v / 0.78) ** 2 - brow], 1)


FLANK = Surface(flank_point, (0, -1, 0.3))
CABIN = Surface(cabin_point, (0, -1, 0.2))
BONNET = Surface(bonnet_point, (0, 0, 1))
NOSE_PANEL = Surface(nose_point, (-1, 0, 0))
TAILGATE = Surface(tail_point, (1, 0, 0))
SCREEN = Surface(screen_point, (-1, 0, 1))
ROOF_PANEL = Surface(roof_point, (0, 0, 1))


def screen_x(z: float) -> float:
    """X of the windscreen's edge at a height."""
    return SCREEN_FOOT + (SCREEN_HEAD - SCREEN_FOOT) * (z - BELT) / (ROOF - BELT)


# --------------------------------------------------------------------------
# The car
# --------------------------------------------------------------------------


def wheel_arch(axle: float, half_width: float, height: float) -> Polygon:
    """A squarish arch opening, a superellipse standing on the sill."""
    angles = np.linspace(0, 2 * math.pi, 90, endpoint=False)
    cosine, sine = np.cos(angles), np.sin(angles)
    power = 2 / 2.5
    x = axle + half_width * np.sign(cosine) * np.abs(cosine) ** power
    z = WHEEL_RADIUS + height * np.sign(sine) * np.abs(sine) ** power
    return Polygon(np.stack([x, z], 1))


ARCHES = {0.0: wheel_arch(0.0, 0.50, 0.475), WHEELBASE: wheel_arch(WHEELBASE, 0.48, 0.455)}


def on_both_sides(name: str, shape: Polygon, surface: Surface, material: bpy.types.Material, **options) -> None:
    """Press a panel for the near side and its mirror image for the far side."""
    add_panel(f"{name} near", shape, surface, material, **options)
    far = {**options, "part": Part.BODY}
    add_panel(f"{name} far", shape, surface.mirrored(), material, **far)


def build_flanks(palette: Palette) -> None:
    """Wings, doors and rear quarters, from the sill to the shoulder."""
    openings = shapely.union_all([*ARCHES.values()])
    top = FLANK_TOP + SHOULDER_LENGTH
    edges = (NOSE, *DOORS, TAIL)
    for left, right in pairwise(edges):
        gap = SHUT_LINE / 2
        outline = rectangle(left + gap, SILL, right - gap, top).difference(openings)
        on_both_sides("flank", rounded(outline, 0.012), FLANK, palette.paint, step=(0.05, 0.018))


# Section of the flared lip of an arch: (distance outside the opening, height above the flank).
LIP_SECTION = (
    (0.004, -0.040), (0.000, 0.014), (0.003, 0.024), (0.010, 0.030), (0.022, 0.031),
    (0.036, 0.026), (0.048, 0.014), (0.056, 0.000), (0.060, -0.010),
)  # fmt: skip


def arch_line(opening: Polygon, low: float) -> np.ndarray:
    """The part of an arch above a height, in order along the car."""
    ring = np.asarray(opening.segmentize(0.012).exterior.coords)[:-1]
    line = ring[ring[:, 1] > low]
    bearing = np.arctan2(line[:, 1] - low, line[:, 0] - line[:, 0].mean())
    return line[np.argsort(-bearing)]


def build_arches(palette: Palette) -> None:
    """The flared lip of each wheel arch, the dark tubs and the underbody."""
    for axle, opening in ARCHES.items():
        line = arch_line(opening, SILL)
        along = np.gradient(line, axis=0)
        along /= np.linalg.norm(along, axis=1, keepdims=True)
        outward = np.stack([-along[:, 1], along[:, 0]], 1)
        for surface in (FLANK, FLANK.mirrored()):
            rows = [surface.at(line + outward * out, -height) for out, height in LIP_SECTION]
            faces = grid_faces(len(rows), len(line), wrap=False)
            add_mesh("arch lip", np.concatenate(rows), faces, palette.paint, Part.BODY)
        for y, depth in ((0.035, 0.5), (2 * HALF_WIDTH - 0.035, -0.5)):
            build_tub(axle, arch_line(opening.buffer(0.03), SILL), y, y + depth, palette)
    floor = [((NOSE + 0.1, 0.5, 0.3), (TAIL - 0.1, 2 * HALF_WIDTH - 0.5, 0.62))]
    between = [((0.52, 0.1, 0.33), (WHEELBASE - 0.52, 2 * HALF_WIDTH - 0.1, 0.5))]
    add_boxes("underbody", floor + between, palette.under, Part.BODY)


def build_tub(axle: float, line: np.ndarray, mouth: float, back: float, palette: Palette) -> None:
    """The dark recess a wheel stands in: a vault closed by a fan of faces at its back."""
    vault = [(x, y, z) for y in (mouth, back) for x, z in line]
    fan = [(axle, back, WHEEL_RADIUS)] * len(line)
    add_mesh("tub", vault + fan, grid_faces(3, len(line), wrap=False), palette.liner, Part.BODY)


def cabin_sections() -> list[Polygon]:
    """The window band cut at the shut lines: pillar, two doors, rear quarter."""
    low, high = BELT - 0.02, ROOF

    def slanted(offset: float) -> list[tuple[float, float]]:
        return [(screen_x(low) + offset, low), (screen_x(high) + offset, high)]

    gap = SHUT_LINE / 2
    pillar = Polygon(slanted(0.0) + slanted(0.055)[::-1])
    front = Polygon([*slanted(0.055 + SHUT_LINE), (DOORS[1] - gap, high), (DOORS[1] - gap, low)])
    rear = rectangle(DOORS[1] + gap, low, DOORS[2] - gap, high)
    quarter = Polygon([(DOORS[2] + gap, low), (DOORS[2] + gap, high), (TAIL - 0.12, high), (TAIL - 0.02, low)])
    return [pillar, front, rear, quarter]


def side_windows() -> dict[str, Polygon]:
    """Outlines of the side windows; the small one is the vent of the rear door."""
    front_edge = 0.055 + 0.06
    front = Polygon(
        [
            (screen_x(WINDOW_LOW) + front_edge, WINDOW_LOW),
            (screen_x(WINDOW_HIGH) + front_edge, WINDOW_HIGH),
            (DOORS[1] - 0.06, WINDOW_HIGH),
            (DOORS[1] - 0.06, WINDOW_LOW),
        ]
    )
    rear = rectangle(DOORS[1] + 0.06, WINDOW_LOW, SMALL_WINDOW_BOX[0] - 0.075, WINDOW_HIGH)
    cargo = Polygon(
        [
            (DOORS[2] + 0.09, WINDOW_LOW),
            (DOORS[2] + 0.09, WINDOW_HIGH),
            (TAIL - 0.22, WINDOW_HIGH),
            (TAIL - 0.15, WINDOW_LOW),
        ]
    )
    shapes = {"front": front, "rear": rear, "small": rectangle(*SMALL_WINDOW_BOX), "cargo": cargo}
    return {name: rounded(shape, 0.045) for name, shape in shapes.items()}


def build_cabin(palette: Palette) -> None:
    """Pillars, door frames and side windows with their seals and bright trim."""
    windows = side_windows()
    openings = shapely.union_all(list(windows.values()))
    for section in cabin_sections():
        on_both_sides("cabin", rounded(section.difference(openings), 0.004), CABIN, palette.paint, edge=0.005)
    for name, window in windows.items():
        part = Part.SMALL_WINDOW if name == "small" else Part.BODY
        on_both_sides(
            f"{name} glass",
            window,
            CABIN.sunk(0.014),
            palette.glass,
            edge=0.001,
            thickness=0.002,
            part=part,
        )
        for surface in (CABIN, CABIN.mirrored()):
            add_rim_tube("seal", window, surface, 0.011, palette.rubber, Part.BODY, 0.006)
            add_rim_tube("bright trim", window.buffer(0.014), surface, 0.006, palette.chrome, Part.BODY)


def build_screen(palette: Palette) -> None:
    """Windscreen, its frame, the cowl below it and the wipers."""
    foot = HALF_WIDTH - cabin_inset(0.5, BELT)
    head = HALF_WIDTH - cabin_inset(1.0, ROOF)
    outline = Polygon([(-foot, 0), (foot, 0), (head, SCREEN_LENGTH), (-head, SCREEN_LENGTH)])
    pane = rounded(outline.buffer(-0.055), 0.06)
    add_panel("screen frame", outline.difference(pane), SCREEN, palette.paint)
    add_panel("screen glass", pane, SCREEN.sunk(0.012), palette.glass, edge=0.001, thickness=0.002)
    add_rim_tube("screen seal", pane, SCREEN, 0.012, palette.rubber, Part.BODY, 0.004)
    add_rim_tube("screen trim", pane.buffer(0.014), SCREEN, 0.006, palette.chrome, Part.BODY)
    add_boxes(
        "cowl",
        [((0.25, 0.16, BELT - 0.06), (0.75, 2 * HALF_WIDTH - 0.16, BELT - 0.01))],
        palette.rubber,
        Part.BODY,
    )
    for v in (-0.45, 0.15):
        blade = np.array([(v, 0.03), (v + 0.2, 0.16), (v + 0.42, 0.24)])
        add_tube("wiper", SCREEN.at(blade, -0.02), 0.006, palette.rubber, Part.BODY)


def build_bonnet(palette: Palette) -> None:
    """The bonnet, between the rolled edges of the two wings."""
    x = np.linspace(NOSE, 0.36, 30)
    reach = HALF_WIDTH - flank_inset(x, FLANK_TOP) - SHOULDER - 0.006
    near, far = np.stack([x, -reach], 1), np.stack([x, reach], 1)[::-1]
    front = np.linspace(reach[0], -reach[0], 30)
    lip = np.stack([nose_x(front, NOSE_TOP) - 0.012, front], 1)
    outline = Polygon(np.concatenate([near, far, lip]))
    add_panel("bonnet", outline, BONNET, palette.paint, edge=0.014, thickness=0.06)


def build_roof(palette: Palette) -> None:
    """The cream roof and the bright gutter round it."""
    x = np.linspace(SCREEN_HEAD - 0.06, TAIL - 0.13, 30)
    reach = HALF_WIDTH - cabin_inset(x, ROOF) - 0.002
    near, far = np.stack([x, -reach], 1), np.stack([x, reach], 1)[::-1]
    outline = rounded(Polygon(np.concatenate([near, far])), 0.09)
    add_panel("roof", outline, ROOF_PANEL, palette.cream_paint, edge=0.05, thickness=0.06)
    add_panel("headliner", outline.buffer(-0.05), ROOF_PANEL.sunk(0.07), palette.trim, edge=0.01)
    for surface in (CABIN, CABIN.mirrored()):
        line = np.array([(x, ROOF + 0.002) for x in np.linspace(SCREEN_HEAD - 0.02, TAIL - 0.14, 40)])
        add_tube("gutter", surface.at(line, -0.008), 0.014, palette.chrome, Part.BODY)


def build_nose(palette: Palette) -> None:
    """Nose panel, grille and headlamps."""
    v = np.linspace(-0.80, 0.80, 40)
    under_bonnet = bonnet_point(np.stack([nose_x(v, NOSE_TOP), v], 1))[:, 2] - 0.022
    outline = Polygon([(-0.80, 0.50), (0.80, 0.50), *zip(v[::-1], under_bonnet[::-1], strict=True)])
    outline = rounded(outline, 0.03)
    mouth = rounded(rectangle(-0.50, 0.70, 0.50, 0.95), 0.03)
    add_panel("nose", outline.difference(mouth), NOSE_PANEL, palette.paint, edge=0.022, thickness=0.10)
    add_panel("grille back", mouth.buffer(0.02), NOSE_PANEL.sunk(0.07), palette.under)
    add_rim_tube("grille frame", mouth, NOSE_PANEL, 0.016, palette.chrome, Part.BODY)
    for z in np.linspace(0.732, 0.918, 6):
        bar = np.array([(v, z) for v in np.linspace(-0.49, 0.49, 12)])
        add_tube("grille bar", NOSE_PANEL.at(bar, 0.012), 0.009, palette.chrome, Part.BODY)
    for v, z in HEADLAMPS:
        build_headlamp(v, z, palette)


def build_headlamp(v: float, z: float, palette: Palette) -> None:
    """A round headlamp in a chrome ring, with an indicator below it."""
    centre = NOSE_PANEL.at(np.array([(v, z)]))[0]
    bowl = [(0.0, -0.065), (0.05, -0.058), (0.09, -0.036), (0.108, -0.01), (0.11, 0.05)]
    ring = [(0.108, 0.03), (0.11, -0.03), (0.122, -0.038), (0.136, -0.02), (0.14, 0.06)]
    add_lathe("lamp bowl", bowl, centre, palette.lamp, Part.BODY, axis="x")
    add_lathe("lamp ring", ring, centre, palette.chrome, Part.BODY, axis="x")
    indicator = rounded(rectangle(v - 0.07, 0.607, v + 0.07, 0.663), 0.02)
    add_panel("indicator", indicator, NOSE_PANEL.sunk(-0.02), palette.amber, edge=0.012)


def bumper_path(direction: int, reach: float) -> np.ndarray:
    """Plan of a bumper round one end of the car; ``direction`` is -1 at the nose."""
    angles = np.linspace(-math.pi / 2, math.pi / 2, 60)
    power = 0.42
    tip = (NOSE - 0.22) if direction < 0 else (TAIL + 0.13)
    x = tip - direction * reach + direction * reach * np.abs(np.cos(angles)) ** power
    y = HALF_WIDTH + (HALF_WIDTH - 0.02) * np.sign(np.sin(angles)) * np.abs(np.sin(angles)) ** power
    return np.stack([x, y, np.full_like(x, BUMPER_Z)], 1)


def build_bumpers(palette: Palette) -> None:
    """Chrome bumpers that wrap round the corners, with blank number plates."""
    apron = rounded(rectangle(-0.84, SILL, 0.84, 0.50), 0.03)
    add_panel("apron", apron, NOSE_PANEL.sunk(0.015), palette.paint, edge=0.03)
    for direction, reach in ((-1, 0.42), (1, 0.42)):
        path = bumper_path(direction, reach)
        add_sweep("bumper", rounded_section(0.07, 0.145, 0.033), path, palette.chrome, Part.BODY)
        strip = rounded_section(0.02, 0.034, 0.008) + np.array([0.034, 0.012])
        add_sweep("bumper strip", strip, path[::direction], palette.rubber, Part.BODY)
        shelf = [(x, y, BUMPER_Z - 0.02) for x, y, _ in path]
        add_mesh("bumper shelf", shelf, [range(len(shelf))], palette.under, Part.BODY)
        tip = path[len(path) // 2, 0] + direction * 0.050
        plate = (
            (tip - 0.006, HALF_WIDTH - 0.26, BUMPER_Z - 0.055),
            (tip + 0.006, HALF_WIDTH + 0.26, BUMPER_Z + 0.055),
        )
        add_boxes("plate", [plate], palette.plate, Part.BODY, bevel=0.004)


def build_tail(palette: Palette) -> None:
    """The tailgate, seen only from inside, through the windows."""
    body = Polygon([(-0.86, 0.5), (0.86, 0.5), (0.84, BELT), (0.72, ROOF), (-0.72, ROOF), (-0.84, BELT)])
    window = rounded(rectangle(-0.6, BELT + 0.05, 0.6, ROOF - 0.06), 0.06)
    add_panel("tailgate", body.difference(window), TAILGATE, palette.paint, edge=0.03)
    lining = body.buffer(-0.04).difference(window.buffer(-0.012))
    add_panel("tail lining", lining, TAILGATE.sunk(0.04), palette.trim, edge=0.004)
    add_panel("tail glass", window.buffer(0.035), TAILGATE, palette.glass, edge=0.001, thickness=0.002)


def build_interior(palette: Palette) -> None:
    """Seats, dashboard and steering wheel, to be guessed at through the glass."""
    seats, heads = [], []
    for x in (1.25, 2.2):
        for centre in (0.52, 2 * HALF_WIDTH - 0.52):
            seats += [
                ((x, centre - 0.27, 0.62), (x + 0.5, centre + 0.27, 0.82)),
                ((x + 0.45, centre - 0.26, 0.7), (x + 0.58, centre + 0.26, 1.30)),
            ]
            heads.append(((x + 0.47, centre - 0.13, 1.33), (x + 0.56, centre + 0.13, 1.48)))
    add_boxes("seats", seats + heads, palette.leather, Part.BODY, bevel=0.04)
    width = 2 * HALF_WIDTH
    trim = [
        ((0.55, 0.16, 0.8), (0.85, width - 0.16, 1.15)),
        ((0.6, 0.14, 0.5), (4.1, width - 0.14, 0.6)),
        ((2.95, 0.18, 0.6), (4.1, width - 0.18, 1.0)),
    ]
    add_boxes("trim", trim, palette.trim, Part.BODY, bevel=0.03)
    angles = np.linspace(0, 2 * math.pi, 40, endpoint=False)
    rim = [(1.0 + 0.07 * math.sin(a), 0.52 + 0.19 * math.cos(a), 1.17 + 0.17 * math.sin(a)) for a in angles]
    add_tube("steering wheel", rim, 0.014, palette.rubber, Part.BODY, closed=True)


def build_fittings(palette: Palette) -> None:
    """Door handles, door mirrors, side strips, lamps and the fuel flap."""
    for surface, sign in ((FLANK, 1), (FLANK.mirrored(), -1)):
        for x in (DOORS[1] - 0.20, DOORS[2] - 0.24):
            grip = np.array([(x, 1.02), (x + 0.02, 1.02), (x + 0.12, 1.02), (x + 0.14, 1.02)])
            add_tube(
                "handle",
                surface.at(grip, np.array([0.0, -0.03, -0.03, 0.0])),
                0.011,
                palette.chrome,
                Part.BODY,
            )
        strip = np.array([(x, 0.60) for x in np.linspace(0.60, WHEELBASE - 0.56, 50)])
        add_tube("side strip", surface.at(strip, -0.002), 0.013, palette.chrome, Part.BODY)
        marker = rounded(rectangle(-0.86, 0.79, -0.76, 0.825), 0.012)
        add_panel("marker", marker, surface.sunk(-0.012), palette.amber, edge=0.01)
        tail_lamp = rounded(rectangle(TAIL - 0.085, 0.80, TAIL - 0.015, 1.02), 0.02)
        add_panel("tail lamp", tail_lamp, surface.sunk(-0.014), palette.red, edge=0.012)
        build_mirror(palette, sign)
    flap = Point(4.03, 1.01).buffer(0.06)
    add_rim_tube("fuel flap", flap, FLANK, 0.004, palette.rubber, Part.BODY)


def build_mirror(palette: Palette, sign: int) -> None:
    """A door mirror on a short stalk; ``sign`` is 1 on the near side."""

    def place(x, y, z):
        return (x, HALF_WIDTH + sign * (y - HALF_WIDTH), z)

    add_tube(
        "mirror stalk",
        [place(0.86, 0.10, 1.20), place(0.84, -0.04, 1.235)],
        0.013,
        palette.chrome,
        Part.BODY,
    )
    outline = np.asarray(rounded(rectangle(-0.10, -0.065, 0.10, 0.065), 0.04).exterior.coords)[:-1]
    rows = []
    for depth, scale in (
        (-0.075, 0.0),
        (-0.07, 0.45),
        (-0.05, 0.8),
        (-0.015, 1.0),
        (0.02, 1.0),
        (0.02, 0.0),
    ):
        rows += [place(0.84 + depth, -0.11 + v * scale, 1.285 + w * scale) for v, w in outline]
    add_mesh("mirror", rows, grid_faces(6, len(outline), wrap=True), palette.chrome, Part.BODY)


def build_rack(palette: Palette) -> None:
    """Roof rack with suitcases and a surfboard."""
    for v in (-0.66, 0.66):
        rail = [(x, HALF_WIDTH + v, 1.715) for x in np.linspace(1.25, 3.95, 30)]
        rail = [(1.18, HALF_WIDTH + v, 1.65), *rail, (4.02, HALF_WIDTH + v, 1.65)]
        add_tube("rail", rail, 0.016, palette.chrome, Part.BODY)
        for x in (1.9, 2.6, 3.3):
            add_tube(
                "foot",
                [(x, HALF_WIDTH + v, 1.66), (x, HALF_WIDTH + v, 1.715)],
                0.014,
                palette.chrome,
                Part.BODY,
            )
    for x in (1.7, 2.5, 3.3):
        add_tube(
            "bar",
            [(x, HALF_WIDTH - 0.66, 1.725), (x, HALF_WIDTH + 0.66, 1.725)],
            0.014,
            palette.rubber,
            Part.BODY,
        )
    build_luggage(palette)
    build_board(palette)


def build_luggage(palette: Palette) -> None:
    """Two leather suitcases with straps, lying on the near half of the rack."""
    for left, right, low, high, skin in (
        (1.62, 2.34, 1.738, 1.838, palette.suitcase),
        (2.44, 3.06, 1.738, 1.825, palette.suitcase_dark),
    ):
        add_boxes("suitcase", [((left, 0.38, low), (right, 0.86, high))], skin, Part.BODY, bevel=0.025)
        straps = [
            ((x - 0.018, 0.376, low - 0.004), (x + 0.018, 0.864, high + 0.004)) for x in (left + 0.14, right - 0.14)
        ]
        add_boxes("strap", straps, palette.strap, Part.BODY, bevel=0.008)


def build_board(palette: Palette) -> None:
    """A long surfboard with a stripe, lying on the far half of the rack."""
    length, columns, stations = 2.75, 40, 60
    points = []
    for t in np.linspace(0.002, 0.998, stations):
        half = 0.27 * (math.sin(math.pi * t**0.85)) ** 0.55
        thick = 0.04 * math.sin(math.pi * t) ** 0.4
        lift = 1.768 + 0.035 * (2 * t - 1) ** 4
        angles = np.linspace(0, 2 * math.pi, columns, endpoint=False)
        points += [(1.2 + length * t, 1.28 + half * math.cos(a), lift + thick * math.sin(a)) for a in angles]
    faces = grid_faces(stations, columns, wrap=True)
    # Column 20 is the rail towards the camera; the stripe runs along it.
    striped = [face for face in faces if 18 <= face[0] % columns <= 20]
    rest = [face for face in faces if not 18 <= face[0] % columns <= 20]
    add_mesh("surfboard", points, rest, palette.board, Part.BODY)
    add_mesh("surfboard stripe", points, striped, palette.stripe, Part.BODY)


def tyre_profile() -> list[tuple[float, float, float]]:
    """(radius, y, depth of the cross grooves) of the tyre, from outer to inner bead."""
    radius, width = WHEEL_RADIUS, WHEEL_WIDTH
    outer = [
        (HUB_RADIUS - 0.004, 0.018, 0),
        (HUB_RADIUS + 0.004, 0.004, 0),
        (0.245, 0.001, 0),
        (0.247, -0.003, 0),
        (0.253, -0.003, 0),
        (0.255, 0.000, 0),
        (0.295, -0.005, 0),
        (0.318, -0.002, 0),
        (0.320, -0.006, 0),
        (0.327, -0.006, 0),
        (0.329, -0.001, 0),
        (radius - 0.036, 0.008, 0),
        (radius - 0.028, 0.014, 0.002),
        (radius - 0.011, 0.026, 0.009),
        (radius - 0.002, 0.045, 0.010),
    ]
    tread = []
    for groove in np.linspace(0.09, width - 0.09, 4):
        tread += [
            (radius, groove - 0.012, 0.008),
            (radius - 0.012, groove - 0.008, 0),
            (radius - 0.012, groove + 0.008, 0),
            (radius, groove + 0.012, 0.008),
        ]
    return outer + tread + [(r, width - y, cut) for r, y, cut in outer[::-1]]


def build_tyre(centre, sign: int, material: bpy.types.Material, part: Part) -> None:
    """A tyre: turned from its profile, with grooves cut across the tread."""
    per_block = 6
    angles = np.linspace(0, 2 * math.pi, TREAD_BLOCKS * per_block, endpoint=False)
    in_groove = np.arange(len(angles)) % per_block < 2
    rings = []
    for radius, y, cut in tyre_profile():
        reach = radius - cut * in_groove
        rings.append(np.stack([reach * np.cos(angles), np.full(len(angles), sign * y), reach * np.sin(angles)], 1))
    vertices = np.concatenate(rings) + np.asarray(centre)
    add_mesh("tyre", vertices, grid_faces(len(rings), len(angles), wrap=True), material, part)


def hub_profile() -> list[tuple[float, float]]:
    """(radius, y) of the pressed steel wheel disc, from its lip to its centre."""
    return [
        (HUB_RADIUS - 0.006, 0.03),
        (HUB_RADIUS, 0.008),
        (HUB_RADIUS - 0.004, -0.002),
        (HUB_RADIUS - 0.014, 0.000),
        (HUB_RADIUS - 0.020, 0.012),
        (0.185, 0.028),
        (0.165, 0.030),
        (0.14, 0.016),
        (0.115, 0.008),
        (0.08, 0.006),
        (0.0, 0.006),
    ]


def hub_cap_profile() -> list[tuple[float, float]]:
    """(radius, y) of the domed cap."""
    return [(0.078, 0.010), (0.078, -0.008), (0.070, -0.018), (0.045, -0.026), (0.0, -0.030)]


# (radius, y) of one wheel nut.
NUT_PROFILE = ((0.012, 0.02), (0.012, -0.004), (0.008, -0.009), (0.0, -0.009))
NUT_CIRCLE = 0.105


def build_hub(centre, sign: int, palette: Palette, part: Part) -> None:
    """A painted wheel disc with a satin cap and five nuts."""

    def turn(name: str, profile, at, material: bpy.types.Material, segments: int) -> None:
        facing = [(radius, sign * y) for radius, y in profile]
        add_lathe(name, facing, at, material, part, segments=segments)

    turn("hub", hub_profile(), centre, palette.steel, 96)
    turn("hub cap", hub_cap_profile(), centre, palette.hub_cap, 96)
    for angle in np.arange(5) * 2 * math.pi / 5 + 0.3:
        nut = np.add(centre, (NUT_CIRCLE * math.cos(angle), 0.0, NUT_CIRCLE * math.sin(angle)))
        turn("nut", NUT_PROFILE, nut, palette.chrome, 12)


def build_wheels(palette: Palette) -> None:
    """Four wheels; only the near ones carry an object index of their own."""
    near_parts = {0.0: (Part.FRONT_TYRE, Part.FRONT_HUB), WHEELBASE: (Part.REAR_WHEEL,) * 2}
    for axle, parts in near_parts.items():
        # The tyres sink a little into the road, as if they bore the car's weight.
        for sign, y, (tyre_part, hub_part) in (
            (1, 0.0, parts),
            (-1, 2 * HALF_WIDTH, (Part.BODY, Part.BODY)),
        ):
            centre = (axle, y, WHEEL_RADIUS - 0.003)
            build_tyre(centre, sign, palette.tyre, tyre_part)
            build_hub(centre, sign, palette, hub_part)


def build_car(palette: Palette) -> None:
    """The whole vehicle."""
    for build in (
        build_flanks,
        build_arches,
        build_cabin,
        build_screen,
        build_bonnet,
        build_roof,
        build_nose,
        build_bumpers,
        build_tail,
        build_interior,
        build_fittings,
        build_rack,
        build_wheels,
    ):
        build(palette)


# --------------------------------------------------------------------------
# The street
# --------------------------------------------------------------------------


def build_ground(palette: Palette) -> None:
    """Road, kerb stones and pavement slabs."""
    add_boxes("road", [((-60, -30, -0.5), (80, KERB_Y, 0.0))], palette.asphalt, bevel=0)
    add_boxes(
        "pavement bed",
        [((-60, KERB_Y + 0.1, -0.5), (80, FACADE_Y + 1, KERB_HEIGHT - 0.012))],
        palette.joint,
        bevel=0,
    )
    dashes = [((x, -2.02, 0.0), (x + 2.6, -1.90, 0.003)) for x in np.arange(-11.4, 30, 4.6)]
    add_boxes("marking", dashes, palette.marking, bevel=0)
    kerbs = [((x + 0.004, KERB_Y, -0.2), (x + 0.996, KERB_Y + 0.24, KERB_HEIGHT)) for x in range(-14, 30)]
    add_boxes("kerb", kerbs, palette.stone, bevel=0.018)
    slabs = []
    for row, y in enumerate(np.arange(KERB_Y + 0.246, FACADE_Y, 0.6)):
        shift = 0.45 * (row % 2)
        slabs += [
            ((x + shift + 0.007, y + 0.007, 0.0), (x + shift + 0.893, y + 0.593, KERB_HEIGHT))
            for x in np.arange(-14, 30, 0.9)
        ]
    add_boxes("slabs", slabs, palette.slab, bevel=0.005)


WALL = Surface(lambda flat: np.stack([flat[:, 0], np.full(len(flat), FACADE_Y), flat[:, 1]], 1), (0, -1, 0))


@dataclass(frozen=True)
class Opening:
    """A rectangular hole in a house front."""

    kind: str  # "window", "door" or "shop"
    centre: float
    width: float
    low: float
    high: float

    @property
    def left(self) -> float:
        """Its left edge."""
        return self.centre - self.width / 2

    @property
    def right(self) -> float:
        """Its right edge."""
        return self.centre + self.width / 2


@dataclass(frozen=True)
class House:
    """One house of the row: its extent along the street, plaster and openings."""

    left: float
    right: float
    plaster: str
    openings: tuple[Opening, ...]


def window(centre: float, width: float = 1.0) -> Opening:
    """A window with shutters."""
    return Opening("window", centre, width, 1.0, 2.42)


HOUSES = (
    House(-16.0, -5.2, "cream", ()),
    House(-5.2, 2.30, "peach", (window(-3.4), window(0.62))),
    House(
        2.30,
        7.05,
        "cream",
        (Opening("door", 3.22, 1.05, KERB_HEIGHT, 2.45), Opening("shop", 5.55, 2.3, 0.7, 2.42)),
    ),
    House(7.05, 12.4, "white", (window(8.35), window(10.9))),
    House(12.4, 18.0, "peach", (window(14.0), window(16.5))),
    House(18.0, 40.0, "cream", (window(20.0), window(23.0), window(26.0))),
)


def build_houses(palette: Palette) -> None:
    """The row of houses behind the car; only their ground floors are in the picture."""
    for house in HOUSES:
        outline = rectangle(house.left, 0.0, house.right, HOUSE_HEIGHT)
        holes = [rectangle(o.left, o.low, o.right, o.high) for o in house.openings]
        wall = outline.difference(shapely.union_all(holes)) if holes else outline
        plaster = getattr(palette, house.plaster)
        add_panel("house", wall, WALL, plaster, Part.STREET, edge=0.012, thickness=0.3, step=(0.6, 0.6))
        build_plinth(house, palette)
        for opening in house.openings:
            build_joinery(opening, palette)
            build_surround(opening, palette)
            if opening.kind == "window":
                build_shutters(opening, palette)
                build_flower_box(opening, palette)
            if opening.kind == "shop":
                build_awning(opening, palette)
                build_shop_lights(opening, palette)
    pipe = [(DOWNPIPE_X, FACADE_Y - 0.06, z) for z in (KERB_HEIGHT, HOUSE_HEIGHT)]
    add_tube("downpipe", pipe, 0.045, palette.shutter)


def build_shop_lights(opening: Opening, palette: Palette) -> None:
    """Three globe lamps hanging in the shop."""
    globe = [(0.09 * math.sin(a), 0.09 * math.cos(a)) for a in np.linspace(0, math.pi, 12)]
    for share in (0.17, 0.5, 0.83):
        centre = (opening.left + share * opening.width, FACADE_Y + 0.5, 1.97)
        add_lathe("globe", globe, centre, palette.glow, axis="z", segments=24)


def build_plinth(house: House, palette: Palette) -> None:
    """A stone band along the foot of the wall, left out at doors."""
    doors = [o for o in house.openings if o.kind == "door"]
    cuts = [house.left, *(x for d in doors for x in (d.left - 0.14, d.right + 0.14)), house.right]
    bands = [((a, FACADE_Y - 0.05, 0), (b, FACADE_Y + 0.1, 0.62)) for a, b in zip(cuts[::2], cuts[1::2], strict=True)]
    add_boxes("plinth", bands, palette.stone, bevel=0.015)


def build_surround(opening: Opening, palette: Palette) -> None:
    """Pale stone trim round an opening, with a sill under a window."""
    y, trim, out = FACADE_Y, 0.13, 0.035
    boxes = [
        ((opening.left - trim, y - out, opening.low), (opening.left, y + 0.05, opening.high)),
        ((opening.right, y - out, opening.low), (opening.right + trim, y + 0.05, opening.high)),
        (
            (opening.left - trim, y - out - 0.01, opening.high),
            (opening.right + trim, y + 0.05, opening.high + 0.17),
        ),
    ]
    if opening.kind != "door":
        boxes.append(
            (
                (opening.left - 0.2, y - 0.11, opening.low - 0.09),
                (opening.right + 0.2, y + 0.1, opening.low),
            )
        )
    add_boxes("surround", boxes, palette.frame, bevel=0.01)


def build_joinery(opening: Opening, palette: Palette) -> None:
    """Frame, glazing bars, panes and what is behind them."""
    y = FACADE_Y + 0.16
    wood = palette.frame if opening.kind == "window" else palette.wood
    glazing_low = opening.low + (1.0 if opening.kind == "door" else 0.0)
    bar, middle = 0.055, (opening.low + 0.68 * (opening.high - opening.low))
    posts = {"window": (0.0, 0.5, 1.0), "door": (0.0, 1.0), "shop": (0.0, 0.333, 0.667, 1.0)}[opening.kind]
    boxes = []
    for share in posts:
        x = opening.left + share * opening.width
        boxes.append(((x - bar, y - 0.03, opening.low), (x + bar, y + 0.05, opening.high)))
    for z in (glazing_low, middle, opening.high):
        boxes.append(((opening.left, y - 0.025, z - bar), (opening.right, y + 0.045, z + bar)))
    if opening.kind == "door":
        boxes.append(((opening.left, y, opening.low), (opening.right, y + 0.05, glazing_low)))
        boxes.append(
            (
                (opening.left + 0.16, y - 0.02, opening.low + 0.18),
                (opening.right - 0.16, y + 0.03, glazing_low - 0.16),
            )
        )
    add_boxes("joinery", boxes, wood, bevel=0.008)
    pane = [((opening.left, y + 0.005, opening.low), (opening.right, y + 0.010, opening.high))]
    add_boxes("pane", pane, palette.house_glass, bevel=0)
    room = [
        (
            (opening.left - 0.3, y + 0.7, opening.low - 0.3),
            (opening.right + 0.3, y + 0.75, opening.high + 0.3),
        )
    ]
    add_boxes("room", room, palette.room, bevel=0)
    if opening.kind == "window":
        build_curtains(opening, palette)


def build_curtains(opening: Opening, palette: Palette) -> None:
    """Two drawn-back curtains in soft folds."""
    for start, stop in (
        (opening.left, opening.centre - 0.16),
        (opening.centre + 0.16, opening.right),
    ):
        x = np.linspace(start, stop, 60)
        y = FACADE_Y + 0.26 + 0.025 * np.sin(x * 60)
        rows = [(a, b, z) for z in (opening.low, opening.high) for a, b in zip(x, y, strict=True)]
        add_mesh("curtain", rows, grid_faces(2, len(x), wrap=False), palette.curtain)


def build_shutters(opening: Opening, palette: Palette) -> None:
    """Louvred shutters folded back on either side of a window."""
    width, boxes = opening.width / 2 + 0.02, []
    for left in (opening.left - 0.14 - width, opening.right + 0.14):
        right, front, back = left + width, FACADE_Y - 0.065, FACADE_Y - 0.02
        low, high = opening.low + 0.01, opening.high - 0.01
        middle = (low + high) / 2
        boxes += [
            ((left, front, low), (left + 0.06, back, high)),
            ((right - 0.06, front, low), (right, back, high)),
        ]
        boxes += [
            ((left + 0.06, front + 0.004, z - 0.04), (right - 0.06, back, z + 0.04))
            for z in (low + 0.04, middle, high - 0.04)
        ]
        boxes += [
            ((left + 0.03, front + 0.02, z), (right - 0.03, front + 0.035, z + 0.034))
            for z in np.arange(low + 0.1, high - 0.1, 0.052)
        ]
        boxes.append(((left + 0.02, back - 0.005, low + 0.02), (right - 0.02, back, high - 0.02)))
    add_boxes("shutter", boxes, palette.shutter, bevel=0.004)


def build_flower_box(opening: Opening, palette: Palette) -> None:
    """A terracotta trough with flowers on the sill."""
    y = FACADE_Y - 0.06
    trough = (
        (opening.left + 0.06, y - 0.09, opening.low + 0.005),
        (opening.right - 0.06, y + 0.09, opening.low + 0.16),
    )
    add_boxes("trough", [trough], palette.terracotta, bevel=0.015)
    centre, size = (
        (opening.centre, y - 0.01, opening.low + 0.22),
        (opening.width / 2 - 0.05, 0.15, 0.13),
    )
    add_leaves("greens", [(centre, size)], 700, 0.05, palette.leaf)
    add_leaves("blossom", [(centre, tuple(1.08 * s for s in size))], 260, 0.045, palette.flower)


def build_awning(opening: Opening, palette: Palette) -> None:
    """A striped awning over the shop window."""
    left, right, high, low, reach = opening.left - 0.25, opening.right + 0.25, 2.86, 2.50, 0.95
    count = 17
    edges = np.linspace(left, right, count + 1)
    for number, (a, b) in enumerate(pairwise(edges)):
        material = palette.canvas_red if number % 2 else palette.canvas
        scallop = [
            (a + (b - a) * s, FACADE_Y - reach, low - 0.13 - 0.04 * math.sin(math.pi * s)) for s in np.linspace(0, 1, 9)
        ]
        top = [(a + (b - a) * s, FACADE_Y - reach, low) for s in np.linspace(0, 1, 9)]
        wall = [(a, FACADE_Y, high), (b, FACADE_Y, high)]
        vertices = top + scallop + wall
        faces = [(i, i + 1, i + 10, i + 9) for i in range(8)] + [(*range(9), 19, 18)]
        add_mesh("awning", vertices, faces, material, smooth=False)


def random_for(name: str) -> np.random.Generator:
    """A random generator of its own for each named thing, so that adding one moves no other."""
    return np.random.default_rng([SEED, *name.encode()])


Blob = tuple[tuple[float, float, float], tuple[float, float, float]]


def add_leaves(name: str, blobs: Sequence[Blob], count: int, size: float, material) -> None:
    """Scatter small folded leaves through ellipsoids given as (centre, half axes)."""
    random = random_for(name)
    centres, halves = np.array([b[0] for b in blobs]), np.array([b[1] for b in blobs])
    share = halves.prod(1) ** (2 / 3)
    chosen = random.choice(len(blobs), count, p=share / share.sum())
    direction = random.normal(size=(count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    # The cube root would fill the ellipsoid evenly; a smaller power keeps to its skin.
    reach = random.random((count, 1)) ** 0.22
    where = centres[chosen] + direction * reach * halves[chosen]
    along = random.normal(size=(count, 3)) + 0.6 * direction
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    across = np.cross(along, random.normal(size=(count, 3)))
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    fold = np.cross(along, across)
    length = size * random.uniform(0.6, 1.2, (count, 1))
    corners = [
        where - along * length / 2,
        where + across * length * 0.32 + fold * length * 0.1,
        where + along * length / 2,
        where - across * length * 0.32 + fold * length * 0.1,
    ]
    vertices = np.stack(corners, 1).reshape(-1, 3)
    first = np.arange(count) * 4
    faces = np.concatenate([np.stack([first, first + 1, first + 2], 1), np.stack([first, first + 2, first + 3], 1)])
    add_mesh(name, vertices, faces, material, smooth=False)


def crown(centre, size: float, name: str) -> list[Blob]:
    """A tree crown: blobs scattered round a centre."""
    random, count = random_for(name), 16
    offsets = random.normal(scale=(0.55, 0.55, 0.35), size=(count, 3)) * size
    radii = random.uniform(0.25, 0.5, (count, 1)) * size * np.array([1.0, 1.0, 0.75])
    return [(tuple(np.add(centre, o)), tuple(r)) for o, r in zip(offsets, radii, strict=True)]


def build_tree(x: float, y: float, palette: Palette, size: float = 2.0, low: float = 4.4) -> None:
    """A street tree with a bare trunk."""
    height = np.linspace(0.0, low, 14)
    sway = 0.05 * np.sin(height * 1.7 + x)
    rings = []
    for z, s in zip(height, sway, strict=True):
        radius = 0.095 + 0.05 * math.exp(-z / 0.18)
        rings.append(
            [
                (x + s + radius * math.cos(a), y + radius * math.sin(a), z + KERB_HEIGHT - 0.02)
                for a in np.linspace(0, 2 * math.pi, 20, endpoint=False)
            ]
        )
    add_mesh("trunk", [point for ring in rings for point in ring], grid_faces(len(rings), 20, wrap=True), palette.bark)
    name = f"crown {x}"
    add_leaves(name, crown((x, y, low + 0.45 * size), size, name), 9000, 0.13, palette.leaf)


def build_trees(palette: Palette) -> None:
    """One tree in the picture; the others give their shade and their reflections."""
    build_tree(7.75, 3.25, palette, size=1.8, low=3.5)
    build_tree(-4.3, 3.2, palette, size=1.7, low=4.2)
    for x in (-9.0, 2.5, 11.0):
        build_tree(x, -13.5, palette, size=2.0, low=4.0)
    # A crown overhead, out of the picture, whose shadow falls on the road in front.
    shade = Vector((2.7, -4.4, 0.0)) + 11.0 * SUN_FROM
    blobs = crown(tuple(shade), 2.4, "shading crown")
    add_leaves("shading crown", blobs, 9000, 0.13, palette.leaf)


def build_litter(palette: Palette) -> None:
    """A few fallen leaves."""
    random = random_for("litter")
    places = random.uniform((-3.0, -4.5), (11.0, FACADE_Y - 0.2), (130, 2))
    # None by the car, where one could nibble at the outline of a wheel.
    places = places[(places[:, 1] < -0.8) | (places[:, 1] > KERB_Y + 0.3)]
    heights = np.where(places[:, 1] < KERB_Y, 0.014, KERB_HEIGHT + 0.014)
    blobs = [((x, y, z), (0.03, 0.03, 0.006)) for (x, y), z in zip(places, heights, strict=True)]
    add_leaves("litter", blobs, 90, 0.065, palette.dry_leaf)


def build_climber(palette: Palette) -> None:
    """A flowering climber on the right-hand house, growing from a pot."""
    x, y = 9.62, FACADE_Y - 0.16
    outside = [(0.0, 0.0), (0.17, 0.0), (0.24, 0.42), (0.26, 0.42), (0.26, 0.48)]
    inside = [(0.22, 0.48), (0.21, 0.36), (0.0, 0.36)]
    foot = (x, y - 0.16, KERB_HEIGHT)
    add_lathe("pot", outside + inside, foot, palette.terracotta, axis="z", segments=48)
    blobs = [((x + 0.10 * math.sin(2.4 * z), y, z), (0.20 + 0.07 * z, 0.14, 0.26)) for z in np.arange(0.75, 3.6, 0.17)]
    add_leaves("climber", blobs, 9000, 0.075, palette.leaf)
    add_leaves("climber blossom", blobs[6:], 1500, 0.06, palette.flower)


def build_far_side(palette: Palette) -> None:
    """Houses behind the camera: seen only mirrored in paint and glass."""
    random = random_for("far side")
    y, x = -18.0, -40.0
    windows = []
    while x < 50:
        width, height = random.uniform(5, 8), random.uniform(5.5, 8)
        material = (palette.peach, palette.cream, palette.white)[random.integers(3)]
        add_boxes("far house", [((x, y - 4, 0), (x + width, y, height))], material, bevel=0)
        windows += [
            ((a, y - 0.1, low), (a + 1.0, y + 0.03, low + 1.5))
            for a in np.arange(x + 0.8, x + width - 1.2, 1.9)
            for low in (0.9, 3.7)
        ]
        x += width
    add_boxes("far windows", windows, palette.pane, bevel=0)
    add_boxes("far pavement", [((-60, y, 0), (80, y + 3.0, KERB_HEIGHT))], palette.slab, bevel=0)


def build_street(palette: Palette) -> None:
    """Everything that is not the car."""
    for build in (
        build_ground,
        build_houses,
        build_trees,
        build_litter,
        build_climber,
        build_far_side,
    ):
        build(palette)


# --------------------------------------------------------------------------
# Light, camera, rendering
# --------------------------------------------------------------------------


def light_scene() -> None:
    """A low warm sun from the front left and a clear sky."""
    sun = bpy.data.lights.new("sun", "SUN")
    sun.energy, sun.angle, sun.color = 5.6, math.radians(0.8), (1.0, 0.81, 0.60)
    lamp = bpy.data.objects.new("sun", sun)
    lamp.rotation_euler = SUN_FROM.to_track_quat("Z", "Y").to_euler()
    bpy.context.scene.collection.objects.link(lamp)
    world = bpy.data.worlds.new("sky")
    bpy.context.scene.world = world
    nodes = world.node_tree.nodes
    sky = nodes.new("ShaderNodeTexSky")
    sky.sun_disc = False
    sky.sun_elevation = math.radians(32)
    sky.sun_rotation = math.atan2(SUN_FROM.x, SUN_FROM.y)
    nodes["Background"].inputs["Strength"].default_value = 0.15
    world.node_tree.links.new(sky.outputs["Color"], nodes["Background"].inputs["Color"])


def place_camera() -> None:
    """The solved camera, as Blender expresses it."""
    data = bpy.data.cameras.new("camera")
    data.sensor_width = 36.0
    data.lens = FOCAL / WIDTH * data.sensor_width
    data.shift_x = (WIDTH / 2 - PRINCIPAL[0]) / WIDTH
    data.shift_y = (PRINCIPAL[1] - HEIGHT / 2) / WIDTH
    data.dof.use_dof = True
    data.dof.focus_distance = FOCUS
    data.dof.aperture_fstop = F_NUMBER
    camera = bpy.data.objects.new("camera", data)
    camera.location = CAMERA
    camera.rotation_euler = (math.pi / 2, 0.0, -CAMERA_YAW)
    scene = bpy.context.scene
    scene.collection.objects.link(camera)
    scene.camera = camera


def set_size(scale: int, multiple: int = 1) -> None:
    """Set the size of the render: ``scale`` per cent, rounded, times ``multiple``."""
    render = bpy.context.scene.render
    render.resolution_x = round(WIDTH * scale / 100) * multiple
    render.resolution_y = round(HEIGHT * scale / 100) * multiple
    render.resolution_percentage = 100


def render_picture(path: Path, samples: int, scale: int) -> np.ndarray:
    """Render the picture with Cycles and return it as an RGB array."""
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    set_size(scale)
    cycles = scene.cycles
    cycles.seed, cycles.samples = SEED, samples
    cycles.use_adaptive_sampling, cycles.adaptive_threshold = True, 0.01
    cycles.use_denoising, cycles.denoiser = True, "OPENIMAGEDENOISE"
    cycles.max_bounces, cycles.transparent_max_bounces = 8, 16
    cycles.caustics_reflective = cycles.caustics_refractive = False
    cycles.sample_clamp_indirect = 6.0
    scene.view_settings.view_transform = "AgX"
    scene.view_settings.exposure = 0.15
    scene.view_settings.look = "AgX - High Contrast"
    scene.render.image_settings.file_format = "PNG"
    scene.render.filepath = str(path)
    bpy.ops.render.render(write_still=True)
    return np.asarray(Image.open(path).convert("RGB"))


def index_material() -> bpy.types.Material:
    """A material that shows the object index of whatever wears it."""
    shader = Shader("object index")
    info = shader.node("ShaderNodeObjectInfo")
    emission = shader.node("ShaderNodeEmission", Strength=1.0)
    shader.link(info.outputs["Object Index"], emission.inputs["Color"])
    shader.link(emission.outputs["Emission"], shader.output.inputs["Surface"])
    return shader.material


def render_indices(path: Path, scale: int) -> np.ndarray:
    """Render the object index of every sub-pixel: no lens blur, no anti-aliasing.

    Every surface wears the index material, so that glass counts as itself and
    not as what is seen through it.
    """
    scene = bpy.context.scene
    set_size(scale, INDEX_OVERSAMPLING)
    bpy.context.view_layer.material_override = index_material()
    scene.camera.data.dof.use_dof = False
    scene.world = None
    cycles = scene.cycles
    cycles.samples, cycles.use_denoising, cycles.use_adaptive_sampling = 1, False, False
    cycles.pixel_filter_type, cycles.filter_width = "BOX", 0.01
    settings = scene.render.image_settings
    settings.file_format, settings.color_depth = "OPEN_EXR", "32"
    scene.render.filepath = str(path)
    bpy.ops.render.render(write_still=True)
    image = bpy.data.images.load(str(path))
    pixels = np.empty(image.size[0] * image.size[1] * 4, np.float32)
    image.pixels.foreach_get(pixels)
    return np.rint(pixels.reshape(image.size[1], image.size[0], 4)[::-1, :, 0]).astype(np.uint8)


# --------------------------------------------------------------------------
# Ground truth, checks, output
# --------------------------------------------------------------------------


def ground_truth_masks(indices: np.ndarray) -> dict[str, np.ndarray]:
    """Masks of what is visible; a pixel belongs to a mask that covers half of it."""
    height, width = (n // INDEX_OVERSAMPLING for n in indices.shape)
    blocks = indices.reshape(height, INDEX_OVERSAMPLING, width, INDEX_OVERSAMPLING)

    def covered(*parts: Part) -> np.ndarray:
        return np.isin(blocks, [int(p) for p in parts]).mean((1, 3)) >= 0.5

    wheel = covered(Part.FRONT_TYRE, Part.FRONT_HUB)
    hub = covered(Part.FRONT_HUB) & wheel
    return {
        "car": covered(*(p for p in Part if p is not Part.STREET)),
        "front_wheel": wheel,
        "tyre": wheel & ~hub,
        "hub": hub,
        "rear_wheel": covered(Part.REAR_WHEEL),
        "small_window": covered(Part.SMALL_WINDOW),
    }


def bounding_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of a mask, in pixels."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def report(masks: dict[str, np.ndarray], scale: int) -> bool:
    """Print the table of anchors; true when every one of them holds."""
    factor = 100 / scale
    slack = math.ceil(factor) - 1  # a small picture is measured more coarsely
    good = True
    print(f"{'anchor':13} {'wanted':>22} {'got':>22}  off by (tolerance)")
    for name, anchor in ANCHORS.items():
        got = tuple(round(edge * factor) for edge in bounding_box(masks[name]))
        off = max(abs(g - w) for g, w in zip(got, anchor.box, strict=True))
        good &= off <= anchor.tolerance + slack
        print(f"{name:13} {anchor.box!s:>22} {got!s:>22}  {off} ({anchor.tolerance})")
    for name, ((x, y), mask) in CLICKS.items():
        hit = bool(masks[mask][int(y / factor), int(x / factor)])
        good &= hit
        print(f"{name:13} {(x, y)!s:>22} {'on' if hit else 'NOT ON'} {mask}")
    return good


def draw_check(picture: np.ndarray, masks: dict[str, np.ndarray], scale: int) -> Image.Image:
    """The picture with mask outlines, wanted boxes and clicks drawn over it."""
    colours = {
        "car": (255, 40, 40),
        "front_wheel": (255, 220, 0),
        "hub": (0, 230, 255),
        "rear_wheel": (255, 120, 255),
        "small_window": (80, 255, 80),
    }
    shown = picture.copy()
    for name, colour in colours.items():
        mask = masks[name]
        inside = mask.copy()
        for axis in (0, 1):
            for shift in (1, -1):
                inside &= np.roll(mask, shift, axis)
        shown[mask & ~inside] = colour
    image = Image.fromarray(shown)
    draw = ImageDraw.Draw(image)
    for anchor in ANCHORS.values():
        draw.rectangle([edge * scale / 100 for edge in anchor.box], outline=(255, 255, 255))
    for (x, y), _ in CLICKS.values():
        centre_x, centre_y = x * scale / 100, y * scale / 100
        draw.ellipse((centre_x - 4, centre_y - 4, centre_x + 4, centre_y + 4), fill=(255, 255, 255), outline=(0, 0, 0))
    return image


def save_jpeg(picture: np.ndarray, path: Path) -> None:
    """Save at full colour resolution if that fits the size limit, else subsampled."""
    for subsampling in (0, 2):
        Image.fromarray(picture).save(path, quality=JPEG_QUALITY, subsampling=subsampling, optimize=True)
        if path.stat().st_size <= JPEG_LIMIT:
            return
    raise ValueError(f"{path} is larger than {JPEG_LIMIT} bytes")


def build_scene() -> None:
    """Everything that is in the picture."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    palette = Palette()
    build_car(palette)
    build_street(palette)
    light_scene()
    place_camera()


def main() -> int:
    """Paint the picture; the exit status says whether the anchors hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the results")
    parser.add_argument("--samples", type=int, default=64, help="maximum of light paths per pixel")
    parser.add_argument("--scale", type=int, default=100, help="size of the picture, in per cent")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    build_scene()
    with tempfile.TemporaryDirectory() as folder:
        picture = render_picture(Path(folder) / "picture.png", options.samples, options.scale)
        masks = ground_truth_masks(render_indices(Path(folder) / "index.exr", options.scale))
    save_jpeg(picture, options.out / "street.jpg")
    np.savez_compressed(options.out / "street_ground_truth.npz", **masks)
    draw_check(picture, masks, options.scale).save(options.out / "check.png")
    return 0 if report(masks, options.scale) else 1


if __name__ == "__main__":
    sys.exit(main())
