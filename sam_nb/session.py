"""A session of clicking: objects, the prompts of each, undo and redo, and the masks decoded from them.

This module needs neither a GUI nor torch. A session keeps what the user did, step by step; the masks follow from the
steps and are no state of their own. So undo leaves no stale mask and no stale logits behind, and the steps alone,
written as JSON, give the same masks again.
"""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sam_nb.images import ImageLike, load_image
from sam_nb.masks import Masks, Segment
from sam_nb.palette import PALETTE, Color
from sam_nb.prompts import Prompt, checked_integer, parse_json, shown

if TYPE_CHECKING:
    from sam_nb.model.sam import Sam

FORMAT = 1  # of the JSON; raised when this version could not read it

MAX_CACHE_BYTES = 512 * 2**20  # of masks; older ones are decoded again when they are needed


@dataclass(frozen=True)
class Point:
    """A click: pixel (x, y) of the original image; label 1 on the object, 0 off it."""

    x: float
    y: float
    label: int


@dataclass(frozen=True)
class Box:
    """A box around the object, pixels of the original image; it replaces an earlier one."""

    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True)
class Choice:
    """The user prefers this one of the masks that the last prompt gave."""

    index: int


Step = Point | Box | Choice


@dataclass(frozen=True)
class PromptedObject:
    """An object of the session.

    Attributes
    ----------
    name : str
        Unique in the session.
    category : str
        The object's class, which COCO calls category.
    color : (int, int, int)
        RGB.
    steps : tuple of Point, Box or Choice
        What the user did, in order.
    """

    name: str
    category: str
    color: Color
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, eq=False)
class Decoded:
    """What the model decoded from the steps of an object.

    Attributes
    ----------
    prompt : sam_nb.Prompt
        All clicks together and the box, with the logits that were fed back.
    masks : sam_nb.Masks
    index : int
        Of the mask in use: the highest-scoring one until the user chooses another.
    """

    prompt: Prompt
    masks: Masks
    index: int

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """The mask in use, HxW bool."""
        return self.masks.mask(self.index)

    @property
    def nbytes(self) -> int:
        """Memory that the arrays take so far, bytes."""
        fed_back = self.prompt.mask_input
        return self.masks.nbytes + (0 if fed_back is None else fed_back.nbytes)


@dataclass(frozen=True)
class _State:
    objects: tuple[PromptedObject, ...]
    selected: int


