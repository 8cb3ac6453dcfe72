"""Pointer and keyboard over a canvas, with all that ipycanvas leaves out: button, Shift, release outside, focus."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anywidget
import ipywidgets
import traitlets

_STATIC = Path(__file__).parent / "static"


@dataclass(frozen=True)
class PointerEvent:
    """What `static/pointer.js` reports; fields that an event's type does not have keep their defaults.

    Attributes
    ----------
    type : str
        "down", "move", "up", "cancel", "hover", "leave", "wheel" or "key".
    x, y : float
        Canvas pixels from its corner.
    button : int
        0 left, 1 middle, 2 right.
    shift : bool
        Whether Shift was held.
    pointer : str
        "mouse", "pen" or "touch".
    turn : int
        Of the wheel: -1 away from the user, 1 towards.
    name : str
        What the key means, such as "undo".
    """

    type: str
    x: float = 0.0
    y: float = 0.0
    button: int = 0
    shift: bool = False
    pointer: str = "mouse"
    turn: int = 0
    name: str = ""

    @property
    def place(self) -> tuple[float, float]:
        """(x, y), canvas pixels."""
        return self.x, self.y


class PointerRelay(anywidget.AnyWidget):
    """Reports pointer and keys over an ipycanvas (`static/pointer.js`).

    Attributes
    ----------
    target : ipywidgets.DOMWidget
        The canvas.
    hover : bool
        Whether movements with no button pressed are reported.
    touch_draws : bool
        Whether a finger draws on the canvas; else it taps, and moving it scrolls the page.
    interval : int
        Shortest time between two reported movements, milliseconds.
    label : str
        What a screen reader says.
    """

    # As text: of a path, anywidget would watch the file and keep each widget for ever, closed or not.
    _esm = (_STATIC / "pointer.js").read_text(encoding="utf-8")
    _css = (_STATIC / "pointer.css").read_text(encoding="utf-8")

    target = traitlets.Instance(ipywidgets.DOMWidget).tag(sync=True, **ipywidgets.widget_serialization)
    hover = traitlets.Bool(False).tag(sync=True)
    touch_draws = traitlets.Bool(False).tag(sync=True)
    interval = traitlets.Int(33).tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)

    def on_event(self, handler: Callable[[PointerEvent], None]) -> None:
        """Have a handler called for each `PointerEvent`."""

        def on_message(_: object, content: dict[str, list[dict[str, object]]], __: object) -> None:
            for record in content["events"]:
                handler(PointerEvent(**record))  # type: ignore[arg-type]  # pointer.js keeps to the fields

        self.on_msg(on_message)
