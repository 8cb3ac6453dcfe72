"""A folder of pictures and one prompt file: masks of every picture, a table of them, and nothing done twice.

What is finished lies on the disk, picture by picture, and a picture's result is there whole or not at all. So a run
that was interrupted, or killed, goes on where it ended when it is started again.
"""

import contextlib
import csv
import difflib
import hashlib
import io
import json
import re
import shutil
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from sam_nb.files.results import save_segments
from sam_nb.images import load_image
from sam_nb.masks import Segment
from sam_nb.prompts import Prompt
from sam_nb.session import Session
from sam_nb.storage import escaped_file_name, replace_folder, write_bytes, writing_folder

# What a camera or a phone writes. HEIC needs a plug-in for Pillow: without it the table says so, which is better than
# to pass over the picture in silence.
SUFFIXES = {
    *(".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"),
    *(".avif", ".heic", ".heif", ".jp2", ".ppm", ".pgm", ".tga"),
}
EVERY = "*"  # the entry of a prompt file for all pictures that it does not name
FIELDS = ("points", "labels", "box")  # of `Prompt`, in a prompt file

SUMMARY = "summary.csv"
COLUMNS = ("picture", "object", "category", "area", "predicted_iou", "status", "reason")

# What one picture can go wrong by: damage, a prompt outside of it, too large for the memory.
FAILURES = (OSError, ValueError, RuntimeError, MemoryError)


def segment_folder(sam, folder, prompts, out, *, overwrite=False):
    """Segment every picture of a folder by one prompt file, with a progress bar; run it again to go on.

    Parameters
    ----------
    sam : Sam
    folder : str or pathlib.Path
        Its pictures, by the endings of their names. Sub-folders are left alone: run each by itself.
    prompts : str or pathlib.Path
        A JSON file (UTF-8) that says what is wanted in each picture, by its file name; ``"*"`` stands for every picture
        that is not named, such as the same box for all that a fixed camera took::

            {
              "a.jpg": [{"name": "left wheel", "category": "wheel", "box": [250, 370, 410, 510]},
                        {"name": "roof", "points": [[500, 200], [300, 50]], "labels": [1, 0]}],
              "b.jpg": {"sam_nb_session": 1, ...},
              "*": [{"box": [44, 160, 1011, 504]}]
            }

        A picture's entry has one of two forms, for the two ways in which people arrive at it:

        * a list of objects with the fields of `Prompt` (points, labels, box), and a name and a category if you like.
          Each gets the mask that ``sam.decode(embedding, Prompt(...)).best`` is: written by hand, or by a detector;
        * a session, as *Save* under the canvas writes it into ``prompts.json`` and `Session.to_json` returns it. It
          gets the masks that the canvas showed: there every click is asked with the logits of the mask before it, and
          the chosen one of three masks is remembered, which a `Prompt` cannot say.

        So neither form changes a mask that you have seen already. An empty list asks for nothing.
    out : str or pathlib.Path
        Made if it is not there. Each picture gets a folder in it, named like the picture's file, ending included (so
        ``a.jpg`` and ``a.png`` do not meet; what Windows does not allow in a name is written as ``%`` and two digits),
        with what `save_segments` writes: ``masks/``, ``cutouts/``, ``coco.json`` and ``prompts.json``, which tells by
        which prompts and model, and from which picture, the masks were made. ``summary.csv`` holds the table.
    overwrite : bool
        Whether results that were made from other prompts, from another picture or by another model are replaced; their
        folders go as a whole, with what you put into them. Results that are up to date stay in any case.

    Returns
    -------
    list of dict
        The table, a row for each object: ``picture``, ``object``, ``category``, ``area`` (pixels), ``predicted_iou``,
        ``status`` and ``reason``, with "" where there is nothing to say. The status is

        * ``"done"``: in this run;
        * ``"done before"``: the result was there, made from the same prompts and picture by the same model (its weights
          and precision), and was left as it is;
        * ``"failed"``: `reason` says why. The picture has one row and no new result, and is tried again next time;
        * ``"not asked"``: nothing was asked about the picture.

    Raises
    ------
    FileNotFoundError
        There is no such folder or prompt file, or the prompt file names a picture that is not there.
    FileExistsError
        `out` holds results that are not up to date, and `overwrite` is false; or, in a place where a result belongs,
        something that this function did not make. It is never replaced.
    ValueError
        The prompt file is not of this form, or holds a prompt that no picture could answer, such as a reversed box;
        there is no picture; names differ by upper case alone, which Windows and macOS take for one.
    RuntimeError
        Another run is writing into `out`.
    OSError
        A result cannot be written, the disk being full for example.

    Notes
    -----
    What can be known before the first picture is opened is checked before, and raised: so a mistake in the prompt file
    costs seconds and not a night. What only the picture can tell (it is damaged, a prompt lies outside of it, it is too
    large for the memory) is written into the table, and the other pictures go on: an error at the end would take the
    table away from who needs it, so look at the column `status`; the progress bar counts the failed ones, too.
    """
    folder, out = Path(folder).expanduser(), Path(out).expanduser()
    jobs = _jobs(folder, Path(prompts).expanduser())
    out.mkdir(parents=True, exist_ok=True)
    with _alone_in(out):
        _sweep(out, jobs)
        done = _finished(sam, jobs, out, overwrite)
        rows, failed = [], 0
        with tqdm(jobs, unit="picture") as bar:
            for job in bar:
                made = _rows(job, out, "done before") if job in done else _run(sam, job, out)
                rows += made
                failed += made[0]["status"] == "failed"
                if failed:
                    bar.set_postfix(failed=failed)
        write_bytes(out / SUMMARY, _csv(rows), overwrite=True)
    return rows


