"""Masks of one image as labels for the segmentation models of YOLO (Ultralytics).

Source: https://docs.ultralytics.com/datasets/segment. A text file beside each image holds a line for each object::

    1 0.312500 0.692884 0.318750 0.700375 0.325000 0.707865

that is the number of its class and its outline, x and y in turn, divided by the image's width and height. What the
numbers mean stands in ``classes.txt`` in the same folder, a class a line, the first of which is number 0: so a class
has one number in all the labels of a folder. Names and scores are not kept.

A line holds one outline: connected components are joined by bridges, which other programs give a width of one pixel.
Masks read back exactly here, where no tolerance was given. Ultralytics adds points to an outline and truncates them to
pixels, which moves slanting lines by up to one pixel.
"""

import contextlib
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from sam_nb.files import records
from sam_nb.files.polygons import PIXEL_OFFSET, joined_polygon, split_polygon
from sam_nb.masks import Segment
from sam_nb.prompts import shown
from sam_nb.rasterize import rasterize
from sam_nb.storage import locked, read_bytes, write_bytes, writing

CLASSES = "classes.txt"

_LABEL = re.compile(rb"\d+( +[0-9.eE+-]+){4}")
_BOX = 4  # numbers of a label for detection: centre, width and height


def save_yolo(
    segments: Sequence[Segment],
    size: tuple[int, int],
    path: str | Path,
    *,
    categories: Sequence[str] | None = None,
    tolerance: float = 0.0,
    overwrite: bool = False,
) -> None:
    """Write masks as YOLO's segmentation labels: a line for each, its class and its normalized outline.

    Parameters
    ----------
    segments : sequence of Segment
        Connected components of one mask are joined by lines one pixel wide: a line of the file holds one outline.
    size : (int, int)
        Height and width of the image.
    path : str or pathlib.Path
    categories : sequence of str, optional
        The classes in the order of their numbers, as the training's data.yaml has them. Default: those of
        ``classes.txt`` beside the labels, which is made if there is none; new classes are written at its end.
    tolerance : float
        Pixels by which outlines may be off to save points.
    overwrite : bool
        Whether to replace an existing file.

    Raises
    ------
    FileExistsError
        The file exists, and `overwrite` is false.
    ValueError
        A mask is empty, has another size than the image, or a class that `categories` lacks; the path does not end in
        .txt; or the folder holds labels and no ``classes.txt`` that says what their numbers mean.

    Warns
    -----
    UserWarning
        `categories` numbers the classes otherwise than ``classes.txt``, which stays as it is.
    """
    records.check_suffix(path, ".txt")
    classes = Path(path).expanduser().with_name(CLASSES)
    if classes == Path(path).expanduser():
        raise ValueError(f"{str(path)!r}: this file says what the labels' numbers mean; choose another name")
    known, names = _numbering(path, segments, categories)
    content = encode_yolo(segments, size, categories=names, tolerance=tolerance)
    # Whoever reads the labels finds the classes there already.
    with writing(path, overwrite=overwrite) as part, contextlib.ExitStack() as held:
        if len(names) > len(known):
            # Another process may be about to add classes, too: from here on it waits.
            held.enter_context(locked(classes.with_name(f".{CLASSES}.lock")))
            before, (known, names) = names, _numbering(path, segments, categories)
            if names != before:
                content = encode_yolo(segments, size, categories=names, tolerance=tolerance)
        part.write_bytes(content)
        if known == names[: len(known)]:
            _extend_classes(classes, names[len(known) :])
        elif known[: len(names)] != names:
            warnings.warn(
                f"{str(path)!r} numbers the classes by categories ({', '.join(names)}), and {CLASSES} beside it "
                f"otherwise ({', '.join(known)}): give load_yolo the same categories",
                stacklevel=2,
            )


def load_yolo(path: str | Path, size: tuple[int, int], categories: Sequence[str] | None = None) -> list[Segment]:
    """Return the segments of YOLO's segmentation labels.

    Parameters
    ----------
    path : str or pathlib.Path
    size : (int, int)
        Height and width of the image, which the file does not hold.
    categories : sequence of str, optional
        The classes in the order of their numbers. Default: those of ``classes.txt`` beside the labels.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        A line is not a label, has a class that `categories` lacks, numbers that are not finite or far outside the
        image, or covers no pixel; or there is no ``classes.txt``. The message names the file and the line.
    """
    content = read_bytes(path)
    if categories is None:
        classes = Path(path).expanduser().with_name(CLASSES)
        if not classes.exists():
            raise ValueError(
                f"{str(path)!r}: there is no {CLASSES} beside it that says what the numbers of the classes mean: give "
                "categories, the classes in the order of their numbers"
            )
        categories = read_classes(classes)
    with records.naming(repr(str(path))):
        return decode_yolo(content, size, categories)


