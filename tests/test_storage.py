"""Files are whole or not there at all, and their names fit every file system."""

import contextlib
import errno
import os
import stat
import subprocess
import sys
import tempfile
import unicodedata
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from sam_nb import storage
from sam_nb.storage import (
    MAX_NAME_BYTES,
    MAX_STEM_BYTES,
    cache_dir,
    distinct_file_names,
    escaped_file_name,
    locked,
    readable_file_name,
    remove_unfinished,
    replace_folder,
    write_bytes,
    write_files,
    writing,
    writing_folder,
)

needs_posix = pytest.mark.skipif(os.name != "posix", reason="links and permissions as POSIX has them")


def content_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Files ------------------------------------------------------------------------------------------------------------


def test_a_file_appears_when_it_is_whole(tmp_path):
    with writing(tmp_path / "a.png") as part:
        assert part.parent == tmp_path
        assert part.name.startswith(".")
        part.write_bytes(b"half")
        assert not (tmp_path / "a.png").exists()
        part.write_bytes(b"whole")
    assert content_of(tmp_path) == {"a.png": b"whole"}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("before", [None, b"before"])
def test_a_block_that_raises_leaves_everything_as_it_was(tmp_path, before, error):
    if before is not None:
        (tmp_path / "a.png").write_bytes(before)

    def fail():
        with writing(tmp_path / "a.png", overwrite=True) as part:
            part.write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert content_of(tmp_path) == ({} if before is None else {"a.png": before})


def test_an_existing_file_is_replaced_only_with_overwrite(tmp_path):
    path = tmp_path / "a.png"
    write_bytes(path, b"first")
    with pytest.raises(FileExistsError, match=r"a.png' exists already: choose another name, or say overwrite=True"):
        write_bytes(path, b"second")
    assert content_of(tmp_path) == {"a.png": b"first"}
    write_bytes(str(path), b"second", overwrite=True)
    assert content_of(tmp_path) == {"a.png": b"second"}


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path):
    def write_late():
        with writing(tmp_path / "a.png") as part:
            part.write_bytes(b"ours")
            (tmp_path / "a.png").write_bytes(b"another program's")

    with pytest.raises(FileExistsError):
        write_late()
    assert content_of(tmp_path) == {"a.png": b"another program's"}