@dataclass(frozen=True, eq=False)
class _Job:
    """A picture and what is asked about it: the JSON object that `prompts.json` will hold, or None."""

    name: str
    path: Path
    asked: dict | None

    def result(self, out):
        """Return the folder of the result."""
        return out / escaped_file_name(self.name)

    def record(self, sam, content):
        """Return what `prompts.json` holds: all that a result follows from, `content` being the picture's bytes."""
        made = {"picture": self.name, "sha256": hashlib.sha256(content).hexdigest()}
        return self.asked | {"segment_folder": made | _identity(sam)}


def _identity(sam):
    return {"model": sam.name, "weights": sam.weights, "precision": sam.precision}


# The prompt file --------------------------------------------------------------------------------------------------


def _jobs(folder, prompts):
    """Return the `_Job`s, by name in order, checked as far as they can be without opening a picture."""
    entries = _read(prompts)
    asked = {name: _asked(entry, f"{prompts.name}, {name!r}") for name, entry in entries.items()}
    pictures = _pictures(folder, set(asked) - {EVERY}, prompts.name)
    return [_Job(name, path, asked.get(name, asked.get(EVERY))) for name, path in pictures.items()]


def _read(path):
    if not path.is_file():
        raise FileNotFoundError(f"no prompt file {str(path)!r} (looked in {str(path.parent.resolve())!r})")
    try:
        entries = json.loads(path.read_bytes(), object_pairs_hook=_without_duplicates)
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is no prompt file: expected JSON in UTF-8, got: {error}") from error
    form = '{"a.jpg": [{"name": "wheel", "box": [x0, y0, x1, y1]}, ...], "*": [...]}'
    if not isinstance(entries, dict) or not entries:
        raise ValueError(f"{str(path)!r} is no prompt file: expected a JSON object by pictures, such as {form}")
    if "sam_nb_session" in entries:
        raise ValueError(
            f"{str(path)!r} is the session of one picture: write it under that picture's name, "
            '{"a.jpg": {"sam_nb_session": ...}}, or under "*" if it holds for all'
        )
    return {unicodedata.normalize("NFC", name): entry for name, entry in entries.items()}


