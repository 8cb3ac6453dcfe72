"""The static image that a notebook shows in place of a canvas where no kernel answers."""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from IPython.display import display, update_display

from sam_nb.canvas.layers import encode_jpeg
from sam_nb.canvas.worker import CallLater, Cancellable

REST = 1.0  # seconds after the last step until the image is updated


class StaticFallback:
    """An image in front of a canvas, updated once the user pauses, so that it is saved with the notebook.

    Parameters
    ----------
    render : callable
        Returns the image, HxWx3 uint8 RGB.
    describe : callable
        Returns the text for where no image can be shown.
    guard : callable
        Runs the update and reports its failure.
    call_later : callable
        Takes seconds and a function.
    """

    def __init__(
        self,
        *,
        render: Callable[[], npt.NDArray[np.uint8]],
        describe: Callable[[], str],
        guard: Callable[[Callable[[], None]], None],
        call_later: CallLater,
    ) -> None:
        self._render, self._describe = render, describe
        self._guard, self._call_later = guard, call_later
        self._display_id: str | None = None  # of the image's output, in front of the canvas
        self._is_stale = False
        self._timer: Cancellable | None = None

    def show_alone(self) -> None:
        """Display the image."""
        display(self._bundle(), raw=True)

    def show(self, canvas: dict[str, object], display_id: str) -> None:
        """Display a canvas, given as a mimebundle, and the image, under a display ID.

        JupyterLab shows an output's widget or nothing, so the image is an output of its own, in front of the canvas;
        `static/pointer.css` hides it as long as the canvas is alive. VS Code and Colab build their pages in other ways:
        there the image is the second form of one output.
        """
        if "VSCODE_PID" in os.environ or "google.colab" in sys.modules:
            display(self._bundle() | canvas, raw=True)
        else:
            display(self._bundle(), raw=True, display_id=display_id)
            display(canvas, raw=True)
            self._display_id = display_id

    def mark_stale(self) -> None:
        """Note that the user changed something: only then is the notebook's output changed after its cell has run."""
        self._is_stale = True

    def update_later(self) -> None:
        """Update the image after `REST` seconds without another call, if the user changed something."""
        if self._display_id is None or not self._is_stale:
            return
        self._is_stale = False
        self.cancel()
        self._timer = self._call_later(REST, lambda: self._guard(self._update))

    def cancel(self) -> None:
        """Cancel the coming update, if any."""
        if self._timer is not None:
            self._timer.cancel()

    def close(self) -> None:
        """Leave the image as it is from now on."""
        self.cancel()
        self._display_id = None

    def _update(self) -> None:
        update_display(self._bundle(), raw=True, display_id=self._display_id)

    def _bundle(self) -> dict[str, object]:
        file = encode_jpeg(self._render())
        return {"image/jpeg": base64.b64encode(file).decode("ascii"), "text/plain": self._describe()}


def is_for_output() -> bool:
    """Tell whether a display is prepared for `ipywidgets.Output.append_display_data`, which nothing else tells."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_name != "append_display_data":
        frame = frame.f_back  # type: ignore[assignment]  # None after the last
    return frame is not None and str(frame.f_globals.get("__name__")).startswith("ipywidgets.")
