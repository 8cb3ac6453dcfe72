"""Render cut-outs from furniture, vehicles and figures of Sweet Home 3D's libraries (Debian `sweethome3d-furniture`).

A 3D model gives what no photograph does: exactly which pixels it covers, and which of them are its tyres, its glass,
its cushion. Its colours are as unlike each other as those of real objects, so that a network cannot find it by colour
alone. `training.sources` packs what this command writes: `<library>/<model>/<view>.png` with an alpha channel, and
`<view>.parts.png` beside it, 0 where there is no part and 1, 2, ... inside each.

Needs `pip install vtk`; where there is no screen also Mesa's `libosmesa6` (Debian) and, in the environment,
`VTK_DEFAULT_OPENGL_WINDOW=vtkOSOpenGLRenderWindow`.
"""

import argparse
import hashlib
import tempfile
import zipfile
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import vtkmodules.vtkIOImage  # registers the readers of textures
import vtkmodules.vtkRenderingOpenGL2  # noqa: F401  registers the renderer
from tqdm import tqdm
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkIOImport import vtkOBJImporter
from vtkmodules.vtkRenderingCore import vtkLight, vtkRenderer, vtkRenderWindow, vtkWindowToImageFilter

from sam_nb.masks import bounding_box
from training.sources import CUTOUT_SIDE, material_parts
from training.sweet_home import LIBRARIES, catalogue

WINDOW = 3 * CUTOUT_SIDE  # pixels of a drawing's side; it is reduced, so that borders have alpha
VIEWS = {"Vehicles": 14, "Characters": 8}  # by category; what is common in photographs gets more
MIN_VIEWS = 3  # of all other categories
# Flat or set into walls: they look like rectangles.
SKIPPED = {"Doors and windows", "Staircases"}


