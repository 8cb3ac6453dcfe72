"""A model to ask: load it, encode a picture once, decode as many prompts as you like.

The work is done by `segment_anything`'s networks: `Sam.model` is its model, with attention computed in a faster order,
and `Sam.predictor` hands out its `SamPredictor`. What is added: pictures and prompts are checked, the embedding is a
value that is kept, and answers name their model.
"""

import contextlib
import os
import pickle
from functools import partial
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F

from sam_nb.images import fit_to_side, load_image
from sam_nb.masks import Masks
from sam_nb.model.checkpoints import CHECKPOINTS, download, home, sha256
from sam_nb.model.embeddings import Embedding, EmbeddingCache, embedding_key
from sam_nb.model.fast_encoder import compute_in, speed_up
from sam_nb.model.lite import WEIGHTS, build_lite
from sam_nb.model.upstream import sam_model_registry

ARCHITECTURES = {
    "lite": build_lite,
    "vit_b": sam_model_registry["vit_b"],
    "vit_l": sam_model_registry["vit_l"],
    "vit_h": sam_model_registry["vit_h"],
}
"""Model name -> a function that builds it with random weights."""

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}

CHUNKS = {"cpu": 4}  # prompts decoded in one pass: more of them no longer fit a processor's cache, and take longer
OTHER_CHUNKS = 32  # on graphics cards: a hundred take gigabytes


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
    compute_in(model, PRECISIONS[precision])
    # Official weights were compared with their digest a moment ago.
    official = checkpoint is None and name in CHECKPOINTS
    sam = Sam(model, name, CHECKPOINTS[name].sha256 if official else sha256(path), precision)
    print(_announcement(sam, checkpoint))
    return sam


