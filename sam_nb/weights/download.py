"""Download official weights, from mirrors if there are any: whoever sends a file, its SHA-256 decides."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import requests
from tqdm.auto import tqdm

from sam_nb.storage import flush, locked
from sam_nb.weights.checkpoints import CHECKPOINTS, Checkpoint, sha256

TIMEOUT = (20, 60)  # seconds for a connection, and without a response
BLOCK = 2**16  # bytes written at a time: when a connection breaks off, less than these are lost

_DISK_CURE = "Make room, or set the environment variable SAM_NB_HOME to a folder that can be written. "


def download(name: str, mirrors: str | Sequence[str] | None = None) -> Path:
    """Return the path of a model's weights, downloading them first if they are not there.

    The file is downloaded beside its final place and gets its name once its SHA-256 is right: a file under the final
    name is whole. An interrupted download resumes with the next address, or the next call. A second notebook that calls
    at the same time waits for the first one and finds the file. Where the file is there, nothing is written: a folder
    that several people share may be read-only.

    One line says from where the file came, and one for each address that failed before says why.

    Parameters
    ----------
    name : str
        A key of `CHECKPOINTS`.
    mirrors : str or sequence of str, optional
        Addresses of folders that hold the file under its official name, tried in their order before the official
        address; a str holds several, separated by commas or spaces. They need not be trusted: a file with another
        SHA-256 is not kept. Default: the environment variable ``SAM_NB_MIRRORS``.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    RuntimeError
        No address gave the file (what has arrived is kept, to resume; nothing of a file with a wrong digest), the disk
        is full or the folder cannot be written. The message has the reason of each address, and says how to download
        the file by hand.
    PermissionError
        The file is there and may not be read.
    ValueError
        There is no such model to download; a mirror is not the http or https address of a folder; or a file of that
        name is there, but it is not the official one. It is left alone.
    """
    if name not in CHECKPOINTS:
        embedded = '. lite is part of the package: load_sam("lite") downloads nothing' if name == "lite" else ""
        raise ValueError(f"no weights to download for {name!r}: expected one of {', '.join(CHECKPOINTS)}{embedded}")
    checkpoint = CHECKPOINTS[name]
    path = checkpoint.path
    if not os.path.exists(path):  # Path.exists raises where a folder may not be read
        _fetch(name, checkpoint, [*_addresses(mirrors, checkpoint.file), checkpoint.url])
    size, digest = path.stat().st_size, sha256(path)
    if (size, digest) != (checkpoint.size, checkpoint.sha256):
        raise ValueError(
            f"{path} is not {name}'s official file: expected {checkpoint.size:,} bytes with SHA-256 "
            f"{checkpoint.sha256}, got {size:,} bytes with {digest}. "
            f"An incomplete copy? Delete it and load again; or, if these are weights of your own, give their path: "
            f'load_sam("{name}", checkpoint=...)'
        )
    return path


class _WrongFileError(ValueError):
    """What an address sends is another file."""


def _addresses(mirrors: str | Sequence[str] | None, file: str) -> list[str]:
    """Return the addresses of a file on mirrors."""
    given = os.environ.get("SAM_NB_MIRRORS", "") if mirrors is None else mirrors
    bases = list(filter(None, re.split(r"[,\s]+", given))) if isinstance(given, str) else given
    for base in bases:
        if not re.fullmatch(r"https?://[^/?#\s]+(/[^?#\s]*)?", base):
            where = ", set by the environment variable SAM_NB_MIRRORS" if mirrors is None else ""
            raise ValueError(
                f"no mirror {_shown(base)!r}{where}: expected the http or https address of a folder, such as "
                f"https://example.org/sam for https://example.org/sam/{file}"
            )
    return [f"{base.rstrip('/')}/{file}" for base in bases]


def _fetch(name: str, checkpoint: Checkpoint, addresses: Sequence[str]) -> None:
    """Download the file from the first address that gives it, or wait for another process that does."""
    part = checkpoint.path.with_suffix(".part")
    by_hand = (
        f"To download it by hand: open {checkpoint.url} in a browser and save it as {checkpoint.path}, or anywhere and "
        f'load_sam("{name}", checkpoint="its path"). Without it everything runs on the embedded model: load_sam("lite")'
    )
    start = f"could not download {name} ({checkpoint.megabytes})"
    failed = []
    try:
        checkpoint.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(Path(f"{checkpoint.path}.lock")):
            if checkpoint.path.exists():
                return
            for number, address in enumerate(addresses, start=1):
                try:
                    _fetch_from(address, part, checkpoint)
                except (requests.RequestException, _WrongFileError) as error:
                    failed.append(f"{_shown(address)}: {_reason(error)}")
                    if number < len(addresses):
                        _say(f"{name} is not from {failed[-1]}. Trying the next address.")
                else:
                    _say(f"{name}: {checkpoint.megabytes} from {_shown(address)}, its SHA-256 is right.")
                    return
    except OSError as error:
        raise RuntimeError(f"{start}: {error}. {_kept(part)}{_DISK_CURE}{by_hand}") from error
    tried = f" {failed[0]}. " if len(failed) == 1 else ":\n" + "".join(f"- {each}\n" for each in failed)
    raise RuntimeError(f"{start} from{tried}{_kept(part)}{by_hand}")


def _fetch_from(address: str, part: Path, checkpoint: Checkpoint) -> None:
    """Download the file from one address into `part`, from where it ends, and rename it once its digest is right."""
    while True:
        have = _size(part)
        _receive(address, part, checkpoint)
        digest = sha256(part)
        if digest == checkpoint.sha256:
            break
        part.unlink()
        if not have:
            raise _WrongFileError(
                f"it is another file, with SHA-256 {digest[:8]}... for {checkpoint.sha256[:8]}.... "
                "Nothing of it was kept"
            )
        # It began with bytes from elsewhere, and these may be the wrong ones: all of it from here.
    flush(part)
    part.replace(checkpoint.path)
    flush(checkpoint.path.parent)


def _receive(address: str, part: Path, checkpoint: Checkpoint) -> None:
    """Append to `part` what it lacks. Nothing is taken back from it here: the digest decides about the whole."""
    have = _size(part)
    if have >= checkpoint.size:
        return
    with _request(address, have) as reply:
        _check_size(reply, have, checkpoint.size)
        skip = 0 if reply.status_code == requests.codes.partial_content else have  # some servers send whole files only
        scale = {"total": checkpoint.size, "initial": have, "unit": "B", "unit_scale": True}
        with part.open("ab") as out, tqdm(**scale, desc=checkpoint.file) as progress:
            for block in reply.iter_content(BLOCK):
                fresh, skip = block[skip:], max(0, skip - len(block))
                have += len(fresh)
                if have > checkpoint.size:
                    raise _WrongFileError(f"it sends more than {checkpoint.size:,} bytes")
                out.write(fresh)
                progress.update(len(fresh))
    if have < checkpoint.size:
        raise requests.ConnectionError("the connection ended early")


def _request(address: str, start: int) -> requests.Response:
    """Return the reply to a request for a file from byte `start` on; the server may send all of it."""
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    reply = requests.get(address, headers=headers, stream=True, timeout=TIMEOUT)
    if start and reply.status_code == requests.codes.requested_range_not_satisfiable:
        reply.close()  # it takes no ranges, or its file is shorter
        return _request(address, 0)
    reply.raise_for_status()
    return reply


def _check_size(reply: requests.Response, have: int, size: int) -> None:
    """Raise _WrongFileError if a reply announces a file of another size, or another part of it than was requested."""
    if reply.status_code == requests.codes.partial_content:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", reply.headers.get("Content-Range", ""))
        start, total = (int(found[1]), found[2]) if found else (have, "*")
        if start != have:
            raise _WrongFileError(f"it sends from byte {start:,} on, not from {have:,}")
    else:
        total = reply.headers.get("Content-Length", "*") if "Content-Encoding" not in reply.headers else "*"
    if total not in ("*", str(size)):
        raise _WrongFileError(f"it is another file, with {total} bytes for {size}")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _kept(part: Path) -> str:
    return f"{part.stat().st_size / 1e6:.0f} MB are kept: call again to resume. " if os.access(part, os.R_OK) else ""


def _reason(error: Exception) -> str:
    is_cut = isinstance(error, requests.exceptions.ChunkedEncodingError)
    return "the connection ended early" if is_cut else _shown(error)


def _shown(text: object) -> str:
    """Return an address or a reason in one line, without the password that an address may hold."""
    return re.sub(r"//[^/@\s]*@", "//", " ".join(str(text).split()))[:300]


def _say(line: str) -> None:
    print(line)
