"""Masks of every image in a folder by one prompt file, and nothing computed twice.

Each result is on the disk, whole, as soon as it is made. So a run that was interrupted, or killed, resumes where it
ended when it is started again.
"""

import difflib
import os
import stat
import unicodedata
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import torch
from tqdm.auto import tqdm

from sam_nb.files.folder_image import AT_ONCE, make, share_threads
from sam_nb.files.folder_state import (
    FAILED,
    SUMMARY,
    ImageJob,
    Row,
    check_writable,
    known_rows,
    only_run_in,
    sweep,
    write_summary,
)
from sam_nb.files.prompt_file import ANY_IMAGE, read_prompt_file
from sam_nb.storage import escaped_file_name, readable_file_name

if TYPE_CHECKING:
    from distributed import Client

    from sam_nb.model.sam import Sam

# What a camera or a phone writes. HEIC needs a plug-in for Pillow: without it the table says so, which is better than
# to skip the image in silence.
SUFFIXES = {
    *(".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"),
    *(".avif", ".heic", ".heif", ".jp2", ".ppm", ".pgm", ".tga"),
}


def segment_folder(
    sam: "Sam",
    folder: str | Path | Sequence[str | Path],
    prompts: str | Path,
    out: str | Path,
    *,
    overwrite: bool = False,
    on_image: Callable[[list[Row]], None] | None = None,
    client: "Client | None" = None,
) -> list[Row]:
    """Segment every image of a folder by one prompt file, with a progress bar; run it again to resume.

    Parameters
    ----------
    sam : Sam
    folder : str or pathlib.Path, or sequence of them
        Its images, by the endings of their names. Sub-folders are skipped: run each by itself. Or a list of images,
        paths and addresses (``http``); of several with the same file name each goes by all of its path. A name that is
        not UTF-8, as an archive from an older Windows may hold it, is written with ``%`` and two digits for each odd
        byte, in the table and in the prompt file.
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
        already, but for rounding. An empty list gives the image no prompts.
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
    client : distributed.Client, optional
        Spreads the images over the workers of a Dask cluster; see ``docs/scale.md``. They must see `folder` and `out`
        under the same paths. A worker that dies costs the images that it had in hand, which others make again; what is
        there in `out` at any moment is whole, and another run resumes it, with or without a cluster.

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
    jobs = _jobs(folder, Path(prompts).expanduser())
    out.mkdir(parents=True, exist_ok=True)
    if not os.access(out, os.W_OK):  # a finished run may be read where nothing can be written, not even a lock
        known = known_rows(sam, jobs, out, overwrite=overwrite)
        check_writable(out, [job for job in jobs if job not in known])
        return [row for job in jobs for row in known[job]]
    with only_run_in(out):
        sweep(out, jobs)
        known = known_rows(sam, jobs, out, overwrite=overwrite)
        stale = {job for job in jobs if job not in known and job.result(out).exists()}
        missing = [job for job in jobs if job not in known]
        failed = 0
        with tqdm(total=len(jobs), unit="image") as bar:
            for job, new in chain(list(known.items()), _made(sam, missing, out, stale, client)):
                known[job] = new
                bar.update()
                failed += new[0]["status"] == FAILED
                if failed:
                    bar.set_postfix(failed=failed)
                if on_image is not None:
                    on_image(new)
        rows = [row for job in jobs for row in known[job]]
        write_summary(out, rows)
    return rows


def _made(
    sam: "Sam", jobs: Sequence[ImageJob], out: Path, stale: Collection[ImageJob], client: "Client | None"
) -> Iterator[tuple[ImageJob, list[Row]]]:
    """Make the results of images; yield each image's rows when its result is on the disk."""
    if client is None:
        return _side_by_side(sam, jobs, out, stale)
    from sam_nb.files.folder_cluster import made_on_cluster  # noqa: PLC0415  Dask is an extra

    return made_on_cluster(client, sam, jobs, out, stale)


