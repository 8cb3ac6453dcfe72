"""The image embedding as a value, and a cache that keeps embeddings by content.

With Meta's models on a CPU, encoding takes seconds and decoding a prompt some hundredths. So an `Embedding` is computed
once for an image and a model, and the next cell, notebook or kernel that needs the same one finds it.
"""

import contextlib
import hashlib
import json
import os
import time
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch

from sam_nb.storage import write_bytes

_SUFFIX = ".safetensors"
_ABANDONED = 3600  # seconds after which an unfinished file is one that a killed process left


@dataclass(frozen=True, eq=False)
class Embedding:
    """An image as SAM's mask decoder needs it.

    Attributes
    ----------
    features : 1x256x64x64 torch.Tensor of float32
        The image embedding.
    original_size : (int, int)
        Height and width of the image, pixels.
    input_size : (int, int)
        Height and width after resizing the long side to the encoder's; the rest of the square is padding.
    model : str
        Name of the model that made it.
    weights : str
        SHA-256 of that model's weights.
    key : str
        Fingerprint of the image's pixels, the model's weights and the kind of device.
    """

    features: torch.Tensor
    original_size: tuple[int, int]
    input_size: tuple[int, int]
    model: str
    weights: str
    key: str

    def __repr__(self) -> str:
        height, width = self.original_size
        shape = "x".join(map(str, self.features.shape))
        return f"Embedding({shape} of a {width}x{height} image, by {self.model})"


def embedding_key(image: npt.NDArray[np.uint8], weights: str, made: str) -> str:
    """Return the fingerprint under which an embedding is kept.

    Parameters
    ----------
    image : HxWx3 numpy.ndarray of uint8
    weights : str
        Fingerprint of the model's weights.
    made : str
        What else it depends on, such as "512 cpu float32": the encoder's image size; kind of device and precision,
        between which results differ in the last digits.

    Returns
    -------
    str
        64 hexadecimal digits, fit for a file name.
    """
    digest = hashlib.sha256(f"{weights} {made} {image.shape}".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


class EmbeddingCache:
    """Embeddings by key, the last few in memory and more of them in a folder, which several processes may share.

    A folder that fails costs time and one warning, never the work: what cannot be read is computed again, what cannot
    be written stays in memory.

    Parameters
    ----------
    folder : str or pathlib.Path
        Created when first needed.
    in_memory : int
        Embeddings to hold in memory (4 MB each).
    on_disk : int
        Bytes that the folder may take; the least recently used embeddings go first.
    """

    def __init__(self, folder: str | Path, in_memory: int = 8, on_disk: int = 500_000_000) -> None:
        self.folder = Path(folder)
        self.in_memory = in_memory
        self.on_disk = on_disk
        self._held: OrderedDict[str, Embedding] = OrderedDict()
        self._has_warned = False

    def get(self, key: str) -> Embedding | None:
        """Return the `Embedding` kept under this key, on the CPU, or None."""
        embedding = self._held.get(key) or self._read(key)
        if embedding is not None:
            self._hold(embedding)
        return embedding

    def put(self, embedding: Embedding) -> None:
        """Keep an `Embedding` whose features are on the CPU.

        Warns
        -----
        UserWarning
            The folder cannot be written: a full disk, a read-only home. Once for each cache.
        """
        self._hold(embedding)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_bytes(self._path(embedding.key), _encode(embedding), overwrite=True)
            self._evict()
        except OSError as error:  # the copy in memory serves
            if not self._has_warned:
                self._has_warned = True
                warnings.warn(
                    f"image embeddings are not kept in {str(self.folder)!r} ({error.strerror or error}): images are "
                    "encoded again by the next notebook. Make room, or set the environment variable SAM_NB_HOME to a "
                    "folder that can be written",
                    stacklevel=3,
                )

    def _hold(self, embedding: Embedding) -> None:
        self._held.pop(embedding.key, None)
        self._held[embedding.key] = embedding
        with contextlib.suppress(KeyError):  # another thread took the last one
            while len(self._held) > self.in_memory:
                self._held.popitem(last=False)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{_SUFFIX}"

    def _read(self, key: str) -> Embedding | None:
        path = self._path(key)
        try:
            # The bytes themselves: a memory map of a file that another program cuts would end the process.
            embedding = _decode(path.read_bytes())
        # Absent or damaged: it is computed and written again.
        except (OSError, ValueError, KeyError, TypeError, AttributeError, MemoryError, safetensors.SafetensorError):
            return None
        with contextlib.suppress(OSError):  # a folder that may only be read
            os.utime(path)  # used now: evicted last
        return embedding if embedding.key == key else None

    def _evict(self) -> None:
        """Remove the least recently used embeddings beyond the limit, and what killed processes left unfinished."""
        sizes: dict[Path, tuple[float, int]] = {}
        for path in self.folder.iterdir():
            with contextlib.suppress(OSError):  # another process has removed it
                about = path.stat()
                if path.name.endswith(_SUFFIX):
                    sizes[path] = about.st_mtime, about.st_size
                elif path.name.startswith(".") and _SUFFIX in path.name and time.time() - about.st_mtime > _ABANDONED:
                    path.unlink()
        total = 0
        for path in sorted(sizes, key=sizes.__getitem__, reverse=True):
            total += sizes[path][1]
            if total > self.on_disk:
                with contextlib.suppress(OSError):  # another process reads or has removed it
                    path.unlink()


def _encode(embedding: Embedding) -> bytes:
    """Return an embedding as the bytes of a safetensors file; see `_decode`."""
    features = embedding.features.detach().contiguous()
    about = {
        "height": str(embedding.original_size[0]),
        "width": str(embedding.original_size[1]),
        "input_height": str(embedding.input_size[0]),
        "input_width": str(embedding.input_size[1]),
        "model": embedding.model,
        "weights": embedding.weights,
        "key": embedding.key,
        "sha256": _digest(features),
    }
    return safetensors.torch.save({"features": features}, metadata=about)


def _decode(content: bytes) -> Embedding:
    """Return the embedding of a safetensors file.

    Raises
    ------
    ValueError, KeyError, TypeError, AttributeError, safetensors.SafetensorError
        It is damaged, cut or of another form.
    """
    features = safetensors.torch.load(content)["features"]
    about = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    if features.dtype != torch.float32 or about["sha256"] != _digest(features):
        raise ValueError("the features are not those that were written")
    return Embedding(
        features=features,
        original_size=(int(about["height"]), int(about["width"])),
        input_size=(int(about["input_height"]), int(about["input_width"])),
        model=about["model"],
        weights=about["weights"],
        key=about["key"],
    )


def _digest(features: torch.Tensor) -> str:
    return hashlib.sha256(features.view(torch.uint8).numpy().data).hexdigest()
