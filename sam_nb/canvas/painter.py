"""What the layers show of a session: has masks and previews prepared in the model's thread and draws them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from sam_nb.canvas.layers import Corners, Layers, PaintedMask, encode_image, encode_masks, hold, snapshot
from sam_nb.canvas.view import View
from sam_nb.canvas.worker import Job, Worker
from sam_nb.prompts import Prompt
from sam_nb.session import Decoded, PromptedObject, Session

MAX_WIDTH, MAX_HEIGHT = 1024, 640  # of the canvas, in its pixels
PREVIEW_OPACITY = 0.35


@dataclass(frozen=True, eq=False)
class PreparedMasks:
    """The masks of a session, ready to be shown.

    Attributes
    ----------
    objects : tuple of PromptedObject
        Whose masks they are.
    decoded : Decoded, or None
        Of the current object.
    words : str
        About the current object.
    png : bytes
        From `encode_masks`.
    view : View
        That the PNG was made for.
    """

    objects: tuple[PromptedObject, ...]
    decoded: Decoded | None
    words: str
    png: bytes
    view: View


@dataclass(frozen=True, eq=False)
class PreparedPreview:
    """The mask under the mouse, ready to be shown: a PNG from `encode_masks`, and the view it was made for."""

    png: bytes
    view: View


class Painter:
    """Draws a session on the layers, and again after every change.

    Parameters
    ----------
    session : Session
    worker : Worker
    image : HxWx3 numpy.ndarray of uint8, RGB
    opacity : callable
        Returns the masks' opacity, 0 to 1.
    describe : callable
        Takes an object and its `Decoded`, or None; returns the words about it. Called in the model's thread.
    on_masks : callable
        Takes the `PreparedMasks` that have just been shown.

    Attributes
    ----------
    layers : Layers
    view : View
    """

    def __init__(
        self,
        session: Session,
        worker: Worker,
        image: npt.NDArray[np.uint8],
        *,
        opacity: Callable[[], float],
        describe: Callable[[PromptedObject, Decoded | None], str],
        on_masks: Callable[[PreparedMasks], None],
    ) -> None:
        self._session, self._worker, self._image = session, worker, image
        self._opacity, self._describe, self._on_masks = opacity, describe, on_masks
        height, width = image.shape[:2]
        self.view = View.fit(height, width, MAX_HEIGHT, MAX_WIDTH)
        self.layers = Layers(self.view.canvas_width, self.view.canvas_height)
        self._masks_job = Job(self._prepare_masks)
        self._preview_job = Job(self._prepare_preview, is_preview=True)
        self._dragged_box: Corners | None = None
        self._hovered: tuple[float, float] | None = None  # point of the image under the mouse

    def redraw(self) -> None:
        """Draw everything: for a new page, another part of the image, or the first time."""
        jpeg = encode_image(self._image, self.view)
        with hold():
            self.layers.show_image(jpeg)
            self._show_prompts()
        self.update_masks()

    def on_change(self) -> None:
        """Follow a change of the session."""
        with hold():  # one message: the page is slow to draw, and a click's mask waits behind it
            self._forget_preview()
            self._show_prompts()
        self.update_masks()

    def update_masks(self) -> None:
        """Have the masks drawn again."""
        self._worker.request(self._masks_job)

    def look(self, view: View) -> None:
        """Show another part of the image."""
        if view != self.view:
            self.view = view
            self.clear_preview()
            self.redraw()

    def zoom(self, factor: float) -> None:
        """Zoom in by a factor around the middle of the canvas."""
        self.look(self.view.zoomed(factor, self.view.canvas_width / 2, self.view.canvas_height / 2))

    def fit(self) -> None:
        """Show the whole image."""
        self.look(self.view.whole())

    def show_dragged_box(self, box: Corners | None) -> None:
        """Draw a box, in canvas pixels, in place of the session's, or with None the session's again."""
        if box != self._dragged_box:
            self._dragged_box = box
            with hold():
                self._show_prompts()

    def preview(self, x: float, y: float) -> None:
        """Have the mask at a place on the canvas drawn, while the current object has no prompt."""
        self._hovered = self.view.clamped(*self.view.to_image(x, y))
        if not self._session.current.steps:
            self._worker.request(self._preview_job)

    def clear_preview(self) -> None:
        """Remove the preview, shown or still to come."""
        with hold():
            self._forget_preview()

    def snapshot(self, max_width: int) -> npt.NDArray[np.uint8]:
        """Return what the layers show when the whole image is seen, HxWx3 uint8 RGB."""
        height, width = self._image.shape[:2]
        objects = self._session.objects
        return snapshot(
            self._image,
            View.fit(height, width, MAX_HEIGHT, max_width),
            painted=_painted(objects, [self._session.decoded(item) for item in objects]),
            points=self._session.points,
            box=self._session.box,
            opacity=self._opacity(),
        )

    def _forget_preview(self) -> None:
        self._hovered = None
        self._worker.cancel(self._preview_job)
        self.layers.clear_preview()

    def _show_prompts(self) -> None:
        corners, box = self._dragged_box, self._session.box
        if corners is None and box is not None:
            corners = (*self.view.to_canvas(box.x0, box.y0), *self.view.to_canvas(box.x1, box.y1))
        self.layers.show_prompts(self._session.points, corners, self.view)

    def _prepare_masks(self) -> Callable[[], None]:
        objects, selected, view = self._session.objects, self._session.selected, self.view
        decoded = [self._session.decoded(item) for item in objects]
        png = encode_masks(_painted(objects, decoded), view, self._opacity())
        selected = min(selected, len(objects) - 1)  # the session may have moved on meanwhile
        words = self._describe(objects[selected], decoded[selected])
        return partial(self._show_masks, PreparedMasks(objects, decoded[selected], words, png, view))

    def _show_masks(self, prepared: PreparedMasks) -> None:
        if prepared.view != self.view:
            self.update_masks()
        elif prepared.objects == self._session.objects:  # else the request that this change made is under way
            with hold():
                self.layers.show_masks(prepared.png)
            self._on_masks(prepared)

    def _prepare_preview(self) -> Callable[[], None]:
        point, view = self._hovered, self.view
        if point is None or self._session.current.steps:
            return lambda: None
        masks = self._worker.decode(Prompt(points=np.array([point])))
        png = encode_masks([(masks.best, self._session.current.color)], view, PREVIEW_OPACITY)
        return partial(self._show_preview, PreparedPreview(png, view))

    def _show_preview(self, prepared: PreparedPreview) -> None:
        if prepared.view != self.view:
            self._worker.request(self._preview_job)
        elif self._hovered is not None and not self._session.current.steps:
            with hold():
                self.layers.show_preview(prepared.png)


def _painted(objects: Sequence[PromptedObject], decoded: Sequence[Decoded | None]) -> list[PaintedMask]:
    """Return the masks and colours of the objects that have a mask."""
    pairs = zip(objects, decoded, strict=True)
    return [(found.mask, item.color) for item, found in pairs if found is not None]
