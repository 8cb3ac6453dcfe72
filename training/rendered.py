"""Render whole scenes with Blender's Cycles: streets, rooms and tables, as a pack of annotated photographs.

A pasted cut-out lies flat on its background. In a picture things stand on a ground, cast shadows, mirror their
surroundings and hide each other, and here it is known exactly which pixels are which object, and which of them are its
tyres, its glass, its cushion. The models are Sweet Home 3D's (Debian `sweethome3d-furniture`) and house fronts built
here; layout, colours, light and camera are random. The walkthrough's street (`scripts/paint_street.py`) has other
models, and none of it is used.

    python -m training.rendered --scenes 300 --out runs/rendered

needs Python 3.11 and `pip install bpy==5.0.1 pillow tqdm`, neither PyTorch nor OpenCV. A scene that is there is not
rendered again, so a run that was interrupted is resumed by the same command. It ends with `rendered.zip`, a pack for
`training.train --photos` (format: `training.photos`).
"""

import argparse
import json
import math
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import bpy
import numpy as np
import numpy.typing as npt
from mathutils import Matrix, Vector
from PIL import Image
from tqdm import tqdm

from training.rendered_pack import annotate, pack
from training.sweet_home import LIBRARIES, Model, catalogue

Rng = np.random.Generator
Colour = tuple[float, float, float]

SIDE = 640  # of a picture's long side, pixels, as of the packed photographs
SAMPLES = 16  # light paths a pixel; the denoiser does the rest
JPEG_QUALITY = 90

INDOORS = {"Living room", "Bedroom", "Office", "Kitchen", "Bathroom", "Miscellaneous"}


# Materials


def material(name: str, colour: Colour, rng: Rng, *, grain: float = 0.0) -> bpy.types.Material:
    """Return an opaque material; with a grain (patches a metre) it is mottled, as asphalt, plaster and wood are."""
    made = bpy.data.materials.new(name)
    nodes, links = made.node_tree.nodes, made.node_tree.links
    shader = nodes["Principled BSDF"]
    shader.inputs["Base Color"].default_value = (*colour, 1)
    shader.inputs["Roughness"].default_value = rng.uniform(0.3, 0.95)
    if grain:
        place, noise = nodes.new("ShaderNodeNewGeometry"), nodes.new("ShaderNodeTexNoise")
        noise.inputs["Scale"].default_value, noise.inputs["Detail"].default_value = grain, 8
        ramp = nodes.new("ShaderNodeValToRGB")
        spread = rng.uniform(0.03, 0.3)
        ends = (0.35, 1 - spread), (0.65, 1 + spread)
        for element, (position, factor) in zip(ramp.color_ramp.elements, ends, strict=True):
            element.position, element.color = position, (*(min(1, factor * c) for c in colour), 1)
        stretch = nodes.new("ShaderNodeMapping")  # planks and brushed plaster are longer than wide
        stretch.inputs["Scale"].default_value = tuple(np.exp(rng.normal(0, 0.7, 3)))
        links.new(place.outputs["Position"], stretch.inputs["Vector"])
        links.new(stretch.outputs["Vector"], noise.inputs["Vector"])
        links.new(noise.outputs["Fac"], ramp.inputs["Fac"])
        links.new(ramp.outputs["Color"], shader.inputs["Base Color"])
    return made


def tone(rng: Rng, brightness: tuple[float, float], saturation: float = 0.15) -> Colour:
    """Return a random colour around a grey, linear RGB."""
    return tuple(np.clip(rng.uniform(*brightness) * (1 + rng.normal(0, saturation, 3)), 0.01, 0.95).tolist())


def repaint(made: bpy.types.Material, rng: Rng, *, is_vehicle: bool) -> None:
    """Give a model's material another finish, and a third of the plain ones another colour."""
    shader = made.node_tree.nodes.get("Principled BSDF")
    if shader is None:
        return
    shader.inputs["Roughness"].default_value = rng.uniform(0.08, 0.8)
    base = shader.inputs["Base Color"]
    if not base.is_linked and rng.random() < 0.35:
        base.default_value = (*np.clip(rng.normal(rng.uniform(0.05, 0.8), 0.2, 3), 0.01, 0.95), 1)
    if is_vehicle:  # paint lies under a clear coat
        shader.inputs["Coat Weight"].default_value = rng.uniform(0.2, 1)
        shader.inputs["Coat Roughness"].default_value = 0.03


