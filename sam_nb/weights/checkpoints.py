"""Meta's weights: their addresses, sizes and digests, and where they lie on this computer."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import pooch
import requests
from tqdm.auto import tqdm

from sam_nb.storage import cache_dir, flush, locked

TIMEOUT = 60  # seconds without a response

_DISK_CURE = "Make room, or set the environment variable SAM_NB_HOME to a folder that can be written. "


@dataclass(frozen=True)
class Checkpoint:
    """A file of weights that can be downloaded.

    Attributes
    ----------
    file : str
        Name of the file, the same as at its source.
    url : str
        Its official address.
    size : int
        Bytes.
    sha256 : str
        Digest of the whole file, 64 hexadecimal digits. (The eight digits in Meta's file names begin its MD5.)
    licence : str
        Of the weights.
    """

    file: str
    url: str
    size: int
    sha256: str
    licence: str

    @property
    def path(self) -> Path:
        """Where the file lies, or will lie, on this computer."""
        return cache_dir() / "checkpoints" / self.file

    @property
    def is_here(self) -> bool:
        """Whether the file is on this computer and may be read."""
        return os.access(self.path, os.R_OK)


_META = "https://dl.fbaipublicfiles.com/segment_anything/"

CHECKPOINTS = {
    "vit_b": Checkpoint(
        file="sam_vit_b_01ec64.pth",
        url=_META + "sam_vit_b_01ec64.pth",
        size=375_042_383,
        sha256="ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        licence="Apache-2.0",
    ),
    "vit_l": Checkpoint(
        file="sam_vit_l_0b3195.pth",
        url=_META + "sam_vit_l_0b3195.pth",
        size=1_249_524_607,
        sha256="3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        licence="Apache-2.0",
    ),
    "vit_h": Checkpoint(
        file="sam_vit_h_4b8939.pth",
        url=_META + "sam_vit_h_4b8939.pth",
        size=2_564_550_879,
        sha256="a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        licence="Apache-2.0",
    ),
}
"""Model name -> its official weights."""


def download(name: str) -> Path:
    """Return the path of a model's weights, downloading them first if they are not there.

    The file is downloaded beside its final place and gets its name once its SHA-256 is right: a file under the final
    name is whole. An interrupted download resumes with the next call. A second notebook that calls at the same time
    waits for the first one and finds the file. Where the file is there, nothing is written: a folder that several
    people share may be read-only.

    Parameters
    ----------
    name : str
        A key of `CHECKPOINTS`.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    RuntimeError
        The address could not be reached, the connection broke off or the disk is full (what has arrived is kept, to
        resume), the folder cannot be written, or the digest is wrong (nothing is kept). The message says how to
        download the file by hand.
    PermissionError
        The file is there and may not be read.
    ValueError
        There is no such model to download; or a file of that name is there, but it is not Meta's. It is left alone.
    """
    if name not in CHECKPOINTS:
        embedded = '. lite is part of the package: load_sam("lite") downloads nothing' if name == "lite" else ""
        raise ValueError(f"no weights to download for {name!r}: expected one of {', '.join(CHECKPOINTS)}{embedded}")
    checkpoint = CHECKPOINTS[name]
    path = checkpoint.path
    if not os.path.exists(path):  # Path.exists raises where a folder may not be read
        _fetch(name, checkpoint)
    size, digest = path.stat().st_size, sha256(path)
    if (size, digest) != (checkpoint.size, checkpoint.sha256):
        raise ValueError(
            f"{path} is not {name}'s official file: expected {checkpoint.size:,} bytes with SHA-256 "
            f"{checkpoint.sha256}, got {size:,} bytes with {digest}. "
            f"An incomplete copy? Delete it and load again; or, if these are weights of your own, give their path: "
            f'load_sam("{name}", checkpoint=...)'
        )
    return path


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _fetch(name: str, checkpoint: Checkpoint) -> None:
    """Download the file, or wait for another process that does."""
    part = checkpoint.path.with_suffix(".part")
    by_hand = (
        f"To download it by hand: open {checkpoint.url} in a browser and save it as {checkpoint.path}, or anywhere and "
        f'load_sam("{name}", checkpoint="its path"). Without it everything runs on the embedded model: load_sam("lite")'
    )
    try:
        checkpoint.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(Path(f"{checkpoint.path}.lock")):
            if checkpoint.path.exists():
                return
            pooch.retrieve(
                checkpoint.url,
                known_hash=f"sha256:{checkpoint.sha256}",
                fname=checkpoint.file,
                path=checkpoint.path.parent,
                downloader=lambda url, file, _: _resume(url, part, file, checkpoint),
            )
            flush(checkpoint.path.parent)
    except OSError as error:  # of the network (requests' errors are OSErrors) or of the disk
        kept = (
            f"{part.stat().st_size / 1e6:.0f} MB are kept: call again to resume. " if os.access(part, os.R_OK) else ""
        )
        cure = "" if isinstance(error, requests.RequestException) else _DISK_CURE
        raise RuntimeError(
            f"could not download {name} ({checkpoint.size / 1e6:.0f} MB): {error}. {kept}{cure}{by_hand}"
        ) from error
    except ValueError as error:  # pooch's error for a digest that differs
        raise RuntimeError(
            f"the file at {checkpoint.url} is not {name}'s: {error}. Nothing of it was kept. {by_hand}"
        ) from error


def _resume(url: str, part: Path, file: str, checkpoint: Checkpoint) -> None:
    """Download into `part` from where it ends, and rename it to `file` when it is complete."""
    have = part.stat().st_size if part.exists() else 0
    if have < checkpoint.size:
        wanted = {"Range": f"bytes={have}-"} if have else {}
        with requests.get(url, headers=wanted, stream=True, timeout=TIMEOUT) as reply:
            if reply.status_code == requests.codes.requested_range_not_satisfiable:
                part.unlink()  # longer than what is there now: begin again next time
            reply.raise_for_status()
            if reply.status_code != requests.codes.partial_content:  # a server that only sends whole files
                have = 0
            scale = {"total": checkpoint.size, "initial": have, "unit": "B", "unit_scale": True}
            with part.open("ab" if have else "wb") as out, tqdm(**scale, desc=checkpoint.file) as progress:
                for block in reply.iter_content(1 << 20):
                    out.write(block)
                    progress.update(len(block))
        if part.stat().st_size < checkpoint.size:
            raise requests.ConnectionError("the connection ended early")
    flush(part)
    part.replace(file)
