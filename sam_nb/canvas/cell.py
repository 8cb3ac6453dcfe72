"""What a cell shows: a widget that closes whole, and that is closed when the cell that made it runs again.

ipywidgets keeps each widget until it is closed, and `close` closes the one widget alone: its children, layers and
threads would stay, and with them the image.
"""

from __future__ import annotations

import contextlib
import re
import sys
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator

import ipywidgets
import numpy as np
import numpy.typing as npt
from IPython import get_ipython

from sam_nb.canvas.fallback import StaticFallback, is_for_output
from sam_nb.canvas.status import StatusLine
from sam_nb.canvas.worker import CallLater

# By cell: the run that made widgets last, and what it made.
_made: dict[str, tuple[str, list[weakref.ref[CellWidget]]]] = {}


class CellWidget(ipywidgets.VBox):
    """A widget with a status line and a static fallback.

    A closed one is no longer on the page nor among the cell's outputs (`Out`), and shows its static fallback where it
    is displayed again. What it holds can still be used by code, and is freed with the last variable that names it.

    Parameters
    ----------
    render : callable
        Returns the static image, HxWx3 uint8 RGB.
    call_later : callable
        Takes seconds and a function.

    Attributes
    ----------
    status : StatusLine
    is_closed : bool
    """

    is_closed = False

    def __init__(self, *, render: Callable[[], npt.NDArray[np.uint8]], call_later: CallLater) -> None:
        self._at_close = contextlib.ExitStack()  # first: what cannot be built to its end is closed, too
        _close_earlier(self)
        super().__init__()
        self.status = StatusLine()
        self._fallback = StaticFallback(
            render=render, describe=self.__repr__, guard=self.status.guard, call_later=call_later
        )
        self._at_close.callback(self._fallback.close)

    def close(self) -> None:
        """Remove all of it from the page, end its thread and its timers, and let go of what they hold."""
        if self.is_closed or "_at_close" not in self.__dict__ or sys.is_finalizing():
            return  # Python, on its way out, deletes everything anyway
        self.is_closed = True
        self._at_close.close()
        close_all([self.status, *self._parts(), *_referred(self)], [self, *self._foreign()])
        _forget_output(self)
        super().close()

    def _parts(self) -> Iterable[ipywidgets.Widget]:
        """Return widgets that are closed with it, beside its children."""
        return ()

    def _foreign(self) -> Collection[ipywidgets.Widget]:
        """Return widgets on it that are not its own, and stay."""
        return ()

    def __deepcopy__(self, _: object) -> CellWidget:
        raise TypeError("what is on the page can be neither copied nor pickled: keep session.to_json(), or its values")

    def __reduce_ex__(self, _: object) -> str:
        return self.__deepcopy__(None)  # type: ignore[return-value]  # it raises

    @property
    def _ipython_display_(self) -> Callable[[], None]:
        if is_for_output():  # which takes a mimebundle, and nothing that displays itself
            raise AttributeError("_ipython_display_")
        return self._display

    def _display(self) -> None:
        if self.is_closed:
            self._fallback.show_alone()
        else:
            self._fallback.show(super()._repr_mimebundle_(), self.model_id)


def close_all(widgets: Iterable[ipywidgets.Widget], without: Collection[ipywidgets.Widget] = ()) -> None:
    """Close widgets and all that they refer to, children, layouts, styles, layers; and nothing that is in `without`."""
    seen = {id(widget) for widget in without}
    waiting = [*widgets]
    while waiting:
        widget = waiting.pop()
        if id(widget) not in seen:
            seen.add(id(widget))
            waiting += _referred(widget)
            widget.close()


def _referred(widget: ipywidgets.Widget) -> Iterator[ipywidgets.Widget]:
    for name in widget.keys:
        if name != "_canvas_manager":  # one for all canvases
            value = getattr(widget, name)
            for each in value if isinstance(value, list | tuple) else [value]:
                if isinstance(each, ipywidgets.Widget):
                    yield each


def _close_earlier(widget: CellWidget) -> None:
    """Close what an earlier run of the running cell made, whose output is gone; note that this one made a widget."""
    cell, run = _running()
    if cell is None:
        return
    last_run, earlier = _made.get(cell, (run, []))
    if last_run != run:
        for reference in earlier:
            if (other := reference()) is not None:
                other.close()
        earlier = []
    _made[cell] = run, [*earlier, weakref.ref(widget)]


def _running() -> tuple[str | None, str]:
    """Return which cell runs, as the front end names it, or None, and which of its runs it is."""
    parent: dict[str, dict[str, str]] = getattr(get_ipython(), "get_parent", dict)() or {}
    return parent.get("metadata", {}).get("cellId"), parent.get("header", {}).get("msg_id", "")


def _forget_output(widget: CellWidget) -> None:
    """Remove a widget from IPython's history of outputs, Out[3], _3 and _, which would hold it for ever."""
    shell = get_ipython()
    if shell is None:
        return
    history = shell.user_ns.get("_oh", {})
    for number in [number for number, value in history.items() if value is widget]:
        del history[number]
    hook = shell.displayhook
    for names in (shell.user_ns, shell.user_ns_hidden, hook.__dict__):
        for name in [name for name, value in names.items() if value is widget]:
            if re.fullmatch("_{1,3}", name):
                names[name] = ""  # as IPython begins
            elif re.fullmatch(r"_\d+", name):
                del names[name]