# Objects


class Stage:
    """What stands in a scene.

    Parameters
    ----------
    rng : numpy.random.Generator
    models : sequence of Model
    unpacked : pathlib.Path
        Folder with a folder of each library's files.
    """

    def __init__(self, rng: Rng, models: Sequence[Model], unpacked: Path) -> None:
        bpy.ops.wm.read_factory_settings(use_empty=True)
        self.rng, self.models, self.unpacked = rng, models, unpacked
        self.objects = 0
        self._taken: list[tuple[float, float, float, float]] = []

    def pick(self, fits: Callable[[Model], bool]) -> Model:
        """Return a random model among those that fit."""
        chosen = [model for model in self.models if fits(model)]
        return chosen[self.rng.integers(len(chosen))]

    def box(self, low: Sequence[float], high: Sequence[float], made: bpy.types.Material, number: int = 0) -> None:
        """Add a block between two corners; 0 is the number of what is no object."""
        bpy.ops.mesh.primitive_cube_add(size=1, location=[(a + b) / 2 for a, b in zip(low, high, strict=True)])
        block = bpy.context.object
        block.scale = [b - a for a, b in zip(low, high, strict=True)]
        block.data.materials.append(made)
        block.pass_index = number

    def next_number(self) -> int:
        """Count an object more and return its number."""
        self.objects += 1
        return self.objects

    def add(self, model: Model, place: Sequence[float], turn: float) -> None:
        """Stand a model on a place (x, y, z), turned around the vertical (radians), at its size in the catalogue."""
        before = set(bpy.data.materials)
        bpy.ops.wm.obj_import(
            filepath=str(self.unpacked / model.library / model.path), use_split_objects=False, use_split_groups=False
        )
        (made,) = bpy.context.selected_objects
        for each in bpy.data.materials:  # in their order, so that the same seed paints the same
            if each not in before:
                repaint(each, self.rng, is_vehicle=model.category == "Vehicles")
        bpy.ops.object.transform_apply(location=True, rotation=True, scale=True)
        corners = np.array(made.bound_box)
        low, extent = corners.min(0), np.ptp(corners, axis=0)
        made.data.transform(_matrix(np.array(model.size) / np.maximum(extent, 1e-6), low + extent / 2, low[2]))
        made.location, made.rotation_euler = place, (0, 0, turn)
        made.pass_index = self.next_number()

    def room_for(self, x: float, y: float, radius: float, height: float = 0.0) -> bool:
        """Take a circle at a height, that of the ground or of a table, if it is free there."""
        if any(level == height and math.hypot(x - a, y - b) < radius + other for a, b, other, level in self._taken):
            return False
        self._taken.append((x, y, radius, height))
        return True

    def scatter(
        self,
        fits: Callable[[Model], bool],
        count: int,
        area: tuple[float, float, float, float],
        height: float = 0.0,
    ) -> None:
        """Stand models anywhere in an area (x0, y0, x1, y1), where there is room, turned at random."""
        x0, y0, x1, y1 = area
        for _ in range(count):
            model = self.pick(fits)
            radius = 0.42 * math.hypot(*model.size[:2])
            for _ in range(8):
                x, y = self.rng.uniform(x0, x1), self.rng.uniform(y0, y1)
                if self.room_for(x, y, radius, height):
                    self.add(model, (x, y, height), self.rng.uniform(0, 2 * np.pi))
                    break


def _matrix(scale: npt.NDArray[np.float64], centre: npt.NDArray[np.float64], bottom: float) -> Matrix:
    """Return the matrix that puts a model's middle over the origin, its bottom on the ground, and scales it."""
    shift = Matrix.Translation((-centre[0], -centre[1], -bottom))
    return Matrix.Diagonal((*scale.tolist(), 1)) @ shift


# What stands where


def _is_parked(model: Model) -> bool:
    return model.category == "Vehicles" and 1 < model.size[1] < 8


