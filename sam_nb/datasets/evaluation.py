"""Scores out: how well a model does on your own labelled images, by the simulated user.

The measures are those of interactive segmentation: IoU after a box and after clicks (SAM paper, arXiv 2304.02643,
section 7.1), and the number of clicks that an IoU takes, NoC@85 and NoC@90 (Sofiiuk et al., arXiv 2102.06583).
"""

from __future__ import annotations

import hashlib
import html
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from sam_nb.clicks import click_on
from sam_nb.datasets.dataset import UNREADABLE, Dataset, LabelledImage, Skipped
from sam_nb.figures import show
from sam_nb.masks import Segment, bounding_box, iou
from sam_nb.prompts import Prompt, checked_integer
from sam_nb.storage import write_bytes

if TYPE_CHECKING:
    from sam_nb.model.sam import Sam

VERSION = 1  # of the file of scores
CLICKS = (1, 3, 5)  # after which the table gives the IoU
AIMS = (0.85, 0.90)  # IoUs whose clicks are counted


@dataclass(frozen=True)
class ObjectScore:
    """How well a model does on one object.

    Attributes
    ----------
    image, name, category : str
    area : int
        Of the ground truth, pixels.
    box : float
        IoU by the ground truth's tight box.
    clicks : tuple of float
        IoU after each click of the simulated user, who stops once the highest aim is reached and no score of the table
        is missing.
    """

    image: str
    name: str
    category: str
    area: int
    box: float
    clicks: tuple[float, ...]

    def after(self, clicks: int) -> float:
        """Return the IoU after so many clicks."""
        return self.clicks[min(clicks, len(self.clicks)) - 1]

    def clicks_to(self, aim: float) -> int | None:
        """Return how many clicks an IoU takes, or None if they did not reach it."""
        return next((number for number, value in enumerate(self.clicks, start=1) if value >= aim), None)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The scores of a model on a data set.

    Attributes
    ----------
    model : str
    objects : tuple of ObjectScore
    skipped : tuple of Skipped
        Images and objects without a score, and why.
    max_clicks : int
        The simulated user's, on an object.
    """

    model: str
    objects: tuple[ObjectScore, ...]
    skipped: tuple[Skipped, ...]
    max_clicks: int

    def summary(self) -> dict[str, float]:
        """Return the means over the objects: a row of the table.

        Returns
        -------
        dict of str to float
            ``objects``; the mean IoU by ``box`` and after ``1 click``, ``3 clicks``, ``5 clicks``; for each aim the
            mean number of clicks, ``NoC@85`` and ``NoC@90``, an object that does not reach it counting as `max_clicks`,
            and the share of objects that do not, ``failed@85`` and ``failed@90``.
        """
        row = {"objects": float(len(self.objects)), "box": float(np.mean([one.box for one in self.objects]))}
        for count in CLICKS:
            words = f"{count} click{'s' if count > 1 else ''}"
            row[words] = float(np.mean([one.after(count) for one in self.objects]))
        for aim in AIMS:
            taken = [one.clicks_to(aim) for one in self.objects]
            row[f"NoC@{100 * aim:.0f}"] = float(np.mean([self.max_clicks if n is None else n for n in taken]))
            row[f"failed@{100 * aim:.0f}"] = float(np.mean([n is None for n in taken]))
        return row

    def worst(self, count: int = 4) -> list[ObjectScore]:
        """Return the objects with the lowest IoU by a box, the lowest first."""
        return sorted(self.objects, key=lambda one: one.box)[: checked_integer(count, "count", 1)]

    def __repr__(self) -> str:
        return _as_text([self])

    def _repr_html_(self) -> str:
        return _as_html([self])


@dataclass(frozen=True, eq=False)
class Comparison:
    """Scores of several models on the same objects, as one table."""

    evaluations: tuple[Evaluation, ...]

    def __repr__(self) -> str:
        return _as_text(self.evaluations)

    def _repr_html_(self) -> str:
        return _as_html(self.evaluations)


def evaluate(sam: Sam, dataset: Dataset, *, max_clicks: int = 10, out: str | Path | None = None) -> Evaluation:
    """Let the simulated user draw a box around each object, and click on it, with a progress bar.

    Parameters
    ----------
    sam : Sam
    dataset : Dataset
        Images that the model was not trained on.
    max_clicks : int
        On an object, 5 or more.
    out : str or pathlib.Path, optional
        A file of scores, ``.jsonl``, a line for each image. Where it is there, what it holds is not computed again: so
        an interrupted evaluation resumes.

    Returns
    -------
    Evaluation

    Raises
    ------
    ValueError
        `max_clicks` is not an integer of 5 or more, or no image could be read.
    FileExistsError
        `out` is another file, or holds the scores of another model.
    """
    max_clicks = checked_integer(max_clicks, "max_clicks", max(CLICKS))
    header = {
        "sam_nb_evaluation": VERSION,
        "model": sam.name,
        "weights": sam.weights,
        "precision": sam.precision,
        "max_clicks": max_clicks,
    }
    path = None if out is None else Path(out).expanduser()
    known = {} if path is None else _resume(path, header)
    objects: list[ObjectScore] = []
    skipped: list[Skipped] = []
    for one in tqdm(dataset.images, unit="image", desc=f"evaluate {sam.name}"):
        try:
            image, segments, left_out = one.read()
        except UNREADABLE as error:
            skipped.append(Skipped(one.name, str(error)))
            continue
        key = _digest(one.name, image, segments)
        if key not in known:
            known[key] = list(_scores(sam, one, image, segments, max_clicks))
            if path is not None:
                _append(path, {"key": key, "objects": [asdict(score) for score in known[key]]})
        objects += known[key]
        skipped += left_out
    if not objects:
        raise ValueError(f"no image of {dataset!r} could be read: {skipped[:3]}")
    return Evaluation(sam.name, tuple(objects), tuple(skipped), max_clicks)


def compare_scores(*evaluations: Evaluation) -> Comparison:
    """Return one table of several evaluations; ValueError if they are not of the same objects."""
    seen = [[(one.image, one.name, one.area) for one in each.objects] for each in evaluations]
    if not evaluations or any(other != seen[0] for other in seen):
        raise ValueError("expected evaluations of the same objects, with the same data set for each model")
    return Comparison(evaluations)


def show_worst(sam: Sam, dataset: Dataset, evaluation: Evaluation, count: int = 4) -> None:
    """Draw the objects with the lowest IoU by a box: the box, the mask, and how far it is from the ground truth.

    Parameters
    ----------
    sam : Sam
        Whose evaluation it is.
    dataset : Dataset
        That was evaluated.
    evaluation : Evaluation
    count : int
        At most.
    """
    places = {one.name: one for one in dataset.images}
    for worst in evaluation.worst(count):
        image, segments, _ = places[worst.image].read()
        mask = next(each.mask for each in segments if (each.name, int(each.mask.sum())) == (worst.name, worst.area))
        box = bounding_box(mask)
        prompt = Prompt(box=box)
        title = f"{worst.image}: {worst.name}"
        show(
            image,
            sam.decode(sam.encode(image), prompt),
            prompt,
            ground_truth=mask,
            title=title,
            around=_around(box, image),
        )


def _around(box: tuple[int, int, int, int], image: npt.NDArray[np.uint8]) -> tuple[float, float, float, float]:
    """Return a box with half of its longer side around it, inside the image."""
    x0, y0, x1, y1 = box
    margin = max(x1 - x0, y1 - y0) / 2
    height, width = image.shape[:2]
    return max(0.0, x0 - margin), max(0.0, y0 - margin), min(float(width), x1 + margin), min(float(height), y1 + margin)


def _scores(
    sam: Sam, one: LabelledImage, image: npt.NDArray[np.uint8], segments: Sequence[Segment], max_clicks: int
) -> Iterator[ObjectScore]:
    embedding = sam.encode(image)
    boxes = sam.decode_batch(embedding, [Prompt(box=bounding_box(each.mask)) for each in segments])
    for segment, boxed in zip(segments, boxes, strict=True):
        values: list[float] = []
        for _, masks in islice(click_on(sam, embedding, segment.mask), max_clicks):
            values.append(round(iou(masks.best, segment.mask), 4))
            if len(values) >= max(CLICKS) and values[-1] >= max(AIMS):
                break
        box = round(iou(boxed.best, segment.mask), 4)
        area = int(np.count_nonzero(segment.mask))
        yield ObjectScore(one.name, segment.name, segment.category, area, box, tuple(values))


# The file of scores --------------------------------------------------------------------------------------------------


def _digest(name: str, image: npt.NDArray[np.uint8], segments: Sequence[Segment]) -> str:
    """Return a digest of what an image's scores hold and depend on beside the model, 64 hexadecimal digits."""
    digest = hashlib.sha256(f"{name}\0{image.shape}".encode("utf-8", "surrogateescape"))
    digest.update(image.tobytes())
    for segment in segments:
        digest.update(f"{segment.name}\0{segment.category}\0".encode())
        digest.update(np.packbits(segment.mask).tobytes())
    return digest.hexdigest()