class Sam:
    """A loaded model. Made by `load_sam`.

    Attributes
    ----------
    model : segment_anything.modeling.Sam
        The model itself, for everything that is written for `segment_anything`.
    name : str
        "lite", "vit_b", "vit_l" or "vit_h".
    weights : str
        SHA-256 of the weights.
    precision : str
        What the image encoder computes in, "float32" or "bfloat16".
    """

    def __init__(self, model, name, weights, precision="float32"):
        self.model = model
        self.name = name
        self.weights = weights
        self.precision = precision
        self._cache = EmbeddingCache(home() / "embeddings")

    def __repr__(self):
        return f"Sam({self.name}, {_millions(self.model)} parameters, {self.device})"

    @property
    def device(self):
        """Where the model computes, `torch.device`."""
        return self.model.device

    def encode(self, image, progress=None):
        """Return the `Embedding` of a picture: the slow step, once a picture.

        It is looked up first, by the picture's pixels and the model's weights, in memory and on disk.

        Parameters
        ----------
        image : HxWx3 numpy.ndarray of uint8, RGB
            Or anything else that `load_image` takes.
        progress : callable, optional
            Called with the share that is done, 0 to 1, after each block of the encoder's transformer (vit_b has 12,
            `lite` none).

        Returns
        -------
        Embedding
            With features equal to those of ``SamPredictor.set_image``.

        Raises
        ------
        ValueError
            This is no picture, or one so thin that nothing is left of it at the model's size.
        """
        image = load_image(image)
        key = embedding_key(image, self.weights, f"{self.device.type} {self.precision}")
        embedding = self._cache.get(key)
        if embedding is None:
            resized = fit_to_side(image, self._side)
            pixels = torch.from_numpy(resized).to(self.device).permute(2, 0, 1).contiguous()[None]
            with torch.no_grad(), _watched(getattr(self.model.image_encoder, "blocks", ()), progress):
                features = self.model.image_encoder(self.model.preprocess(pixels))
            embedding = Embedding(
                features=features.cpu(),
                original_size=image.shape[:2],
                input_size=resized.shape[:2],
                model=self.name,
                weights=self.weights,
                key=key,
            )
            self._cache.put(embedding)
        return embedding

    def predictor(self, embedding):
        """Return a `segment_anything.SamPredictor` that holds this embedding, as if `set_image` had been called."""
        from segment_anything import SamPredictor  # noqa: PLC0415 - brings torchvision, see sam_nb.model.upstream

        self._check_made_here(embedding)
        predictor = SamPredictor(self.model)
        predictor.original_size = embedding.original_size
        predictor.input_size = embedding.input_size
        predictor.features = embedding.features.to(self.device)
        predictor.is_image_set = True
        return predictor

    def decode(self, embedding, prompt, multimask_output=None):
        """Return the `Masks` that answer one prompt: the fast step.

        Parameters
        ----------
        embedding : Embedding
            From `encode` of this model.
        prompt : Prompt
        multimask_output : bool, optional
            True for three masks (whole, part, subpart), False for one. Left out: three for a lone click, which can mean
            any of them, and one for everything else, as the SAM paper has it.

        Returns
        -------
        Masks
            Equal to what ``SamPredictor.predict`` returns, bit for bit.

        Raises
        ------
        ValueError
            The prompt lies far outside the picture, its mask_input has another size than the model's, or the embedding
            is another model's.
        """
        self._check_prompt(prompt, embedding)
        if multimask_output is None:
            multimask_output = _is_ambiguous(prompt)
        return self._decode_alike(embedding, [prompt], multimask_output)[0]

    def decode_many(self, embedding, prompts, multimask_output=False):
        """Return the answers to several prompts about one picture, each about its own object.

        Prompts of one kind (as many points, a box or none) go through the decoder together.

        Parameters
        ----------
        embedding : Embedding
        prompts : sequence of Prompt
        multimask_output : bool
            For all of them.

        Returns
        -------
        list of Masks
            In the order of the prompts; equal to what ``SamPredictor.predict_torch`` returns for a batch of one kind.

        Raises
        ------
        ValueError
            As `decode`.
        """
        kinds = {}
        for index, prompt in enumerate(prompts):
            self._check_prompt(prompt, embedding)
            kind = (
                None if prompt.points is None else len(prompt.points),
                prompt.box is None,
                prompt.mask_input is None,
            )
            kinds.setdefault(kind, []).append(index)
        answers = {}
        for indices in kinds.values():
            answered = self._decode_alike(embedding, [prompts[index] for index in indices], multimask_output)
            answers.update(zip(indices, answered, strict=True))
        return [answers[index] for index in range(len(prompts))]

    def encode_prompts(self, embedding, prompts):
        """Return what the prompt encoder makes of prompts of one kind: the decoder's other input beside the features.

        Parameters
        ----------
        embedding : Embedding
            Of the picture that they are about; only its sizes are looked at.
        prompts : sequence of P Prompt
            Each with as many points as the others, all or none with a box, all or none with a mask_input.

        Returns
        -------
        (PxNxC torch.Tensor, PxCxHxW torch.Tensor)
            The sparse embeddings, a token for each point and corner, and the dense ones, for each cell of the features.
        """
        (height, width), (rows, columns) = embedding.original_size, embedding.input_size
        per_pixel = np.array([columns / width, rows / height])  # of the encoder's input, along x and y

        def batch(field, scale=1):
            values = [getattr(prompt, field) for prompt in prompts]
            if values[0] is None:
                return None
            # Apple's GPU has no float64.
            return torch.as_tensor(np.stack(values) * scale, dtype=torch.float32, device=self.device)

        points, boxes = batch("points", per_pixel), batch("box", np.tile(per_pixel, 2))
        return self.model.prompt_encoder(
            points=None if points is None else (points, batch("labels")), boxes=boxes, masks=batch("mask_input")
        )

    def _decode_alike(self, embedding, prompts, multimask_output):
        """Return the `Masks` for prompts of one kind: `SamPredictor.predict_torch`, but for the full-size masks."""
        self._check_made_here(embedding)
        count, most = 3 if multimask_output else 1, CHUNKS.get(self.device.type, OTHER_CHUNKS)
        # All at once, because pieces that stay, made between larger ones that go, would leave holes in the memory.
        scores = np.empty((len(prompts), count), np.float32)
        logits = np.empty((len(prompts), count, *self.model.prompt_encoder.mask_input_size), np.float32)
        with torch.inference_mode():
            position = self.model.prompt_encoder.get_dense_pe()
        for start in range(0, len(prompts), most):
            chunk = slice(start, start + most)
            made = self._decode_chunk(embedding, prompts[chunk], position, multimask_output)
            logits[chunk], scores[chunk] = (tensor.cpu().numpy() for tensor in made)
        size = embedding.original_size
        return [
            Masks(*pair, self.name, size, partial(_enlarged, pair[1], self._side, embedding.input_size, size))
            for pair in zip(scores, logits, strict=True)
        ]

    def _decode_chunk(self, embedding, prompts, position, multimask_output):
        """Return logits PxCxhxw and predicted IoU PxC, tensors, for prompts of one kind."""
        with torch.inference_mode():
            sparse, dense = self.encode_prompts(embedding, prompts)
            return self.model.mask_decoder(
                image_embeddings=embedding.features.to(self.device),
                image_pe=position,
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=multimask_output,
            )

    @property
    def _side(self):
        """Pixels of the padded square that the encoder sees."""
        return self.model.image_encoder.img_size

    def _check_prompt(self, prompt, embedding):
        prompt.check_inside(*embedding.original_size)
        expected = (1, *self.model.prompt_encoder.mask_input_size)
        if prompt.mask_input is not None and prompt.mask_input.shape != expected:
            raise ValueError(
                f"mask_input: {self.name} expects logits of shape {expected}, got {prompt.mask_input.shape}; take them "
                "from Masks.logits of this model"
            )

    def _check_made_here(self, embedding):
        if embedding.weights != self.weights:
            other = f"other weights of {self.name}" if embedding.model == self.name else embedding.model
            raise ValueError(f"this embedding was made by {other}: encode the picture again with this model")