def _is_outdoors(model: Model) -> bool:
    return model.category in {"Exterior", "Lights", "Vehicles"} and max(model.size) < 3 and model.size[2] > 0.25


def _is_person(model: Model) -> bool:
    return model.category == "Characters"


def _is_standing(model: Model) -> bool:
    return _is_person(model) and model.size[2] > 1.4


def _is_furniture(model: Model) -> bool:
    return model.category in INDOORS and 0.3 < model.size[2] < 2.2 and 0.3 < max(model.size[:2]) < 2.4


def _is_table(model: Model) -> bool:
    return "able" in model.name and 0.35 < model.size[2] < 0.95 and 0.5 < max(model.size[:2]) < 1.8


def _is_small(model: Model) -> bool:
    return model.category in INDOORS | {"Characters"} and 0.05 < max(model.size) < 0.5 and min(model.size) > 0.015


# Scenes: each builds itself around the origin and returns where the camera may look, (x, y, z), and how far it stands


def street(stage: Stage) -> tuple[Vector, float]:
    """Put vehicles at a kerb or across a yard, people and things on the pavement, house fronts or grass behind."""
    rng = stage.rng
    kerb, back = rng.uniform(1.8, 3), rng.uniform(4.5, 9)
    stage.box(
        (-60, -40, -0.3), (60, 60, 0), material("ground", tone(rng, (0.04, 0.3), 0.08), rng, grain=rng.uniform(2, 40))
    )
    pavement = material("pavement", tone(rng, (0.15, 0.5), 0.06), rng, grain=rng.uniform(2, 30))
    stage.box((-60, kerb, -0.2), (60, back, rng.uniform(0.05, 0.16)), pavement)
    if rng.random() < 0.75:
        _house_fronts(stage, back)
    else:
        grass = material("grass", (rng.uniform(0.03, 0.12), rng.uniform(0.1, 0.25), 0.03), rng, grain=20)
        stage.box((-60, back, -0.2), (60, 60, 0.12), grass)
    for x in np.cumsum(rng.uniform(3, 6, 4)) - 10:
        if rng.random() < 0.75:
            model, y = stage.pick(_is_parked), rng.uniform(0, 0.8)
            if stage.room_for(x, y, 0.45 * model.size[1]):
                heading = (np.pi / 2) * rng.choice([-1, 1]) + rng.normal(0, 0.08 if rng.random() < 0.7 else 0.8)
                stage.add(model, (x, y, 0), heading)
    stage.scatter(_is_standing, int(rng.integers(0, 4)), (-5, -3, 6, back - 0.5))
    stage.scatter(_is_outdoors, int(rng.integers(1, 6)), (-5, kerb + 0.4, 6, back - 0.6), 0.1)
    _sunlight(rng)
    return Vector((rng.uniform(-2, 2), rng.uniform(0, 1.5), rng.uniform(0.5, 1.2))), rng.uniform(4.5, 12)


def _house_fronts(stage: Stage, y: float) -> None:
    """Build houses side by side, their windows and doors objects with a frame and panes."""
    rng, x = stage.rng, -30.0
    while x < 30:
        width, height = rng.uniform(4, 9), rng.uniform(4, 9)
        wall = material("wall", tone(rng, (0.15, 0.75)), rng, grain=rng.uniform(1, 12))
        stage.box((x, y, 0), (x + width, y + 4, height), wall)
        frame = material("frame", tone(rng, (0.05, 0.8)), rng)
        pane = material("pane", tone(rng, (0.02, 0.1)), rng)
        pane.node_tree.nodes["Principled BSDF"].inputs["Roughness"].default_value = 0.04
        of_window, step = (rng.uniform(0.7, 1.4), rng.uniform(1, 1.7)), rng.uniform(1.7, 2.6)
        for row, low in enumerate(np.arange(0.9, height - of_window[1] - 0.3, 2.8)):
            for left in np.arange(x + 0.6, x + width - of_window[0] - 0.4, step):
                is_door = row == 0 and rng.random() < 0.2
                bottom, top = (0.12, 2.2) if is_door else (low, low + of_window[1])
                _opening(
                    stage,
                    (left, bottom, left + of_window[0], top),
                    y,
                    frame=frame,
                    pane=pane,
                    bars=int(rng.integers(0, 3)),
                )
        x += width


