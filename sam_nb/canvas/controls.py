"""The buttons, sliders and rows around a canvas. They change nothing themselves: they call what they are given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import ipywidgets

from sam_nb.canvas.gestures import BOX, EXCLUDE, INCLUDE, MOVE
from sam_nb.canvas.layers import css_color
from sam_nb.session import Decoded, PromptedObject, Session

Action = Callable[[], None]


@dataclass(frozen=True)
class Actions:
    """What the controls call.

    Attributes
    ----------
    undo, redo, clear, new_object, zoom_in, zoom_out, fit : callable
        Without arguments.
    choose, select, delete : callable
        Take the index of a mask, of an object, of an object.
    rename : callable
        Takes an object's index, its name and its class.
    save : callable
        Takes the name of a folder, and whether what is in it may be overwritten; returns whether it was written, which
        it is not if there is such a folder already and it may not.
    """

    undo: Action
    redo: Action
    clear: Action
    new_object: Action
    zoom_in: Action
    zoom_out: Action
    fit: Action
    choose: Callable[[int], None]
    select: Callable[[int], None]
    delete: Callable[[int], None]
    rename: Callable[[int, str, str], None]
    save: Callable[[str, bool], bool]


class Controls:
    """The controls of a canvas, in groups that its owner lays out.

    Parameters
    ----------
    actions : Actions
    press : callable
        Takes what a pressed button does, and does it.
    preview : bool
        Whether the preview is switched on.

    Attributes
    ----------
    above, below, rows, saving : ipywidgets.Box
        The groups: buttons, what concerns the masks, the list of objects (of `ObjectRow`), saving.
    mode, chooser : ipywidgets.ToggleButtons
    undo, redo, clear, new_object, save, replace : ipywidgets.Button
        `replace` is visible only after `save` found the folder to exist already.
    widgets : list of ipywidgets.Widget
        The groups, and the rows that are not in use.
    opacity : ipywidgets.FloatSlider
    preview : ipywidgets.Checkbox
    folder : ipywidgets.Text
    """

    def __init__(self, actions: Actions, press: Callable[[Action], None], *, preview: bool = False) -> None:
        self._actions, self._press = actions, press
        self._updating = False  # the controls are being set by the session, not by the user
        self._pool: list[ObjectRow] = []
        self.above = _wrapping_row(self._make_buttons())
        self.below = _wrapping_row(self._make_mask_controls(preview))
        self.rows = ipywidgets.VBox()
        self.saving = _wrapping_row(self._make_saving())

    @property
    def widgets(self) -> list[ipywidgets.Widget]:  # noqa: D102 - an attribute of the class
        return [self.above, self.below, self.rows, self.saving, *self._pool]

    def show(self, session: Session, decoded: Decoded | None) -> None:
        """Show the state of a session, and the masks of its current object to choose from."""
        self._updating = True
        try:
            self.undo.disabled, self.redo.disabled = not session.can_undo, not session.can_redo
            self.clear.disabled = self.new_object.disabled = not session.current.steps
            self._show_choice(decoded)
            self._show_objects(session.objects, session.current)
        finally:
            self._updating = False

    def _make_buttons(self) -> list[ipywidgets.Widget]:
        actions = self._actions
        self.mode = ipywidgets.ToggleButtons(
            options=[("Include ", INCLUDE), ("Exclude ", EXCLUDE), ("Box ", BOX), ("Move ", MOVE)],
            icons=["plus", "times", "square-o", "arrows"],
            tooltips=["a click belongs to the object", "a click does not", "drag a box", "drag the image"],
            style=ipywidgets.ToggleButtonsStyle(button_width="auto"),
        )
        self.undo = self._button("", "undo", "undo (Z)", actions.undo)
        self.redo = self._button("", "repeat", "redo (Y)", actions.redo)
        self.clear = self._button("Clear", "eraser", "remove the current object's prompt", actions.clear)
        self.new_object = self._button("New object", "plus-circle", "start the next object (N)", actions.new_object)
        zoom = [
            self._button("", "search-plus", "zoom in (+, Ctrl + wheel)", actions.zoom_in),
            self._button("", "search-minus", "zoom out (-)", actions.zoom_out),
            self._button("", "arrows-alt", "the whole image (0)", actions.fit),
        ]
        return [self.mode, self.undo, self.redo, self.clear, self.new_object, *zoom]

    def _make_mask_controls(self, preview: bool) -> list[ipywidgets.Widget]:
        self.chooser = ipywidgets.ToggleButtons(options=[], style=ipywidgets.ToggleButtonsStyle(button_width="auto"))
        self.chooser.observe(lambda _: self._on_choice(), "value")
        # Layouts are given, not set later: the one before would stay, unknown to `close`.
        self.opacity = ipywidgets.FloatSlider(
            0.5, min=0, max=1, step=0.05, readout=False, description="opacity", layout=ipywidgets.Layout(width="200px")
        )
        self.preview = ipywidgets.Checkbox(
            preview, description="preview under the mouse", indent=False, layout=ipywidgets.Layout(width="auto")
        )
        return [self.chooser, self.opacity, self.preview]

    def _make_saving(self) -> list[ipywidgets.Widget]:
        layout = ipywidgets.Layout(width="240px")
        self.folder = ipywidgets.Text("segments", description="save to", continuous_update=False, layout=layout)
        tip = "masks, cut-outs, COCO JSON and the prompts as JSON"
        self.save = self._button("Save", "download", tip, lambda: self._on_save(overwrite=False))
        self.replace = self._button("Replace", "exchange", "overwrite it", lambda: self._on_save(overwrite=True))
        self.replace.layout.display = "none"
        self.folder.observe(lambda _: self._offer_replace(False), "value")  # another folder
        return [self.folder, self.save, self.replace]

    def _button(self, text: str, icon: str, tip: str, action: Action) -> ipywidgets.Button:
        button = ipywidgets.Button(description=text, icon=icon, tooltip=tip, layout=ipywidgets.Layout(width="auto"))
        button.on_click(lambda _: self._press(action))
        return button

    def _on_save(self, *, overwrite: bool) -> None:
        self._offer_replace(False)
        self._offer_replace(not self._actions.save(self.folder.value, overwrite))

    def _offer_replace(self, is_offered: bool) -> None:
        self.replace.layout.display = None if is_offered else "none"

    def _on_choice(self) -> None:
        if self.chooser.value is not None and not self._updating:
            self._press(partial(self._actions.choose, self.chooser.value))

    def _on_rename(self, index: int, name: str, category: str) -> None:
        if not self._updating:
            self._actions.rename(index, name, category)

    def _show_choice(self, decoded: Decoded | None) -> None:
        several = decoded is not None and len(decoded.masks) > 1
        scores = decoded.masks.scores if decoded is not None and several else ()
        options = tuple((f"mask {index + 1}: {score:.2f}", index) for index, score in enumerate(scores))
        if self.chooser.options != options:
            self.chooser.options = options
        if decoded is not None and several:
            self.chooser.value = decoded.index
        self.chooser.layout.visibility = "visible" if several else "hidden"

    def _show_objects(self, objects: tuple[PromptedObject, ...], current: PromptedObject) -> None:
        # Rows are kept: a new widget for every change would fill the page's memory.
        while len(self._pool) < len(objects):
            index = len(self._pool)
            self._pool.append(
                ObjectRow(
                    select=partial(self._press, partial(self._actions.select, index)),
                    rename=partial(self._on_rename, index),
                    delete=partial(self._press, partial(self._actions.delete, index)),
                )
            )
        for row, item in zip(self._pool, objects, strict=False):
            row.show(item, item is current)
        if len(self.rows.children) != len(objects):
            self.rows.children = self._pool[: len(objects)]


class ObjectRow(ipywidgets.HBox):
    """One object in the list: its colour (press to continue it), its name, its class, and a button to delete it.

    Parameters
    ----------
    select, delete : callable
        Called without arguments.
    rename : callable
        Takes name and class.
    """

    def __init__(self, *, select: Action, rename: Callable[[str, str], None], delete: Action) -> None:
        def layout(width: str) -> ipywidgets.Layout:
            return ipywidgets.Layout(width=width)

        self.color = ipywidgets.Button(tooltip="continue this object", layout=layout("40px"))
        self.name = ipywidgets.Text(continuous_update=False, layout=layout("160px"))
        self.category = ipywidgets.Text(continuous_update=False, layout=layout("160px"), tooltip="its class")
        self.delete = ipywidgets.Button(icon="trash", tooltip="delete this object (Delete)", layout=layout("40px"))
        super().__init__([self.color, self.name, self.category, self.delete])
        for field in (self.name, self.category):
            field.observe(lambda _: rename(self.name.value, self.category.value), "value")
        self.color.on_click(lambda _: select())
        self.delete.on_click(lambda _: delete())

    def show(self, item: PromptedObject, is_current: bool) -> None:
        """Show an object."""
        self.color.style.button_color = css_color(item.color)
        # Not an icon: a button that has neither text nor icon keeps its last one on the page.
        self.color.description = "✎" if is_current else "\N{NO-BREAK SPACE}"
        self.name.value, self.category.value = item.name, item.category


def _wrapping_row(children: list[ipywidgets.Widget]) -> ipywidgets.Box:
    layout = ipywidgets.Layout(flex_flow="row wrap", align_items="center", grid_gap="4px")
    return ipywidgets.Box(children, layout=layout)