def _resume(path: Path, header: dict[str, object]) -> dict[str, list[ObjectScore]]:
    """Return the scores that a file holds by their digests, and make it ready for more.

    It is begun where there is none; a last line that an interrupted run left unfinished is cut off.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, _line(header))
        return {}
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    known = {}
    try:
        found, *rows = [json.loads(line) for line in content[:whole].splitlines()]
        for row in rows if found == header else []:
            known[row["key"]] = [ObjectScore(**one | {"clicks": tuple(one["clicks"])}) for one in row["objects"]]
    except (ValueError, KeyError, TypeError) as error:
        raise FileExistsError(
            f"{str(path)!r} does not hold scores, or is damaged: choose another name for out"
        ) from error
    if found != header:
        raise FileExistsError(
            f"{str(path)!r} holds scores of another model, or with other clicks: choose another name for out"
        )
    if whole < len(content):
        os.truncate(path, whole)
    return known


def _append(path: Path, record: dict[str, object]) -> None:
    with path.open("ab") as file:
        file.write(_line(record))


def _line(record: dict[str, object]) -> bytes:
    return (json.dumps(record) + "\n").encode("ascii")


# The table -----------------------------------------------------------------------------------------------------------


def _table(evaluations: Sequence[Evaluation]) -> list[list[str]]:
    rows = [
        {"model": each.model, **{key: _shown(key, value) for key, value in each.summary().items()}}
        for each in evaluations
    ]
    return [[*rows[0]], *([*row.values()] for row in rows)]


def _shown(column: str, value: float) -> str:
    if column == "objects":
        return f"{value:.0f}"
    if column.startswith("failed"):
        return f"{100 * value:.0f} %"
    return f"{value:.1f}" if column.startswith("NoC") else f"{value:.2f}"


def _as_text(evaluations: Sequence[Evaluation]) -> str:
    table = _table(evaluations)
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in table)


def _as_html(evaluations: Sequence[Evaluation]) -> str:
    head, *body = _table(evaluations)
    rows = ["".join(f"<th>{html.escape(cell)}</th>" for cell in head)]
    rows += ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in body]
    return "<table>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"