def _without_duplicates(pairs):
    """Return a JSON object's pairs as a dict; JSON itself would let the last of two equal names win."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is there twice, and the second would hide the first; objects stand in one list")
    return found


def _asked(entry, where):
    """Return what an entry asks, in the form in which it is kept, or None for nothing."""
    if isinstance(entry, dict) and "sam_nb_session" in entry:
        # Which object was being worked on, and by which model, is nothing that the masks depend on.
        return {name: value for name, value in entry.items() if name != "model"} | {"selected": 0}
    if not isinstance(entry, list):
        raise ValueError(f"{where}: expected a list of objects, [{{...}}, ...], or a session, got {_short(entry)}")
    objects = [_object(item, number, where) for number, item in enumerate(entry, start=1)]
    names = [item["name"] for item in objects]
    if len(set(names)) < len(names):
        raise ValueError(f"{where}: two objects have one name, {', '.join(names)}: they must differ")
    return {"objects": objects} if objects else None


def _object(item, number, where):
    where = f"{where}, object {number}"
    fields = ("name", "category", *FIELDS)
    if not isinstance(item, dict) or not set(item) <= set(fields):
        raise ValueError(f"{where}: expected a JSON object with fields among {', '.join(fields)}, got {_short(item)}")
    words = {"name": f"object {number}", "category": "object"}
    words = {field: item.get(field, usual) for field, usual in words.items()}
    if not all(isinstance(word, str) and word.strip() for word in words.values()):
        raise ValueError(f"{where}: name and category must be words, got {_short(words)}")
    try:
        prompt = Prompt(**{field: item.get(field) for field in FIELDS})
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return words | json.loads(prompt.to_json())


def _short(value):
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:80]}..."


# The folder of pictures -------------------------------------------------------------------------------------------


def _pictures(folder, named, source):
    """Return the pictures' paths by their names: what looks like a picture, and what the prompt file names."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {str(folder)!r} (looked in {str(folder.parent.resolve())!r})")
    # macOS may take letters and their accents apart in the names of files; a prompt file is typed with them in one.
    files = {unicodedata.normalize("NFC", path.name): path for path in sorted(folder.iterdir()) if path.is_file()}
    for name in sorted(named - set(files)):
        near = difflib.get_close_matches(name, files, n=2)
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else "Sub-folders are not looked into."
        raise FileNotFoundError(f"{source} names {name!r}, and there is no such file in {str(folder)!r}. {hint}")
    found = {name: path for name, path in files.items() if name in named or _looks_like_a_picture(path)}
    if not found:
        others = f"; it holds {len(files)} other files, such as {next(iter(files))!r}" if files else ""
        raise ValueError(f"no picture (.jpg, .png, .webp, .tif ...) in {str(folder)!r}{others}")
    places = {}
    for name in found:
        other = places.setdefault(escaped_file_name(name).lower(), name)
        if other != name:
            raise ValueError(f"{other!r} and {name!r} are one name on Windows and macOS: rename one of the two")
    return found


def _looks_like_a_picture(path):
    # Hidden ones are no pictures: macOS leaves ._a.jpg beside a.jpg on foreign disks.
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


# The folder of results --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _alone_in(out):
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


