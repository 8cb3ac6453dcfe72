"""What events mean: clicks, boxes and keys become steps of the session, wheel and middle button move the view."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from sam_nb.canvas.painter import Painter
from sam_nb.canvas.pointer import PointerEvent
from sam_nb.canvas.view import ZOOM
from sam_nb.session import Session

MIN_BOX = 4  # canvas pixels; a shorter drag is a click that slipped

INCLUDE, EXCLUDE, BOX, MOVE = "include", "exclude", "box", "move"


@dataclass(frozen=True)
class Drag:
    """A button that is down.

    Attributes
    ----------
    kind : str
        What it means: `INCLUDE`, `EXCLUDE`, `BOX` or `MOVE`.
    start, now : (float, float)
        Where it went down and where it is, canvas pixels.
    """

    kind: str
    start: tuple[float, float]
    now: tuple[float, float]

    @property
    def is_box(self) -> bool:
        """Whether it has gone far enough to be a box."""
        return self.kind != MOVE and all(abs(a - b) >= MIN_BOX for a, b in zip(self.start, self.now, strict=True))


class Gestures:
    """Turns events into steps of a session and into views of its image.

    Parameters
    ----------
    session : Session
    painter : Painter
    mode : callable
        Returns what the left button means: `INCLUDE`, `EXCLUDE`, `BOX` or `MOVE`.
    """

    def __init__(self, session: Session, painter: Painter, mode: Callable[[], str]) -> None:
        self._session, self._painter, self._mode = session, painter, mode
        self._drag: Drag | None = None
        self._handlers: dict[str, Callable[[PointerEvent], None]] = {
            "down": self._on_down,
            "move": self._on_move,
            "up": self._on_up,
            "cancel": lambda _: self._cancel(),
            "hover": lambda event: painter.preview(event.x, event.y),
            "leave": lambda _: painter.clear_preview(),
            "wheel": lambda event: painter.look(painter.view.zoomed(ZOOM**-event.turn, event.x, event.y)),
            "key": lambda event: _entry(self._keys, event.name, "key")(),
        }
        self._keys: dict[str, Callable[[], None]] = {
            "undo": session.undo,
            "redo": session.redo,
            "new": session.new_object,
            "delete": session.delete,
            "next": self._choose_next,
            "cancel": self._cancel,
            "zoom_in": partial(painter.zoom, ZOOM),
            "zoom_out": partial(painter.zoom, 1 / ZOOM),
            "fit": painter.fit,
        }

    def handle(self, event: PointerEvent) -> None:
        """Do what an event means.

        Raises
        ------
        ValueError
            There is no such event or key, or the session refuses the step.
        """
        _entry(self._handlers, event.type, "event")(event)

    def _on_down(self, event: PointerEvent) -> None:
        if self._mode() == MOVE or event.button == 1:
            kind = MOVE
        elif event.button == 2 or event.shift:
            kind = EXCLUDE
        else:
            kind = self._mode()
        self._painter.clear_preview()
        self._drag = Drag(kind, event.place, event.place)

    def _on_move(self, event: PointerEvent) -> None:
        if self._drag is None:
            return
        before = self._drag.now
        self._drag = drag = replace(self._drag, now=event.place)
        if drag.kind == MOVE:
            self._painter.look(self._painter.view.moved(event.x - before[0], event.y - before[1]))
        else:
            self._painter.show_dragged_box((*drag.start, *drag.now) if drag.is_box else None)

    def _on_up(self, event: PointerEvent) -> None:
        if self._drag is None:
            return
        if self._drag.kind == MOVE:
            self._on_move(event)
        drag, self._drag = replace(self._drag, now=event.place), None
        self._painter.show_dragged_box(None)  # the session may refuse it
        if drag.is_box:
            (x0, y0), (x1, y1) = map(self._point_at, (drag.start, drag.now))
            self._session.set_box(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
        elif drag.kind in (INCLUDE, EXCLUDE):
            self._session.add_point(*self._point_at(drag.start), int(drag.kind == INCLUDE))

    def _cancel(self) -> None:
        self._drag = None
        self._painter.show_dragged_box(None)

    def _choose_next(self) -> None:
        decoded = self._session.decoded()
        if decoded is not None and len(decoded.masks) > 1:
            self._session.choose((decoded.index + 1) % len(decoded.masks))

    def _point_at(self, place: tuple[float, float]) -> tuple[float, float]:
        """Return the nearest pixel of the image to a place on the canvas, to a hundredth."""
        view = self._painter.view
        x, y = view.clamped(*view.to_image(*place))
        return round(x, 2), round(y, 2)


def _entry(table: dict[str, Callable[..., None]], name: str, kind: str) -> Callable[..., None]:
    if name not in table:
        raise ValueError(f"no {kind} {name!r}: expected one of {', '.join(table)}")
    return table[name]