def test_the_folder_of_a_file_must_exist(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder '.*absent': create it first"):
        write_bytes(tmp_path / "absent" / "a.png", b"")
    with pytest.raises(IsADirectoryError, match="is a folder: expected the path of a file"):
        write_bytes(tmp_path, b"", overwrite=True)


def test_the_home_folder_may_be_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write_bytes("~/a.png", b"at home")
    assert content_of(tmp_path) == {"a.png": b"at home"}


@needs_posix
@pytest.mark.parametrize("exists", [True, False])
def test_a_link_is_followed(tmp_path, exists):
    (tmp_path / "disk").mkdir()
    if exists:
        (tmp_path / "disk" / "a.png").write_bytes(b"first")
    (tmp_path / "a.png").symlink_to(tmp_path / "disk" / "a.png")
    write_bytes(tmp_path / "a.png", b"second", overwrite=True)
    assert (tmp_path / "a.png").is_symlink()
    assert content_of(tmp_path / "disk") == {"a.png": b"second"}


@needs_posix
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_permissions_are_those_of_any_new_file(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_bytes(tmp_path / "a.png", b"")
        (tmp_path / "b.png").write_bytes(b"")
        with writing_folder(tmp_path / "out") as part:
            replace_folder(part, tmp_path / "out")
        (tmp_path / "plain").mkdir()
    finally:
        os.umask(before)
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "b.png").stat().st_mode
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode


@needs_posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_a_replaced_file_keeps_its_permissions(tmp_path, mode):
    (tmp_path / "a.png").write_bytes(b"first")
    (tmp_path / "a.png").chmod(mode)
    write_bytes(tmp_path / "a.png", b"second", overwrite=True)
    assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == mode
    assert (tmp_path / "a.png").read_bytes() == b"second"


@pytest.mark.parametrize("length", [1, 40, 143, 254])
def test_a_name_that_fits_has_temporary_names_that_fit(tmp_path, length):
    """143 bytes are all that an encrypted home folder takes."""
    name = "é" * (length // 2) + "e" * (length % 2)
    with writing(tmp_path / name) as part:
        assert len(os.fsencode(part.name)) <= max(length, 42)
    assert list(content_of(tmp_path)) == [name]


# Several processes, failing disks -------------------------------------------------------------------------------------


def test_of_several_writers_of_one_file_one_succeeds(tmp_path):
    def write(number):
        try:
            write_bytes(tmp_path / "a.png", bytes([number]))
        except FileExistsError:
            return None
        return bytes([number])

    with ThreadPoolExecutor(8) as pool:
        written = [content for content in pool.map(write, range(64)) if content is not None]
    assert len(written) == 1
    assert content_of(tmp_path) == {"a.png": written[0]}


def test_a_file_that_appears_in_the_last_moment_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "_check_free", lambda path, overwrite: None)
    (tmp_path / "a.png").write_bytes(b"another process's")
    with pytest.raises(FileExistsError):
        write_bytes(tmp_path / "a.png", b"ours")
    assert content_of(tmp_path) == {"a.png": b"another process's"}


def refuse(code):
    def fail(*args, **options):
        raise OSError(code, os.strerror(code))

    return fail


def test_a_drive_without_second_names_or_permissions(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", refuse(errno.EPERM))
    monkeypatch.setattr("shutil.copymode", refuse(errno.EPERM))
    write_bytes(tmp_path / "a.png", b"first")
    write_bytes(tmp_path / "a.png", b"second", overwrite=True)
    write_files({tmp_path / "a.png": b"third"})
    assert content_of(tmp_path) == {"a.png": b"third"}


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS])
def test_a_drive_that_flushes_nothing(tmp_path, monkeypatch, code):
    monkeypatch.setattr(os, "fsync", refuse(code))
    write_bytes(tmp_path / "a.png", b"a")
    assert content_of(tmp_path) == {"a.png": b"a"}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("step", ["os.open", "os.fsync", "pathlib.Path.write_bytes", "pathlib.Path.replace"])
def test_an_error_of_the_disk_names_the_file(tmp_path, monkeypatch, step, code):
    (tmp_path / "a.png").write_bytes(b"first")
    monkeypatch.setattr(step, refuse(code))
    with pytest.raises(OSError, match=rf"cannot be written: {os.strerror(code)}: '.*/a\.png'$") as caught:
        write_bytes(tmp_path / "a.png", b"second", overwrite=True)
    assert caught.value.errno == code
    assert type(caught.value) is type(OSError(code, ""))
    monkeypatch.undo()
    assert content_of(tmp_path) == {"a.png": b"first"}


# Several files --------------------------------------------------------------------------------------------------------


def test_several_files_are_replaced(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"1")
    (tmp_path / "mine.txt").write_bytes(b"mine")
    write_files({tmp_path / "a.txt": b"2", tmp_path / "masks" / "b.png": b"b"})
    assert content_of(tmp_path) == {"a.txt": b"2", "masks/b.png": b"b", "mine.txt": b"mine"}


