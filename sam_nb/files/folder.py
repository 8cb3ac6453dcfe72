"""Masks of every image in a folder by one prompt file, and nothing computed twice.

Each result is on the disk, whole, as soon as it is made. So a run that was interrupted, or killed, resumes where it
ended when it is started again.
"""

import difflib
import json
import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from sam_nb.files.folder_state import (
    DONE,
    FAILED,
    NO_PROMPTS,
    SUMMARY,
    ImageJob,
    Row,
    check_writable,
    empty_row,
    failed_row,
    known_rows,
    only_run_in,
    result_rows,
    sweep,
    write_summary,
)
from sam_nb.files.prompt_file import ANY_IMAGE, ImagePrompts, read_prompt_file
from sam_nb.files.records import encode_json
from sam_nb.files.results import save_segments
from sam_nb.images import decode_image
from sam_nb.masks import Segment
from sam_nb.session import Session
from sam_nb.storage import (
    DISK_IS_FULL,
    escaped_file_name,
    readable_file_name,
    replace_folder,
    writing_folder,
)

if TYPE_CHECKING:
    from sam_nb.model.sam import Sam

# What a camera or a phone writes. HEIC needs a plug-in for Pillow: without it the table says so, which is better than
# to skip the image in silence.
SUFFIXES = {
    *(".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"),
    *(".avif", ".heic", ".heif", ".jp2", ".ppm", ".pgm", ".tga"),
}


def segment_folder(
    sam: "Sam",
    folder: str | Path,
    prompts: str | Path,
    out: str | Path,
    *,
    overwrite: bool = False,
    on_image: Callable[[list[Row]], None] | None = None,
) -> list[Row]:
    """Segment every image of a folder by one prompt file, with a progress bar; run it again to resume.

    Parameters
    ----------
    sam : Sam
    folder : str or pathlib.Path
        Its images, by the endings of their names. Sub-folders are skipped: run each by itself. A name that is not
        UTF-8, as an archive from an older Windows may hold it, is written with ``%`` and two digits for each odd byte,
        in the table and in the prompt file.
    prompts : str or pathlib.Path
        A JSON file (UTF-8) with the prompts of each image, by its file name; ``"*"`` stands for every image without an
        entry, such as the same box for all that a fixed camera took::

            {
              "a.jpg": [{"name": "left wheel", "category": "wheel", "box": [250, 370, 410, 510]},
                        {"name": "roof", "points": [[500, 200], [300, 50]], "labels": [1, 0]}],
              "b.jpg": {"sam_nb_session": 1, ...},
              "*": [{"box": [44, 160, 1011, 504]}]
            }

        An entry is a list of objects with the fields of `Prompt`, or a session as *Save* under the canvas writes it
        into ``prompts.json``; `sam_nb.files.prompt_file` describes both. Neither changes a mask that you have seen
        already. An empty list gives the image no prompts.
    out : str or pathlib.Path
        Made if it is not there. Each image gets a folder in it, named like the image's file, ending included (so
        ``a.jpg`` and ``a.png`` do not meet; what Windows does not allow in a name is written as ``%`` and two digits; a
        digest ends a name of over 140 bytes, which is cut, and one that differs from another by upper case alone). It
        holds what `save_segments` writes: ``masks/``, ``cutouts/``, ``coco.json`` and ``prompts.json``, which says by
        which prompts and model, and from which image, the masks were made. ``summary.csv`` holds the table.
    overwrite : bool
        Whether to replace results that were made from other prompts, from another image or by another model; their
        folders go as a whole, with what you put into them. Results that are up to date stay in any case.
    on_image : callable, optional
        Is called after each image with its rows of the table, when its result is on the disk: to look at the results
        while the others are made. What it raises ends the run, as an interruption does.

    Returns
    -------
    list of dict
        The table, a row for each object: ``image``, ``object``, ``category``, ``area`` (pixels), ``predicted_iou``,
        ``status`` and ``reason``, with "" where there is no value. The status is

        * ``"done"``: in this run;
        * ``"unchanged"``: the result was there, made from the same prompts and image by the same model (its weights and
          precision), and was left as it is;
        * ``"failed"``: `reason` says why, whatever it was. The image has one row and no new result, and is tried again
          next time;
        * ``"no prompts"``: the image has none, or only background clicks.

    Raises
    ------
    FileNotFoundError
        There is no such folder or prompt file, or the prompt file names an image that is not there.
    FileExistsError
        `out` holds results that are not up to date, and `overwrite` is false; or, in a place where a result belongs,
        something that this function did not make. It is never replaced.
    ValueError
        The prompt file is not of this form, or holds a prompt that is invalid for any image, such as a reversed box; or
        there is no image.
    RuntimeError
        Another run is writing into `out`.
    PermissionError
        `out` may not be written, and a result is missing in it.
    OSError
        The disk of `out` is full: nothing can be written any more. What was done is there, and is not done again.

    Warns
    -----
    UserWarning
        ``summary.csv`` cannot be written, being open in another program for example. The table is returned.

    Notes
    -----
    What can be known before the first image is opened is checked before, and raised: so a mistake in the prompt file
    costs seconds and not a night. What depends on the image (it is damaged, a prompt lies outside of it, it is too
    large for the memory, its result cannot be saved) is written into the table, and the other images go on: an error at
    the end would lose the table, so look at the column `status`; the progress bar counts the failed ones, too.
    """
    out = Path(out).expanduser()
    jobs = _jobs(Path(folder).expanduser(), Path(prompts).expanduser())
    out.mkdir(parents=True, exist_ok=True)
    if not os.access(out, os.W_OK):  # a finished run may be read where nothing can be written, not even a lock
        known = known_rows(sam, jobs, out, overwrite=overwrite)
        check_writable(out, [job for job in jobs if job not in known])
        return [row for job in jobs for row in known[job]]
    with only_run_in(out):
        sweep(out, jobs)
        known = known_rows(sam, jobs, out, overwrite=overwrite)
        stale = {job for job in jobs if job not in known and job.result(out).exists()}
        rows: list[Row] = []
        failed = 0
        with tqdm(jobs, unit="image") as bar:
            for job in bar:
                new = known[job] if job in known else _run(sam, job, out, overwrite=job in stale)
                rows += new
                if on_image is not None:
                    on_image(new)
                failed += new[0]["status"] == FAILED
                if failed:
                    bar.set_postfix(failed=failed)
        write_summary(out, rows)
    return rows


