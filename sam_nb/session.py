"""One sitting of clicking: objects, what was asked about each, undo and redo, and the masks that follow from it.

There is no GUI here and no torch. A session keeps what the user did, step by step; masks are not part of it, they
follow from the steps. So undo cannot leave a stale mask or stale logits behind, and the steps alone, written as JSON,
give the same masks again.
"""

import json
import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import cached_property, partial

from sam_nb.images import load_image
from sam_nb.masks import Masks, Segment
from sam_nb.palette import PALETTE
from sam_nb.prompts import Prompt

FORMAT = 1  # of the JSON; raised when a reader of this version could not read it

MAX_CACHE_BYTES = 512 * 2**20  # of answers; older ones are asked for again when they are needed


@dataclass(frozen=True)
class Point:
    """A click: pixel (x, y) of the original picture; label 1 on the object, 0 off it."""

    x: float
    y: float
    label: int


@dataclass(frozen=True)
class Box:
    """A box around the object, pixels of the original picture; it takes the place of an earlier one."""

    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True)
class Choice:
    """The user prefers this one of the masks that the last prompt got."""

    index: int


@dataclass(frozen=True)
class PromptedObject:
    """An object of the session.

    Attributes
    ----------
    name : str
        Unique in the session.
    category : str
        Its class, what COCO calls category.
    color : (int, int, int)
        RGB.
    steps : tuple of Point, Box or Choice
        What the user did, in order.
    """

    name: str
    category: str
    color: tuple[int, int, int]
    steps: tuple = ()


@dataclass(frozen=True)
class Answer:
    """What the model said to the last step of an object.

    Attributes
    ----------
    prompt : sam_nb.Prompt
        What the model was asked, all clicks together, with the logits that were fed back.
    masks : sam_nb.Masks
    index : int
        Which of them holds: the best-scored one until the user chooses.
    """

    prompt: Prompt
    masks: Masks
    index: int

    @cached_property
    def mask(self):
        """The mask that holds, HxW bool."""
        return self.masks.mask(self.index)

    @property
    def nbytes(self):
        """Memory that the arrays take so far, bytes."""
        kept = [self.prompt.mask_input, vars(self).get("mask")]
        return self.masks.nbytes + sum(array.nbytes for array in kept if array is not None)


@dataclass(frozen=True)
class _State:
    objects: tuple
    selected: int