@pytest.mark.parametrize("step", ["write_bytes", "replace"])
@pytest.mark.parametrize("at", range(1, 5))
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_of_several_files_all_are_written_or_none(tmp_path, monkeypatch, step, at, error):
    before = {"a.txt": b"1", "b.txt": b"1", "masks/c.png": b"1"}
    (tmp_path / "masks").mkdir()
    for name, content in before.items():
        (tmp_path / name).write_bytes(content)
    true, calls = getattr(Path, step), []

    def fail(path, argument):
        calls.append(path)
        if len(calls) == at:
            raise error
        return true(path, argument)

    monkeypatch.setattr(Path, step, fail)
    names = ["a.txt", "cutouts/new.png", "b.txt", "masks/c.png"]
    with pytest.raises(type(error)):
        write_files({tmp_path / name: b"2" for name in names})
    monkeypatch.undo()
    assert content_of(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt", "masks"]


def test_a_folder_in_the_place_of_one_of_several_files(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"1")
    (tmp_path / "b.txt").mkdir()
    with pytest.raises(IsADirectoryError, match=r"b.txt' is a folder: expected the path of a file"):
        write_files({tmp_path / "a.txt": b"2", tmp_path / "b.txt": b"2"})
    assert content_of(tmp_path) == {"a.txt": b"1"}


@needs_posix
def test_links_and_permissions_of_several_files_stay(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "a.txt").write_bytes(b"1")
    (tmp_path / "disk" / "a.txt").chmod(0o640)
    (tmp_path / "a.txt").symlink_to(tmp_path / "disk" / "a.txt")
    write_files({tmp_path / "a.txt": b"2"})
    assert (tmp_path / "a.txt").is_symlink()
    assert content_of(tmp_path / "disk") == {"a.txt": b"2"}
    assert stat.S_IMODE((tmp_path / "disk" / "a.txt").stat().st_mode) == 0o640


# Locks ----------------------------------------------------------------------------------------------------------------


def test_a_lock_that_another_process_holds(tmp_path):
    with FileLock(tmp_path / "lock"), pytest.raises(TimeoutError), locked(tmp_path / "lock", timeout=0):
        pass
    with locked(tmp_path / "lock", timeout=0):
        pass


@pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "No locks available"), NotImplementedError("flock")])
def test_a_disk_without_locks(tmp_path, monkeypatch, error):
    def fail(lock, timeout):
        raise error

    monkeypatch.setattr(FileLock, "acquire", fail)
    with pytest.warns(UserWarning, match="has no locks"), locked(tmp_path / "lock"):
        (tmp_path / "a.png").write_bytes(b"a")
    assert (tmp_path / "a.png").exists()


def test_a_lock_that_may_not_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(FileLock, "acquire", refuse(errno.EACCES))
    with pytest.raises(PermissionError), locked(tmp_path / "lock"):
        pass


# Flushing -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def flushed(monkeypatch):
    """Return what is flushed to the disk, as (device, inode), which a rename keeps."""
    seen, fsync = [], os.fsync

    def spy(handle):
        seen.append((os.fstat(handle).st_dev, os.fstat(handle).st_ino))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", spy)
    return seen


@needs_posix
def test_everything_is_flushed_to_the_disk(tmp_path, flushed):
    def inodes(*paths):
        return [(path.stat().st_dev, path.stat().st_ino) for path in paths]

    write_bytes(tmp_path / "a.png", b"a")
    assert flushed == inodes(tmp_path / "a.png", tmp_path)
    flushed.clear()
    with writing_folder(tmp_path / "out") as part:
        (part / "masks").mkdir()
        (part / "masks" / "b.png").write_bytes(b"b")
        replace_folder(part, tmp_path / "out")
    out = tmp_path / "out"
    assert set(flushed) == set(inodes(out, out / "masks", out / "masks" / "b.png", tmp_path))
    assert flushed[-1:] == inodes(tmp_path)


def test_a_drive_that_flushes_no_folder(tmp_path, monkeypatch):
    fsync = os.fsync

    def network_drive(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(22, "Invalid argument")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", network_drive)
    write_bytes(tmp_path / "a.png", b"a")
    assert content_of(tmp_path) == {"a.png": b"a"}


def test_a_file_that_is_not_flushed_is_not_there(tmp_path, monkeypatch):
    def failing_disk(handle):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing_disk)
    with pytest.raises(OSError, match="Input/output error"):
        write_bytes(tmp_path / "a.png", b"a")
    assert not list(tmp_path.iterdir())


# Folders ----------------------------------------------------------------------------------------------------------


def test_a_folder_appears_when_it_is_whole(tmp_path):
    out = tmp_path / "out"
    with writing_folder(out) as part:
        assert part.parent == tmp_path
        (part / "masks").mkdir()
        (part / "masks" / "a.png").write_bytes(b"a")
        assert not out.exists()
        replace_folder(part, out)
    assert content_of(tmp_path) == {"out/masks/a.png": b"a"}


