"""Click to segment: an image in a cell, on which clicks and boxes become masks at once.

`PromptCanvas` shows a `Session` and turns pointer and keyboard input into steps of it. It composes its parts: the
model's thread (`worker`), what is drawn (`painter`, `layers`), input (`pointer`, `gestures`), what stands around the
canvas (`controls`, `status`), and the image for notebooks without a kernel (`fallback`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import ipywidgets
import numpy as np
import numpy.typing as npt

from sam_nb.canvas.cell import CellWidget
from sam_nb.canvas.controls import Action, Actions, Controls
from sam_nb.canvas.gestures import BOX, MOVE, Gestures
from sam_nb.canvas.painter import MAX_WIDTH, Painter, PreparedMasks
from sam_nb.canvas.pointer import PointerEvent, PointerRelay
from sam_nb.canvas.status import describe, describe_waiting
from sam_nb.canvas.view import ZOOM, View
from sam_nb.canvas.worker import CallLater, Clock, Waiting, Worker, call_later
from sam_nb.images import load_image
from sam_nb.masks import Masks, Segment
from sam_nb.prompts import Prompt
from sam_nb.session import Decoded, PromptedObject, Session

if TYPE_CHECKING:
    from sam_nb.images import ImageLike
    from sam_nb.model.sam import Sam

FALLBACK_WIDTH = 768  # of the static fallback: it is saved with the notebook
LABEL = "Image to segment. Z: undo, Y: redo, N: new object, M: next mask, Delete: delete the object"

Mask = npt.NDArray[np.bool_]


class SaveSegments(Protocol):
    """What `PromptCanvas` saves with, such as `sam_nb.save_segments`."""

    def __call__(
        self,
        segments: Sequence[Segment],
        image: npt.NDArray[np.uint8],
        folder: str | Path,
        *,
        prompts: str | None = None,
        file_name: str = "image",
        model: str = "",
        overwrite: bool = False,
    ) -> Path:
        """Write segments and prompts into a folder and return it."""


def segment(
    image: ImageLike,
    sam: Sam | None = None,
    *,
    ground_truth: Mask | Mapping[str, Mask] | None = None,
    preview: bool | None = None,
    save: SaveSegments | None = None,
) -> PromptCanvas:
    """Return a `PromptCanvas` on an image, with the model that `load_sam` chooses unless one is given.

    Parameters
    ----------
    image : HxWx3 numpy.ndarray of uint8, RGB
        Or anything else that `load_image` takes: a sample's name, a path, a URL.
    sam : Sam, optional
    ground_truth, preview, save
        As in `PromptCanvas`.
    """
    if sam is None:
        from sam_nb.model.loading import load_sam  # noqa: PLC0415 - loads torch, which a canvas itself does without

        sam = load_sam()
    return PromptCanvas(sam, image, ground_truth=ground_truth, preview=preview, save=save)


class PromptCanvas(CellWidget):
    """An image to click on, with buttons, the list of objects, and a status line.

    Left click: this belongs to the object. Right click or Shift + click: this does not. Drag: a box around it. The mode
    buttons do the same for touch. All of it can be done by code as well (`add_point`, `set_box` ...), and `masks` and
    `mask` always follow from the steps so far, whether or not anything is shown. When the cell that made it runs again,
    it is closed: the new one takes its place. Its session, masks and `save` still work by code.

    Parameters
    ----------
    sam : Sam
    image : HxWx3 numpy.ndarray of uint8, RGB
        Or anything else that `load_image` takes.
    ground_truth : HxW numpy.ndarray of bool, or dict of str to such, optional
        What is to be segmented: the status line then shows the true IoU, with a dict that of the best match.
    preview : bool, optional
        Whether the mask under the mouse is shown before the first click. Default: if a decoding takes less than
        `sam.max_preview_seconds`.
    save : callable, optional
        Writes the files, with the signature of `sam_nb.save_segments`. Default: that one.
    clock : callable, optional
        Returns seconds; measures a decoding and how long the user has been waiting.
    call_later : callable, optional
        Takes seconds and a function to call after them. Default: the running event loop's.

    Attributes
    ----------
    session : sam_nb.Session
        What was done; changes made to it are shown here.
    image : HxWx3 numpy.ndarray of uint8, RGB
    status, controls, painter, pointer, worker
        The parts, see `sam_nb.canvas`.

    Raises
    ------
    ValueError
        Not an image, or a ground truth differs from it in size.
    """

    def __init__(
        self,
        sam: Sam,
        image: ImageLike,
        *,
        ground_truth: Mask | Mapping[str, Mask] | None = None,
        preview: bool | None = None,
        save: SaveSegments | None = None,
        clock: Clock = time.perf_counter,
        call_later: CallLater = call_later,
    ) -> None:
        self.sam = sam
        self.image = load_image(image)
        self._file_name = Path(image).name if isinstance(image, str | Path) else "image"
        self._ground_truth = _named_masks(ground_truth, self.image.shape[:2])
        self._preview, self._save = preview, save
        super().__init__(render=partial(self.snapshot, FALLBACK_WIDTH), call_later=call_later)
        self.worker = Worker(
            sam,
            self.image,
            times_decoding=preview is None,
            on_error=self.status.show_error,
            on_waiting=self._on_waiting,
            on_idle=self._fallback.update_later,
            clock=clock,
            call_later=call_later,
        )
        self._at_close.callback(self.worker.close)
        height, width = self.image.shape[:2]
        self.session = Session(self.worker.decode, (height, width), sam.name)
        self.painter = Painter(
            self.session,
            self.worker,
            self.image,
            opacity=lambda: float(self.controls.opacity.value),
            describe=self._describe,
            on_masks=self._on_masks,
        )
        self.controls = Controls(self._actions(), self._on_press, preview=bool(preview))
        self._gestures = Gestures(self.session, self.painter, lambda: str(self.controls.mode.value))
        self._compose()
        self._listen()
        self._on_switch()
        self.painter.redraw()

    # By code ---------------------------------------------------------------------------------------------

    def add_point(self, x: float, y: float, label: int = 1) -> None:
        """Click at pixel (x, y) of the original image; see `Session.add_point`."""
        self.session.add_point(x, y, label)

    def set_box(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """Draw a box, pixels of the original image; see `Session.set_box`."""
        self.session.set_box(x0, y0, x1, y1)

    def choose(self, index: int) -> None:
        """Choose another one of the masks; see `Session.choose`."""
        self.session.choose(index)

    def new_object(self) -> None:
        """Start a new object; see `Session.new_object`."""
        self.session.new_object()

    def undo(self) -> None:
        """Undo the last step; see `Session.undo`."""
        self.session.undo()

    def redo(self) -> None:
        """Redo the last undone step; see `Session.redo`."""
        self.session.redo()

    def clear(self) -> None:
        """Remove the current object's prompt; see `Session.clear`."""
        self.session.clear()

    @property
    def prompt(self) -> Prompt | None:
        """The current object's `Prompt`, or None."""
        return self.session.prompt

    @property
    def masks(self) -> Masks | None:
        """The `Masks` for the current object's prompt, or None."""
        return self.session.masks

    @property
    def mask(self) -> Mask | None:
        """The current object's mask, HxW bool, or None."""
        return self.session.mask

    @property
    def view(self) -> View:
        """Which part of the image is shown."""
        return self.painter.view

    def snapshot(self, max_width: int = MAX_WIDTH) -> npt.NDArray[np.uint8]:
        """Return what the canvas shows when the whole image is seen, HxWx3 uint8 RGB, at most so many pixels wide."""
        return self.painter.snapshot(max_width)

    def save(self, folder: str | Path = "segments", *, overwrite: bool = False) -> Path:
        """Write masks, cut-outs, COCO JSON and the session into a folder; see `sam_nb.save_segments`.

        Returns
        -------
        pathlib.Path
            The folder.
        """
        write = self._save or _save_segments()
        return write(
            self.session.segments(),
            self.image,
            folder,
            prompts=self.session.to_json(),
            file_name=self._file_name,
            model=self.sam.name,
            overwrite=overwrite,
        )

    def __repr__(self) -> str:
        return f"PromptCanvas({self.session})"

    # The parts -------------------------------------------------------------------------------------------

    def _actions(self) -> Actions:
        return Actions(
            undo=self.undo,
            redo=self.redo,
            clear=self.clear,
            new_object=self.new_object,
            zoom_in=partial(self.painter.zoom, ZOOM),
            zoom_out=partial(self.painter.zoom, 1 / ZOOM),
            fit=self.painter.fit,
            choose=self.choose,
            select=self.session.select,
            delete=self.session.delete,
            rename=self._on_rename,
            save=self._on_save,
        )

    def _compose(self) -> None:
        canvas = self.painter.layers.canvas
        self.pointer = PointerRelay(target=canvas, label=LABEL)
        layout = ipywidgets.Layout(overflow="hidden", width="fit-content", max_width="100%")
        stage = ipywidgets.Box([canvas], layout=layout)
        controls = self.controls
        groups = [controls.above, self.status, stage, controls.below, controls.rows, controls.saving]
        self.children = [*groups, self.pointer]

    def _parts(self) -> list[ipywidgets.Widget]:
        return [*self.painter.layers.widgets, *self.controls.widgets]

    def _listen(self) -> None:
        controls, painter = self.controls, self.painter
        controls.mode.observe(lambda _: self._on_switch(), "value")
        controls.preview.observe(lambda _: self._on_switch(), "value")
        controls.opacity.observe(lambda _: painter.update_masks(), "value")
        self.pointer.on_event(self._on_event)
        # Where the relay cannot listen, ipycanvas's own events still give clicks and boxes.
        canvas = painter.layers.canvas
        canvas.on_mouse_down(lambda x, y: self._on_event(PointerEvent("down", x, y)))
        canvas.on_mouse_move(lambda x, y: self._on_event(PointerEvent("move", x, y)))
        canvas.on_mouse_up(lambda x, y: self._on_event(PointerEvent("up", x, y)))
        canvas.on_mouse_out(lambda x, y: self._on_event(PointerEvent("up", x, y)))
        canvas.on_client_ready(lambda: self.status.guard(painter.redraw))
        self._at_close.callback(self.session.on_change(painter.on_change))

    # Input ----------------------------------------------------------------------------------

    def _on_event(self, event: PointerEvent) -> None:
        # Nothing else changes what is saved: moving the mouse must not send the image again.
        if event.type in {"up", "key"}:
            self._fallback.mark_stale()
        self.status.guard(partial(self._gestures.handle, event))

    def _on_press(self, action: Action) -> None:
        self._fallback.mark_stale()
        self.status.guard(action)

    def _on_switch(self) -> None:
        mode, preview = self.controls.mode.value, self.controls.preview.value
        self.pointer.touch_draws, self.pointer.hover = mode in (BOX, MOVE), preview
        if not preview:
            self.painter.clear_preview()

    def _on_rename(self, index: int, name: str, category: str) -> None:
        try:
            self.session.rename(index, name, category)
        except ValueError as error:
            self.status.show_error(error)
            item = self.session.objects[index]
            self.controls.rows.children[index].show(item, item is self.session.current)  # the old name again

    def _on_save(self, folder: str, overwrite: bool) -> bool:
        folder = folder.strip() or "segments"
        try:
            written = self.save(folder, overwrite=overwrite)
        except FileExistsError:
            self.status.show(f"{folder} exists already: change the name, or press Replace to overwrite its files")
            return False
        self.status.show(f"saved in {written}: masks, cutouts, coco.json, prompts.json")
        return True

    # What the model's thread reports ---------------------------------------------------------------------

    def _describe(self, item: PromptedObject, decoded: Decoded | None) -> str:
        return describe(item, decoded, self.sam.name, self._ground_truth)

    def _on_waiting(self, waiting: Waiting) -> None:
        self.status.show(describe_waiting(waiting, self.sam.name))

    def _on_masks(self, prepared: PreparedMasks) -> None:
        self.status.show(prepared.words)
        self.controls.show(self.session, prepared.decoded)
        if self._preview is None and self.worker.decode_seconds is not None:
            self._preview = self.worker.decode_seconds < self.sam.max_preview_seconds
            self.controls.preview.value = self._preview


def _named_masks(ground_truth: Mask | Mapping[str, Mask] | None, size: tuple[int, ...]) -> dict[str, Mask]:
    """Return ground truth as masks by name, checked to be of an image's size (height, width)."""
    named = {"": ground_truth} if isinstance(ground_truth, np.ndarray) else dict(ground_truth or {})
    for name, mask in named.items():
        if np.shape(mask) != size:
            height, width = size
            raise ValueError(
                f"ground truth {name!r}: expected a mask of {width}x{height}, got the shape {np.shape(mask)}"
            )
    return named


def _save_segments() -> SaveSegments:
    from sam_nb import save_segments  # noqa: PLC0415 - the canvas knows the files by the front door alone

    return save_segments
