"""Files on disk: whole or not at all, with names that every file system takes, and the cache folder."""

import atexit
import contextlib
import errno
import functools
import hashlib
import os
import re
import secrets
import shutil
import tempfile
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import platformdirs
from filelock import FileLock

# Of a name made here. Most file systems take 255 bytes, an encrypted home folder (eCryptfs) 143, and Windows 260
# characters for a whole path.
MAX_NAME_BYTES = 140
MAX_STEM_BYTES = 120  # leaves room for a number and a suffix

DISK_IS_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}  # no file can be written any more, whichever

_MIN_STEM_BYTES = 32  # of an unfinished file's name
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}  # what a file system without locks says
_NO_FLUSH = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}  # what one says that flushes no file
_CANNOT = "cannot be written: "
_TAG = re.compile(r"-[a-z0-9_]{8}")  # ends the name of an unfinished file or folder
# Windows reserves these names, with any suffix.
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\.|$)", re.IGNORECASE)


def cache_dir() -> Path:
    """Return the folder of everything that is kept between runs: checkpoints and embeddings.

    The environment variable ``SAM_NB_HOME``. Default: the user's cache folder of the operating system. For a user
    without a home folder, as in some containers: a temporary one that is removed when Python ends, with a warning.
    """
    try:
        home = os.environ.get("SAM_NB_HOME") or platformdirs.user_cache_dir("sam-nb", appauthor=False)
        return Path(home).expanduser()
    except RuntimeError:
        return _temporary_cache_dir()


@functools.cache
def _temporary_cache_dir() -> Path:
    try:
        folder = Path(tempfile.mkdtemp(prefix="sam-nb-"))  # a fixed one could be prepared by other users
    except OSError:
        return Path("sam-nb-cache").absolute()  # cannot be written either, which costs time and not the work
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    warnings.warn(
        "this user has no home folder (HOME is not set): checkpoints and embeddings go to a temporary folder, which is "
        "removed when Python ends. To keep them, set the environment variable SAM_NB_HOME to a folder",
        stacklevel=3,
    )
    return folder


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
    OSError
        It cannot be written: the disk is full, the folder may not be written. The message names `path`.
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
    with _explained(path, part):
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # less the user's umask, as open() does
        try:
            yield part
            flush(part)
            _check_free(path, overwrite)  # again: the block may have taken long
            _rename(part, target, overwrite=overwrite)
            flush(target.parent)
        finally:
            _remove(part)


def write_bytes(path: str | Path, content: bytes, *, overwrite: bool = False) -> None:
    """Write a file, whole or not at all; arguments and errors as in `writing`."""
    with writing(path, overwrite=overwrite) as part:
        part.write_bytes(content)


def read_bytes(path: str | Path) -> bytes:
    """Return a file's content; raises FileNotFoundError if there is none."""
    return Path(path).expanduser().read_bytes()


def write_files(files: Mapping[Path, bytes]) -> None:
    """Add or replace several files: all of them, or, if one cannot be written, none.

    Links are followed, and folders made where there are none. After an error everything is as it was. A process that is
    killed between two renames leaves the replaced files beside the new ones, hidden.

    Parameters
    ----------
    files : mapping of pathlib.Path to bytes

    Raises
    ------
    IsADirectoryError
        One of the paths is a folder.
    OSError
        One cannot be written. The message names it.
    """
    replaced = []
    with contextlib.ExitStack() as undo:
        ready = []
        for path, content in files.items():
            _make_folder(path.parent, undo)
            if path.is_dir():
                raise IsADirectoryError(f"{str(path)!r} is a folder: expected the path of a file")
            target = Path(os.path.realpath(path))
            part = _unfinished(target)
            undo.callback(_remove, part)
            with _explained(path, part):
                part.write_bytes(content)
                flush(part)
            ready.append((path, part, target))
        for path, part, target in ready:
            with _explained(path, part):
                if target.exists():
                    old = _unfinished(target)
                    undo.callback(_remove, old)
                    _copy(target, old)
                    undo.callback(old.replace, target)
                    replaced.append(old)
                else:
                    undo.callback(_remove, target)
                _rename(part, target, overwrite=True)
        for folder in {target.parent for _, _, target in ready}:
            flush(folder)
        undo.pop_all()
    for old in replaced:
        _remove(old)


@contextlib.contextmanager
def writing_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder beside `folder` to fill; the block itself renames it with `replace_folder`.

    Whatever remains of it after the block is removed.
    """
    part = _unfinished(folder)
    with _explained(folder, part):
        part.mkdir()
        try:
            yield part
        finally:
            shutil.rmtree(part, ignore_errors=True)


def replace_folder(part: Path, folder: Path, *, overwrite: bool = False) -> None:
    """Rename a finished folder into its place, after all its files are on the disk.

    Parameters
    ----------
    part : pathlib.Path
        On the same disk as `folder`.
    folder : pathlib.Path
    overwrite : bool
        Whether to replace an existing folder, with everything in it. It goes when the new one has got its place; if
        that fails, it comes back.

    Raises
    ------
    FileExistsError
        `folder` exists and is not empty, and `overwrite` is false.
    """
    for path in [*part.rglob("*"), part]:
        flush(path)
    old = _unfinished(part)
    if overwrite and folder.exists():
        folder.replace(old)
    try:
        part.replace(folder)
    except BaseException as error:
        if old.exists():
            old.replace(folder)
        if isinstance(error, OSError) and error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise FileExistsError(f"{str(folder)!r} exists already: choose another folder") from error
        raise
    flush(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def remove_unfinished(folder: Path, names: Iterable[str]) -> None:
    """Remove from a folder what interrupted runs left of files and folders of these names, and nothing else.

    What cannot be removed stays: it is in nobody's way.
    """
    stems = {_stem(name) for name in names}
    for path in folder.iterdir():
        stem, tag = path.name[1:-9], path.name[-9:]
        if path.name.startswith(".") and _TAG.fullmatch(tag) and stem in stems:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                _remove(path)


@contextlib.contextmanager
def locked(path: Path, *, timeout: float = -1) -> Iterator[None]:
    """Hold a lock file while the block runs. The system takes the lock back from a process that is killed.

    On a file system that has no locks the block runs without, with a warning.

    Parameters
    ----------
    path : pathlib.Path
        Of the lock file. It stays.
    timeout : float
        Seconds to wait for another process that holds it; -1 is for ever.

    Raises
    ------
    TimeoutError
        Another process still holds it.
    OSError
        The lock file cannot be written.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=timeout)
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        warnings.warn(
            f"the disk of {str(path.parent)!r} has no locks ({error}): let one process at a time write there",
            stacklevel=3,
        )
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            lock.release()