def _opening(
    stage: Stage,
    edges: tuple[float, float, float, float],
    y: float,
    *,
    frame: bpy.types.Material,
    pane: bpy.types.Material,
    bars: int,
) -> None:
    """Add a window or a door to a wall at y: (left, bottom, right, top) of its frame, with panes between the bars."""
    left, bottom, right, top = edges
    number, thick = stage.next_number(), 0.07
    stage.box((left, y - 0.06, bottom), (right, y + 0.02, top), frame, number)
    edges_of_panes = np.linspace(left + thick, right, bars + 2)
    for start, end in pairwise(edges_of_panes):
        stage.box((start, y - 0.065, bottom + thick), (end - thick, y, top - thick), pane, number)


def room(stage: Stage) -> tuple[Vector, float]:
    """Put furniture along a wall and in the middle, small things on a table, sometimes a person."""
    rng = stage.rng
    width, depth = rng.uniform(2, 3.2), rng.uniform(1.8, 3)
    floor = material("floor", tone(rng, (0.08, 0.6)), rng, grain=rng.uniform(0.5, 15))
    stage.box((-9, -9, -0.1), (9, 9, 0), floor)
    walls = [material("wall", tone(rng, (0.2, 0.85), 0.1), rng, grain=rng.choice([0, 3])) for _ in range(2)]
    stage.box((-9, depth, 0), (9, depth + 0.1, 3), walls[0])
    stage.box((-width - 0.1, -9, 0), (-width, depth, 3), walls[rng.integers(2)])
    for x in np.arange(-width + 0.7, width + 1, 1.3):  # along the back wall, facing the room
        model = stage.pick(_is_furniture)
        y = depth - model.size[1] / 2 - 0.05
        if rng.random() < 0.8 and stage.room_for(x, y, 0.45 * model.size[0]):
            stage.add(model, (x, y, 0), 0)
    table = stage.pick(_is_table)
    if stage.room_for(0, 0.2, 0.4 * max(table.size[:2])):
        stage.add(table, (0, 0.2, 0), rng.choice([0, np.pi / 2]))
        reach = 0.3 * min(table.size[:2])
        on_top = (-reach, 0.2 - reach, reach, 0.2 + reach)
        stage.scatter(_is_small, int(rng.integers(1, 5)), on_top, table.size[2])
    stage.scatter(_is_furniture, int(rng.integers(1, 5)), (-width + 0.5, -1.5, width, depth - 1))
    stage.scatter(_is_person, int(rng.random() < 0.35), (-1.5, -0.8, 1.5, depth - 0.6))
    _daylight(rng)
    return Vector((rng.uniform(-0.8, 0.8), rng.uniform(0, 0.8), rng.uniform(0.3, 0.9))), rng.uniform(2, 4)


def table_top(stage: Stage) -> tuple[Vector, float]:
    """Put small things on a table top, seen from nearby."""
    rng = stage.rng
    top = material("top", tone(rng, (0.05, 0.8)), rng, grain=rng.uniform(1, 30))
    stage.box((-0.9, -0.6, -0.04), (0.9, 0.6, 0), top)
    stage.box((-6, 2, -1), (6, 2.1, 3), material("wall", tone(rng, (0.1, 0.8)), rng, grain=rng.choice([0, 2])))
    stage.box((-6, -6, -0.8), (6, 6, -0.75), material("floor", tone(rng, (0.05, 0.6)), rng, grain=rng.uniform(0.5, 10)))
    stage.scatter(_is_small, int(rng.integers(6, 15)), (-0.4, -0.25, 0.4, 0.35))
    _daylight(rng)
    return Vector((rng.uniform(-0.1, 0.1), rng.uniform(-0.05, 0.1), 0.06)), rng.uniform(0.5, 1)


SCENES = {street: 0.5, room: 0.3, table_top: 0.2}  # share of the scenes


# Light and camera


