"""Figures to play with: an image that is drawn again whenever a slider, a switch or the pointer on it moves."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import ipywidgets
import numpy as np
import numpy.typing as npt

from sam_nb.canvas.cell import CellWidget, close_all
from sam_nb.canvas.gestures import MIN_BOX
from sam_nb.canvas.layers import Layers, encode_image, hold, snapshot
from sam_nb.canvas.pointer import PointerEvent, PointerRelay
from sam_nb.canvas.view import View
from sam_nb.canvas.worker import CallLater, Cancellable, Clock, call_later
from sam_nb.figures import titled
from sam_nb.images import load_image
from sam_nb.prompts import Prompt
from sam_nb.session import Box, Point

if TYPE_CHECKING:
    from sam_nb.images import ImageLike

MAX_WIDTH, MAX_HEIGHT = 800, 520  # of the image on the page, pixels
FALLBACK_WIDTH = 640  # of the static image: it is saved with the notebook
MAX_BUTTONS = 5  # a list of more choices becomes a menu

Draw = Callable[..., "tuple[ImageLike, str]"]
"""Takes the values of the controls by name; returns an image and its title."""


def play(draw: Draw, **controls: Any) -> Player:
    """Return a `Player`: an image with controls, drawn again by `draw` whenever one of them moves.

    Parameters
    ----------
    draw : callable
        Takes the values of the controls by name; returns an image, anything that `load_image` takes, and its title.
    **controls
        By the names that `draw` gives its parameters: ``(low, high)`` or ``(low, high, step)`` for a slider, a list of
        choices for buttons, True or False for a checkbox, a `Prompt` for the pointer on the image, or a widget of
        ipywidgets. Sliders and buttons begin at the default that `draw` has for the parameter.

    Raises
    ------
    TypeError
        A parameter of `draw` has no control, a control no parameter, or a control is nothing of the above.
    ValueError
        `draw` did not return an image.
    """
    return Player(draw, controls)


class Player(CellWidget):
    """An image that is drawn again whenever a control moves; `play` makes one.

    When the cell that made it runs again, it is closed; `set`, `image` and `title` still work by code.

    Parameters
    ----------
    draw : callable
    controls : dict of str to objects
        As in `play`.
    clock, call_later : callable, optional
        As in `PromptCanvas`.

    Attributes
    ----------
    controls : dict of str to ipywidgets.Widget
        By name, but for the prompts, which are set on the image.
    values : dict
        What `draw` got last, by name.
    title : str
    image : HxWx3 numpy.ndarray of uint8, RGB
        What `draw` returned last.
    """

    def __init__(
        self,
        draw: Draw,
        controls: dict[str, Any],
        *,
        clock: Clock = time.perf_counter,
        call_later: CallLater = call_later,
    ) -> None:
        self._draw, self._clock, self._call_later = draw, clock, call_later
        self._name, prompt = _prompt_of(controls)
        self._given = [widget for widget in controls.values() if isinstance(widget, ipywidgets.Widget)]
        self.controls = _widgets(draw, {name: given for name, given in controls.items() if name != self._name})
        self.values: dict[str, Any] = {name: widget.value for name, widget in self.controls.items()}
        if self._name is not None:
            self.values[self._name] = prompt
        try:
            self.image, self.title = _drawn(draw, self.values)
        except BaseException:  # it often fails at first
            close_all(self.controls.values(), self._given)
            raise
        super().__init__(render=self._static, call_later=call_later)
        self._seconds = 0.0  # that the last drawing took
        self._timer: Cancellable | None = None
        self._drag: tuple[float, float] | None = None  # where the button went down, canvas pixels
        self._view = _fit(self.image)
        self._layers = Layers(self._view.canvas_width, self._view.canvas_height)
        self._at_close.callback(self._cancel_timer)
        self._compose()
        self._show()

    def set(self, **values: Any) -> None:
        """Move controls by code, by their names; a prompt is set by a `Prompt`.

        Raises
        ------
        KeyError
            There is no control of this name.
        """
        for name, value in values.items():
            if name not in self.values:
                raise KeyError(f"no control {name!r}: expected one of {', '.join(self.values)}")
            if name == self._name:
                self.values[name] = value
                self._redraw()
            else:
                self.controls[name].value = value

    def __repr__(self) -> str:
        return f"Player({self.title})"

    def _compose(self) -> None:
        for name, widget in self.controls.items():
            handler = partial(self._on_control, name)
            widget.observe(handler, "value")
            if widget in self._given:  # the others end with it
                self._at_close.callback(widget.unobserve, handler, "value")
        canvas = self._layers.canvas
        is_pointed = self._name is not None
        relay = PointerRelay(target=canvas, touch_draws=is_pointed, label="Image of " + ", ".join(self.values))
        if is_pointed:
            relay.on_event(lambda event: self.status.guard(partial(self._on_event, event)))
        canvas.on_client_ready(lambda: self.status.guard(self._show))
        stage = ipywidgets.Box([canvas], layout={"overflow": "hidden", "width": "fit-content", "max_width": "100%"})
        self.children = [*self.controls.values(), self.status, stage, relay]

    def _parts(self) -> list[ipywidgets.Widget]:
        return self._layers.widgets

    def _foreign(self) -> list[ipywidgets.Widget]:
        return self._given

    def _on_control(self, name: str, change: dict[str, Any]) -> None:
        self.values[name] = change["new"]
        self.status.guard(self._redraw)

    def _redraw(self) -> None:
        self._timer = None
        started = self._clock()
        self.image, self.title = _drawn(self._draw, self.values)
        self._show()
        self._seconds = self._clock() - started
        self._fallback.mark_stale()
        self._fallback.update_later()

    def _show(self) -> None:
        if self.is_closed:
            return
        view = _fit(self.image)
        if view != self._view:
            self._view = view
            self._layers.canvas.width, self._layers.canvas.height = view.canvas_width, view.canvas_height
        jpeg = encode_image(self.image, view)
        with hold():
            self._layers.show_image(jpeg)
            self._show_prompt()
        self.status.show(self.title)

    def _show_prompt(self) -> None:
        points, box = self._marks()
        corners = None
        if box is not None:
            corners = (*self._view.to_canvas(box.x0, box.y0), *self._view.to_canvas(box.x1, box.y1))
        self._layers.show_prompts(points, corners, self._view)

    def _marks(self) -> tuple[list[Point], Box | None]:
        """Return the prompt as the canvas draws it."""
        prompt = None if self._name is None else self.values[self._name]
        if prompt is None:
            return [], None
        points = [] if prompt.points is None else zip(prompt.points.tolist(), prompt.labels.tolist(), strict=True)
        box = None if prompt.box is None else Box(*prompt.box.tolist())
        return [Point(x, y, int(label)) for (x, y), label in points], box

    def _static(self) -> npt.NDArray[np.uint8]:
        height, width = self.image.shape[:2]
        view = View.fit(height, width, MAX_HEIGHT, FALLBACK_WIDTH)
        points, box = self._marks()
        return titled(snapshot(self.image, view, painted=[], points=points, box=box, opacity=1), self.title)

    # The pointer -----------------------------------------------------------------------------------------

    def _on_event(self, event: PointerEvent) -> None:
        if event.type == "down":
            self._drag = event.place
        elif event.type == "up" and self._drag is not None:
            self._point(self._drag, event.place)
            self._drag = None
            self._redraw_now()
        elif event.type == "move" and self._drag is not None and self._point(self._drag, event.place):
            with hold():
                self._show_prompt()
            if self._timer is None:  # movements come faster than images: half the time is theirs
                self._timer = self._call_later(self._seconds, partial(self.status.guard, self._redraw))
        elif event.type == "cancel":
            self._drag = None

    def _point(self, start: tuple[float, float], now: tuple[float, float]) -> bool:
        """Move the point of the prompt, or draw its box; return whether there was anything to change."""
        before: Prompt = self.values[str(self._name)]
        (x0, y0), (x1, y1) = (self._view.clamped(*self._view.to_image(*place)) for place in (start, now))
        if before.box is None:
            points = np.array([*before.points[:-1], (x1, y1)]) if before.points is not None else np.array([(x1, y1)])
            self.values[str(self._name)] = Prompt(points=points, labels=before.labels)
        elif min(abs(start[0] - now[0]), abs(start[1] - now[1])) < MIN_BOX:
            return False
        else:
            box = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
            self.values[str(self._name)] = Prompt(points=before.points, labels=before.labels, box=box)
        return True

    def _redraw_now(self) -> None:
        self._cancel_timer()
        self._redraw()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _prompt_of(controls: dict[str, Any]) -> tuple[str | None, Prompt | None]:
    """Return name and value of the control that is a `Prompt`, if there is one."""
    prompts = {name: given for name, given in controls.items() if isinstance(given, Prompt)}
    if len(prompts) > 1:
        raise TypeError(f"controls {', '.join(prompts)}: expected at most one Prompt, there is one pointer")
    return next(iter(prompts.items()), (None, None))


def _widgets(draw: Draw, controls: dict[str, Any]) -> dict[str, ipywidgets.Widget]:
    parameters = inspect.signature(draw).parameters
    widgets = {}
    for name, given in controls.items():
        default = parameters[name].default if name in parameters else inspect.Parameter.empty
        widget = _widget(given, default)
        if widget is None:
            raise TypeError(
                f"control {name!r}: expected (low, high), (low, high, step), a list, True or False, a Prompt or a "
                f"widget, got {given!r}"
            )
        widget.description = widget.description or name.replace("_", " ")
        widgets[name] = widget
    return widgets


def _widget(given: object, default: object) -> ipywidgets.Widget | None:
    """Return the widget for a control, as `ipywidgets.interact` understands it; short lists become buttons."""
    if isinstance(given, list | range) and 0 < len(given) <= MAX_BUTTONS:
        start = default if default in given else given[0]
        return ipywidgets.ToggleButtons(options=list(given), value=start, style={"button_width": "auto"})
    widget = ipywidgets.interactive.widget_from_abbrev(given, default)
    if isinstance(given, tuple):
        widget.layout.width, widget.layout.max_width = "38em", "100%"
        widget.style.description_width = "11em"
    return widget


def _drawn(draw: Draw, values: dict[str, Any]) -> tuple[npt.NDArray[np.uint8], str]:
    drawn = draw(**values)
    if not (isinstance(drawn, tuple) and len(drawn) == 2 and isinstance(drawn[1], str)):
        raise ValueError(f"draw returned {type(drawn).__name__}: expected an image and its title, (image, title)")
    return load_image(drawn[0]), drawn[1]


def _fit(image: npt.NDArray[np.uint8]) -> View:
    height, width = image.shape[:2]
    return View.fit(height, width, MAX_HEIGHT, MAX_WIDTH)