def _sweep(out, jobs):
    """Remove what a killed run left unfinished, and nothing else."""
    ours = {job.result(out).name for job in jobs} | {SUMMARY}
    for path in out.iterdir():
        part = re.fullmatch(r"\.(.+)-[a-z0-9_]{8}", path.name)  # as the tempfile module makes them
        if part and part[1] in ours:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _finished(sam, jobs, out, overwrite):
    """Return the jobs whose result is there and up to date; raise if something that must stay is in the way."""
    summary = out / SUMMARY
    if summary.exists() and summary.read_bytes().splitlines()[:1] != _csv([]).splitlines():
        raise FileExistsError(f"{str(summary)!r} is another table: rename it, or choose another folder for out")
    done, stale = set(), {}
    for job in jobs:
        if job.asked is None or not job.result(out).exists():
            continue
        found = _record_of(job, out)
        if found is None:
            raise FileExistsError(
                f"{str(job.result(out))!r} is damaged or was not made by segment_folder: move it away, or choose "
                "another folder for out"
            )
        expected = job.record(sam, job.path.read_bytes())
        if found == expected:
            done.add(job)
        else:
            stale.setdefault(_difference(found["segment_folder"], expected["segment_folder"]), []).append(job.name)
    if stale and not overwrite:
        words = "; ".join(f"{what}: {_listed(names)}" for what, names in stale.items())
        raise FileExistsError(
            f"{str(out)!r} holds results that were made {words}. Choose another folder for out, or say overwrite=True "
            "to have these replaced"
        )
    return done


def _record_of(job, out):
    """Return what a result was made from, or None if it cannot be read."""
    try:
        found = json.loads((job.result(out) / "prompts.json").read_bytes())
        is_ours = "weights" in found["segment_folder"] and _rows(job, out, "")
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if is_ours else None


def _difference(found, expected):
    if any(found.get(name) != expected[name] for name in ("model", "weights", "precision")):
        return f"by another model or other weights ({found.get('model')})"
    return "from another picture" if found.get("sha256") != expected["sha256"] else "from other prompts"


def _listed(names):
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


# One picture ------------------------------------------------------------------------------------------------------


def _run(sam, job, out):
    """Return the rows of a picture after its result was made."""
    if job.asked is None:
        return [_row(job, "not asked")]
    try:
        content = job.path.read_bytes()
        image = load_image(content)
        segments = _segments(sam, image, job.asked)
    except FAILURES as error:
        return [_row(job, "failed", reason=" ".join(str(error).split()) or type(error).__name__)]
    if not segments:
        return [_row(job, "not asked")]
    _save(segments, image, job.result(out), prompts=job.record(sam, content), picture=job.name, model=sam.name)
    return _rows(job, out, "done")


def _save(segments, image, result, *, prompts, **about):
    """Write a result; an old one is there until the new one is whole."""
    # A name that the next run sweeps up, should this one be killed here.
    with writing_folder(result) as part:
        text = json.dumps(prompts, indent=1, ensure_ascii=False)
        new = save_segments(segments, image, part / "new", prompts=text, **about)
        if result.exists():
            result.replace(part / "old")
        replace_folder(new, result)


def _segments(sam, image, asked):
    if "sam_nb_session" in asked:
        session = Session.on(sam, image)
        session.load_json(json.dumps(asked))
        return session.segments()
    embedding = sam.encode(image)
    segments = []
    for item in asked["objects"]:
        prompt = Prompt(**{field: item.get(field) for field in FIELDS})
        masks = sam.decode(embedding, prompt)
        segments.append(Segment(masks.best, item["name"], item["category"], float(masks.scores.max())))
    return segments


def _rows(job, out, status):
    """Return the table's rows for a result, as its files tell them."""
    coco = json.loads((job.result(out) / "coco.json").read_bytes())
    categories = {category["id"]: category["name"] for category in coco["categories"]}
    return [
        _row(
            job,
            status,
            object=item["name"],
            category=categories[item["category_id"]],
            area=item["area"],
            predicted_iou=round(item["score"], 3),
        )
        for item in coco["annotations"]
    ]


def _row(job, status, **more):
    return {column: more.get(column, "") for column in COLUMNS} | {"picture": job.name, "status": status}


def _csv(rows):
    file = io.StringIO(newline="")
    table = csv.DictWriter(file, COLUMNS)
    table.writeheader()
    table.writerows(rows)
    # Without the mark at its beginning Excel would not read it as UTF-8.
    return file.getvalue().encode("utf-8-sig")
