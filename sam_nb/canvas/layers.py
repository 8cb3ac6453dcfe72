"""The layers of a canvas: image, masks, preview and prompts, encoded for the browser and drawn on an ipycanvas.

`snapshot` draws the same without a browser.
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import ceil

import cv2
import ipywidgets
import numpy as np
import numpy.typing as npt
from ipycanvas import Canvas, MultiCanvas, hold_canvas
from PIL import Image

from sam_nb.canvas.view import View
from sam_nb.draw import draw_marks, outline_width
from sam_nb.palette import BOX, NEGATIVE, POSITIVE
from sam_nb.session import Box, Point

MAX_OBJECTS = 127  # a palette has 256 colours: one for nothing, two for each object

# Arms of the marks on points: a plus on foreground points, a cross on background points; ends from the middle, pixels.
ARMS = {
    1: (((-5, 0), (5, 0)), ((0, -5), (0, 5))),
    0: (((-3.5, -3.5), (3.5, 3.5)), ((-3.5, 3.5), (3.5, -3.5))),
}

_DRAWING = threading.RLock()  # ipycanvas gathers the commands of all canvases in one place

Color = tuple[int, int, int]
Corners = tuple[float, float, float, float]
"""(x0, y0, x1, y1) of a box, canvas pixels."""

PaintedMask = tuple[npt.NDArray[np.bool_], Color]
"""A mask, HxW bool, and its colour, RGB."""


@contextlib.contextmanager
def hold() -> Iterator[None]:
    """`hold_canvas` that an exception inside cannot leave switched on, which would stop all drawing for good.

    Everything that is drawn inside goes to the page in one message. Must not be nested: the inner one would send what
    there is so far.
    """
    with _DRAWING:
        # Each message names its canvas anew: a page may have missed the one before.
        Canvas._canvas_manager.default_value._current_canvas = None
        failure = None
        with hold_canvas():
            try:
                yield
            except Exception as error:
                failure = error
        if failure is not None:
            raise failure


class Layers:
    """Four layers on one canvas, the later ones on top. Draw on them inside `hold`.

    Parameters
    ----------
    width, height : int
        Canvas pixels.

    Attributes
    ----------
    canvas : ipycanvas.MultiCanvas
    image, masks, preview : ipywidgets.Image
        What the first three layers show, as encoded files.
    """

    def __init__(self, width: int, height: int) -> None:
        layout = ipywidgets.Layout(max_width="100%", height="auto")
        self.canvas = MultiCanvas(4, width=width, height=height, layout=layout)
        self._image_layer, self._mask_layer, self._preview_layer, self._prompt_layer = map(
            self.canvas.__getitem__, range(4)
        )
        self.image = ipywidgets.Image(format="jpeg")
        self.masks = ipywidgets.Image(format="png")
        self.preview = ipywidgets.Image(format="png")
        self._has_preview = False

    @property
    def widgets(self) -> list[ipywidgets.Widget]:
        """All widgets of the layers."""
        return [self.canvas, self.image, self.masks, self.preview]

    def show_image(self, jpeg: bytes) -> None:
        """Show a JPEG from `encode_image`."""
        self._show(self._image_layer, self.image, jpeg)

    def show_masks(self, png: bytes) -> None:
        """Show a PNG from `encode_masks`."""
        self._show(self._mask_layer, self.masks, png)

    def show_preview(self, png: bytes) -> None:
        """Show a PNG from `encode_masks` over the masks."""
        self._show(self._preview_layer, self.preview, png)
        self._has_preview = True

    def clear_preview(self) -> None:
        """Remove the preview, if there is one."""
        if self._has_preview:
            self._has_preview = False
            self._preview_layer.clear()

    def show_prompts(self, points: Sequence[Point], box: Corners | None, view: View) -> None:
        """Draw points of the image, and a box of the canvas."""
        self._prompt_layer.clear()
        if box is not None:
            self._draw_box(*box)
        for point in points:
            self._draw_point(*view.to_canvas(point.x, point.y), point.label)

    @staticmethod
    def _show(layer: ipywidgets.DOMWidget, image: ipywidgets.Image, file: bytes) -> None:
        image.value = file
        layer.clear()
        layer.draw_image(image, 0, 0)

    def _draw_box(self, x0: float, y0: float, x1: float, y1: float) -> None:
        box = (min(x0, x1), min(y0, y1), abs(x1 - x0), abs(y1 - y0))
        for width, color in ((4, "white"), (2, css_color(BOX))):
            self._prompt_layer.line_width = width
            self._prompt_layer.stroke_style = color
            self._prompt_layer.stroke_rect(*box)

    def _draw_point(self, x: float, y: float, label: int) -> None:
        layer = self._prompt_layer
        layer.fill_style = css_color(POSITIVE if label else NEGATIVE)
        layer.stroke_style = "white"
        layer.line_width = 2
        layer.fill_circle(x, y, 9)
        layer.stroke_circle(x, y, 9)
        for (x0, y0), (x1, y1) in ARMS[label]:
            layer.stroke_line(x + x0, y + y0, x + x1, y + y1)


def css_color(color: Color) -> str:
    """Return a colour as CSS has it, such as "#1e90ff"."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def encode_image(image: npt.NDArray[np.uint8], view: View) -> bytes:
    """Return the part of an image that a view shows, a JPEG in the canvas's size.

    Parameters
    ----------
    image : HxWx3 numpy.ndarray of uint8, RGB
    view : sam_nb.canvas.view.View
    """
    return encode_jpeg(_visible(image, view), quality=90)