def flush(path: Path) -> None:
    """Write a file or a folder's list of names to the disk, so that it is whole after a power cut."""
    is_folder = path.is_dir()
    try:
        _fsync(path, os.O_RDONLY if is_folder else os.O_RDWR)  # Windows flushes only what is open for writing
    except OSError as error:
        # The names are safe as far as the system allows: Windows opens no folder, some network drives flush nothing.
        if not is_folder and error.errno not in _NO_FLUSH:
            raise


def _fsync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _check_free(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise _exists(path)


def _exists(path: Path) -> FileExistsError:
    return FileExistsError(f"{str(path)!r} exists already: choose another name, or say overwrite=True")


def _rename(part: Path, target: Path, *, overwrite: bool) -> None:
    """Rename a file. Without `overwrite`, of several processes that do so at once one succeeds."""
    if overwrite:
        if os.name == "posix" and target.exists():
            with contextlib.suppress(OSError):  # some drives have no permissions
                shutil.copymode(target, part)
        part.replace(target)
    elif os.name == "nt":
        part.rename(target)  # raises FileExistsError
    else:
        try:
            os.link(part, target)
        except FileExistsError:
            raise _exists(target) from None
        except OSError:  # some drives have no second names
            part.replace(target)


def _copy(path: Path, copy: Path) -> None:
    """Give a file a second name, or, where the disk has none, copy it."""
    try:
        os.link(path, copy)
    except OSError:
        shutil.copy2(path, copy)


def _remove(path: Path) -> None:
    """Remove a file or an empty folder, if that is possible."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()


def _make_folder(folder: Path, undo: contextlib.ExitStack) -> None:
    """Make a folder whose parent exists, if it is not there."""
    if not folder.is_dir():
        folder.mkdir()
        undo.callback(_remove, folder)


@contextlib.contextmanager
def _explained(path: Path, part: Path) -> Iterator[None]:
    """Name `path` in the system's errors, which name nothing or `part`."""
    try:
        yield
    except OSError as error:
        if error.errno is None or not str(error.filename or part).startswith(str(part)):
            raise
        why = str(error.strerror).removeprefix(_CANNOT)  # in a folder that is itself unfinished it is there already
        raise OSError(error.errno, _CANNOT + why, str(path)) from error


def _unfinished(path: Path) -> Path:
    """Return a new path beside one, hidden, for what becomes it."""
    return path.with_name(f".{_stem(path.name)}-{secrets.token_hex(4)}")


def _stem(name: str) -> str:
    """Return what an unfinished file's name begins with: where the name itself is long, the two are of one length."""
    return _shortened(name, max(_MIN_STEM_BYTES, len(os.fsencode(name)) - len(".-12345678")))


def _shortened(name: str, limit: int) -> str:
    """Return a name without its last characters, so that it has at most `limit` bytes."""
    name = name[:limit]
    while len(os.fsencode(name)) > limit:
        name = name[:-1]
    return name


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


def escaped_file_name(name: str, *, digest_of: str | None = None) -> str:
    """Return a file name that every file system takes, another one for each name: odd characters become %XX.

    Odd are those that Windows refuses, a dot at the beginning, which hides a file, and bytes that are not UTF-8.

    Parameters
    ----------
    name : str
    digest_of : str, optional
        A text whose digest (SHA-256, 8 digits) ends the file name, to distinguish it from another of the same letters.
        Default: the name itself, if it is too long and must be cut, else none.

    Returns
    -------
    str
        At most `MAX_NAME_BYTES` bytes.
    """
    safe = re.sub(r'^\.|[%<>:"/\\|?*\x00-\x1f\ud800-\udfff]|[ .]$', _escaped, name)
    safe = re.sub(r"^.", _escaped, safe) if _DEVICES.match(safe) else safe
    safe = safe or "%"  # no other name gives a lone %
    if digest_of is None and len(os.fsencode(safe)) <= MAX_NAME_BYTES:
        return safe
    text = name if digest_of is None else digest_of
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{_shortened(safe, MAX_NAME_BYTES - len('~12345678'))}~{digest}"


def readable_file_name(name: str) -> str:
    """Return a file name as text that can be printed and written as UTF-8, in Unicode's form NFC.

    Python holds bytes that are not UTF-8 as surrogates, which cannot; they become %XX.
    """
    return unicodedata.normalize("NFC", re.sub(r"[\ud800-\udfff]", _escaped, name))


def _escaped(character: re.Match[str]) -> str:
    code = ord(character[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, see os.fsdecode
        code -= 0xDC00
    return f"%{code:02X}" if code <= 0xFF else f"%u{code:04X}"
