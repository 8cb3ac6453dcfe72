"""Files on disk: whole or not at all, with names that every file system takes, and the cache folder."""

import contextlib
import os
import re
import secrets
import shutil
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import platformdirs

MAX_NAME_BYTES = 255  # of a file name, in the file systems of Linux, macOS and Windows
MAX_STEM_BYTES = 200  # of a name made here: leaves room for a number and a suffix

_TAG = re.compile(r"-[a-z0-9_]{8}")  # ends the name of an unfinished file or folder
# Windows reserves these names, with any suffix.
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\.|$)", re.IGNORECASE)


def cache_dir() -> Path:
    """Return the folder of everything that is kept between runs: checkpoints and embeddings.

    The environment variable ``SAM_NB_HOME``. Default: the user's cache folder of the operating system.
    """
    return Path(os.environ.get("SAM_NB_HOME") or platformdirs.user_cache_dir("sam-nb", appauthor=False)).expanduser()


# Whole or not at all ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def writing(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary path to write a file to, and rename it into its place: whole, or not at all.

    A link is followed. The file gets the permissions of the one that it replaces, else those of any new file.

    Parameters
    ----------
    path : str or pathlib.Path
        Its folder must exist.
    overwrite : bool
        Whether an existing file may be replaced.

    Yields
    ------
    pathlib.Path
        An empty file beside `path`. If the block raises, it is removed and `path` is as it was.

    Raises
    ------
    FileExistsError
        There is such a file, and `overwrite` is false.
    FileNotFoundError
        There is no such folder.
    IsADirectoryError
        `path` is a folder.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise IsADirectoryError(f"{str(path)!r} is a folder: expected the path of a file")
    _check_free(path, overwrite)
    # A rename would replace a link itself, not the file that it points to.
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(f"no folder {str(path.parent)!r}: create it first")
    part = _unfinished(target)
    os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # less the user's umask, as open() does
    try:
        yield part
        _flush(part)
        if os.name == "posix" and target.exists():
            shutil.copymode(target, part)
        _check_free(path, overwrite)  # again: the block may have taken long
        part.replace(target)
        _flush(target.parent)
    finally:
        part.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes, *, overwrite: bool = False) -> None:
    """Write a file, whole or not at all; arguments and errors as in `writing`."""
    with writing(path, overwrite=overwrite) as part:
        part.write_bytes(content)


def read_bytes(path: str | Path) -> bytes:
    """Return a file's content; raises FileNotFoundError if there is none."""
    return Path(path).expanduser().read_bytes()


@contextlib.contextmanager
def writing_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder beside `folder` to fill; the block itself renames it with `replace_folder`.

    Whatever remains of it after the block is removed.
    """
    part = _unfinished(folder)
    part.mkdir()
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def replace_folder(part: Path, folder: Path) -> None:
    """Rename a finished folder into its place, after all its files are on the disk.

    Raises
    ------
    OSError
        `folder` exists and is not empty.
    """
    for path in [*part.rglob("*"), part]:
        _flush(path)
    part.replace(folder)
    _flush(folder.parent)


def remove_unfinished(folder: Path, names: Iterable[str]) -> None:
    """Remove from a folder what interrupted runs left of files and folders of these names, and nothing else."""
    stems = {_stem(name) for name in names}
    for path in folder.iterdir():
        stem, tag = path.name[1:-9], path.name[-9:]
        if path.name.startswith(".") and _TAG.fullmatch(tag) and stem in stems:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _check_free(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise FileExistsError(f"{str(path)!r} exists already: choose another name, or say overwrite=True")


def _unfinished(path: Path) -> Path:
    """Return a new path beside one, hidden, for what becomes it."""
    return path.with_name(f".{_stem(path.name)}-{secrets.token_hex(4)}")


def _stem(name: str) -> str:
    return _shortened(name, MAX_NAME_BYTES - len(".-12345678"))


def _shortened(name: str, limit: int) -> str:
    """Return a name without its last characters, so that it has at most `limit` bytes."""
    name = name[:limit]
    while len(os.fsencode(name)) > limit:
        name = name[:-1]
    return name


def _flush(path: Path) -> None:
    """Write a file or a folder's list of names to the disk, so that it is whole after a power cut."""
    if path.is_dir():
        # The names are safe as far as the system allows: Windows opens no folder, some network drives flush none.
        with contextlib.suppress(OSError):
            _fsync(path, os.O_RDONLY)
    else:
        _fsync(path, os.O_RDWR)  # Windows flushes only what is open for writing


def _fsync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# Names ------------------------------------------------------------------------------------------------------------


def distinct_file_names(names: Sequence[str]) -> list[str]:
    """Return file names without suffix that every file system takes, all different; equal ones get a number.

    They depend on the order: for names that do not, see `escaped_file_name`. They have at most `MAX_STEM_BYTES` bytes
    and a number.
    """
    safe: list[str] = []
    taken: set[str] = set()
    for name in names:
        plain = re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", name))
        plain = _shortened(plain.strip("._"), MAX_STEM_BYTES).strip("._") or "object"
        plain = f"_{plain}" if _DEVICES.match(plain) else plain
        unique, number = plain, 2
        # Windows and macOS do not distinguish upper and lower case.
        while unique.casefold() in taken:
            unique, number = f"{plain}_{number}", number + 1
        taken.add(unique.casefold())
        safe.append(unique)
    return safe


def escaped_file_name(name: str) -> str:
    """Return a file name that every file system takes, another one for each name: odd characters become %XX."""
    safe = re.sub(r'[%<>:"/\\|?*\x00-\x1f]|[ .]$', _escaped, name)
    safe = re.sub(r"^.", _escaped, safe) if _DEVICES.match(safe) else safe
    return safe or "%"  # no other name gives a lone %


def _escaped(character: re.Match[str]) -> str:
    return f"%{ord(character[0]):02X}"
