"""What a folder run keeps on disk, so that the next run resumes it: a result for each image, and a table of all.

A result is there whole or not at all, and its ``prompts.json`` says what it was made from: so a run knows which results
are up to date, which are stale and which are not its own.
"""

import contextlib
import csv
import hashlib
import io
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam_nb.files.prompt_file import ImagePrompts
from sam_nb.images import fetch
from sam_nb.storage import locked, remove_unfinished, write_bytes

if TYPE_CHECKING:
    from sam_nb.model.sam import Sam

Row = dict[str, str | int | float]

SUMMARY = "summary.csv"
COLUMNS = ("image", "object", "category", "area", "predicted_iou", "status", "reason")

DONE, UNCHANGED, FAILED, NO_PROMPTS = "done", "unchanged", "failed", "no prompts"  # in the column "status"

_MODEL_FIELDS = ("model", "weights", "precision")
_SPEAKING = (OSError, ValueError, RuntimeError, MemoryError)  # errors whose words say what is wrong
_MAX_LISTED = 3  # names in a message


@dataclass(frozen=True, eq=False)
class ImageJob:
    """An image, its path or address, the name of its result, and its prompts; None if it has none."""

    name: str
    source: Path | str
    result_name: str
    prompts: ImagePrompts | None

    def content(self) -> bytes:
        """Return the bytes of the image's file."""
        return fetch(self.source) if isinstance(self.source, str) else self.source.read_bytes()

    def result(self, out: Path) -> Path:
        """Return the folder of the result."""
        return out / self.result_name

    def record(self, sam: "Sam", content: bytes) -> dict[str, object]:
        """Return what `prompts.json` holds: all that a result depends on, `content` being the image file's bytes."""
        prompts = {} if self.prompts is None else self.prompts.to_record()
        made_from = {"image": self.name, "sha256": hashlib.sha256(content).hexdigest()}
        made_by = {"model": sam.name, "weights": sam.weights, "precision": sam.precision}
        return prompts | {"segment_folder": made_from | made_by}


@contextlib.contextmanager
def only_run_in(out: Path) -> Iterator[None]:
    """Keep a second run out of the folder. The system takes the lock back from a run that is killed."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locked(out / ".segment_folder.lock", timeout=0))
        except TimeoutError as error:
            raise RuntimeError(
                f"another run is writing into {str(out)!r}: wait until it ends, or choose another folder for out"
            ) from error
        yield


def sweep(out: Path, jobs: Sequence[ImageJob]) -> None:
    """Remove what a killed run left unfinished, and nothing else."""
    remove_unfinished(out, [*(job.result(out).name for job in jobs), SUMMARY])


def known_rows(sam: "Sam", jobs: Sequence[ImageJob], out: Path, *, overwrite: bool) -> dict[ImageJob, list[Row]]:
    """Return the rows of images whose result is not to be made.

    It is there and up to date; or it is there, and the image cannot be read, so that nobody knows whether it is; or the
    image has no prompts.

    Raises
    ------
    FileExistsError
        Something that must stay is in the way: what `segment_folder` did not make, or stale results, and `overwrite` is
        false.
    """
    _check_summary(out / SUMMARY)
    known: dict[ImageJob, list[Row]] = {}
    stale: dict[str, list[str]] = {}
    for job in jobs:
        if job.prompts is None:
            known[job] = [empty_row(job, NO_PROMPTS)]
            continue
        if not os.path.lexists(job.result(out)):
            continue
        found = _record_of(job, out)
        if found is None:
            raise FileExistsError(
                f"{str(job.result(out))!r} is damaged or was not made by segment_folder: move it away, or choose "
                "another folder for out"
            )
        try:
            expected = job.record(sam, job.content())
        except (OSError, ValueError, MemoryError) as error:
            known[job] = [failed_row(job, error)]
            continue
        if found == expected:
            known[job] = result_rows(job, out, UNCHANGED)
        else:
            stale.setdefault(_difference(found, expected), []).append(job.name)
    if stale and not overwrite:
        words = "; ".join(f"{what}: {_listed(names)}" for what, names in stale.items())
        raise FileExistsError(
            f"{str(out)!r} holds results that were made {words}. Choose another folder for out, or say overwrite=True "
            "to replace them"
        )
    return known


def finished_rows(sam: "Sam", job: ImageJob, out: Path, content: bytes) -> list[Row] | None:
    """Return the rows of a result that is there and up to date, or None; `content` is the image file's."""
    return result_rows(job, out, DONE) if _record_of(job, out) == job.record(sam, content) else None


