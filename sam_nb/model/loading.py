"""Load a model by name or from a checkpoint, with fast layers, and say in one line which it is."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from sam_nb.model.sam import Sam
from sam_nb.networks.efficientnet import COARSE
from sam_nb.networks.fast_decoder import DecoderAttention, DecoderBlock, FastDecoder, FastLiteDecoder
from sam_nb.networks.fast_encoder import EncoderAttention, EncoderBlock
from sam_nb.networks.lite import WEIGHTS, LiteDecoder, build_lite
from sam_nb.networks.tiny_vit import TinyViT, build_vit_t
from sam_nb.networks.upstream import MaskDecoder, image_encoder, sam_model_registry, transformer
from sam_nb.networks.upstream import Sam as SamModel
from sam_nb.weights.checkpoints import CHECKPOINTS, sha256
from sam_nb.weights.download import download
from sam_nb.weights.weights_file import architecture_of, read_weights

ARCHITECTURES: dict[str, Callable[[], SamModel]] = {
    "lite": build_lite,
    "vit_t": build_vit_t,
    "vit_b": sam_model_registry["vit_b"],
    "vit_l": sam_model_registry["vit_l"],
    "vit_h": sam_model_registry["vit_h"],
}
"""Model name -> a function that builds it with random weights."""

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
FASTER_IN_BFLOAT16 = ("vit_b", "vit_l", "vit_h")  # of `lite` and vit_t, convolutions take most of the time

Module = TypeVar("Module", bound=nn.Module)


def load_sam(
    name: str | None = None,
    checkpoint: str | Path | None = None,
    device: str | torch.device | None = None,
    precision: str = "float32",
) -> Sam:
    """Load a model and say in one line which.

    Parameters
    ----------
    name : str, optional
        "lite" (embedded, always works), "vit_t" (MobileSAM), "vit_b", "vit_l" or "vit_h" (Meta's); all but "lite" are
        downloaded when first loaded, see `download`. Default: the environment variable ``SAM_NB_MODEL``, else "vit_b"
        or "vit_t", whichever has its weights on this computer, else "lite".
    checkpoint : str or pathlib.Path, optional
        A file of weights to load instead of the official ones, ``.pth`` or ``.safetensors``. Without a name, the
        weights tell the architecture. It may be anyone's: none of its code runs, see ``SECURITY.md``.
    device : str or torch.device, optional
        Default: "cuda" if there is one, else "mps" (Apple), else "cpu".
    precision : {"float32", "bfloat16", "auto"}
        Of the image encoder's computation. "bfloat16" takes half the memory and, where the hardware has it, a fraction
        of the time, for masks that differ by some pixels along the outline; "auto" takes whichever is faster:
        "lite" and "vit_t" gain nothing.

    Returns
    -------
    Sam

    Raises
    ------
    ValueError
        There is no such model or precision, or the file does not hold its weights.
    FileNotFoundError
        `checkpoint` does not exist.
    RuntimeError
        The weights could not be downloaded (see `download`).
    """
    if name is None and checkpoint is None:
        name = _default_name()
    if name is not None and name not in ARCHITECTURES:
        raise ValueError(f"no model {name!r}: expected one of {', '.join(ARCHITECTURES)}")
    if precision not in (*PRECISIONS, "auto"):
        raise ValueError(f"no precision {precision!r}: expected one of {', '.join(PRECISIONS)}, auto")
    path = _weights_path(name, checkpoint)
    state = read_weights(path)
    name = name or architecture_of(state, path, ", ".join(ARCHITECTURES))
    model = ARCHITECTURES[name]()
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path} does not hold the weights of {name}: {str(error)[:300]}") from error
    _keep_freed_memory()
    device = torch.device(device or _best_device())
    use_fast_layers(model).eval().to(device)
    if precision == "auto":
        precision = "bfloat16" if name in FASTER_IN_BFLOAT16 and _has_bfloat16(device) else "float32"
    set_precision(model, PRECISIONS[precision])
    # Official weights were compared with their digest a moment ago.
    official = checkpoint is None and name in CHECKPOINTS
    sam = Sam(model, name, CHECKPOINTS[name].sha256 if official else sha256(path), precision)
    print(_announcement(sam, checkpoint))
    return sam


def available_models() -> list[str]:
    """Return the models whose weights are on this computer, "lite" first: `load_sam` downloads nothing for them."""
    return ["lite", *(name for name, checkpoint in CHECKPOINTS.items() if checkpoint.is_here)]


def use_fast_layers(model: Module) -> Module:
    """Replace the attention layers and the mask decoder of a model by fast ones with the same weights, in place.

    Parameters
    ----------
    model : segment_anything.modeling.Sam
        Or any part of it.

    Returns
    -------
    segment_anything.modeling.Sam
        The same object.
    """
    fast: dict[type, type] = {
        MaskDecoder: FastDecoder,
        LiteDecoder: FastLiteDecoder,
        transformer.TwoWayAttentionBlock: DecoderBlock,
        transformer.Attention: DecoderAttention,
        image_encoder.Attention: EncoderAttention,
        image_encoder.Block: EncoderBlock,
    }
    for module in model.modules():
        module.__class__ = fast.get(type(module), type(module))
    return model


def set_precision(model: SamModel, dtype: torch.dtype) -> SamModel:
    """Set the precision in which a model's image encoder computes, in place; images and embeddings stay float32.

    Parameters
    ----------
    model : segment_anything.modeling.Sam
        With fast layers, see `use_fast_layers`.
    dtype : torch.dtype
        torch.float32 or torch.bfloat16. In bfloat16 the encoder has no gradients.

    Returns
    -------
    segment_anything.modeling.Sam
        The same object.
    """
    encoder = model.image_encoder
    for block in encoder.modules():
        if isinstance(block, EncoderBlock):
            # Nearly all of the work; the other layers are quick and would lose more accuracy.
            block.attn.to(dtype)
            block.mlp.to(dtype)
    if isinstance(encoder, TinyViT):
        for layer in encoder.layers.modules():
            if isinstance(layer, nn.Linear):
                layer.to(dtype)
    if hasattr(encoder, "backbone"):  # `lite`
        encoder.backbone.blocks[COARSE:].to(dtype)
    return model


def _default_name() -> str:
    chosen = os.environ.get("SAM_NB_MODEL")
    if chosen and chosen not in ARCHITECTURES:
        raise ValueError(
            f"no model {chosen!r}, set by the environment variable SAM_NB_MODEL: expected one of "
            f"{', '.join(ARCHITECTURES)}"
        )
    here = [name for name in ("vit_b", "vit_t") if CHECKPOINTS[name].is_here]
    return chosen or [*here, "lite"][0]


def _keep_freed_memory() -> None:
    """Let the C library reuse the memory that a decoding frees: a third off the time of `lite` on Linux.

    Otherwise it returns the memory, and the system clears up to 30 MB of pages again for every prompt. glibc keeps
    about twice the largest block that was ever freed, if that is under 32 MiB (mallopt(3), M_MMAP_THRESHOLD): this
    frees one. It has no effect on other systems.
    """
    np.empty(2**25 - 2**16, np.uint8)


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _has_bfloat16(device: torch.device) -> bool:
    """Return whether the hardware computes in bfloat16 and does not emulate it."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # An older PyTorch cannot tell.
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def _weights_path(name: str | None, checkpoint: str | Path | None) -> Path:
    if checkpoint is None:
        return WEIGHTS if name is None or name == "lite" else download(name)
    path = Path(checkpoint).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"no weights at {str(path)!r} (looked in {str(path.parent.resolve())!r}). Without checkpoint=, load_sam "
            "downloads the official ones"
        )
    return path


def _announcement(sam: Sam, checkpoint: str | Path | None) -> str:
    if checkpoint is not None:
        source = f"weights from {Path(checkpoint).name}"
    elif sam.name == "lite":
        source = "this project's small embedded model, not Meta's SAM"
    else:
        source = CHECKPOINTS[sam.name].source
    precision = "" if sam.precision == "float32" else f" in {sam.precision}"
    line = f"{sam.name}: {source}, {sam.millions} parameters, on {sam.device}{precision}."
    if sam.name == "lite" and checkpoint is None:
        light, meta = (CHECKPOINTS[name].megabytes for name in ("vit_t", "vit_b"))
        line += f' For better masks: load_sam("vit_t"), a download of {light}, or Meta\'s load_sam("vit_b"), {meta}.'
    return line
