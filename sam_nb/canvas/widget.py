"""Click to segment: a picture in a cell, on which clicks and boxes become masks at once.

`PromptCanvas` shows a `Session` on an ipycanvas and turns what the hand does into steps of it. The model works in a
thread of its own, so that the page stays quick: every step is answered, and of the places the mouse hovers over only
the last.
"""

import asyncio
import base64
import contextlib
import html
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import ipywidgets
import numpy as np
from ipycanvas import MultiCanvas, hold_canvas
from IPython.display import display, update_display

from sam_nb.canvas.layers import jpeg, masks_file, picture_file, snapshot
from sam_nb.canvas.pointer import PointerRelay
from sam_nb.canvas.view import View
from sam_nb.files.results import save_segments
from sam_nb.images import load_image
from sam_nb.masks import iou
from sam_nb.model.loading import load_sam
from sam_nb.palette import BOX as BOX_COLOR
from sam_nb.palette import NEGATIVE, POSITIVE
from sam_nb.prompts import Prompt
from sam_nb.session import Session

MAX_WIDTH, MAX_HEIGHT = 1024, 640  # of the canvas, in its pixels
PLACEHOLDER_WIDTH = 768  # of the picture that stands in for the canvas: it is saved with the notebook
REST = 1.0  # seconds after the last step until that picture is brought up to date
MIN_BOX = 4  # canvas pixels; a shorter drag is a click with a trembling hand
HOVER_LIMIT = 0.1  # seconds a decoding may take for the preview to be on by default
ZOOM = 1.25

INCLUDE, EXCLUDE, BOX, MOVE = "include", "exclude", "box", "move"

# Arms of the marks on points: a plus on foreground points, a cross on background points; ends from the middle, pixels.
ARMS = {
    1: (((-5, 0), (5, 0)), ((0, -5), (0, 5))),
    0: (((-3.5, -3.5), (3.5, 3.5)), ((-3.5, 3.5), (3.5, -3.5))),
}

_DRAWING = threading.RLock()  # ipycanvas gathers the commands of all canvases in one place


@dataclass(frozen=True)
class _Drag:
    """A button that is down: where it went down, where it is now (canvas pixels), and what it means."""

    kind: str
    start: tuple[float, float]
    now: tuple[float, float]

    @property
    def is_box(self):
        return self.kind != MOVE and all(abs(a - b) >= MIN_BOX for a, b in zip(self.start, self.now, strict=True))


def segment(image, sam=None, **options):
    """Return a `PromptCanvas` on a picture, with the model that `load_sam` chooses unless one is given.

    Parameters
    ----------
    image : HxWx3 numpy.ndarray of uint8, RGB
        Or anything else that `load_image` takes: a sample's name, a path, a URL.
    sam : Sam, optional
    options
        Those of `PromptCanvas`.
    """
    return PromptCanvas(sam or load_sam(), image, **options)