def test_a_block_that_raises_leaves_no_folder(tmp_path):
    def fail():
        with writing_folder(tmp_path / "out") as part:
            (part / "a.png").write_bytes(b"a")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with writing_folder(tmp_path / "out") as part:
        (part / "a.png").write_bytes(b"not moved into its place")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_stays(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_bytes(b"mine")

    def replace():
        with writing_folder(tmp_path / "out") as part:
            (part / "a.png").write_bytes(b"a")
            replace_folder(part, tmp_path / "out")

    with pytest.raises(OSError, match="out"):
        replace()
    assert content_of(tmp_path) == {"out/mine.txt": b"mine"}


def test_a_folder_is_replaced_as_a_whole_or_comes_back(tmp_path, monkeypatch):
    out = tmp_path / "out"
    replace = Path.replace
    for error in (None, OSError(5, "Input/output error"), KeyboardInterrupt()):
        out.mkdir(exist_ok=True)
        (out / "mine.txt").write_bytes(b"mine")

        def fail(path, target, error=error):
            if error is not None and path.name == "new":
                raise error
            return replace(path, target)

        monkeypatch.setattr(Path, "replace", fail)
        with pytest.raises(type(error)) if error else contextlib.nullcontext(), writing_folder(out) as part:
            (part / "new").mkdir()
            (part / "new" / "a.png").write_bytes(b"a")
            replace_folder(part / "new", out, overwrite=True)
        assert content_of(tmp_path) == ({"out/mine.txt": b"mine"} if error else {"out/a.png": b"a"})
        for path in out.iterdir():
            path.unlink()


class Killed(BaseException):
    """Stands for a process that ends without cleaning up."""


def test_only_what_an_interrupted_run_left_is_removed(tmp_path, monkeypatch):
    long = "é" * 125 + ".png"

    def fill_a_folder():
        with writing_folder(tmp_path / "a.png") as part:
            (part / "masks").mkdir()
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(storage, "_remove", lambda path: None)
        patch.setattr("shutil.rmtree", lambda path, ignore_errors=False: None)
        for name in ("summary.csv", long, "other.csv"):
            with pytest.raises(Killed), writing(tmp_path / name):
                raise Killed
        with pytest.raises(Killed):
            fill_a_folder()
    kept = [".a.png-notes", ".vscode-insiders", "a.png-12345678", ".b.png-12345678", "-12345678", ".-12345678"]
    for name in kept:
        (tmp_path / name).mkdir()
    assert len(list(tmp_path.iterdir())) == len(kept) + 4
    remove_unfinished(tmp_path, ["summary.csv", "a.png", long])
    left = {path.name for path in tmp_path.iterdir()}
    assert set(kept) <= left
    (other,) = left - set(kept)
    assert other.startswith(".other.csv-")


# Names ------------------------------------------------------------------------------------------------------------

NAMES = [
    *("object 1", "Object 1", "object_1", "object/1", "äpfel", "a\u0308pfel", "图 1", "STRASSE", "straße"),
    *("", " ", ".", "..", "...", ".hidden", "a.", "a..", "a ", "a/b\\c:d*e?f<g>h|i", 'quote"d', "tab\t", "nul\x00l"),
    *("con", "CON", "con.png", "con .png", "console", "Nul", "aux.tar.gz", "com1", "COM¹.txt", "lpt9", "com10"),
    *("\udcc6\udcfb.jpg", "%C6%FB.jpg", "Æû.jpg", "\ud83d", "\udcd83D", "..png"),
    *("%", "%25", "%63on", "a%2Fb", "a/b", "100%", "%.", "%20", "CONIN$"),
]
FORBIDDEN = set('<>:"/\\|?*') | {chr(code) for code in range(32)}
RESERVED = {"con", "prn", "aux", "nul", "conin$", "conout$"} | {
    f"{d}{n}" for d in ("com", "lpt") for n in "0123456789¹²³"
}


def assert_fits_every_file_system(name):
    assert name
    assert len(name.encode()) <= MAX_NAME_BYTES
    assert not FORBIDDEN & set(name), name
    assert name[-1] not in " .", name
    assert name.split(".")[0].rstrip(" ").lower() not in RESERVED, name


def test_distinct_names_differ_on_every_file_system():
    names = distinct_file_names(NAMES)
    assert len(names) == len(NAMES)
    assert len({name.casefold() for name in names}) == len(names)
    for name in names:
        assert_fits_every_file_system(name)
        assert not name.startswith(".")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["car", "car", "Car", "car_2"], ["car", "car_2", "Car_3", "car_2_2"]),
        (["front wheel", "front/wheel"], ["front_wheel", "front_wheel_2"]),
        (["con", "con"], ["_con", "_con_2"]),
        (["", "..", "图 1"], ["object", "object_2", "图_1"]),
        (["\u00e4", "a\u0308"], ["\u00e4", "\u00e4_2"]),
    ],
)
def test_distinct_names(names, expected):
    assert distinct_file_names(names) == expected