class Session:
    """Objects and what was asked about them, with undo and redo.

    Parameters
    ----------
    decode : callable
        Takes a `Prompt` and returns `Masks`: ``functools.partial(sam.decode, embedding)``.
    size : (int, int)
        Height and width of the original picture, pixels.
    model : str
        Name of the model, for the JSON.

    Notes
    -----
    A lone click gets three masks, and the best-scored of them holds until `choose` says otherwise. A further click is
    asked together with all earlier ones and with the logits of the mask that holds, as in the SAM paper's training. A
    box starts afresh: what was meant before it is not fed back. Only background clicks, without a box, ask nothing.
    """

    def __init__(self, decode, size, model=""):
        self.size = tuple(int(side) for side in size)
        self.model = model
        self._answers = _Answers(decode)
        self._listeners = []
        self._state = _State((_fresh(()),), 0)
        self._undone = []
        self._done = []

    @classmethod
    def on(cls, sam, image):
        """Return a session on a picture.

        Parameters
        ----------
        sam : sam_nb.Sam
        image : HxWx3 numpy.ndarray of uint8, RGB
            Or anything else that `load_image` takes.
        """
        image = load_image(image)
        return cls(partial(sam.decode, sam.encode(image)), image.shape[:2], sam.name)

    def __repr__(self):
        objects = ", ".join(f"{item.name} ({len(item.steps)} steps)" for item in self.objects)
        return f"Session({self.size[1]}x{self.size[0]}, {self.model or 'no model'}: {objects})"

    # What there is -------------------------------------------------------------------------------------------------

    @property
    def objects(self):
        """All objects, a tuple of `PromptedObject`; the newest last, and never none."""
        return self._state.objects

    @property
    def selected(self):
        """Index of the object that is being worked on."""
        return self._state.selected

    @property
    def current(self):
        """The `PromptedObject` that is being worked on."""
        return self.objects[self.selected]

    @property
    def points(self):
        """The current object's `Point`s, in order."""
        return [step for step in self.current.steps if isinstance(step, Point)]

    @property
    def box(self):
        """The current object's `Box`, or None."""
        return _box(self.current.steps)

    def answer(self, item=None):
        """Return the `Answer` about a `PromptedObject` (left out: the current one), or None if nothing was asked.

        Asks the model if it was not asked before; whatever the model raises is raised here, and the session stays as it
        was. May be called from any thread.
        """
        return self._answers.to((self.current if item is None else item).steps)

    @property
    def prompt(self):
        """What the model was asked about the current object, a `Prompt`, or None."""
        answer = self.answer()
        return answer and answer.prompt

    @property
    def masks(self):
        """The model's answer about the current object, `Masks`, or None."""
        answer = self.answer()
        return answer and answer.masks

    @property
    def mask(self):
        """The current object's mask, HxW bool, or None."""
        answer = self.answer()
        return answer and answer.mask

    def segments(self):
        """Return the objects that have a mask, a list of `Segment`: what `save_coco`, `save_yolo` and the others take.

        Asks the model about those that it was not asked about before.
        """
        answers = [(item, self.answer(item)) for item in self.objects]
        return [
            Segment(answer.mask, item.name, item.category, float(answer.masks.scores[answer.index]))
            for item, answer in answers
            if answer is not None
        ]

    # What the user does --------------------------------------------------------------------------------------------

    def add_point(self, x, y, label=1):
        """Click on the current object (label 1) or off it (label 0), at pixel (x, y) of the original picture.

        Raises
        ------
        ValueError
            The point lies far outside the picture, or the label is neither 1 nor 0.
        """
        Prompt(points=[(x, y)], labels=[label]).check_inside(*self.size)
        self._add(Point(float(x), float(y), int(label)))

    def set_box(self, x0, y0, x1, y1):
        """Draw a box around the current object, pixels of the original picture.

        Raises
        ------
        ValueError
            The box is reversed, has no area or lies far outside the picture.
        """
        Prompt(box=(x0, y0, x1, y1)).check_inside(*self.size)
        self._add(Box(float(x0), float(y0), float(x1), float(y1)))

    def choose(self, index):
        """Let another one of the current answer's masks hold.

        Raises
        ------
        ValueError
            There is no such mask.
        """
        answer = self.answer()
        count = 0 if answer is None else len(answer.masks)
        if not 0 <= index < count:
            raise ValueError(f"no mask {index}: the last prompt got {count or 'no'} mask{'' if count == 1 else 's'}")
        if index != answer.index:
            self._add(Choice(int(index)))

    def new_object(self):
        """Go on to a new object; where nothing was asked about the current one yet, that is the new one."""
        if self.current.steps:
            objects = (*self.objects, _fresh(self.objects))
            self._change(_State(objects, len(objects) - 1))

    def select(self, index):
        """Work on another object. This is no step that undo takes back."""
        self._object(index)
        self._state = replace(self._state, selected=index)
        self._tell()

    def rename(self, index, name=None, category=None):
        """Give an object another name, another class, or both.

        Raises
        ------
        ValueError
            The name is empty or another object's.
        """
        item = self._object(index)
        name = item.name if name is None else str(name).strip()
        category = item.category if category is None else str(category).strip()
        others = {other.name for position, other in enumerate(self.objects) if position != index}
        if not name or not category or name in others:
            reason = "is taken by another object" if name in others else "and class must not be empty"
            raise ValueError(f"the name {name!r} {reason}")
        self._replace(index, replace(item, name=name, category=category))

    def delete(self, index=None):
        """Remove an object, the current one if no index is given."""
        index = self.selected if index is None else index
        self._object(index)
        objects = self.objects[:index] + self.objects[index + 1 :]
        selected = self.selected - (index < self.selected)
        objects = objects or (_fresh(()),)
        self._change(_State(objects, min(selected, len(objects) - 1)))

    def clear(self):
        """Forget everything that was asked about the current object."""
        if self.current.steps:
            self._replace(self.selected, replace(self.current, steps=()))

    @property
    def can_undo(self):
        """Whether there is a step to take back."""
        return bool(self._done)

    @property
    def can_redo(self):
        """Whether there is a step to do again."""
        return bool(self._undone)

    def undo(self):
        """Take the last step back; without one, do nothing."""
        self._travel(self._done, self._undone)

    def redo(self):
        """Do the step again that was taken back last; without one, do nothing."""
        self._travel(self._undone, self._done)

    def on_change(self, listener):
        """Have `listener()` called after every change."""
        self._listeners.append(listener)

    # Files -------------------------------------------------------------------------------------------------------

    def to_json(self):
        """Return objects and steps as JSON text, from which `load_json` makes the same masks again.

        What can be undone is not written.
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
        picture = {"width": width, "height": height}
        about = {"sam_nb_session": FORMAT, "model": self.model, "picture": picture, "selected": self.selected}
        return json.dumps(about | {"objects": objects}, indent=1, ensure_ascii=False)

    def load_json(self, text):
        """Take over the objects and steps that `to_json` wrote; undo brings back what was there before.

        The same model gives the same masks, another model gives its own.

        Raises
        ------
        ValueError
            The text is no such JSON, or belongs to a picture of another size.
        """
        self._change(_read(text, self.size))

    # ----------------------------------------------------------------------------------------------------------------

    def _object(self, index):
        if not 0 <= index < len(self.objects):
            raise ValueError(f"no object {index}: there are {len(self.objects)}, counted from 0")
        return self.objects[index]

    def _add(self, step):
        self._replace(self.selected, replace(self.current, steps=(*self.current.steps, step)))

    def _replace(self, index, item):
        objects = (*self.objects[:index], item, *self.objects[index + 1 :])
        self._change(replace(self._state, objects=objects))

    def _change(self, state):
        if state != self._state:
            self._done.append(self._state)
            self._undone.clear()
            self._state = state
            self._tell()

    def _travel(self, origin, target):
        if origin:
            target.append(self._state)
            self._state = origin.pop()
            self._tell()

    def _tell(self):
        for listener in self._listeners:
            listener()


class _Answers:
    """The model's answers by the steps that led to them; the least recently used are forgotten."""

    def __init__(self, decode):
        self._decode = decode
        self._kept = OrderedDict()
        self._lock = threading.RLock()

    def to(self, steps):
        """Return the `Answer` to a tuple of steps, or None if they ask nothing."""
        if not steps:
            return None
        with self._lock:
            if steps in self._kept:
                self._kept.move_to_end(steps)
                return self._kept[steps]
            answer = self._ask(steps)
            self._kept[steps] = answer
            self._forget()
            return answer

    def _ask(self, steps):
        *_, last = steps
        if isinstance(last, Choice):
            before = self.to(steps[:-1])
            if before is None or last.index >= len(before.masks):
                count = 0 if before is None else len(before.masks)
                raise ValueError(f"this session chooses mask {last.index} of {count}: count from 0; it is damaged")
            return replace(before, index=last.index)
        points = [step for step in steps if isinstance(step, Point)]
        box = _box(steps)
        if box is None and not any(point.label for point in points):
            return None
        before = self.to(steps[:-1]) if isinstance(last, Point) else None
        prompt = Prompt(
            points=[(point.x, point.y) for point in points] or None,
            labels=[point.label for point in points] or None,
            box=None if box is None else (box.x0, box.y0, box.x1, box.y1),
            mask_input=None if before is None else before.masks.logits[before.index],
        )
        masks = self._decode(prompt)
        return Answer(prompt, masks, masks.best_index)

    def _forget(self):
        total = 0
        *older, (_, newest) = self._kept.items()
        for steps, answer in [(None, newest), *reversed(older)]:
            total += 0 if answer is None else answer.nbytes
            if total > MAX_CACHE_BYTES and steps is not None:
                del self._kept[steps]