class PromptCanvas(ipywidgets.VBox):
    """A picture to click on, with buttons, the list of objects, and a status line.

    Left click: this belongs to the object. Right click or Shift + click: this does not. Drag: a box around it. The mode
    buttons give a finger the same. All of it can be done by code as well (`add_point`, `set_box` ...), and `masks` and
    `mask` always are what the steps so far lead to, whether or not anything is shown.

    Parameters
    ----------
    sam : Sam
    image : HxWx3 numpy.ndarray of uint8, RGB
        Or anything else that `load_image` takes.
    ground_truth : HxW numpy.ndarray of bool, or dict of str to such, optional
        What is to be found: the status line then tells the true IoU, with a dict that of the best match.
    hover : bool, optional
        Whether the mask under the mouse is shown before the first click. Left out: where decoding is quick enough.

    Attributes
    ----------
    session : sam_nb.Session
        What was done; changes made to it are shown here.
    """

    def __init__(self, sam, image, *, ground_truth=None, hover=None):
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sam-nb")
        self._resting = None  # what brings the picture in front up to date
        self.sam = sam
        self.image = load_image(image)
        self._picture_name = Path(image).name if isinstance(image, str | Path) else "picture"
        height, width = self.image.shape[:2]
        self._ground_truths = {"": ground_truth} if isinstance(ground_truth, np.ndarray) else dict(ground_truth or {})
        for name, mask in self._ground_truths.items():
            if np.shape(mask) != (height, width):
                raise ValueError(
                    f"ground truth {name!r}: expected a mask of {width}x{height}, got the shape {np.shape(mask)}"
                )
        self._embedding = None
        self._embedding_lock = threading.Lock()
        self.session = Session(self._decode, (height, width), sam.name)
        self.view = View.fit(height, width, MAX_HEIGHT, MAX_WIDTH)
        self._drag = None
        self._hovered = None  # point of the picture under the mouse
        self._previewed = False  # whether a preview is shown
        self._wanted = set()  # what the model's thread still has to do: "answer", "hover"
        self._task = None
        self._progress = 0.0
        self._is_quick = None  # whether decoding is, once it was tried
        self._is_shown = False  # in a notebook, with a picture in front
        self._touched = False  # by a hand, since the picture in front was last brought up to date
        self._listing = False  # the buttons are being set by the session, not by a hand
        self._build(hover)
        self.session.on_change(self._changed)

    # By code ---------------------------------------------------------------------------------------------

    def add_point(self, x, y, label=1):
        """Click at pixel (x, y) of the original picture; see `Session.add_point`."""
        self.session.add_point(x, y, label)

    def set_box(self, x0, y0, x1, y1):
        """Draw a box, pixels of the original picture; see `Session.set_box`."""
        self.session.set_box(x0, y0, x1, y1)

    def choose(self, index):
        """Take another one of three masks; see `Session.choose`."""
        self.session.choose(index)

    def new_object(self):
        """Go on to a new object; see `Session.new_object`."""
        self.session.new_object()

    def undo(self):
        """Take the last step back; see `Session.undo`."""
        self.session.undo()

    def redo(self):
        """Do the last undone step again; see `Session.redo`."""
        self.session.redo()

    def clear(self):
        """Forget what was asked about the current object; see `Session.clear`."""
        self.session.clear()

    @property
    def prompt(self):
        """What the model was asked about the current object, `Prompt`, or None."""
        return self.session.prompt

    @property
    def masks(self):
        """The model's answer about the current object, `Masks`, or None."""
        return self.session.masks

    @property
    def mask(self):
        """The current object's mask, HxW bool, or None."""
        return self.session.mask

    def snapshot(self, max_width=MAX_WIDTH):
        """Return what the canvas shows when the whole picture is seen, HxWx3 uint8 RGB, at most so many pixels wide."""
        height, width = self.image.shape[:2]
        objects = self.session.objects
        painted = _painted(objects, [self.session.answer(item) for item in objects])
        session = self.session
        return snapshot(
            self.image,
            View.fit(height, width, MAX_HEIGHT, max_width),
            painted=painted,
            points=session.points,
            box=session.box,
            opacity=self._opacity.value,
        )

    def save(self, folder="segments", overwrite=False):
        """Write masks, cut-outs, COCO JSON and the session into a folder; see `sam_nb.save_segments`.

        Returns
        -------
        pathlib.Path
            The folder.
        """
        about = {"prompts": self.session.to_json(), "picture": self._picture_name, "model": self.sam.name}
        return save_segments(self.session.segments(), self.image, folder, **about, overwrite=overwrite)

    def close(self):
        """Take the canvas off the page and end its thread."""
        if self._resting is not None:
            self._resting.cancel()
        self._thread.shutdown(wait=False)
        super().close()

    def __repr__(self):
        return f"PromptCanvas({self.session})"

    def _ipython_display_(self):
        """Show the canvas, and a picture that stands in for it where no kernel answers.

        JupyterLab shows an output's widget or nothing, so the picture is an output of its own, in front of the canvas;
        `static/pointer.css` hides it as long as the canvas is alive. VS Code and Colab build their pages in other ways:
        there the picture is the second form of one output.
        """
        canvas = super()._repr_mimebundle_()
        if "VSCODE_PID" in os.environ or "google.colab" in sys.modules:
            display(self._static_fallback() | canvas, raw=True)
        else:
            display(self._static_fallback(), raw=True, display_id=self.model_id)
            display(canvas, raw=True)
            self._is_shown = True

    def _static_fallback(self):
        """Return the picture that stands in for the canvas, as a mimebundle."""
        file = jpeg(self.snapshot(PLACEHOLDER_WIDTH))
        return {"image/jpeg": base64.b64encode(file).decode("ascii"), "text/plain": repr(self)}

    def _keep_picture(self, loop):
        """Bring the picture up to date once the hand rests, so that the notebook is saved with what was clicked."""
        self._touched = False
        if self._resting is not None:
            self._resting.cancel()

        def update():
            update_display(self._static_fallback(), raw=True, display_id=self.model_id)

        self._resting = loop.call_later(REST, self._guarded, update)

    # The parts -------------------------------------------------------------------------------------------

    def _build(self, hover):
        view = self.view
        self._canvas = MultiCanvas(4, width=view.canvas_width, height=view.canvas_height)
        self._canvas.layout = ipywidgets.Layout(max_width="100%", height="auto")
        self._picture_layer, self._mask_layer, self._hover_layer, self._prompt_layer = (
            self._canvas[index] for index in range(4)
        )
        self._picture_image = ipywidgets.Image(format="jpeg")
        self._mask_image = ipywidgets.Image(format="png")
        self._hover_image = ipywidgets.Image(format="png")
        self._pointer = PointerRelay(
            target=self._canvas,
            label="Picture to segment. Z: undo, Y: redo, N: new object, M: next mask, Delete: delete the object",
        )
        self._pointer.on_msg(lambda _, content, __: [self._guarded(self._heard, event) for event in content["events"]])
        # Where the relay cannot listen, ipycanvas's own events still give clicks and boxes.
        self._canvas.on_mouse_down(lambda x, y: self._guarded(self._heard, {"type": "down", "x": x, "y": y}))
        self._canvas.on_mouse_move(lambda x, y: self._guarded(self._heard, {"type": "move", "x": x, "y": y}))
        self._canvas.on_mouse_up(lambda x, y: self._guarded(self._heard, {"type": "up", "x": x, "y": y}))
        self._canvas.on_mouse_out(lambda x, y: self._guarded(self._heard, {"type": "up", "x": x, "y": y}))
        self._canvas.on_client_ready(lambda: self._guarded(self._redraw))

        def button(text, icon, tip, action):
            made = ipywidgets.Button(description=text, icon=icon, tooltip=tip)
            made.layout = ipywidgets.Layout(width="auto")
            made.on_click(lambda _: self._guarded(self._pressed, action))
            return made

        self._mode = ipywidgets.ToggleButtons(
            options=[("Include ", INCLUDE), ("Exclude ", EXCLUDE), ("Box ", BOX), ("Move ", MOVE)],
            icons=["plus", "times", "square-o", "arrows"],
            tooltips=["a click belongs to the object", "a click does not", "drag a box", "drag the picture"],
            style=ipywidgets.ToggleButtonsStyle(button_width="auto"),
        )
        self._mode.observe(lambda _: self._mode_changed(), "value")
        self._undo = button("", "undo", "undo (Z)", self.undo)
        self._redo = button("", "repeat", "redo (Y)", self.redo)
        self._clear = button("Clear", "eraser", "forget the current object's clicks", self.clear)
        self._new = button("New object", "plus-circle", "go on to the next object (N)", self.new_object)
        zoom = [
            button("", "search-plus", "closer (+, Ctrl + wheel)", partial(self._zoom, ZOOM)),
            button("", "search-minus", "farther (-)", partial(self._zoom, 1 / ZOOM)),
            button("", "arrows-alt", "the whole picture (0)", self._fit),
        ]
        self._chooser = ipywidgets.ToggleButtons(options=[], style=ipywidgets.ToggleButtonsStyle(button_width="auto"))
        self._chooser.observe(lambda _: self._guarded(self._pressed, self._choice_changed), "value")
        self._opacity = ipywidgets.FloatSlider(0.5, min=0, max=1, step=0.05, readout=False, description="opacity")
        self._opacity.layout = ipywidgets.Layout(width="200px")
        self._opacity.observe(lambda _: self._request("answer"), "value")
        self._hover = ipywidgets.Checkbox(bool(hover), description="preview under the mouse", indent=False)
        self._hover.layout = ipywidgets.Layout(width="auto")
        self._hover_asked = hover
        self._hover.observe(lambda _: self._hover_changed(), "value")
        self._folder = ipywidgets.Text("segments", description="save to", continuous_update=False)
        self._folder.layout = ipywidgets.Layout(width="240px")
        self._save = button("Save", "download", "masks, cut-outs, COCO JSON and the clicks as JSON", self._save_pressed)
        self._rows = ipywidgets.VBox()
        self._pool = []
        self._status = ipywidgets.HTML()
        row = ipywidgets.Layout(flex_flow="row wrap", align_items="center", grid_gap="4px")
        stage = ipywidgets.Box([self._canvas], layout=ipywidgets.Layout(overflow="hidden", width="fit-content"))
        stage.layout.max_width = "100%"
        super().__init__(
            [
                ipywidgets.Box([self._mode, self._undo, self._redo, self._clear, self._new, *zoom], layout=row),
                self._status,
                stage,
                ipywidgets.Box([self._chooser, self._opacity, self._hover], layout=row),
                self._rows,
                ipywidgets.Box([self._folder, self._save], layout=row),
                self._pointer,
            ]
        )
        self._hover_changed()
        self._redraw()

    # What the hand does ----------------------------------------------------------------------------------

    def _guarded(self, action, *arguments):
        """Do something and show in the status line if it failed: an exception of a callback is seen by nobody."""
        try:
            action(*arguments)
        except Exception as error:
            self._tell_error(error)

    def _pressed(self, action):
        self._touched |= not self._listing
        action()

    def _heard(self, event):
        # Nothing else changes what is saved: a mouse that moves about must not have the picture sent again.
        self._touched |= event["type"] in {"up", "key"}
        getattr(self, f"_on_{event['type']}")(event)

    def _on_down(self, event):
        button, place = event.get("button", 0), (event["x"], event["y"])
        if self._mode.value == MOVE or button == 1:
            kind = MOVE
        elif button == 2 or event.get("shift"):
            kind = EXCLUDE
        else:
            kind = self._mode.value
        self._hide_hover()
        self._drag = _Drag(kind, place, place)

    def _on_move(self, event):
        if self._drag is None:
            return
        before, now = self._drag.now, (event["x"], event["y"])
        self._drag = _Drag(self._drag.kind, self._drag.start, now)
        if self._drag.kind == MOVE:
            self._look(self.view.moved(now[0] - before[0], now[1] - before[1]))
        else:
            self._draw_prompts()

    def _on_up(self, event):
        if self._drag is None:
            return
        if self._drag.kind == MOVE:
            self._on_move(event)
        drag, self._drag = replace(self._drag, now=(event["x"], event["y"])), None
        if drag.is_box:
            self._draw_prompts()  # without the box that was being drawn: the session may refuse it
            corners = [self.view.clamped(*self.view.to_image(*place)) for place in (drag.start, drag.now)]
            (x0, x1), (y0, y1) = (sorted(side) for side in zip(*corners, strict=True))
            self.session.set_box(*(round(side, 2) for side in (x0, y0, x1, y1)))
        elif drag.kind in (INCLUDE, EXCLUDE):
            x, y = self.view.clamped(*self.view.to_image(*drag.start))
            self.session.add_point(round(x, 2), round(y, 2), int(drag.kind == INCLUDE))

    def _on_cancel(self, event):
        self._drag = None
        self._draw_prompts()

    def _on_hover(self, event):
        self._hovered = self.view.clamped(*self.view.to_image(event["x"], event["y"]))
        if not self.session.current.steps:
            self._request("hover")

    def _on_leave(self, event):
        self._hide_hover()

    def _on_wheel(self, event):
        self._look(self.view.zoomed(ZOOM ** -event["turn"], event["x"], event["y"]))

    def _on_key(self, event):
        keys = {
            "undo": self.undo,
            "redo": self.redo,
            "new": self.new_object,
            "delete": self.session.delete,
            "next": self._next_mask,
            "cancel": partial(self._on_cancel, None),
            "closer": partial(self._zoom, ZOOM),
            "farther": partial(self._zoom, 1 / ZOOM),
            "fit": self._fit,
        }
        keys[event["name"]]()

    def _next_mask(self):
        answer = self.session.answer()
        if answer is not None and len(answer.masks) > 1:
            self.choose((answer.index + 1) % len(answer.masks))

    def _choice_changed(self):
        if self._chooser.value is not None and not self._listing:
            self.choose(self._chooser.value)

    def _save_pressed(self):
        folder = self.save(self._folder.value.strip() or "segments")
        self._tell(f"saved in {folder}: masks, cutouts, coco.json, prompts.json")

    def _mode_changed(self):
        self._pointer.touch_draws = self._mode.value in (BOX, MOVE)

    def _hover_changed(self):
        self._pointer.hover = self._hover.value
        if not self._hover.value:
            self._hide_hover()

    def _zoom(self, factor):
        self._look(self.view.zoomed(factor, self.view.canvas_width / 2, self.view.canvas_height / 2))

    def _fit(self):
        self._look(self.view.whole())

    def _look(self, view):
        if view != self.view:
            self.view = view
            self._hide_hover()
            self._redraw()

    # The model's thread ----------------------------------------------------------------------------------

    def _decode(self, prompt):
        return self.sam.decode(self._encoded(), prompt)

    def _encoded(self):
        """Return the picture's embedding; whoever needs it first has it made."""
        with self._embedding_lock:
            if self._embedding is None:
                self._embedding = self.sam.encode(self.image, self._note_progress)
                if self._hover_asked is None:
                    self._is_quick = self._try_decoding() < HOVER_LIMIT
            return self._embedding

    def _try_decoding(self):
        """Return the seconds of a decoding: whether a preview under the mouse can keep up."""
        middle = Prompt(points=[(self.image.shape[1] / 2, self.image.shape[0] / 2)])
        self.sam.decode(self._embedding, middle)  # the first one is slow
        started = time.perf_counter()
        self.sam.decode(self._embedding, middle)
        return time.perf_counter() - started

    def _note_progress(self, share):
        self._progress = share

    def _changed(self):
        with _hold():  # one message: the page is slow to draw, and a click's mask waits behind it
            self._clear_hover()
            self._paint_prompts()
        self._request("answer")

    def _request(self, what):
        """Have the model's thread do something, once it is free; without an event loop do it now."""
        self._wanted.add(what)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            while self._wanted:
                self._guarded(lambda: self._finish(*self._prepare(self._take())))
            return
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._work(loop))

    async def _work(self, loop):
        while self._wanted:
            what = self._take()
            waiting = loop.create_task(self._tell_waiting(what))
            try:
                ready = await loop.run_in_executor(self._thread, self._prepare, what)
            except Exception as error:
                self._tell_error(error)
            else:
                # A newer step makes this answer stale; a preview is shown whenever it comes.
                if what == "hover" or "answer" not in self._wanted:
                    self._guarded(self._finish, *ready)
            finally:
                waiting.cancel()
        if self._is_shown and self._touched:
            self._keep_picture(loop)

    def _take(self):
        """Return what to do next: steps before previews."""
        what = "answer" if "answer" in self._wanted else "hover"
        self._wanted.discard(what)
        return what

    def _prepare(self, what):
        """Ask the model and paint the answer: the slow part, in the model's thread."""
        embedding = self._encoded()
        if what == "hover":
            point, view = self._hovered, self.view
            if point is None or self.session.current.steps:
                return what, None, None, view
            masks = self.sam.decode(embedding, Prompt(points=[point]))
            return what, None, masks_file([(masks.best, self.session.current.color)], view, 0.35), view
        objects, selected, view = self.session.objects, self.session.selected, self.view
        answers = [self.session.answer(item) for item in objects]
        file = masks_file(_painted(objects, answers), view, self._opacity.value)
        selected = min(selected, len(objects) - 1)  # the session may have moved on meanwhile
        return what, (objects, answers[selected], self._words(objects[selected], answers[selected])), file, view

    def _finish(self, what, result, file, view):
        """Show what was prepared: in the event loop, as every drawing."""
        if view != self.view:
            self._request(what)
        elif what == "hover":
            if file is not None and self._hovered is not None and not self.session.current.steps:
                self._show_layer(self._hover_layer, self._hover_image, file)
                self._previewed = True
        else:
            objects, answer, words = result
            if objects != self.session.objects:
                return  # the request that this change made is under way
            self._show_layer(self._mask_layer, self._mask_image, file)
            self._tell(words)
            self._list(answer)
            if self._hover_asked is None:
                self._hover_asked = self._hover.value = self._is_quick

    # Drawing ---------------------------------------------------------------------------------------------

    def _redraw(self):
        """Draw everything: for a new page, another part of the picture, or the first time."""
        self._picture_image.value = picture_file(self.image, self.view)
        with _hold():
            self._picture_layer.clear()
            self._picture_layer.draw_image(self._picture_image, 0, 0)
        self._draw_prompts()
        self._request("answer")

    def _show_layer(self, layer, image, file):
        image.value = file
        with _hold():
            layer.clear()
            layer.draw_image(image, 0, 0)

    def _hide_hover(self):
        with _hold():
            self._clear_hover()

    def _draw_prompts(self):
        with _hold():
            self._paint_prompts()

    def _clear_hover(self):
        self._hovered = None
        self._wanted.discard("hover")
        if self._previewed:
            self._previewed = False
            self._hover_layer.clear()

    def _paint_prompts(self):
        self._prompt_layer.clear()
        if self._drag is not None and self._drag.is_box:
            self._draw_box((*self._drag.start, *self._drag.now))
        elif self.session.box is not None:
            self._draw_box(self._box_on_canvas(self.session.box, self.view))
        for point in self.session.points:
            self._draw_point(*self.view.to_canvas(point.x, point.y), point.label)

    def _draw_box(self, corners):
        x0, y0, x1, y1 = corners
        box = (min(x0, x1), min(y0, y1), abs(x1 - x0), abs(y1 - y0))
        for width, color in ((4, "white"), (2, _css(BOX_COLOR))):
            self._prompt_layer.line_width = width
            self._prompt_layer.stroke_style = color
            self._prompt_layer.stroke_rect(*box)

    def _draw_point(self, x, y, label):
        layer = self._prompt_layer
        layer.fill_style = _css(POSITIVE if label else NEGATIVE)
        layer.stroke_style = "white"
        layer.line_width = 2
        layer.fill_circle(x, y, 9)
        layer.stroke_circle(x, y, 9)
        for (x0, y0), (x1, y1) in ARMS[label]:
            layer.stroke_line(x + x0, y + y0, x + x1, y + y1)

    @staticmethod
    def _box_on_canvas(box, view):
        return (*view.to_canvas(box.x0, box.y0), *view.to_canvas(box.x1, box.y1))

    # Words -----------------------------------------------------------------------------------------------

    def _tell(self, text, color="inherit"):
        self._status.value = f'<span style="color:{color}">{html.escape(text)}</span>'

    def _tell_error(self, error):
        self._tell(f"{type(error).__name__}: {error}", "#b91c1c")

    async def _tell_waiting(self, what):
        """Say what is being waited for, if it takes long enough to be noticed."""
        started = time.monotonic()
        await asyncio.sleep(0.3)
        while self._embedding is None:
            share = f"{self._progress:.0%} in " if self._progress else ""
            seconds = time.monotonic() - started
            self._tell(f"{self.sam.name}: encoding the picture, once for all clicks … {share}{seconds:.0f} s")
            await asyncio.sleep(0.3)
        if what == "answer":
            self._tell(f"{self.sam.name}: decoding …")

    def _words(self, item, answer):
        """Return what the status line says about an object and its answer."""
        if answer is None and item.steps:
            return "Only background clicks: click on the object too, or draw a box around it."
        if answer is None:
            return f"{self.sam.name} is ready. Click: this. Right click or Shift + click: not this. Drag: a box."
        area = np.count_nonzero(answer.mask)
        parts = [item.name]
        if len(answer.masks) > 1:
            parts.append(f"mask {answer.index + 1} of {len(answer.masks)}")
        parts.append(f"{area:,} pixels ({100 * area / answer.mask.size:.1f} %)")
        parts.append(f"predicted IoU {answer.masks.scores[answer.index]:.2f}")
        if self._ground_truths:
            name, value = max(
                ((name, iou(answer.mask, ground_truth)) for name, ground_truth in self._ground_truths.items()),
                key=lambda pair: pair[1],
            )
            if value or len(self._ground_truths) == 1:  # what none of several outlines touches is something else
                parts.append(f"true IoU {value:.2f}" + (f" ({name})" if name else ""))
        return " · ".join([*parts, self.sam.name])

    def _list(self, answer):
        """Bring the buttons, the chooser and the list of objects up to date."""
        self._listing = True
        try:
            self._undo.disabled, self._redo.disabled = not self.session.can_undo, not self.session.can_redo
            self._clear.disabled = self._new.disabled = not self.session.current.steps
            several = answer is not None and len(answer.masks) > 1
            scores = answer.masks.scores if several else []
            options = tuple((f"mask {index + 1}: {score:.2f}", index) for index, score in enumerate(scores))
            if self._chooser.options != options:
                self._chooser.options = options
            if several:
                self._chooser.value = answer.index
            self._chooser.layout.visibility = "visible" if several else "hidden"
            objects = self.session.objects
            # Rows are kept: a new widget for every change would fill the page's memory.
            while len(self._pool) < len(objects):
                self._pool.append(_Row(self, len(self._pool)))
            for row, item in zip(self._pool, objects, strict=False):
                row.show(item, item is self.session.current)
            if len(self._rows.children) != len(objects):
                self._rows.children = self._pool[: len(objects)]
        finally:
            self._listing = False


