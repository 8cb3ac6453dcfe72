"""What a folder run keeps on disk, so that the next run resumes it: a result for each image, and a table of all.

A result is there whole or not at all, and its ``prompts.json`` says what it was made from: so a run knows which results
are up to date, which are stale and which are not its own.
"""

import contextlib
import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from sam_nb.files.prompt_file import ImagePrompts
from sam_nb.storage import escaped_file_name, remove_unfinished, write_bytes

if TYPE_CHECKING:
    from sam_nb.model.sam import Sam

Row = dict[str, str | int | float]

SUMMARY = "summary.csv"
COLUMNS = ("image", "object", "category", "area", "predicted_iou", "status", "reason")

DONE, UNCHANGED, FAILED, NO_PROMPTS = "done", "unchanged", "failed", "no prompts"  # in the column "status"

_MODEL_FIELDS = ("model", "weights", "precision")
_MAX_LISTED = 3  # names in a message


@dataclass(frozen=True, eq=False)
class ImageJob:
    """An image and its prompts; None if it has none."""

    name: str
    path: Path
    prompts: ImagePrompts | None

    def result(self, out: Path) -> Path:
        """Return the folder of the result."""
        return out / escaped_file_name(self.name)

    def record(self, sam: "Sam", content: bytes) -> dict[str, object]:
        """Return what `prompts.json` holds: all that a result depends on, `content` being the image file's bytes."""
        prompts = {} if self.prompts is None else self.prompts.to_record()
        made_from = {"image": self.name, "sha256": hashlib.sha256(content).hexdigest()}
        made_by = {"model": sam.name, "weights": sam.weights, "precision": sam.precision}
        return prompts | {"segment_folder": made_from | made_by}


@contextlib.contextmanager
def only_run_in(out: Path) -> Iterator[None]:
    """Keep a second run out of the folder. The system takes the lock back from a run that is killed."""
    lock = FileLock(out / ".segment_folder.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise RuntimeError(
            f"another run is writing into {str(out)!r}: wait until it ends, or choose another folder for out"
        ) from error
    try:
        yield
    finally:
        lock.release()


def sweep(out: Path, jobs: Sequence[ImageJob]) -> None:
    """Remove what a killed run left unfinished, and nothing else."""
    remove_unfinished(out, [*(job.result(out).name for job in jobs), SUMMARY])


def unchanged_jobs(sam: "Sam", jobs: Sequence[ImageJob], out: Path, *, overwrite: bool) -> set[ImageJob]:
    """Return the jobs whose result is there and up to date.

    Raises
    ------
    FileExistsError
        Something that must stay is in the way: what `segment_folder` did not make, or stale results, and `overwrite` is
        false.
    """
    _check_summary(out / SUMMARY)
    unchanged = set()
    stale: dict[str, list[str]] = {}
    for job in jobs:
        if job.prompts is None or not job.result(out).exists():
            continue
        found = _record_of(job, out)
        if found is None:
            raise FileExistsError(
                f"{str(job.result(out))!r} is damaged or was not made by segment_folder: move it away, or choose "
                "another folder for out"
            )
        expected = job.record(sam, job.path.read_bytes())
        if found == expected:
            unchanged.add(job)
        else:
            stale.setdefault(_difference(found, expected), []).append(job.name)
    if stale and not overwrite:
        words = "; ".join(f"{what}: {_listed(names)}" for what, names in stale.items())
        raise FileExistsError(
            f"{str(out)!r} holds results that were made {words}. Choose another folder for out, or say overwrite=True "
            "to replace them"
        )
    return unchanged


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


def write_summary(out: Path, rows: Sequence[Row]) -> None:
    """Write the table as CSV."""
    write_bytes(out / SUMMARY, _encode_csv(rows), overwrite=True)


def _encode_csv(rows: Sequence[Row]) -> bytes:
    file = io.StringIO(newline="")
    table = csv.DictWriter(file, COLUMNS)
    table.writeheader()
    table.writerows(rows)
    # Without the byte order mark at its beginning Excel would not read it as UTF-8.
    return file.getvalue().encode("utf-8-sig")


def _check_summary(path: Path) -> None:
    if path.exists() and path.read_bytes().splitlines()[:1] != _encode_csv([]).splitlines():
        raise FileExistsError(f"{str(path)!r} is another table: rename it, or choose another folder for out")


def _record_of(job: ImageJob, out: Path) -> dict[str, Any] | None:
    """Return what a result was made from, or None if it cannot be read."""
    try:
        found: dict[str, Any] = json.loads((job.result(out) / "prompts.json").read_bytes())
        is_ours = "weights" in found["segment_folder"] and result_rows(job, out, UNCHANGED)
    except (OSError, ValueError, KeyError, TypeError):
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