def encode_masks(painted: Sequence[PaintedMask], view: View, opacity: float) -> bytes:
    """Return masks as a PNG for the canvas: a palette with transparency, a few bits a pixel.

    Parameters
    ----------
    painted : sequence of (HxW numpy.ndarray of bool, (int, int, int))
        Masks and their colours, RGB, the last on top.
    view : sam_nb.canvas.view.View
    opacity : float
        Of the fill, 0 to 1; outlines are opaque.
    """
    layer, alphas = _paint(painted, view, opacity)
    bits = next(bits for bits in (1, 2, 4, 8) if len(alphas) <= 2**bits)
    file = io.BytesIO()
    layer.save(file, "PNG", transparency=bytes(alphas), compress_level=1, bits=bits)
    return file.getvalue()


def encode_jpeg(image: npt.NDArray[np.uint8], quality: int = 85) -> bytes:
    """Return an image, HxWx3 uint8 RGB, as the bytes of a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return file.getvalue()


def snapshot(
    image: npt.NDArray[np.uint8],
    view: View,
    *,
    painted: Sequence[PaintedMask],
    points: Sequence[Point],
    box: Box | None,
    opacity: float,
) -> npt.NDArray[np.uint8]:
    """Return image, masks and prompts as one image in the canvas's size, RGB uint8.

    Parameters
    ----------
    image, view, painted, opacity
        As in `encode_masks`.
    points : sequence of sam_nb.session.Point
    box : sam_nb.session.Box, or None
    """
    masks, alphas = _paint(painted, view, opacity)
    alpha = np.array(alphas)[np.array(masks)][..., None] / 255
    colors = np.array(masks.convert("RGB"))
    drawn = np.rint(_visible(image, view) * (1 - alpha) + colors * alpha).astype(np.uint8)
    corners = None
    if box is not None:
        corners = _rounded(view.to_canvas(box.x0, box.y0)), _rounded(view.to_canvas(box.x1, box.y1))
    draw_marks(drawn, [(_rounded(view.to_canvas(point.x, point.y)), point.label) for point in points], corners)
    return drawn


def _rounded(place: tuple[float, float]) -> tuple[int, int]:
    return round(place[0]), round(place[1])


def _visible(image: npt.NDArray[np.uint8], view: View) -> npt.NDArray[np.uint8]:
    """Return the part of an image that a view shows, in the canvas's size."""
    # Of the image only what is seen, and a little around it: OpenCV 4 takes at most 32,766 pixels along a side.
    rows, columns = view.pixels()
    margin = 2 + ceil(1 / view.scale)
    top, left = max(0, rows[0] - margin), max(0, columns[0] - margin)
    part = image[top : rows[-1] + 1 + margin, left : columns[-1] + 1 + margin]
    shown = replace(view, left=view.left - left, top=view.top - top).affine()
    if view.scale < 1:
        # warpAffine would skip pixels: shrink properly first, to whole pixels, then shift.
        height, width = part.shape[:2]
        shrunk = max(1, round(width * view.scale)), max(1, round(height * view.scale))
        part = cv2.resize(part, shrunk, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        across, down = width / shrunk[0], height / shrunk[1]
        shown = shown @ np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2], [0, 0, 1]])
    # Zoomed in, a reader wants to see the pixels themselves.
    flags = cv2.INTER_LINEAR if view.scale < 4 else cv2.INTER_NEAREST
    size = (view.canvas_width, view.canvas_height)
    seen = cv2.warpAffine(part, shown, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return seen.astype(np.uint8, copy=False)


def _paint(painted: Sequence[PaintedMask], view: View, opacity: float) -> tuple[Image.Image, list[int]]:
    """Return the masks as an image with a palette, and the alpha of each of its colours, 0 to 255."""
    rows, columns = view.pixels()
    layer = np.zeros((len(rows), len(columns)), np.uint8)
    palette, alphas = [0, 0, 0], [0]
    for mask, color in painted[-MAX_OBJECTS:]:
        seen = mask[rows[:, None], columns].astype(np.uint8)
        layer[seen > 0] = len(alphas)
        contours, _ = cv2.findContours(seen, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(layer, contours, -1, (len(alphas) + 1,), outline_width(*layer.shape))
        palette += [*color, *color]
        alphas += [round(255 * opacity), 255]
    image = Image.fromarray(layer, "P")
    image.putpalette(palette)
    return image, alphas