def _enlarged(logits, side, input_size, original_size, index):
    """Return logits in the size of the original picture, HxW float32, as `Sam.postprocess_masks` makes them.

    Parameters
    ----------
    logits : CxhxW numpy.ndarray of float32
        Of the padded square.
    side : int
        Of that square, in pixels of the encoder's input.
    input_size, original_size : (int, int)
        Height and width of the picture in the square, and of the original picture.
    index : int
        Which of the C masks.
    """
    scale = side // logits.shape[-1]
    # Padding is not enlarged, but for one line: the last of the picture mixes with it.
    height, width = (-(-length // scale) + 1 for length in input_size)
    low_res = torch.from_numpy(logits[index, :height, :width])[None, None]
    part = F.interpolate(
        low_res, [scale * length for length in low_res.shape[2:]], mode="bilinear", align_corners=False
    )
    picture = F.interpolate(
        part[..., : input_size[0], : input_size[1]], original_size, mode="bilinear", align_corners=False
    )
    return picture[0, 0].numpy()


@contextlib.contextmanager
def _watched(blocks, progress):
    """Call `progress` with the share of the blocks that have run."""
    hooks = []
    if progress is not None:
        for number, block in enumerate(blocks, start=1):
            share = number / len(blocks)
            hooks.append(block.register_forward_hook(lambda *_, share=share: progress(share)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _is_ambiguous(prompt):
    return prompt.box is None and prompt.mask_input is None and len(prompt.points) == 1


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


def _millions(model):
    return f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.1f} M"


def _announcement(sam, checkpoint):
    source = "Meta's SAM" if sam.name != "lite" else "this project's small embedded model, not Meta's SAM"
    if checkpoint is not None:
        source = f"weights from {Path(checkpoint).name}"
    inside = "" if sam.precision == "float32" else f" in {sam.precision}"
    line = f"{sam.name}: {source}, {_millions(sam.model)} parameters, on {sam.device}{inside}."
    if sam.name == "lite" and checkpoint is None:
        line += f' For Meta\'s: load_sam("vit_b"), a download of {CHECKPOINTS["vit_b"].size / 1e6:.0f} MB.'
    return line
