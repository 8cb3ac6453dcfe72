"""Load a model by name or from a checkpoint, in its fast form, and say in one line which it is."""

import os
import pickle
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from sam_nb.model.checkpoints import CHECKPOINTS, download, sha256
from sam_nb.model.efficientnet import COARSE
from sam_nb.model.fast_decoder import Decoder, DecoderAttention, DecoderBlock, FastLiteDecoder
from sam_nb.model.fast_encoder import EncoderAttention, EncoderBlock
from sam_nb.model.lite import WEIGHTS, LiteDecoder, build_lite
from sam_nb.model.sam import Sam
from sam_nb.model.upstream import MaskDecoder, image_encoder, sam_model_registry, transformer

ARCHITECTURES = {
    "lite": build_lite,
    "vit_b": sam_model_registry["vit_b"],
    "vit_l": sam_model_registry["vit_l"],
    "vit_h": sam_model_registry["vit_h"],
}
"""Model name -> a function that builds it with random weights."""

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_sam(name=None, checkpoint=None, device=None, precision="float32"):
    """Load a model and say in one line which.

    Parameters
    ----------
    name : str, optional
        "lite" (embedded, always works), "vit_b", "vit_l" or "vit_h" (Meta's, downloaded when first asked for). Left
        out: the environment variable ``SAM_NB_MODEL``; else "vit_b" if its weights are on this computer; else "lite".
    checkpoint : str or pathlib.Path, optional
        A file of weights to use instead of the official ones, ``.pth`` or ``.safetensors``. Without a name, the
        architecture is read off the weights.
    device : str or torch.device, optional
        Left out: "cuda", else "mps" (Apple), else "cpu".
    precision : str
        What the image encoder computes in: "float32"; "bfloat16", half the memory and, where the hardware has it, a
        fraction of the time, for masks that differ by some pixels along the outline; "auto", whichever is faster.

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
        The weights could not be downloaded (see `sam_nb.model.checkpoints.download`).
    """
    if name is None and checkpoint is None:
        name = _default_name()
    if name is not None and name not in ARCHITECTURES:
        raise ValueError(f"no model {name!r}: expected one of {', '.join(ARCHITECTURES)}")
    if precision not in (*PRECISIONS, "auto"):
        raise ValueError(f"no precision {precision!r}: expected one of {', '.join(PRECISIONS)}, auto")
    path = _weights_path(name, checkpoint)
    state = _read_weights(path)
    name = name or _architecture_of(state, path)
    model = ARCHITECTURES[name]()
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path} does not hold the weights of {name}: {str(error)[:300]}") from error
    _keep_freed_memory()
    device = torch.device(device or _best_device())
    speed_up(model).eval().to(device)
    if precision == "auto":
        precision = "bfloat16" if name != "lite" and _has_bfloat16(device) else "float32"
    set_precision(model, PRECISIONS[precision])
    # Official weights were compared with their digest a moment ago.
    official = checkpoint is None and name in CHECKPOINTS
    sam = Sam(model, name, CHECKPOINTS[name].sha256 if official else sha256(path), precision)
    print(_announcement(sam, checkpoint))
    return sam


def speed_up(model):
    """Have a model's attention and mask decoder computed the fast way, in place.

    Parameters
    ----------
    model : segment_anything.modeling.Sam

    Returns
    -------
    segment_anything.modeling.Sam
        The same.
    """
    faster = {
        MaskDecoder: Decoder,
        LiteDecoder: FastLiteDecoder,
        transformer.TwoWayAttentionBlock: DecoderBlock,
        transformer.Attention: DecoderAttention,
        image_encoder.Attention: EncoderAttention,
        image_encoder.Block: EncoderBlock,
    }
    for module in model.modules():
        module.__class__ = faster.get(type(module), type(module))
    return model


def set_precision(model, dtype):
    """Have a model's image encoder compute in another precision, in place; pictures and embeddings stay float32.

    Parameters
    ----------
    model : segment_anything.modeling.Sam
        That `speed_up` has seen.
    dtype : torch.dtype
        torch.float32 or torch.bfloat16. In bfloat16 the encoder has no gradients.

    Returns
    -------
    segment_anything.modeling.Sam
        The same.
    """
    encoder = model.image_encoder
    for block in encoder.modules():
        if isinstance(block, EncoderBlock):
            # Nearly all of the work; the rest is quick and loses more.
            block.attn.to(dtype)
            block.mlp.to(dtype)
    if hasattr(encoder, "backbone"):  # `lite`
        encoder.backbone.blocks[COARSE:].to(dtype)
    return model


def _default_name():
    asked = os.environ.get("SAM_NB_MODEL")
    if asked and asked not in ARCHITECTURES:
        raise ValueError(
            f"the environment variable SAM_NB_MODEL asks for {asked!r}: expected one of {', '.join(ARCHITECTURES)}"
        )
    return asked or ("vit_b" if CHECKPOINTS["vit_b"].path.exists() else "lite")


def _keep_freed_memory():
    """Have the C library keep what a decoding frees, for the next one: a third off its time with `lite` on Linux.

    Otherwise it gives the memory back, and the system clears up to 30 MB of pages anew for every prompt. glibc keeps
    about twice the largest block that it has seen freed, if that is under 32 MiB (mallopt(3), M_MMAP_THRESHOLD): this
    shows it one. Elsewhere it does nothing.
    """
    np.empty(2**25 - 2**16, np.uint8)


def _best_device():
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _has_bfloat16(device):
    """Whether the hardware computes in bfloat16 and not only imitates it."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # An older PyTorch cannot tell.
    able = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def _weights_path(name, checkpoint):
    if checkpoint is None:
        return WEIGHTS if name == "lite" else download(name)
    path = Path(checkpoint).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"no weights at {str(path)!r} (looked in {str(path.parent.resolve())!r}); leave checkpoint out, and "
            "load_sam fetches Meta's"
        )
    return path


def _read_weights(path):
    try:
        if path.suffix == ".safetensors":
            state = safetensors.torch.load_file(path)
        else:
            # weights_only: a pickle from the internet must not run code.
            # map_location: a file saved on a GPU loads anywhere.
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, safetensors.SafetensorError) as error:
        raise ValueError(
            f"{path} ({path.stat().st_size:,} bytes) holds no weights that can be read. A download that was cut? "
            f"Compare its size with the source's and fetch it again. PyTorch says: {error}"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"{path} holds something other than weights: expected a state dict, names and tensors")
    return state


def _architecture_of(state, path):
    if "image_encoder.backbone.conv_stem.weight" in state:
        return "lite"
    patches = state.get("image_encoder.patch_embed.proj.weight")
    widths = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}
    if patches is None or len(patches) not in widths:
        raise ValueError(f"{path} holds weights of an unknown model: expected those of {', '.join(ARCHITECTURES)}")
    return widths[len(patches)]


def _announcement(sam, checkpoint):
    source = "Meta's SAM" if sam.name != "lite" else "this project's small embedded model, not Meta's SAM"
    if checkpoint is not None:
        source = f"weights from {Path(checkpoint).name}"
    inside = "" if sam.precision == "float32" else f" in {sam.precision}"
    line = f"{sam.name}: {source}, {sam.millions} parameters, on {sam.device}{inside}."
    if sam.name == "lite" and checkpoint is None:
        line += f' For Meta\'s: load_sam("vit_b"), a download of {CHECKPOINTS["vit_b"].size / 1e6:.0f} MB.'
    return line