def test_distinct_names_are_not_too_long(tmp_path):
    names = distinct_file_names(["图" * 300, "图" * 300, "a." * 5000])
    assert len(set(names)) == 3
    for name in names:
        assert len(name.encode()) <= MAX_STEM_BYTES + len("_2")
        assert_fits_every_file_system(name)
        write_bytes(tmp_path / f"{name}.png", b"")


def test_escaped_names_are_one_for_one():
    names = [escaped_file_name(name) for name in NAMES]
    assert len(set(names)) == len(NAMES)
    for name, escaped in zip(NAMES, names, strict=True):
        assert_fits_every_file_system(escaped)
        assert escaped_file_name(name) == escaped
        assert not escaped.startswith(".")
        is_text = not any("\ud800" <= letter <= "\udfff" for letter in name)
        assert not name or not is_text or urllib.parse.unquote(escaped) == name


@pytest.mark.parametrize(
    "name", ["a" * 141, "图" * 81 + ".jpg", "?" * 100, "." * 200, "\udcff" * 60, "con." + "a" * 200]
)
def test_long_names_are_cut_and_differ(name):
    names = [escaped_file_name(name), escaped_file_name(name + "b")]
    assert len(set(names)) == 2
    for escaped in names:
        assert_fits_every_file_system(escaped)
    assert escaped_file_name(name) == names[0]


def test_names_of_the_same_letters_are_distinguished():
    names = [escaped_file_name("a.jpg", digest_of=text) for text in ("a.jpg", "A.jpg")]
    assert len(set(names)) == 2
    assert all(name.startswith("a.jpg~") for name in names)


def test_readable_names():
    assert readable_file_name("图 1.png") == "图 1.png"
    assert readable_file_name(unicodedata.normalize("NFD", "é.png")) == "é.png"
    assert readable_file_name(os.fsdecode(b"\xc6\xfb.jpg")) in ("%C6%FB.jpg", "\ufffd\ufffd.jpg")  # the last: Windows
    assert readable_file_name("\ud83d.png") == "%uD83D.png"


def test_ordinary_names_are_not_escaped():
    for name in ("a.jpg", "IMG 0012 (1).HEIC", "图.png", "console.png", "com10.png"):
        assert escaped_file_name(name) == name
    assert escaped_file_name(".hidden.png") == "%2Ehidden.png"
    assert escaped_file_name("con.png") == "%63on.png"
    assert escaped_file_name("a:b.") == "a%3Ab%2E"


# The cache --------------------------------------------------------------------------------------------------------


def test_the_cache_folder_by_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("SAM_NB_HOME", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.setenv("SAM_NB_HOME", "~/models")
    assert cache_dir() == Path.home() / "models"
    for default in (lambda: monkeypatch.setenv("SAM_NB_HOME", ""), lambda: monkeypatch.delenv("SAM_NB_HOME")):
        default()
        assert cache_dir().name == "sam-nb"
        assert cache_dir().is_absolute()


NO_HOME = """
import os, warnings
from sam_nb import storage

def unknown(*args, **options):
    raise RuntimeError("could not determine the home directory for '~/.cache'")

os.environ.pop("SAM_NB_HOME", None)
storage.platformdirs.user_cache_dir = unknown
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    folder = storage.cache_dir()
    assert folder == storage.cache_dir()
print(len(said), folder)
"""


@needs_posix
def test_a_user_without_a_home_gets_a_temporary_cache_and_one_warning(tmp_path):
    environment = dict(os.environ, TMPDIR=str(tmp_path), PYTHONPATH=os.pathsep.join(sys.path))
    done = subprocess.run([sys.executable, "-c", NO_HOME], capture_output=True, text=True, check=True, env=environment)
    count, folder = done.stdout.split(maxsplit=1)
    assert count == "1"
    assert Path(folder.strip()).parent == tmp_path
    assert not list(tmp_path.iterdir()), "it is removed at the end"


def test_a_user_without_any_folder(monkeypatch):
    def fail(*args, **options):
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "mkdtemp", fail)
    assert not storage._temporary_cache_dir.__wrapped__().exists()
