"""The official weights: their addresses, sizes and digests, and where they lie on this computer."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from sam_nb.storage import cache_dir


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
    source : str
        Whose they are, for the line that `load_sam` says.
    """

    file: str
    url: str
    size: int
    sha256: str
    licence: str
    source: str = "Meta's SAM"

    @property
    def megabytes(self) -> str:
        """Its size, such as "375 MB"."""
        return f"{self.size / 1e6:.0f} MB"

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
    "vit_t": Checkpoint(
        file="mobile_sam.pt",
        url="https://raw.githubusercontent.com/ChaoningZhang/MobileSAM/master/weights/mobile_sam.pt",
        size=40_728_226,
        sha256="6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
        licence="Apache-2.0",
        source="MobileSAM, distilled from Meta's SAM",
    ),
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


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
