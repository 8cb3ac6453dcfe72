"""The prompt file of a folder run: which prompts each image gets.

A JSON file (UTF-8) with an entry for each image, by its file name; ``"*"`` stands for every image without an entry,
such as the same box for all that a fixed camera took::

    {
      "a.jpg": [{"name": "left wheel", "category": "wheel", "box": [250, 370, 410, 510]},
                {"name": "roof", "points": [[500, 200], [300, 50]], "labels": [1, 0]}],
      "b.jpg": {"sam_nb_session": 1, ...},
      "*": [{"box": [44, 160, 1011, 504]}]
    }

An entry has one of two forms, for the two ways in which people arrive at it:

* a list of objects with the fields of `Prompt` (points, labels, box) and, optionally, a name and a category. Each gets
  the mask that ``sam.decode(embedding, Prompt(...)).best`` is: written by hand, or by a detector;
* a session, as *Save* under the canvas writes it into ``prompts.json`` and `Session.to_json` returns it. It gets the
  masks that the canvas showed: there each click is decoded with the logits of the mask before it, and the chosen one of
  three masks is remembered, which a `Prompt` cannot say.

So neither form changes a mask that you have seen already, but for rounding. An empty list gives the image no prompts.
"""

import json
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sam_nb.prompts import Prompt, parse_json, shown

ANY_IMAGE = "*"  # the entry of all images that the prompt file does not name

_PROMPT_FIELDS = ("points", "labels", "box")  # of `Prompt`, in a prompt file
_FIELDS = ("name", "category", *_PROMPT_FIELDS)
_EXAMPLE = '{"a.jpg": [{"name": "wheel", "box": [x0, y0, x1, y1]}, ...], "*": [...]}'


@dataclass(frozen=True, eq=False)
class ObjectPrompt:
    """One object of an image: its name, its category and the prompt that its mask is decoded from."""

    name: str
    category: str
    prompt: Prompt

    def to_record(self) -> dict[str, object]:
        """Return the object as JSON values; the same object gives the same values, however it was written."""
        return {"name": self.name, "category": self.category, **json.loads(self.prompt.to_json())}


@dataclass(frozen=True, eq=False)
class ImagePrompts:
    """The prompts of one image: objects, or a session.

    Attributes
    ----------
    objects : tuple of ObjectPrompt
        Empty if the entry is a session.
    session : dict, optional
        What `Session.to_json` wrote, without what its masks do not depend on.
    """

    objects: tuple[ObjectPrompt, ...] = ()
    session: dict[str, object] | None = None

    def to_record(self) -> dict[str, object]:
        """Return the prompts as a JSON object; equal records give equal masks."""
        if self.session is not None:
            return self.session
        return {"objects": [item.to_record() for item in self.objects]}


def read_prompt_file(path: Path) -> dict[str, ImagePrompts | None]:
    """Read a prompt file and check it as far as that is possible without the images.

    Parameters
    ----------
    path : pathlib.Path

    Returns
    -------
    dict
        By the images' names in Unicode's form NFC, and `ANY_IMAGE`; None for an image without prompts.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        Not a prompt file, or a prompt in it is invalid for any image, such as a reversed box. The message names the
        image and the object.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no prompt file {str(path)!r} (looked in {str(path.parent.resolve())!r})")
    twice: list[str] = []
    try:
        entries = parse_json(path.read_bytes(), partial(_noting_duplicates, twice))
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is not a prompt file: {error}") from error
    if twice:
        raise ValueError(
            f"{str(path)!r} is not a prompt file: {shown(twice[0])} appears twice, and the second would hide the "
            "first; put all objects in one list"
        )
    if not isinstance(entries, dict) or not entries:
        raise ValueError(
            f"{str(path)!r} is not a prompt file: expected a JSON object with an entry for each image, "
            f"such as {_EXAMPLE}"
        )
    if "sam_nb_session" in entries:
        raise ValueError(
            f"{str(path)!r} is the session of one image: write it under that image's name, "
            '{"a.jpg": {"sam_nb_session": ...}}, or under "*" if it holds for all'
        )
    named = {unicodedata.normalize("NFC", name): entry for name, entry in entries.items()}
    return {name: _image_prompts(entry, f"{path.name}, {shown(name)}") for name, entry in named.items()}


def _noting_duplicates(twice: list[str], pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object's pairs as a dict and note names that appear twice, of which JSON lets the last one win."""
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice += [name for name, count in counts.items() if count > 1]
    return found


def _image_prompts(entry: object, where: str) -> ImagePrompts | None:
    """Return an entry's prompts, or None if it has none."""
    if isinstance(entry, dict) and "sam_nb_session" in entry:
        # The masks depend neither on the object that was selected nor on the model that was used before.
        return ImagePrompts(session={name: value for name, value in entry.items() if name != "model"} | {"selected": 0})
    if not isinstance(entry, list):
        raise ValueError(f"{where}: expected a list of objects, [{{...}}, ...], or a session, got {shown(entry)}")
    objects = tuple(_object_prompt(item, number, where) for number, item in enumerate(entry, start=1))
    names = [item.name for item in objects]
    if len(set(names)) < len(names):
        raise ValueError(f"{where}: expected a different name for each object, got {shown(names)}")
    return ImagePrompts(objects) if objects else None


def _object_prompt(item: object, number: int, where: str) -> ObjectPrompt:
    where = f"{where}, object {number}"
    if not isinstance(item, dict) or not set(item) <= set(_FIELDS):
        raise ValueError(f"{where}: expected a JSON object with fields among {', '.join(_FIELDS)}, got {shown(item)}")
    words = {"name": item.get("name", f"object {number}"), "category": item.get("category", "object")}
    if not all(isinstance(word, str) and word.strip() for word in words.values()):
        raise ValueError(f"{where}: name and category must be text that is not empty, got {shown(words)}")
    try:
        prompt = Prompt(**{field: item.get(field) for field in _PROMPT_FIELDS})
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{where}: {error}") from error
    return ObjectPrompt(words["name"], words["category"], prompt)
