"""Which part of an image a canvas shows, and where things are on either."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

MAX_ZOOM = 16.0  # canvas pixels per pixel of the image
ZOOM = 1.25  # of one step


@dataclass(frozen=True)
class View:
    """A canvas on an image.

    A point of the image is a pixel's index (x, y), as SAM counts: the centre of the first pixel is (0, 0). A place on
    the canvas is in canvas pixels from its corner, as the browser counts: the centre of the first one is (0.5, 0.5).

    Attributes
    ----------
    height, width : int
        Of the image, pixels.
    canvas_height, canvas_width : int
        Of the canvas, in its own pixels; how large they look on the screen is up to the browser.
    scale : float
        Canvas pixels per pixel of the image.
    left, top : float
        The place in the image, in pixels from its corner, that lies at the canvas's corner.
    """

    height: int
    width: int
    canvas_height: int
    canvas_width: int
    scale: float
    left: float = 0.0
    top: float = 0.0

    @classmethod
    def fit(cls, height: int, width: int, max_height: int, max_width: int) -> View:
        """Return the view of a whole image on a canvas of the image's shape, as large as allowed.

        Small images are upscaled, at most four times.
        """
        scale = min(max_height / height, max_width / width, 4.0)
        canvas = cls(height, width, max(1, round(height * scale)), max(1, round(width * scale)), scale)
        return canvas.whole()

    @property
    def fitting(self) -> float:
        """The scale at which the whole image is seen."""
        return min(self.canvas_height / self.height, self.canvas_width / self.width)

    def to_image(self, x: float, y: float) -> tuple[float, float]:
        """Return the point of the image at a place on the canvas."""
        return self.left + x / self.scale - 0.5, self.top + y / self.scale - 0.5

    def to_canvas(self, x: float, y: float) -> tuple[float, float]:
        """Return the place on the canvas of a point of the image."""
        return (x + 0.5 - self.left) * self.scale, (y + 0.5 - self.top) * self.scale

    def clamped(self, x: float, y: float) -> tuple[float, float]:
        """Return the nearest point inside the image."""
        return min(max(x, 0.0), self.width - 1.0), min(max(y, 0.0), self.height - 1.0)

    def zoomed(self, factor: float, x: float, y: float) -> View:
        """Return the view zoomed in by a factor; what lies at the place (x, y) of the canvas stays there."""
        scale = min(max(self.scale * factor, self.fitting), max(MAX_ZOOM, self.fitting))
        left = self.left + x / self.scale - x / scale
        top = self.top + y / self.scale - y / scale
        return replace(self, scale=scale, left=left, top=top)._inside()

    def moved(self, dx: float, dy: float) -> View:
        """Return the view after dragging the image by (dx, dy) canvas pixels."""
        return replace(self, left=self.left - dx / self.scale, top=self.top - dy / self.scale)._inside()

    def whole(self) -> View:
        """Return the view of the whole image."""
        return replace(self, scale=self.fitting, left=0.0, top=0.0)

    def affine(self) -> npt.NDArray[np.float64]:
        """Return the affine map, 2x3 float64, that takes pixel indices of the image to those of the canvas."""
        # The centre of a pixel is half a pixel from its corner, on both sides.
        shift_x, shift_y = self.to_canvas(0, 0)
        return np.array([[self.scale, 0, shift_x - 0.5], [0, self.scale, shift_y - 0.5]])

    def _inside(self) -> View:
        max_left = max(0.0, self.width - self.canvas_width / self.scale)
        max_top = max(0.0, self.height - self.canvas_height / self.scale)
        return replace(self, left=min(max(self.left, 0.0), max_left), top=min(max(self.top, 0.0), max_top))