def check_writable(out: Path, missing: Sequence[ImageJob]) -> None:
    """Raise PermissionError if results are missing in a folder that may not be written."""
    if missing:
        raise PermissionError(
            f"{str(out)!r} may not be written, and has no result for {_listed([job.name for job in missing])}: choose "
            "another folder for out"
        )


def result_rows(job: ImageJob, out: Path, status: str) -> list[Row]:
    """Return the table's rows for a result, a row for each object, as its files hold them."""
    coco = json.loads((job.result(out) / "coco.json").read_bytes())
    categories = {category["id"]: category["name"] for category in coco["categories"]}
    return [
        {
            "image": job.name,
            "object": item["name"],
            "category": categories[item["category_id"]],
            "area": item["area"],
            "predicted_iou": round(item["score"], 3),
            "status": status,
            "reason": "",
        }
        for item in coco["annotations"]
    ]


def empty_row(job: ImageJob, status: str, reason: str = "") -> Row:
    """Return the one row of an image without a result."""
    return {**dict.fromkeys(COLUMNS, ""), "image": job.name, "status": status, "reason": reason}


def failed_row(job: ImageJob, error: Exception) -> Row:
    """Return the row of an image that failed, with the error's words on one line."""
    words = " ".join(str(error).split()).encode("utf-8", "backslashreplace").decode("utf-8")
    kind = type(error).__name__
    if isinstance(error, _SPEAKING) and not isinstance(error, UnicodeError):
        return empty_row(job, FAILED, words or kind)
    return empty_row(job, FAILED, f"{kind}: {words}" if words else kind)


def write_summary(out: Path, rows: Sequence[Row]) -> None:
    """Write the table as CSV; where that is not possible, warn, since the rows themselves are not lost."""
    try:
        write_bytes(out / SUMMARY, _encode_csv(rows), overwrite=True)
    except OSError as error:
        warnings.warn(
            f"{str(out / SUMMARY)!r} {error.strerror or error}: is it open in another program? All results are there; "
            "run again to write the table",
            stacklevel=3,
        )


def _encode_csv(rows: Sequence[Row]) -> bytes:
    file = io.StringIO(newline="")
    table = csv.DictWriter(file, COLUMNS)
    table.writeheader()
    table.writerows(rows)
    # Without the byte order mark at its beginning Excel would not read it as UTF-8.
    return file.getvalue().encode("utf-8-sig")


def _check_summary(path: Path) -> None:
    if path.is_dir() or (path.exists() and path.read_bytes().splitlines()[:1] != _encode_csv([]).splitlines()):
        raise FileExistsError(f"{str(path)!r} is another table: rename it, or choose another folder for out")


def _record_of(job: ImageJob, out: Path) -> dict[str, Any] | None:
    """Return what a result was made from, or None if it cannot be read."""
    try:
        found: dict[str, Any] = json.loads((job.result(out) / "prompts.json").read_bytes())
        is_ours = "weights" in found["segment_folder"] and result_rows(job, out, UNCHANGED)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if is_ours else None


def _difference(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """Return in words what a stale result was made from or by."""
    old, new = found["segment_folder"], expected["segment_folder"]
    if any(old.get(name) != new[name] for name in _MODEL_FIELDS):
        return f"by another model or other weights ({old.get('model')})"
    return "from another image" if old.get("sha256") != new["sha256"] else "from other prompts"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MAX_LISTED])
    return shown if len(names) <= _MAX_LISTED else f"{shown} and {len(names) - _MAX_LISTED} more"
