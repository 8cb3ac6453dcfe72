"""Which part of an image a canvas shows, and where things are on either."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

MAX_ZOOM = 16.0  # canvas pixels per pixel of the image
ZOOM = 1.25  # of one step
MIN_SIDE = 40  # canvas pixels: what is thinner can be neither seen nor clicked


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
        The place in the image, in pixels from its corner, that lies at the canvas's corner; negative where a thin image
        lies in the middle of its canvas. What is beyond the image looks, and is clicked, as the nearest pixel in it.
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

        Small images are upscaled, at most four times, or to `MIN_SIDE`, which no side of the canvas is shorter than.
        """
        scale = min(max_height / height, max_width / width, 4.0)
        canvas_height, canvas_width = (max(MIN_SIDE, round(side * scale)) for side in (height, width))
        return cls(height, width, canvas_height, canvas_width, scale).whole()

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
        return replace(self, scale=self.fitting, left=0.0, top=0.0)._inside()

    def pixels(self) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Return which row of the image each row of the canvas shows, and which column each column, both int."""
        sides = ((self.top, self.canvas_height, self.height), (self.left, self.canvas_width, self.width))
        rows, columns = (
            np.floor(start + (np.arange(seen) + 0.5) / self.scale).clip(0, length - 1).astype(np.intp)
            for start, seen, length in sides
        )
        return rows, columns

    def affine(self) -> npt.NDArray[np.float64]:
        """Return the affine map, 2x3 float64, that takes pixel indices of the image to those of the canvas."""
        # The centre of a pixel is half a pixel from its corner, on both sides.
        shift_x, shift_y = self.to_canvas(0, 0)
        return np.array([[self.scale, 0, shift_x - 0.5], [0, self.scale, shift_y - 0.5]])

    def _inside(self) -> View:
        left = _start(self.left, self.width, self.canvas_width, self.scale)
        top = _start(self.top, self.height, self.canvas_height, self.scale)
        return replace(self, left=left, top=top)


def _start(start: float, length: int, canvas_length: int, scale: float) -> float:
    """Return where along a side of the image the canvas begins: inside, or so that a short side is in the middle."""
    spare = canvas_length - length * scale
    if spare > 1:  # less is rounding
        return -spare / 2 / scale
    return min(max(start, 0.0), max(0.0, -spare / scale))