class Studio:
    """An off-screen window with one model.

    Parameters
    ----------
    path : pathlib.Path
        An .obj file, its .mtl and textures beside it.
    """

    def __init__(self, path: Path) -> None:
        self.renderer = vtkRenderer()
        self.window = vtkRenderWindow()
        self.window.SetOffScreenRendering(1)
        self.window.SetMultiSamples(0)
        self.window.SetSize(WINDOW, WINDOW)
        self.window.AddRenderer(self.renderer)
        importer = vtkOBJImporter()
        importer.SetFileName(str(path))
        importer.SetFileNameMTL(str(path.with_suffix(".mtl")))
        importer.SetTexturePath(str(path.parent))
        importer.SetRenderWindow(self.window)
        importer.Update()
        self.actors = list(self.renderer.GetActors())
        self.renderer.RemoveAllLights()

    def close(self) -> None:
        """Free the window's memory."""
        self.window.Finalize()

    def view(self, rng: np.random.Generator) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]] | None:
        """Return a random view, hxwx4 uint8 BGRA, and its parts, hxw uint8; None where too little is visible."""
        self._aim(rng)
        self._light(rng)
        self._paint(rng)
        colour = self._draw((rng.uniform(0.2, 0.9),) * 3)
        owner = self._owners()
        if np.count_nonzero(owner) < 0.02 * owner.size:
            return None
        left, top, right, bottom = bounding_box(owner > 0)
        colour, owner = colour[top:bottom, left:right], owner[top:bottom, left:right]
        scale = min(0.5, CUTOUT_SIDE / max(owner.shape))
        rows, columns = (max(1, round(length * scale)) for length in owner.shape)
        alpha = (owner > 0).astype(np.uint8) * 255
        # The nearest colour fills what is transparent, so that no backdrop bleeds into the border.
        spread = cv2.inpaint(colour, _rim(alpha), 3, cv2.INPAINT_TELEA)
        image = np.dstack([spread, alpha])
        small = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
        labels = cv2.resize(owner, (columns, rows), interpolation=cv2.INTER_NEAREST)
        left, top, right, bottom = bounding_box(small[..., 3] > 20)  # as training.sources trims
        inside = (slice(top, bottom), slice(left, right))
        return small[inside], material_parts(np.where(small[inside][..., 3] > 127, labels[inside], 0))

    def _aim(self, rng: np.random.Generator) -> None:
        """Put the camera anywhere around the model, mostly at the height of a person's eyes."""
        bounds = np.array(self.renderer.ComputeVisiblePropBounds()).reshape(3, 2)
        centre, radius = bounds.mean(1), np.linalg.norm(np.diff(bounds)) / 2
        angle = rng.uniform(0, 2 * np.pi)
        height = np.deg2rad(abs(rng.normal(8, 14)) if rng.random() < 0.8 else rng.uniform(20, 75))
        direction = np.array([np.sin(angle) * np.cos(height), np.sin(height), np.cos(angle) * np.cos(height)])
        opening = rng.uniform(12, 45)
        camera = self.renderer.GetActiveCamera()
        camera.SetViewAngle(opening)
        camera.SetFocalPoint(*centre)
        camera.SetPosition(*(centre + direction * radius / np.sin(np.deg2rad(opening / 2))))
        camera.SetViewUp(0, 1, 0)
        self.renderer.ResetCameraClippingRange()

    def _light(self, rng: np.random.Generator) -> None:
        """Set a key light and two weaker fill lights."""
        self.renderer.RemoveAllLights()
        for strength in (rng.uniform(0.6, 1.1), rng.uniform(0.1, 0.5), rng.uniform(0.1, 0.4)):
            lamp = vtkLight()
            lamp.SetLightTypeToSceneLight()
            lamp.SetPositional(False)
            lamp.SetPosition(rng.normal(), abs(rng.normal()) + 0.2, rng.normal())
            lamp.SetFocalPoint(0, 0, 0)
            lamp.SetIntensity(strength)
            self.renderer.AddLight(lamp)

    def _paint(self, rng: np.random.Generator) -> None:
        """Give some plain materials another colour: a car of any colour is a car."""
        for actor in self.actors:
            surface = actor.GetProperty()
            surface.SetLighting(True)
            surface.SetAmbient(rng.uniform(0.1, 0.35))
            surface.SetAmbientColor(surface.GetDiffuseColor())
            if actor.GetTexture() is None and rng.random() < 0.35:
                tint = np.clip(rng.normal(rng.uniform(0.1, 0.9), 0.2, 3), 0, 1)
                surface.SetDiffuseColor(*tint)
                surface.SetAmbientColor(*tint)

    def _draw(self, backdrop: tuple[float, float, float]) -> npt.NDArray[np.uint8]:
        """Return the window's pixels, HxWx3 uint8 BGR."""
        self.renderer.SetBackground(*backdrop)
        self.window.Render()
        grab = vtkWindowToImageFilter()
        grab.SetInput(self.window)
        grab.SetInputBufferTypeToRGB()
        grab.ReadFrontBufferOff()
        grab.Update()
        columns, rows, _ = grab.GetOutput().GetDimensions()
        pixels = vtk_to_numpy(grab.GetOutput().GetPointData().GetScalars()).reshape(rows, columns, 3)
        return np.ascontiguousarray(pixels[::-1, :, ::-1])

    def _owners(self) -> npt.NDArray[np.uint8]:
        """Return the number of the material visible at each pixel, HxW uint8, 0 for none."""
        kept = []
        for number, actor in enumerate(self.actors[:255], start=1):
            surface, texture = actor.GetProperty(), actor.GetTexture()
            kept.append((actor, texture, surface.GetOpacity(), surface.GetAmbientColor(), surface.GetAmbient()))
            actor.SetTexture(None)
            surface.SetLighting(False)
            surface.SetOpacity(1)
            kept[-1] += (surface.GetDiffuseColor(),)
            surface.SetColor(number / 255, number / 255, number / 255)
        owner = self._draw((0, 0, 0))[..., 0]
        for actor, texture, opacity, ambient_colour, ambient, diffuse in kept:
            surface = actor.GetProperty()
            actor.SetTexture(texture)
            surface.SetLighting(True)
            surface.SetOpacity(opacity)
            surface.SetAmbient(ambient)
            surface.SetAmbientColor(ambient_colour)
            surface.SetDiffuseColor(diffuse)
        return owner


def _rim(alpha: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the few pixels around what is opaque, HxW uint8, where colours are made up."""
    return cv2.dilate(alpha, np.ones((7, 7), np.uint8)) & ~alpha


def render_library(path: Path, out: Path) -> None:
    """Render every model of a library into `out/<model>/`; a model whose folder exists is skipped."""
    with zipfile.ZipFile(path) as library, tempfile.TemporaryDirectory() as unpacked:
        library.extractall(unpacked)
        for model in tqdm(list(catalogue(path)), desc=path.stem):
            folder = out / model.path.stem
            if model.category in SKIPPED or folder.exists():
                continue
            rng = np.random.default_rng(list(hashlib.sha256(str(model.path).encode()).digest()[:8]))
            studio = Studio(Path(unpacked, model.path))
            views = [studio.view(rng) for _ in range(VIEWS.get(model.category, MIN_VIEWS))]
            studio.close()
            folder.mkdir(parents=True)
            for number, view in enumerate(views):
                if view is not None:
                    cv2.imwrite(str(folder / f"{number}.png"), view[0])
                    cv2.imwrite(str(folder / f"{number}.parts.png"), view[1])


def main() -> None:
    """Render every library: the command `python -m training.renders`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--libraries", type=Path, default=LIBRARIES)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    for path in sorted(arguments.libraries.glob("*.sh3f")):
        render_library(path, arguments.out / path.stem)


if __name__ == "__main__":
    main()
