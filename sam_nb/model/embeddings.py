"""The image embedding as a value, and a cache that keeps embeddings by content.

With Meta's models on a CPU, encoding takes seconds and decoding a prompt some hundredths. So an `Embedding` is computed
once for an image and a model, and the next cell, notebook or kernel that needs the same one finds it.
"""

import hashlib
import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch

from sam_nb.storage import writing


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


def embedding_key(image: npt.NDArray[np.uint8], weights: str, device: str) -> str:
    """Return the fingerprint under which an embedding is kept.

    Parameters
    ----------
    image : HxWx3 numpy.ndarray of uint8
    weights : str
        Fingerprint of the model's weights.
    device : str
        Kind of device and precision, such as "cpu float32": results differ between kinds in the last digits.

    Returns
    -------
    str
        64 hexadecimal digits, fit for a file name.
    """
    digest = hashlib.sha256(f"{weights} {device} {image.shape}".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


class EmbeddingCache:
    """Embeddings by key, the last few in memory and more of them in a folder.

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

    def get(self, key: str) -> Embedding | None:
        """Return the `Embedding` kept under this key, on the CPU, or None."""
        embedding = self._held.get(key) or self._read(key)
        if embedding is not None:
            self._hold(embedding)
        return embedding

    def put(self, embedding: Embedding) -> None:
        """Keep an `Embedding` whose features are on the CPU. A folder that cannot be written costs only speed."""
        self._hold(embedding)
        try:
            self._write(embedding)
            self._evict()
        except OSError:  # a full disk or a read-only home: the copy in memory serves
            pass

    def _hold(self, embedding: Embedding) -> None:
        self._held[embedding.key] = embedding
        self._held.move_to_end(embedding.key)
        while len(self._held) > self.in_memory:
            self._held.popitem(last=False)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def _read(self, key: str) -> Embedding | None:
        path = self._path(key)
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                about, features = file.metadata(), file.get_tensor("features")
            os.utime(path)  # used now: evicted last
        except (OSError, safetensors.SafetensorError):  # absent or damaged: it is computed and written again
            return None
        return Embedding(
            features=features,
            original_size=(int(about["height"]), int(about["width"])),
            input_size=(int(about["input_height"]), int(about["input_width"])),
            model=about["model"],
            weights=about["weights"],
            key=key,
        )

    def _write(self, embedding: Embedding) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        about = {
            "height": str(embedding.original_size[0]),
            "width": str(embedding.original_size[1]),
            "input_height": str(embedding.input_size[0]),
            "input_width": str(embedding.input_size[1]),
            "model": embedding.model,
            "weights": embedding.weights,
        }
        with writing(self._path(embedding.key), overwrite=True) as part:
            safetensors.torch.save_file({"features": embedding.features.contiguous()}, part, metadata=about)

    def _evict(self) -> None:
        files = sorted(self.folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime, reverse=True)
        total = 0
        for path in files:
            total += path.stat().st_size
            if total > self.on_disk:
                path.unlink(missing_ok=True)