class _Row(ipywidgets.HBox):
    """One object in the list: its colour (press to go on with it), its name, its class, and a button to delete it."""

    def __init__(self, owner, index):
        def layout(width):
            return ipywidgets.Layout(width=width)

        self._color = ipywidgets.Button(tooltip="go on with this object", layout=layout("40px"))
        self._name = ipywidgets.Text(continuous_update=False, layout=layout("160px"))
        self._category = ipywidgets.Text(continuous_update=False, layout=layout("160px"), tooltip="its class")
        delete = ipywidgets.Button(icon="trash", tooltip="delete this object (Delete)", layout=layout("40px"))
        super().__init__([self._color, self._name, self._category, delete])
        session = owner.session

        def rename(_):
            if owner._listing:
                return
            try:
                session.rename(index, self._name.value, self._category.value)
            except ValueError as error:
                owner._tell_error(error)
                item = session.objects[index]
                self.show(item, item is session.current)  # a refused name gives way to the old one

        self._name.observe(rename, "value")
        self._category.observe(rename, "value")
        self._color.on_click(lambda _: owner._guarded(owner._pressed, partial(session.select, index)))
        delete.on_click(lambda _: owner._guarded(owner._pressed, partial(session.delete, index)))

    def show(self, item, is_current):
        """Show a `PromptedObject`."""
        self._color.style.button_color = _css(item.color)
        # Not an icon: a button that has neither text nor icon keeps its last one on the page.
        self._color.description = "✎" if is_current else "\N{NO-BREAK SPACE}"
        self._name.value, self._category.value = item.name, item.category


def _css(color):
    return "#{:02x}{:02x}{:02x}".format(*color)


@contextlib.contextmanager
def _hold():
    """`hold_canvas` that an exception inside cannot leave switched on, which would stop all drawing for good."""
    with _DRAWING:
        failure = None
        with hold_canvas():
            try:
                yield
            except Exception as error:
                failure = error
        if failure is not None:
            raise failure


def _painted(objects, answers):
    """Return the masks and colours of the objects about which something was asked."""
    pairs = zip(objects, answers, strict=True)
    return [(answer.mask, item.color) for item, answer in pairs if answer is not None]
