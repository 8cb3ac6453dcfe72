"""Meta's weights: where they come from, how to know that they are whole, and where they lie on this computer."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pooch
import requests
from filelock import FileLock
from tqdm.auto import tqdm

from sam_nb.storage import cache_dir

TIMEOUT = 60  # seconds without an answer


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
    def path(self):
        """Where the file lies, or will lie, on this computer (`pathlib.Path`)."""
        return cache_dir() / "checkpoints" / self.file


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
    # MobileSAM (Zhang et al., 2023): the file is known here, its architecture is not loaded yet.
    "vit_t": Checkpoint(
        file="mobile_sam.pt",
        url="https://github.com/ChaoningZhang/MobileSAM/raw/master/weights/mobile_sam.pt",
        size=40_728_226,
        sha256="6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
        licence="Apache-2.0",
    ),
}
"""Model name -> its official weights."""


def download(name):
    """Return the path of a model's weights, downloading them first if they are not there.

    The file is fetched beside its final place, its SHA-256 compared, and only then given its name: what lies under the
    final name is whole. A download that breaks off goes on from there when asked again. A second notebook that asks at
    the same time waits for the first one and finds the file.

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
        The address could not be reached, the connection broke off (what came is kept, to go on from), or what came is
        not the file (nothing of it is kept). The message says how to fetch the file by hand.
    ValueError
        A file of that name is there, but it is not Meta's. It is left alone.
    """
    checkpoint = CHECKPOINTS[name]
    checkpoint.path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{checkpoint.path}.lock"):
        if not checkpoint.path.exists():
            _fetch(name, checkpoint)
    if checkpoint.path.stat().st_size != checkpoint.size or sha256(checkpoint.path) != checkpoint.sha256:
        raise ValueError(
            f"{checkpoint.path} is not {name}'s official file: expected {checkpoint.size:,} bytes with SHA-256 "
            f"{checkpoint.sha256}, got {checkpoint.path.stat().st_size:,} bytes with {sha256(checkpoint.path)}. "
            f"A half-copied file? Delete it and load again; or, if it is weights of your own, give its path: "
            f'load_sam("{name}", checkpoint=...)'
        )
    return checkpoint.path


def sha256(path):
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _fetch(name, checkpoint):
    part = checkpoint.path.with_suffix(".part")
    by_hand = (
        f"To fetch it by hand: open {checkpoint.url} in a browser and save it as {checkpoint.path}, or anywhere and "
        f'load_sam("{name}", checkpoint="its path"). Without it everything runs on the embedded model: load_sam("lite")'
    )
    try:
        pooch.retrieve(
            checkpoint.url,
            known_hash=f"sha256:{checkpoint.sha256}",
            fname=checkpoint.file,
            path=checkpoint.path.parent,
            downloader=lambda url, file, _: _continue(url, part, file, checkpoint),
        )
    except requests.RequestException as error:
        kept = f"{part.stat().st_size / 1e6:.0f} MB are kept: ask again to go on from there. " if part.exists() else ""
        raise RuntimeError(
            f"could not download {name} ({checkpoint.size / 1e6:.0f} MB): {error}. {kept}{by_hand}"
        ) from error
    except ValueError as error:  # pooch's word for a digest that differs
        raise RuntimeError(
            f"what came from {checkpoint.url} is not {name}'s file: {error}. Nothing was kept of it. {by_hand}"
        ) from error


def _continue(url, part, file, checkpoint):
    """Download into `part` from where it ends, and give it the name `file` when it is complete."""
    have = part.stat().st_size if part.exists() else 0
    if have < checkpoint.size:
        wanted = {"Range": f"bytes={have}-"} if have else {}
        with requests.get(url, headers=wanted, stream=True, timeout=TIMEOUT) as reply:
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
    part.replace(file)