class Session:
    """Objects and their prompts, with undo and redo.

    Parameters
    ----------
    decode : callable
        Takes a `Prompt` and returns `Masks`: ``functools.partial(sam.decode, embedding)``.
    size : (int, int)
        Height and width of the original image, pixels.
    model : str
        Name of the model, for the JSON.

    Notes
    -----
    A lone click gives three masks, and the highest-scoring of them is in use until `choose` takes another. A further
    click is decoded together with all earlier ones and with the logits of the mask in use, as in the SAM paper's
    training (arXiv 2304.02643, appendix A). A box starts over: no earlier logits are fed back. Background clicks alone,
    without a box, give no mask.

    A copy (`copy.deepcopy`) shares the model and is else a session of its own, without listeners. A session can be
    pickled, with its model, where the model can be; `to_json` is smaller and works everywhere.
    """

    def __init__(self, decode: Callable[[Prompt], Masks], size: tuple[int, int], model: str = "") -> None:
        height, width = size
        self.size = int(height), int(width)
        self.model = model
        self._cache = _DecodedCache(decode)
        self._listeners: list[Callable[[], object]] = []
        self._state = _State((_fresh(()),), 0)
        self._undone: list[_State] = []
        self._done: list[_State] = []

    @classmethod
    def on(cls, sam: "Sam", image: ImageLike) -> "Session":
        """Return a session on an image, encoded here.

        Parameters
        ----------
        sam : sam_nb.Sam
        image : image-like
            Anything that `load_image` takes.

        Raises
        ------
        ValueError, FileNotFoundError
            As `load_image`.
        """
        pixels = load_image(image)
        height, width = pixels.shape[:2]
        return cls(partial(sam.decode, sam.encode(pixels)), (height, width), sam.name)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_listeners": []}

    def __repr__(self) -> str:
        objects = ", ".join(f"{item.name} ({len(item.steps)} steps)" for item in self.objects)
        return f"Session({self.size[1]}x{self.size[0]}, {self.model or 'no model'}: {objects})"

    # Objects and masks -----------------------------------------------------------------------------------------------

    @property
    def objects(self) -> tuple[PromptedObject, ...]:
        """All objects, the newest last; there is always at least one."""
        return self._state.objects

    @property
    def selected(self) -> int:
        """Index of the current object."""
        return self._state.selected

    @property
    def current(self) -> PromptedObject:
        """The object to which the next step is added."""
        return self.objects[self.selected]

    @property
    def points(self) -> list[Point]:
        """The current object's `Point`s, in order."""
        return [step for step in self.current.steps if isinstance(step, Point)]

    @property
    def box(self) -> Box | None:
        """The current object's `Box`, or None."""
        return _box(self.current.steps)

    def decoded(self, item: PromptedObject | None = None) -> Decoded | None:
        """Return what the model decodes from an object's steps, or None if they make no prompt.

        Runs the model at the first call and keeps the result. If the model raises, so does this, and the session stays
        as it was. May be called from any thread.

        Parameters
        ----------
        item : PromptedObject, optional
            Default: the current object.
        """
        return self._cache.get((self.current if item is None else item).steps)

    @property
    def prompt(self) -> Prompt | None:
        """The current object's prompt, with the logits that were fed back, or None."""
        decoded = self.decoded()
        return None if decoded is None else decoded.prompt

    @property
    def masks(self) -> Masks | None:
        """All masks of the current object's prompt, or None."""
        decoded = self.decoded()
        return None if decoded is None else decoded.masks

    @property
    def mask(self) -> npt.NDArray[np.bool_] | None:
        """The current object's mask in use, HxW bool, or None."""
        decoded = self.decoded()
        return None if decoded is None else decoded.mask

    def segments(self) -> list[Segment]:
        """Return the objects that have a mask, as `save_coco`, `save_yolo` and the others take them.

        Decodes those that are not decoded yet.
        """
        decoded = [(item, self.decoded(item)) for item in self.objects]
        return [
            Segment(one.mask, item.name, item.category, float(one.masks.scores[one.index]))
            for item, one in decoded
            if one is not None
        ]

    # Steps -----------------------------------------------------------------------------------------------------------

    def add_point(self, x: float, y: float, label: int = 1) -> None:
        """Click on the current object (label 1) or off it (label 0), at pixel (x, y) of the original image.

        Raises
        ------
        ValueError
            The point lies far outside the image, or the label is neither 1 nor 0.
        """
        Prompt(points=[(x, y)], labels=[label]).check_inside(*self.size)
        self._add(Point(float(x), float(y), int(label)))

    def set_box(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """Draw a box around the current object, pixels of the original image.

        Raises
        ------
        ValueError
            The box is reversed, has no area or lies far outside the image.
        """
        Prompt(box=(x0, y0, x1, y1)).check_inside(*self.size)
        self._add(Box(float(x0), float(y0), float(x1), float(y1)))

    def choose(self, index: int) -> None:
        """Take another one of the current object's masks in use.

        Raises
        ------
        ValueError
            There is no such mask.
        """
        decoded = self.decoded()
        count = 0 if decoded is None else len(decoded.masks)
        if decoded is None or not 0 <= index < count:
            raise ValueError(f"no mask {index}: the last prompt gave {count or 'no'} mask{'' if count == 1 else 's'}")
        if index != decoded.index:
            self._add(Choice(int(index)))

    def new_object(self) -> None:
        """Add an object and select it; a current object without steps is new already."""
        if self.current.steps:
            objects = (*self.objects, _fresh(self.objects))
            self._change(_State(objects, len(objects) - 1))

    def select(self, index: int) -> None:
        """Make another object the current one; undo does not take this back.

        Raises
        ------
        ValueError
            There is no such object.
        """
        self._object(index)
        self._state = replace(self._state, selected=index)
        self._notify()

    def rename(self, index: int, name: str | None = None, category: str | None = None) -> None:
        """Change an object's name, its class, or both.

        Raises
        ------
        ValueError
            There is no such object, the name or the class is empty, or another object has the name.
        """
        item = self._object(index)
        name = item.name if name is None else _word(name)
        category = item.category if category is None else _word(category)
        others = {other.name for position, other in enumerate(self.objects) if position != index}
        if not name or not category or name in others:
            reason = "is taken by another object" if name in others else "and class must not be empty"
            raise ValueError(f"the name {shown(name)} {reason}")
        self._replace(index, replace(item, name=name, category=category))

    def delete(self, index: int | None = None) -> None:
        """Remove an object. Default: the current one.

        Raises
        ------
        ValueError
            There is no such object.
        """
        index = self.selected if index is None else index
        self._object(index)
        objects = self.objects[:index] + self.objects[index + 1 :]
        selected = self.selected - (index < self.selected)
        objects = objects or (_fresh(()),)
        self._change(_State(objects, min(selected, len(objects) - 1)))

    def clear(self) -> None:
        """Remove all steps of the current object."""
        if self.current.steps:
            self._replace(self.selected, replace(self.current, steps=()))

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to undo."""
        return bool(self._done)

    @property
    def can_redo(self) -> bool:
        """Whether there is a step to redo."""
        return bool(self._undone)

    def undo(self) -> None:
        """Undo the last step; without one, do nothing."""
        self._travel(self._done, self._undone)

    def redo(self) -> None:
        """Redo the step that was undone last; without one, do nothing."""
        self._travel(self._undone, self._done)

    def on_change(self, listener: Callable[[], object]) -> Callable[[], None]:
        """Call `listener()` after every change, until the returned function is called."""
        self._listeners.append(listener)
        return partial(self._listeners.remove, listener)

    # Files -----------------------------------------------------------------------------------------------------------

    def to_json(self) -> str:
        """Return objects and steps as JSON text, from which `load_json` restores the same masks.

        The undo history is not written.
        """
        height, width = self.size
        objects = [
            {
                "name": item.name,
                "category": item.category,
                "color": list(item.color),
                "steps": [_step_record(step) for step in item.steps],
            }
            for item in self.objects
        ]
        record = {
            "sam_nb_session": FORMAT,
            "model": self.model,
            "image": {"width": width, "height": height},
            "selected": self.selected,
            "objects": objects,
        }
        return json.dumps(record, indent=1, ensure_ascii=False)

    def load_json(self, text: str) -> None:
        """Replace all objects by those that `to_json` wrote; undo restores what was there before.

        The same model gives the same masks, another model gives its own.

        Raises
        ------
        ValueError
            The text is not such JSON, is damaged, or is about an image of another size.
        """
        self._change(_read(text, self.size))

    # ----------------------------------------------------------------------------------------------------------------

    def _object(self, index: int) -> PromptedObject:
        if not 0 <= index < len(self.objects):
            raise ValueError(f"no object {index}: there are {len(self.objects)}, counted from 0")
        return self.objects[index]

    def _add(self, step: Step) -> None:
        self._replace(self.selected, replace(self.current, steps=(*self.current.steps, step)))

    def _replace(self, index: int, item: PromptedObject) -> None:
        objects = (*self.objects[:index], item, *self.objects[index + 1 :])
        self._change(replace(self._state, objects=objects))

    def _change(self, state: _State) -> None:
        if state != self._state:
            self._done.append(self._state)
            self._undone.clear()
            self._state = state
            self._notify()

    def _travel(self, origin: list[_State], target: list[_State]) -> None:
        if origin:
            target.append(self._state)
            self._state = origin.pop()
            self._notify()

    def _notify(self) -> None:
        for listener in [*self._listeners]:
            listener()


class _DecodedCache:
    """What the model decoded, by the steps that led to it; the least recently used go first."""

    def __init__(self, decode: Callable[[Prompt], Masks]) -> None:
        self._decode = decode
        # Not an OrderedDict, which hashes each key, all steps of it, whenever it is iterated over.
        self._kept: dict[tuple[Step, ...], Decoded | None] = {}
        self._lock = threading.RLock()  # held while decoding: a second thread waits for the same masks

    def __deepcopy__(self, _: object) -> "_DecodedCache":
        copy = _DecodedCache(self._decode)
        with self._lock:
            copy._kept.update(self._kept)  # neither steps nor masks change
        return copy

    def __reduce__(self) -> tuple[type["_DecodedCache"], tuple[Callable[[Prompt], Masks]]]:
        return _DecodedCache, (self._decode,)

    def get(self, steps: tuple[Step, ...]) -> Decoded | None:
        """Return what the model decodes from steps, or None if they make no prompt."""
        with self._lock:
            decoded = None
            # A loop: hundreds of clicks that are first decoded now would be as many nested calls.
            for length in range(self._first_needed(steps), len(steps) + 1):
                decoded = self._keep(steps[:length], decoded)
            return decoded

    def _first_needed(self, steps: tuple[Step, ...]) -> int:
        """Return with how many of the steps decoding must begin: at those that are kept, or that need none before."""
        for length in range(len(steps), 0, -1):
            if steps[:length] in self._kept or isinstance(steps[length - 1], Box):
                return length
        return 1

    def _keep(self, steps: tuple[Step, ...], before: Decoded | None) -> Decoded | None:
        """Return what is kept for steps, or decode it; `before` is what comes of them without the last."""
        is_new = steps not in self._kept
        decoded = self._from_steps(steps, before) if is_new else self._kept.pop(steps)
        self._kept[steps] = decoded  # the last one is the most recently used
        if is_new:
            self._evict()
        return decoded

    def _from_steps(self, steps: tuple[Step, ...], before: Decoded | None) -> Decoded | None:
        last = steps[-1]
        if isinstance(last, Choice):
            if before is None or last.index >= len(before.masks):
                count = 0 if before is None else len(before.masks)
                raise ValueError(f"a damaged session: it chooses mask {last.index} of {count}, counted from 0")
            return replace(before, index=last.index)
        points = [step for step in steps if isinstance(step, Point)]
        box = _box(steps)
        if box is None and not any(point.label for point in points):
            return None
        fed_back = before if isinstance(last, Point) else None
        prompt = Prompt(
            points=[(point.x, point.y) for point in points] or None,
            labels=[point.label for point in points] or None,
            box=None if box is None else (box.x0, box.y0, box.x1, box.y1),
            mask_input=None if fed_back is None else fed_back.masks.logits[fed_back.index],
        )
        masks = self._decode(prompt)
        return Decoded(prompt, masks, masks.best_index)

    def _evict(self) -> None:
        total = 0
        for number, (steps, decoded) in enumerate(reversed(list(self._kept.items()))):
            total += 0 if decoded is None else decoded.nbytes
            if total > MAX_CACHE_BYTES and number:  # the newest stays in any case
                del self._kept[steps]


def _box(steps: tuple[Step, ...]) -> Box | None:
    return next((step for step in reversed(steps) if isinstance(step, Box)), None)


def _fresh(objects: tuple[PromptedObject, ...]) -> PromptedObject:
    """Return an object without steps, with a name of its own and the colour that is used least."""
    names = {item.name for item in objects}
    number = next(n for n in range(len(objects) + 1, 2 * len(objects) + 2) if f"object {n}" not in names)
    used = [item.color for item in objects]
    return PromptedObject(f"object {number}", "object", min(PALETTE, key=used.count))


def _step_record(step: Step) -> dict[str, object]:
    if isinstance(step, Point):
        return {"point": [step.x, step.y], "label": step.label}
    if isinstance(step, Box):
        return {"box": [step.x0, step.y0, step.x1, step.y1]}
    return {"choose": step.index}


def _read(text: str, size: tuple[int, int]) -> _State:
    """Return the `_State` that JSON text describes, checked."""
    record = parse_json(text)
    if not isinstance(record, dict) or "sam_nb_session" not in record:
        raise ValueError('not a session: expected a JSON object with the field "sam_nb_session"')
    if record["sam_nb_session"] != FORMAT:
        found = shown(record["sam_nb_session"])
        raise ValueError(f"a session of format {found}: this version of sam_nb reads {FORMAT}")
    try:
        height, width = record["image"]["height"], record["image"]["width"]
        objects = tuple(_object(item, size) for item in record["objects"])
        selected = checked_integer(record["selected"], "selected", 0)
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"a damaged session: {type(error).__name__}: {error}") from error
    except ValueError as error:
        raise ValueError(f"a damaged session: {error}") from error
    if (height, width) != size:
        raise ValueError(
            f"a session about an image of {shown(width)}x{shown(height)}, but this image has {size[1]}x{size[0]}: the "
            "coordinates would mean other pixels"
        )
    if len({item.name for item in objects}) < len(objects) or selected >= len(objects):
        raise ValueError("a damaged session: names must differ, and the selected object must exist")
    return _State(objects, selected)


def _object(item: dict[str, Any], size: tuple[int, int]) -> PromptedObject:
    name, category = _word(item["name"]), _word(item["category"])
    if not name or not category:
        raise ValueError(f"an object's name and class must not be empty, got {shown(name)} and {shown(category)}")
    steps = []
    for number, step in enumerate(item["steps"], start=1):
        try:
            steps.append(_step(step, size))
        except ValueError as error:
            raise ValueError(f"{shown(name)}, step {number}: {error}") from error
    return PromptedObject(name, category, _color(item["color"]), tuple(steps))


def _word(value: object) -> str:
    """Return a name that every file can hold: without spaces around it, and what is half of a character becomes ?."""
    return str(value).strip().encode("utf-8", "replace").decode("utf-8")


def _color(values: Any) -> Color:
    if not isinstance(values, list) or len(values) != 3 or not all(type(value) is int for value in values):
        raise ValueError(f"expected a colour of three numbers from 0 to 255, got {shown(values)}")
    red, green, blue = values
    if not 0 <= min(values) <= max(values) <= 255:
        raise ValueError(f"expected a colour of three numbers from 0 to 255, got {shown(values)}")
    return red, green, blue


def _step(record: dict[str, Any], size: tuple[int, int]) -> Step:
    if not isinstance(record, dict) or not {"point", "box", "choose"} & set(record):
        raise ValueError(f'expected a JSON object with "point" and "label", "box" or "choose", got {shown(record)}')
    place = record.get("point", record.get("box", []))
    if not isinstance(place, list) or not all(isinstance(number, int | float) for number in place):
        raise ValueError(f"expected a list of numbers, got {shown(place)}")
    if "point" in record:
        label = checked_integer(record["label"], "label", 0)
        Prompt(points=[place], labels=[label]).check_inside(*size)
        x, y = map(float, place)
        return Point(x, y, label)
    if "box" in record:
        Prompt(box=place).check_inside(*size)
        return Box(*map(float, place))
    index = checked_integer(record["choose"], "choose", 0)
    if index >= 3:
        raise ValueError(f"expected the index of a mask, 0 to 2, got {shown(index)}")
    return Choice(index)