def encode_yolo(
    segments: Sequence[Segment],
    size: tuple[int, int],
    *,
    categories: Sequence[str] | None = None,
    tolerance: float = 0.0,
) -> bytes:
    """Return the bytes of a file of YOLO's segmentation labels; see `save_yolo`."""
    height, width = records.checked_size(size)
    names = _checked_categories(records.category_names(segments) if categories is None else categories)
    lines = []
    for segment in segments:
        mask = records.checked_mask(segment, size)
        if segment.category not in names:
            known = ", ".join(names)
            raise ValueError(f"{segment.name}: expected a category among {known}, got {shown(segment.category)}")
        points = (joined_polygon(mask, tolerance=tolerance) + PIXEL_OFFSET) / (width, height)
        numbers = " ".join(f"{value:.6f}" for value in points.ravel().tolist())
        lines.append(f"{names.index(segment.category)} {numbers}\n")
    return "".join(lines).encode("ascii")


def decode_yolo(content: bytes, size: tuple[int, int], categories: Sequence[str]) -> list[Segment]:
    """Return the segments that the bytes of YOLO's labels hold; see `load_yolo`."""
    return records.all_of(yolo_objects(content, size, categories))


def yolo_objects(content: bytes, size: tuple[int, int], categories: Sequence[str]) -> Iterator[Segment | ValueError]:
    """Yield each line's segment, or why there is none; parameters and errors as `load_yolo`."""
    size, names = records.checked_size(size), _checked_categories(categories)
    for number, line in enumerate(_lines(content), start=1):
        if line.strip():
            try:
                with records.naming(f"line {number}"):
                    yield _decode_line(line, f"object {number}", size, names)
            except ValueError as error:
                yield error


def _decode_line(line: str, name: str, size: tuple[int, int], categories: Sequence[str]) -> Segment:
    index, *words = line.split()
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = []
    if len(numbers) == _BOX:
        raise ValueError(
            f"expected an outline, got a box, {shown(line)}; the mask of a box is what the model makes of "
            "Prompt(box=...)"
        )
    is_class = index.isdecimal() and len(index) < 10 and int(index) < len(categories)
    if not is_class or len(numbers) < 6 or len(numbers) % 2:
        raise ValueError(
            f"expected a class from 0 to {len(categories) - 1} and at least three points, got {shown(line)}"
        )
    points = records.checked_numbers(numbers).reshape(-1, 2) * size[::-1]
    records.checked_outline(points, size)
    mask = records.checked_covers(rasterize(split_polygon(points), size))
    return Segment(mask, name, categories[int(index)])


# Classes ----------------------------------------------------------------------------------------------------------


def _lines(content: bytes) -> list[str]:
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"expected text in UTF-8, got {error}") from error


def _checked_categories(categories: Sequence[str]) -> list[str]:
    """Return the classes as a list; ValueError if they are not different names, each of one line."""
    names = [] if isinstance(categories, str | Mapping) else list(categories)
    is_line = [isinstance(name, str) and [name] == name.strip().splitlines() for name in names]
    if len(names) < len(categories) or not all(is_line) or len(set(names)) < len(names):
        raise ValueError(
            "categories: expected a list of different names, each of one line, in the order of their numbers, got "
            f"{shown(categories)}"
        )
    return names


def _numbering(
    path: str | Path, segments: Sequence[Segment], categories: Sequence[str] | None
) -> tuple[list[str], list[str]]:
    """Return the classes of the folder, and those in the order of whose numbers a file is written."""
    path = Path(path).expanduser()
    classes = path.with_name(CLASSES)
    if categories is None and not classes.exists():
        labels = _other_labels(path)
        if labels and not classes.exists():  # again: another process writes the classes and then its labels
            raise ValueError(
                f"{str(path.parent)!r} holds labels, such as {labels!r}, and no {CLASSES} that says what their "
                "numbers mean: give categories, or write that file, a class a line in the order of the numbers"
            )
    known = read_classes(classes) if classes.exists() else []
    if categories is not None:
        return known, _checked_categories(categories)
    return known, [*known, *(name for name in records.category_names(segments) if name not in known)]


def read_classes(path: Path) -> list[str]:
    """Return the classes of a file, in the order of their numbers."""
    with records.naming(repr(str(path))):
        lines = _lines(read_bytes(path))
        while lines and not lines[-1].strip():
            lines.pop()
        return _checked_categories([line.strip() for line in lines])


def _extend_classes(path: Path, names: Sequence[str]) -> None:
    """Write classes at the end of a file, what it holds kept to the byte."""
    if not names:
        return
    old = read_bytes(path) if path.exists() else b""
    new = "".join(f"{name}\n" for name in names).encode("utf-8")
    write_bytes(path, old + (b"" if old.endswith(b"\n") or not old else b"\n") + new, overwrite=True)


def _other_labels(path: Path) -> str:
    """Return the name of a file of labels beside one; "" if there is none."""
    for other in sorted(path.parent.glob("*.txt")):
        if other != path and other.is_file():
            with other.open("rb") as file:
                if _LABEL.match(file.readline()):
                    return other.name
    return ""
