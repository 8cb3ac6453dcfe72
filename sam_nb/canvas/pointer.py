"""What the hand does over a canvas, with all that ipycanvas leaves out: button, Shift key, release outside, focus."""

from pathlib import Path

import anywidget
import ipywidgets
import traitlets


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
        Least time between two reported movements, milliseconds.
    label : str
        What a screen reader says.
    """

    _esm = Path(__file__).parent / "static" / "pointer.js"
    _css = Path(__file__).parent / "static" / "pointer.css"

    target = traitlets.Instance(ipywidgets.DOMWidget).tag(sync=True, **ipywidgets.widget_serialization)
    hover = traitlets.Bool(False).tag(sync=True)
    touch_draws = traitlets.Bool(False).tag(sync=True)
    interval = traitlets.Int(33).tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)
