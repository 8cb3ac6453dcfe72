"""Read weights from a file that may be anyone's: no code runs, memory stays within the file's size, or it is refused.

``.safetensors`` holds a header and numbers, and the library checks one against the other. ``.pth`` is a ZIP archive
with a pickle, a list of instructions, beside the numbers; PyTorch obeys only those that build tensors
(``weights_only=True``). What older versions of it obeyed too, TorchScript and the formats from before version 1.6, is
refused here before PyTorch opens the file, and so is compression, which hides what a file grows to.
"""

import pickle
import zipfile
from pathlib import Path

import safetensors
import safetensors.torch
import torch

MAX_BYTES = 6_000_000_000  # of a file: vit_h in float64 has 5.1 GB
MAX_PICKLE = 16_000_000  # bytes of instructions: vit_h's have 0.1 MB

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the state dict of a file.

    Parameters
    ----------
    path : pathlib.Path
        Ending in ``.safetensors``, else a file by ``torch.save``.

    Returns
    -------
    dict of str to torch.Tensor
        Dense tensors of finite numbers, on the CPU.

    Raises
    ------
    ValueError
        The file is damaged, holds something other than weights, or could do more than hold weights.
    OSError
        It cannot be read.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{path} has {size:,} bytes: expected weights of SAM, which have at most {MAX_BYTES:,}")
    try:
        state = _read_safetensors(path) if path.suffix.lower() == ".safetensors" else _read_pickled(path)
    except OSError:
        raise
    except Exception as error:  # a made-up pickle can raise anything
        raise ValueError(
            f"{path} ({size:,} bytes) holds no weights that can be read. An incomplete download? Compare its size with "
            f"the source's and download it again. {_reason(error)}"
        ) from error
    if not isinstance(state, dict) or not all(_is_weight(*item, size) for item in state.items()):
        raise ValueError(
            f"{path} holds something other than weights: expected a state dict, names and dense tensors of float16, "
            "bfloat16, float32 or float64"
        )
    for name, value in state.items():
        if not torch.isfinite(value).all():
            raise ValueError(
                f"{path}: {name} holds NaN or infinite numbers, as after a training that diverged: take an earlier "
                "checkpoint"
            )
    return state


def architecture_of(state: dict[str, torch.Tensor], path: Path, known: str) -> str:
    """Return the name of the model whose weights these are.

    Parameters
    ----------
    state : dict of str to torch.Tensor
    path : pathlib.Path
        Of the file, for the message.
    known : str
        The names of all models, for the message.

    Raises
    ------
    ValueError
        It is none of them.
    """
    if "image_encoder.backbone.conv_stem.weight" in state:
        return "lite"
    if "image_encoder.patch_embed.seq.0.c.weight" in state:
        return "vit_t"
    patches = state.get("image_encoder.patch_embed.proj.weight")
    widths = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}
    if patches is None or patches.ndim == 0 or len(patches) not in widths:
        raise ValueError(f"{path} holds weights of an unknown model: expected those of {known}")
    return widths[len(patches)]


def _read_safetensors(path: Path) -> object:
    return safetensors.torch.load_file(path)


def _read_pickled(path: Path) -> object:
    _check_archive(path)
    # mmap: tensors are parts of the file, never larger than it. map_location: a file saved on a GPU loads anywhere.
    return torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)


def _check_archive(path: Path) -> None:
    """Raise ValueError unless a file is a plain archive of `torch.save`, with nothing in it to unpack."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            is_old = file.read(1) == b"\x80"
        raise ValueError(
            "it is a pickle from before PyTorch 1.6: if you trust it, load and save it with today's torch"
            if is_old
            else "it is not an archive of torch.save"
        )
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    names = [entry.filename.partition("/")[2] for entry in entries]
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        raise ValueError("it is a TorchScript program")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("its archive is compressed, which torch.save never does")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise ValueError("its archive says that it holds more than it has bytes")
    if any(entry.file_size > MAX_PICKLE for entry in entries if entry.filename.endswith(".pkl")):
        raise ValueError("its pickle is too long for a state dict")


def _is_weight(name: object, value: object, size: int) -> bool:
    return (
        isinstance(name, str)
        and isinstance(value, torch.Tensor)
        and value.dtype in _DTYPES
        and value.layout == torch.strided
        and value.device.type == "cpu"
        # A pickle can make tensors that PyTorch itself would not: of -1 rows, or of one number that poses as terabytes.
        and min(*value.shape, *value.stride(), value.storage_offset(), 0) >= 0
        and value.numel() * value.element_size() <= size
    )


def _reason(error: Exception) -> str:
    # PyTorch's own words would advise to load it with weights_only=False, which runs its code.
    if isinstance(error, pickle.UnpicklingError):
        return "It holds other Python objects than tensors, and those could run code"
    return f"The reason: {' '.join(str(error).split())[:200] or type(error).__name__}"


def encode_weights(model: torch.nn.Module) -> bytes:
    """Return a model's weights as the bytes of a safetensors file."""
    return safetensors.torch.save({name: value.cpu().contiguous() for name, value in model.state_dict().items()})