def _side_by_side(
    sam: "Sam", jobs: Sequence[ImageJob], out: Path, stale: Collection[ImageJob]
) -> Iterator[tuple[ImageJob, list[Row]]]:
    """Make results in this process, `AT_ONCE` images at a time, whatever stage each of them is in."""
    threads = torch.get_num_threads()
    waiting = iter(jobs)
    in_hand: deque[tuple[ImageJob, Future[list[Row]]]] = deque()
    pool = ThreadPoolExecutor(AT_ONCE, initializer=share_threads, initargs=(threads,))

    def submit(count: int) -> None:
        for job in islice(waiting, count):
            in_hand.append((job, pool.submit(make, sam, job, out, overwrite=job in stale)))

    try:
        submit(AT_ONCE + 1)  # one waits, so that no thread does
        while in_hand:
            job, made = in_hand.popleft()
            rows = made.result()
            submit(1)
            yield job, rows
    finally:
        torch.set_num_threads(threads)  # before what may take long, and be interrupted
        pool.shutdown(cancel_futures=True)


def _jobs(images: str | Path | Sequence[str | Path], prompts: Path) -> list[ImageJob]:
    """Return the jobs, of a folder by name in order, checked as far as they can be without opening an image."""
    entries = read_prompt_file(prompts)
    named = set(entries) - {ANY_IMAGE}
    if isinstance(images, str | Path):
        folder = Path(images).expanduser()
        sources: list[Path | str] = [*_images(folder, named, prompts.name)]
        files, where = [_file_name(source) for source in sources], repr(str(folder))
    else:
        sources, where = _listed(images), "the list"
        files = [_file_name(source) for source in sources]
    count = Counter(files)
    names = [
        readable_file_name(file if count[file] == 1 else str(source))
        for file, source in zip(files, sources, strict=True)
    ]
    keys = [(name, readable_file_name(file)) for name, file in zip(names, files, strict=True)]
    _check_named(named, {each for pair in keys for each in pair}, prompts.name, where)
    results = _result_names(files, [str(source) for source in sources])
    return [
        ImageJob(name, source, result, entries.get(name, entries.get(file, entries.get(ANY_IMAGE))))
        for (name, file), source, result in zip(keys, sources, results, strict=True)
    ]


def _listed(images: Sequence[str | Path]) -> list[Path | str]:
    """Return listed images: paths, and addresses as text."""
    sources: list[Path | str] = []
    for number, image in enumerate(images):
        if not isinstance(image, str | Path):
            raise ValueError(f"images[{number}]: expected a path or an address, got {type(image).__name__}")
        is_address = isinstance(image, str) and image.startswith(("http://", "https://"))
        sources.append(str(image) if is_address else Path(image).expanduser())
    twice = [str(source) for source, count in Counter(sources).items() if count > 1]
    if twice or not sources:
        raise ValueError(f"expected different images, got {twice[0]!r} twice" if twice else "the list holds no image")
    return sources


def _file_name(source: Path | str) -> str:
    if isinstance(source, Path):
        return source.name
    return unquote(urlsplit(source).path.rpartition("/")[2]) or "image"


def _images(folder: Path, named: set[str], source: str) -> list[Path]:
    """Return the images' paths, by name in order: what looks like an image, and what the prompt file names."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {str(folder)!r} (looked in {str(folder.parent.resolve())!r})")
    # macOS may take letters and their accents apart in the names of files; a prompt file is typed with them in one.
    files = {path: readable_file_name(path.name) for path in sorted(folder.iterdir()) if _may_be_file(path)}
    _check_named(named, set(files.values()), source, repr(str(folder)))
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


def _result_names(files: list[str], sources: list[str]) -> list[str]:
    """Return the folder names of results, different ones on Windows and macOS, too, which ignore upper case."""
    plain = [escaped_file_name(unicodedata.normalize("NFC", file)) for file in files]
    count = Counter(name.casefold() for name in plain)
    count[SUMMARY] += 1  # the table lies beside the results
    same = Counter(files)
    # Of several, the one in lower case keeps its name, whatever others there are.
    return [
        result
        if count[result.casefold()] == 1 or (file == result.casefold() and file != SUMMARY and same[file] == 1)
        else escaped_file_name(unicodedata.normalize("NFC", file), digest_of=file if same[file] == 1 else source)
        for file, result, source in zip(files, plain, sources, strict=True)
    ]


def _check_named(named: set[str], files: Collection[str], source: str, where: str) -> None:
    """Raise if the prompt file names an image that is not there."""
    for name in sorted(named.difference(files)):
        near = difflib.get_close_matches(name, files, n=2)
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else "Sub-folders are skipped."
        raise FileNotFoundError(f"{source} names {name!r}, and there is no such file in {where}. {hint}")


def looks_like_image(path: Path) -> bool:
    """Tell whether a file's name is that of an image."""
    # Hidden files are not images: macOS leaves ._a.jpg beside a.jpg on foreign disks.
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
