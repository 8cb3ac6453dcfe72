"""Files on disk: whole or not at all, with names that every file system takes, and the folder of what is cached."""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import platformdirs

_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # Windows reserves these names


def cache_dir() -> Path:
    """Return the folder of everything that is kept between runs: checkpoints and embeddings.

    The environment variable ``SAM_NB_HOME``, else the user's cache folder as the operating system has it.
    """
    return Path(os.environ.get("SAM_NB_HOME") or platformdirs.user_cache_dir("sam-nb", appauthor=False)).expanduser()


@contextlib.contextmanager
def writing(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary path to write a file to, which then becomes the file: whole, or not at all.

    Parameters
    ----------
    path : str or pathlib.Path
        Its folder must exist.
    overwrite : bool

    Yields
    ------
    pathlib.Path
        An empty file beside `path`. If the block raises, it is removed and `path` is as it was.

    Raises
    ------
    FileExistsError
        There is such a file, and `overwrite` is false.
    """
    path = Path(path).expanduser()
    if path.exists() and not overwrite:
        raise FileExistsError(f"{str(path)!r} exists already: choose another name, or say overwrite=True")
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    os.close(handle)
    part = Path(name)
    try:
        yield part
        _flush(part)
        part.chmod(0o644)
        part.replace(path)
        _flush(path.parent)
    finally:
        part.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes, *, overwrite: bool = False) -> None:
    """Write a file that is there whole or not at all; arguments and errors as in `writing`."""
    with writing(path, overwrite=overwrite) as part:
        part.write_bytes(content)


@contextlib.contextmanager
def writing_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder to fill, beside `folder`; the block itself puts it in its place with `replace_folder`.

    What of it is left after the block is removed.
    """
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        part.chmod(0o755)
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def replace_folder(part: Path, folder: Path) -> None:
    """Rename a finished folder into its place, with its files on the disk first.

    Raises
    ------
    OSError
        `folder` exists and holds something.
    """
    for path in part.rglob("*"):
        _flush(path)
    part.replace(folder)
    _flush(folder.parent)


def _flush(path: Path) -> None:
    """Have the system put a file or a folder's list of names on the disk, so that a power cut finds it whole."""
    if path.is_dir() and os.name == "nt":  # Windows opens no folder
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def distinct_file_names(names: Sequence[str]) -> list[str]:
    """Return file names without suffix that every file system takes, all different; a number tells equal ones apart.

    They depend on the order: for a name of its own for every name, see `escaped_file_name`.
    """
    safe: list[str] = []
    for name in names:
        plain = re.sub(r"[^\w.-]+", "_", name).strip("._") or "object"
        plain = f"_{plain}" if _DEVICES.match(plain) else plain
        unique, number = plain, 2
        # Windows and macOS do not tell upper case from lower case.
        while unique.lower() in {other.lower() for other in safe}:
            unique, number = f"{plain}_{number}", number + 1
        safe.append(unique)
    return safe


def escaped_file_name(name: str) -> str:
    """Return a file name that every file system takes, another one for every name: odd characters as %XX."""
    safe = re.sub(r'[%<>:"/\\|?*\x00-\x1f]|[ .]$', _escaped, name)
    return re.sub(r"^.", _escaped, safe) if _DEVICES.match(safe) else safe


def _escaped(character: re.Match) -> str:
    return f"%{ord(character[0]):02X}"