def _sky(strength: float, colours: tuple[Colour, Colour]) -> None:
    """Light everything by a sky that goes from one colour at the horizon to another above."""
    world = bpy.data.worlds.new("sky")
    bpy.context.scene.world = world
    nodes, links = world.node_tree.nodes, world.node_tree.links
    place, part, ramp = (nodes.new(f"ShaderNode{kind}") for kind in ("TexCoord", "SeparateXYZ", "ValToRGB"))
    for element, position, colour in zip(ramp.color_ramp.elements, (0, 0.5), colours, strict=True):
        element.position, element.color = position, (*colour, 1)
    links.new(place.outputs["Generated"], part.inputs["Vector"])
    links.new(part.outputs["Z"], ramp.inputs["Fac"])
    links.new(ramp.outputs["Color"], nodes["Background"].inputs["Color"])
    nodes["Background"].inputs["Strength"].default_value = strength


def _lamp(kind: str, energy: float, place: Vector, rng: Rng, **settings: float) -> None:
    """Add a light that shines from a place towards the origin."""
    data = bpy.data.lights.new("lamp", kind)
    data.energy, data.color = energy, (1, rng.uniform(0.75, 1), rng.uniform(0.55, 1))
    for name, value in settings.items():
        setattr(data, name, value)
    lamp = bpy.data.objects.new("lamp", data)
    lamp.location, lamp.rotation_euler = place, place.to_track_quat("Z", "Y").to_euler()
    bpy.context.scene.collection.objects.link(lamp)


def _sunlight(rng: Rng) -> None:
    """Light the scene by a clear or an overcast sky."""
    is_clear = rng.random() < 0.65
    horizon = (0.75, 0.8, 0.9) if is_clear else (0.8, 0.8, 0.8)
    _sky(
        rng.uniform(0.5, 1) if is_clear else rng.uniform(0.9, 1.6),
        (horizon, (0.2, 0.4, 0.85) if is_clear else (0.7, 0.72, 0.75)),
    )
    if is_clear:
        place = Vector((rng.normal(), rng.normal() - 0.5, rng.uniform(0.4, 1.8)))
        _lamp("SUN", rng.uniform(2, 5.5), place.normalized(), rng, angle=rng.uniform(0.005, 0.05))


def _daylight(rng: Rng) -> None:
    """Light the scene softly, by a window or a lamp or two, and by what the walls throw back."""
    _sky(rng.uniform(0.15, 0.7), ((0.6, 0.6, 0.6), (0.8, 0.85, 1)))
    for _ in range(int(rng.integers(1, 3))):
        place = Vector((rng.normal(0, 1.5), rng.uniform(-3, 0.5), rng.uniform(1.2, 3)))
        _lamp("AREA", rng.uniform(12, 36) * place.length_squared, place, rng, size=rng.uniform(0.1, 2))


def aim_camera(target: Vector, distance: float, rng: Rng) -> None:
    """Look at a target from somewhere in front, at eye height for what is far away; sometimes with a blurred ground."""
    angle, lift = rng.normal(0, 0.5), math.radians(abs(rng.normal(8, 12)) if distance > 2 else rng.uniform(8, 60))
    away = Vector((math.sin(angle) * math.cos(lift), -math.cos(angle) * math.cos(lift), math.sin(lift)))
    data = bpy.data.cameras.new("camera")
    data.lens = rng.uniform(24, 60)
    camera = bpy.data.objects.new("camera", data)
    camera.location = target + away * distance
    camera.rotation_euler = away.to_track_quat("Z", "Y").to_euler()
    camera.rotation_euler.rotate_axis("Z", rng.normal(0, 0.02))
    if rng.random() < 0.4:
        data.dof.use_dof = True
        data.dof.focus_distance, data.dof.aperture_fstop = distance, rng.uniform(1.2, 8)
    bpy.context.scene.collection.objects.link(camera)
    bpy.context.scene.camera = camera


# Pictures and labels


