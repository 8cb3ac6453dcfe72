"""One image of a folder run: read, segmented, written."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from sam_nb.files.folder_state import (
    DONE,
    NO_PROMPTS,
    ImageJob,
    Row,
    empty_row,
    failed_row,
    finished_rows,
    result_rows,
)
from sam_nb.files.prompt_file import ImagePrompts
from sam_nb.files.records import encode_json
from sam_nb.files.results import save_segments
from sam_nb.images import decode_image
from sam_nb.masks import Segment
from sam_nb.session import Session
from sam_nb.storage import DISK_IS_FULL, replace_folder, writing_folder

if TYPE_CHECKING:
    from sam_nb.model.sam import Sam


# Images that are made side by side: while one is read, written, or runs what only one thread can do, another computes.
# More would take the memory of a model's activations each.
AT_ONCE = 2


class ImageFile(NamedTuple):
    """An image's file, its pixels, HxWx3 uint8 RGB, and its prompts."""

    content: bytes
    image: npt.NDArray[np.uint8]
    prompts: ImagePrompts


def share_threads(threads: int) -> None:
    """Let this thread compute with its share of a process's threads."""
    torch.set_num_threads(max(1, threads // AT_ONCE))


def make(sam: "Sam", job: ImageJob, out: Path, *, overwrite: bool) -> list[Row]:
    """Make the result of an image, or take one that is there and up to date; return its rows, or why there is none."""
    try:
        file = read(job)
        if (rows := finished_rows(sam, job, out, file.content)) is not None:
            return rows  # by a worker that died before it could say so
        return write(sam, job, file, segments_of(sam, file), out, overwrite=overwrite)
    except Exception as error:
        return [failed_or_raise(job, error, out)]


def read(job: ImageJob) -> ImageFile:
    """Read an image."""
    content = job.content()
    return ImageFile(content, decode_image(content, job.name), job.prompts or ImagePrompts())


def segments_of(sam: "Sam", found: ImageFile) -> list[Segment]:
    """Return the segments of an image by its prompts: the part that takes long."""
    if found.prompts.session is not None:
        session = Session.on(sam, found.image)
        session.load_json(json.dumps(found.prompts.session))
        return session.segments()
    embedding = sam.encode(found.image)
    segments = []
    for item in found.prompts.objects:
        masks = sam.decode(embedding, item.prompt)
        segments.append(Segment(masks.best, item.name, item.category, float(masks.scores.max())))
    return segments


def write(
    sam: "Sam", job: ImageJob, found: ImageFile, segments: list[Segment], out: Path, *, overwrite: bool
) -> list[Row]:
    """Write the result of an image, whole or not at all; return its rows of the table."""
    if not segments:
        return [empty_row(job, NO_PROMPTS)]
    record = encode_json(job.record(sam, found.content)).decode("utf-8")
    # The new result is made beside the old one, under a name that the next run sweeps up, should this one be killed.
    with writing_folder(job.result(out)) as part:
        new = save_segments(segments, found.image, part / "new", prompts=record, file_name=job.name, model=sam.name)
        replace_folder(new, job.result(out), overwrite=overwrite)
    return result_rows(job, out, DONE)


def failed_or_raise(job: ImageJob, error: Exception, out: Path) -> Row:
    """Return the row that says why an image has no result; raise where no other can have one either."""
    if isinstance(error, OSError) and error.errno in DISK_IS_FULL:
        raise OSError(
            error.errno,
            f"{os.strerror(error.errno)}: no more results can be written. Those that are there are whole. Make "
            "room and run again: it resumes",
            str(out),
        ) from error
    return failed_row(job, error)