def _box(steps):
    return next((step for step in reversed(steps) if isinstance(step, Box)), None)


def _fresh(objects):
    """Return an object without steps, with a name that no other has and the colour that is used least."""
    names = {item.name for item in objects}
    number = next(n for n in range(len(objects) + 1, 2 * len(objects) + 2) if f"object {n}" not in names)
    used = [item.color for item in objects]
    return PromptedObject(f"object {number}", "object", min(PALETTE, key=used.count))


def _step_record(step):
    if isinstance(step, Point):
        return {"point": [step.x, step.y], "label": step.label}
    if isinstance(step, Box):
        return {"box": [step.x0, step.y0, step.x1, step.y1]}
    return {"choose": step.index}


def _read(text, size):
    """Return the `_State` that JSON text describes, checked."""
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"this is not JSON: {error}") from error
    if not isinstance(record, dict) or "sam_nb_session" not in record:
        raise ValueError('this is no session: expected a JSON object with the field "sam_nb_session"')
    if record["sam_nb_session"] != FORMAT:
        raise ValueError(f"a session of format {record['sam_nb_session']}: this version of sam_nb reads {FORMAT}")
    try:
        height, width = record["picture"]["height"], record["picture"]["width"]
        objects = tuple(
            PromptedObject(
                str(item["name"]),
                str(item["category"]),
                _color(item["color"]),
                tuple(_step(step, size) for step in item["steps"]),
            )
            for item in record["objects"]
        )
        selected = int(record["selected"])
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"this session is damaged: {type(error).__name__}: {error}") from error
    if (height, width) != size:
        raise ValueError(
            f"this session belongs to a picture of {width}x{height}, and this one has {size[1]}x{size[0]}: coordinates "
            "would mean other places"
        )
    if len({item.name for item in objects}) < len(objects) or not 0 <= selected < len(objects):
        raise ValueError("this session is damaged: names must differ, and the selected object must exist")
    return _State(objects, selected)


def _color(values):
    color = tuple(int(value) for value in values)
    if len(color) != 3 or not all(0 <= value <= 255 for value in color):
        raise ValueError(f"this session is damaged: expected a colour of three numbers from 0 to 255, got {values!r}")
    return color


def _step(record, size):
    if "point" in record:
        (x, y), label = record["point"], record["label"]
        Prompt(points=[(x, y)], labels=[label]).check_inside(*size)
        return Point(float(x), float(y), int(label))
    if "box" in record:
        Prompt(box=record["box"]).check_inside(*size)
        return Box(*map(float, record["box"]))
    index = record["choose"]
    if not isinstance(index, int) or not 0 <= index < 3:
        raise ValueError(f"this session is damaged: expected the number of a mask, 0 to 2, got {index!r}")
    return Choice(index)