def _jobs(folder: Path, prompts: Path) -> list[ImageJob]:
    """Return the jobs, by name in order, checked as far as they can be without opening an image."""
    entries = read_prompt_file(prompts)
    paths = _images(folder, set(entries) - {ANY_IMAGE}, prompts.name)
    names = [readable_file_name(path.name) for path in paths]
    results = _result_names([path.name for path in paths])
    return [
        ImageJob(name, path, result, entries.get(name, entries.get(ANY_IMAGE)))
        for name, path, result in zip(names, paths, results, strict=True)
    ]


def _images(folder: Path, named: set[str], source: str) -> list[Path]:
    """Return the images' paths, by name in order: what looks like an image, and what the prompt file names."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {str(folder)!r} (looked in {str(folder.parent.resolve())!r})")
    # macOS may take letters and their accents apart in the names of files; a prompt file is typed with them in one.
    files = {path: readable_file_name(path.name) for path in sorted(folder.iterdir()) if _may_be_file(path)}
    _check_named(named, set(files.values()), source, folder)
    found = [path for path, name in files.items() if name in named or looks_like_image(path)]
    if not found:
        others = f"; it holds {len(files)} other files, such as {next(iter(files.values()))!r}" if files else ""
        raise ValueError(f"no image (.jpg, .png, .webp, .tif ...) in {str(folder)!r}{others}")
    return found


def _may_be_file(path: Path) -> bool:
    """Tell whether a path is a file, or something of which only reading says what is wrong: a link to nothing."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True


def _result_names(names: list[str]) -> list[str]:
    """Return the folder names of results, different ones on Windows and macOS, too, which ignore upper case."""
    plain = [escaped_file_name(unicodedata.normalize("NFC", name)) for name in names]
    count = Counter(name.casefold() for name in plain)
    count[SUMMARY] += 1  # the table lies beside the results
    # Of several, the one in lower case keeps its name, whatever others there are.
    return [
        result
        if count[result.casefold()] == 1 or (name == result.casefold() and name != SUMMARY)
        else escaped_file_name(unicodedata.normalize("NFC", name), digest_of=name)
        for name, result in zip(names, plain, strict=True)
    ]


def _check_named(named: set[str], files: Collection[str], source: str, folder: Path) -> None:
    """Raise if the prompt file names an image that is not there."""
    for name in sorted(named.difference(files)):
        near = difflib.get_close_matches(name, files, n=2)
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else "Sub-folders are skipped."
        raise FileNotFoundError(f"{source} names {name!r}, and there is no such file in {str(folder)!r}. {hint}")


def looks_like_image(path: Path) -> bool:
    """Tell whether a file's name is that of an image."""
    # Hidden files are not images: macOS leaves ._a.jpg beside a.jpg on foreign disks.
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _run(sam: "Sam", job: ImageJob, out: Path, *, overwrite: bool) -> list[Row]:
    """Return the rows of an image after its result was made, or the row that says why it was not."""
    try:
        return _make(sam, job, out, overwrite=overwrite)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_IS_FULL:
            raise OSError(
                error.errno,
                f"{os.strerror(error.errno)}: no more results can be written. Those that are there are whole. Make "
                "room and run again: it resumes",
                str(out),
            ) from error
        return [failed_row(job, error)]


def _make(sam: "Sam", job: ImageJob, out: Path, *, overwrite: bool) -> list[Row]:
    prompts = job.prompts or ImagePrompts()
    content = job.path.read_bytes()
    image = decode_image(content, job.name)
    segments = _segments(sam, image, prompts)
    if not segments:
        return [empty_row(job, NO_PROMPTS)]
    record = encode_json(job.record(sam, content)).decode("utf-8")
    # The new result is made beside the old one, under a name that the next run sweeps up, should this one be killed.
    with writing_folder(job.result(out)) as part:
        new = save_segments(segments, image, part / "new", prompts=record, file_name=job.name, model=sam.name)
        replace_folder(new, job.result(out), overwrite=overwrite)
    return result_rows(job, out, DONE)


def _segments(sam: "Sam", image: npt.NDArray[np.uint8], prompts: ImagePrompts) -> list[Segment]:
    if prompts.session is not None:
        session = Session.on(sam, image)
        session.load_json(json.dumps(prompts.session))
        return session.segments()
    embedding = sam.encode(image)
    segments = []
    for item in prompts.objects:
        masks = sam.decode(embedding, item.prompt)
        segments.append(Segment(masks.best, item.name, item.category, float(masks.scores.max())))
    return segments
