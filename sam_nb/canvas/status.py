"""The status line of a canvas, and its words."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import ipywidgets
import numpy as np
import numpy.typing as npt

from sam_nb.masks import iou
from sam_nb.session import Decoded, PromptedObject

if TYPE_CHECKING:
    from sam_nb.canvas.worker import Waiting

ERROR_COLOR = "#b91c1c"


class StatusLine(ipywidgets.HTML):
    """One line of text."""

    @property
    def text(self) -> str:
        """What the line says, without markup."""
        return html.unescape(re.sub("<[^>]*>", "", self.value))

    def show(self, text: str, color: str = "inherit") -> None:
        """Show a text, in a CSS colour."""
        self.value = f'<span style="color:{color}">{html.escape(text)}</span>'

    def show_error(self, error: Exception) -> None:
        """Show what failed."""
        self.show(f"{type(error).__name__}: {error}", ERROR_COLOR)

    def guard(self, action: Callable[[], object]) -> None:
        """Do something and show if it failed: an exception of a callback is seen by nobody."""
        try:
            action()
        except Exception as error:
            self.show_error(error)


def describe_waiting(waiting: Waiting, model: str) -> str:
    """Return what the status line says while a model of this name keeps the user waiting."""
    if not waiting.is_encoding:
        return f"{model}: decoding …"
    share = f"{waiting.progress:.0%} in " if waiting.progress else ""
    return f"{model}: encoding the image, once for all clicks … {share}{waiting.seconds:.0f} s"


def describe(
    item: PromptedObject,
    decoded: Decoded | None,
    model: str,
    ground_truth: Mapping[str, npt.NDArray[np.bool_]],
) -> str:
    """Return what the status line says about an object.

    Parameters
    ----------
    item : sam_nb.session.PromptedObject
    decoded : sam_nb.session.Decoded, or None
        What the model made of its prompt, if it has one.
    model : str
        The model's name.
    ground_truth : mapping of str to HxW numpy.ndarray of bool
        The IoU with the best match is part of the line.
    """
    if decoded is None and item.steps:
        return "Only background clicks: click on the object too, or draw a box around it."
    if decoded is None:
        return f"{model} is ready. Click: this. Right click or Shift + click: not this. Drag: a box."
    area = int(np.count_nonzero(decoded.mask))
    parts = [item.name]
    if len(decoded.masks) > 1:
        parts.append(f"mask {decoded.index + 1} of {len(decoded.masks)}")
    parts.append(f"{area:,} pixels ({100 * area / decoded.mask.size:.1f} %)")
    parts.append(f"predicted IoU {decoded.masks.scores[decoded.index]:.2f}")
    if ground_truth:
        values = {name: iou(decoded.mask, mask) for name, mask in ground_truth.items()}
        name = max(values, key=values.__getitem__)
        if values[name] or len(values) == 1:  # what overlaps none of several objects is something else
            parts.append(f"true IoU {values[name]:.2f}" + (f" ({name})" if name else ""))
    return " · ".join([*parts, model])