def render_picture(path: Path, rng: Rng) -> None:
    """Render the scene as a photograph, a PNG."""
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    ratio = rng.choice([9 / 16, 2 / 3, 3 / 4, 1])
    scene.render.resolution_x, scene.render.resolution_y = SIDE, round(SIDE * ratio)
    scene.cycles.seed, scene.cycles.samples = int(rng.integers(2**31)), SAMPLES
    scene.cycles.use_adaptive_sampling, scene.cycles.adaptive_threshold = True, 0.05
    scene.cycles.use_denoising, scene.cycles.denoiser = True, "OPENIMAGEDENOISE"
    scene.cycles.max_bounces, scene.cycles.transparent_max_bounces = 5, 12
    scene.cycles.caustics_reflective = scene.cycles.caustics_refractive = False
    scene.cycles.sample_clamp_indirect = 5
    transform = str(rng.choice(["AgX", "Filmic", "Standard"], p=[0.5, 0.3, 0.2]))
    scene.view_settings.view_transform = transform
    scene.view_settings.exposure = rng.normal(-0.9 if transform == "Standard" else 0, 0.3)  # it clips where others bend
    scene.render.image_settings.file_format = "PNG"
    scene.render.filepath = str(path)
    bpy.ops.render.render(write_still=True)


def render_numbers(path: Path) -> npt.NDArray[np.int64]:
    """Return the object and the material at the middle of each pixel, HxWx2; 0 where there is none.

    Every surface shines in the colour of its numbers, so that glass counts as itself and not as what is behind it.
    """
    scene = bpy.context.scene
    for number, made in enumerate(bpy.data.materials, start=1):
        nodes, links = made.node_tree.nodes, made.node_tree.links
        info, both, light, output = (
            nodes.new(f"ShaderNode{kind}") for kind in ("ObjectInfo", "CombineXYZ", "Emission", "OutputMaterial")
        )
        both.inputs["Y"].default_value = number
        links.new(info.outputs["Object Index"], both.inputs["X"])
        links.new(both.outputs["Vector"], light.inputs["Color"])
        links.new(light.outputs["Emission"], output.inputs["Surface"])
        for node in nodes:
            if node.bl_idname == "ShaderNodeOutputMaterial":
                node.is_active_output = node == output
    scene.camera.data.dof.use_dof = False
    scene.world = None
    scene.cycles.samples, scene.cycles.use_denoising, scene.cycles.use_adaptive_sampling = 1, False, False
    scene.cycles.pixel_filter_type, scene.cycles.filter_width = "BOX", 0.01
    settings = scene.render.image_settings
    settings.file_format, settings.color_depth = "OPEN_EXR", "32"
    scene.render.filepath = str(path)
    bpy.ops.render.render(write_still=True)
    image = bpy.data.images.load(str(path))
    pixels = np.empty(image.size[0] * image.size[1] * 4, np.float32)
    image.pixels.foreach_get(pixels)
    return np.rint(pixels.reshape(image.size[1], image.size[0], 4)[::-1, :, :2]).astype(np.int64)


def render_scene(number: int, seed: int, models: Sequence[Model], unpacked: Path, out: Path) -> None:
    """Render one scene into `out`: NUMBER.jpg, NUMBER.png (labels) and, last, NUMBER.json (objects)."""
    rng = np.random.default_rng([seed, number])
    stage = Stage(rng, models, unpacked)
    build = list(SCENES)[rng.choice(len(SCENES), p=list(SCENES.values()))]
    target, distance = build(stage)
    aim_camera(target, distance, rng)
    with tempfile.TemporaryDirectory() as folder:
        render_picture(Path(folder, "picture.png"), rng)
        Image.open(Path(folder, "picture.png")).convert("RGB").save(out / f"{number:04}.jpg", quality=JPEG_QUALITY)
        labels, objects = annotate(render_numbers(Path(folder, "numbers.exr")))
    Image.fromarray(labels).save(out / f"{number:04}.png")
    (out / f"{number:04}.json").write_text(json.dumps(objects))


def main() -> None:
    """Render and pack: the command `python -m training.rendered`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--libraries", type=Path, default=LIBRARIES)
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as unpacked:
        models = []
        for path in sorted(arguments.libraries.glob("*.sh3f")):
            models += catalogue(path)
            with zipfile.ZipFile(path) as library:
                library.extractall(Path(unpacked, path.stem))
        for number in tqdm(range(arguments.scenes)):
            if not (arguments.out / f"{number:04}.json").exists():
                render_scene(number, arguments.seed, models, Path(unpacked), arguments.out)
    pack(arguments.out)


if __name__ == "__main__":
    main()
