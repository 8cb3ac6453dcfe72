"""A model as ONNX files, for programs that run without PyTorch.

The decoder's inputs and outputs have the names and the meaning of Meta's own export
(``segment_anything/utils/onnx.py``), so that programs written for it take ours. What ours adds: normalisation and
padding are part of the encoder's graph, several prompts go through the decoder at once, and a JSON describes it all.

The files are made by PyTorch's TorchScript exporter, which needs the package onnx alone (the newer one, by
`torch.export`, also needs onnxscript), in `OPSET`.
"""

import copy
import importlib.util
import inspect
import json
import logging
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from sam_nb.model.sam import Sam
from sam_nb.networks.fast_decoder import FastDecoder, FastLiteDecoder
from sam_nb.networks.internals import SteppedDecoder
from sam_nb.networks.lite import WEIGHTS, LiteDecoder, LitePromptEncoder
from sam_nb.networks.upstream import Sam as SamModel
from sam_nb.storage import replace_folder, writing_folder
from sam_nb.weights.checkpoints import CHECKPOINTS, sha256

OPSET = 17  # the first with layer normalisation as one operator; onnxruntime 1.12 (2022) and newer run it
MAX_BYTES = 2**31 - 2**24  # of a file: protobuf, ONNX's format, ends at 2 GiB; vit_h is larger
ENCODER, DECODER, ABOUT = "encoder.onnx", "decoder.onnx", "model.json"
FILES = {ENCODER, DECODER, ABOUT, f"{ENCODER}.data", f"{DECODER}.data"}

PREPROCESSING = (
    "Resize the RGB image so that its longer side has long_side pixels: round(side * long_side / longer side), halves "
    "up, bilinear with antialiasing as Pillow's Image.resize does it. The encoder subtracts the mean, divides by the "
    "standard deviation and pads with zeros, right and below, to a square of long_side. Point coordinates are (x, y) "
    "pixels of the resized image: multiply those of the original by resized width / width and resized height / height."
)
MASKS = (
    "Index 0 is the single mask, for a prompt that means one object (multimask_output=False); 1 to 3 are the masks of "
    "a lone click (multimask_output=True). Masks are logits, not booleans: an object is where they exceed "
    "mask_threshold."
)

Module = TypeVar("Module", bound=nn.Module)


class Value(NamedTuple):
    """An input or output of a graph, float32; a name in the shape is a size that the caller chooses."""

    shape: Sequence[int | str]
    meaning: str


class OnnxEncoder(nn.Module):
    """The image encoder with normalisation and padding, as `Sam.encode` does it.

    Parameters
    ----------
    model : segment_anything.modeling.Sam
    """

    def __init__(self, model: SamModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_image: torch.Tensor) -> torch.Tensor:
        """Return the embedding 1x256xhxw of a resized image HxWx3, float32 in 0 to 255."""
        side = self.model.image_encoder.img_size
        x = (input_image.permute(2, 0, 1) - self.model.pixel_mean) / self.model.pixel_std
        x = F.pad(x, (0, side - x.shape[2], 0, side - x.shape[1]))
        return self.model.image_encoder(x.reshape(1, 3, side, side))  # from here on all shapes are constants


class OnnxDecoder(nn.Module):
    """The prompt encoder and the mask decoder, with the interface of ``SamOnnxModel`` in Meta's export.

    Parameters
    ----------
    model : segment_anything.modeling.Sam
    """

    def __init__(self, model: SamModel) -> None:
        super().__init__()
        self.model = model

    def forward(  # noqa: PLR0917 - the exporter gives them in this order
        self,
        image_embeddings: torch.Tensor,
        point_coords: torch.Tensor,
        point_labels: torch.Tensor,
        mask_input: torch.Tensor,
        has_mask_input: torch.Tensor,
        orig_im_size: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return masks, iou_predictions and low_res_masks; shapes and meaning are in `_decoder_values`."""
        low_res, scores = self.model.mask_decoder.predict_masks(
            image_embeddings=image_embeddings,
            image_pe=self.model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=self._embed_points(point_coords, point_labels),
            dense_prompt_embeddings=self._embed_masks(point_coords, point_labels, mask_input, has_mask_input),
        )
        return self._upscale(low_res, orig_im_size), scores, low_res

    def _embed_points(self, coords: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        encoder = self.model.prompt_encoder
        labels = labels[..., None]
        placed = encoder.pe_layer._pe_encoding((coords + 0.5) / self.model.image_encoder.img_size)
        sparse = torch.where(labels == -1, encoder.not_a_point_embed.weight, placed)
        for label, embedding in enumerate(encoder.point_embeddings):
            sparse = sparse + embedding.weight * (labels == label)
        return sparse

    def _embed_masks(
        self, coords: torch.Tensor, labels: torch.Tensor, mask_input: torch.Tensor, has_mask_input: torch.Tensor
    ) -> torch.Tensor:
        encoder = self.model.prompt_encoder
        dense = torch.where(
            has_mask_input.reshape(1, 1, 1, 1) > 0,
            encoder.mask_downscaling(mask_input),
            encoder.no_mask_embed.weight.reshape(1, -1, 1, 1),
        ).expand(coords.shape[0], -1, -1, -1)
        if not isinstance(encoder, LitePromptEncoder):
            return dense
        # Without a box both corners are at 0, and the box between them covers nothing.
        corners = [(coords * (labels == label)[..., None]).sum(1) for label in (2, 3)]
        return encoder.add_drawn(dense, (coords, labels), torch.cat(corners, dim=1))

    def _upscale(self, low_res: torch.Tensor, orig_im_size: torch.Tensor) -> torch.Tensor:
        side = self.model.image_encoder.img_size
        square = F.interpolate(low_res, (side, side), mode="bilinear", align_corners=False)
        rows, columns = torch.floor(orig_im_size * (side / orig_im_size.max()) + 0.5).to(torch.int64)
        height, width = orig_im_size.to(torch.int64)
        return F.interpolate(square[..., :rows, :columns], (height, width), mode="bilinear", align_corners=False)


def export_onnx(sam: Sam, folder: str | Path, *, int8: bool = False, overwrite: bool = False) -> Path:
    """Write a model as ``encoder.onnx``, ``decoder.onnx`` and ``model.json``, which describes them.

    The encoder takes the resized image (`sam_nb.fit_to_side`), HxWx3 float32 in 0 to 255. The decoder takes what that
    of Meta's export takes: points in pixels of the resized image with labels 1 (foreground), 0 (background), 2 and 3
    (the first and the last corner of a box) and -1 (padding; one for a prompt without a box). Numbers of points and of
    prompts are free, at least one point each; one image at a time.

    A prompt has four masks, as in Meta's export without ``--return-single-mask``: index 0 is the single mask, for
    several points or a box, and 1 to 3 are the whole, part and subpart of a lone click. A program that takes the first
    mask, or the highest-scoring one, runs unchanged.

    Parameters
    ----------
    sam : Sam
        Any model that `load_sam` gives. It stays as it is. One in bfloat16 is written in float32.
    folder : str or pathlib.Path
        Made if it is not there; its parent must exist. All files are written, or none.
    int8 : bool
        Whether to write the matrix products of the encoder with weights in int8, by onnxruntime's dynamic quantization:
        a quarter of their size. Masks of `lite` over 100 prompts then have a mean IoU of 0.9996 with those in float32.
        Its convolutions stay in float32: with these in int8, too, it was 0.865, at twice the time.
    overwrite : bool
        Whether to replace an earlier export.

    Returns
    -------
    pathlib.Path
        The folder. Weights of over 2 GiB (vit_h) lie beside the graph, in ``encoder.onnx.data``.

    Raises
    ------
    RuntimeError
        The package onnx is not installed, or with `int8` onnxruntime.
    FileExistsError
        The folder holds an earlier export and `overwrite` is false, or it holds other files.
    OSError
        The folder cannot be written.

    Notes
    -----
    Source: ``SamOnnxModel`` in ``segment_anything/utils/onnx.py``.
    """
    for package in ("onnx", "onnxruntime") if int8 else ("onnx",):
        if importlib.util.find_spec(package) is None:
            raise RuntimeError(f'export_onnx needs the package {package}: pip install "sam-nb[onnx]"')
    folder = Path(folder).expanduser()
    _check_folder(folder, overwrite)
    model = _to_export(sam.model)
    side, cells = model.image_encoder.img_size, model.prompt_encoder.image_embedding_size
    about = _describe(sam, int8)
    with writing_folder(folder) as part:
        image = torch.rand(side // 2, side, 3) * 255
        _export(OnnxEncoder(model), (image,), part / ENCODER, about["encoder"])
        if int8:
            _quantize(part / ENCODER)
        # Two prompts of three points, each with a mask: what is traced with one would be a constant in the graph.
        points = torch.rand(2, 3, 2) * side, torch.tensor([[1.0, 2.0, 3.0], [0.0, 1.0, -1.0]])
        masks = torch.randn(2, 1, *model.prompt_encoder.mask_input_size)
        given = (torch.randn(1, 256, *cells), *points, masks, torch.ones(1), torch.tensor([3.0 * side / 4, side]))
        _export(OnnxDecoder(model), given, part / DECODER, about["decoder"])
        text = json.dumps(about, indent=2, ensure_ascii=False)
        (part / ABOUT).write_text(f"{text}\n", encoding="utf-8")
        replace_folder(part, folder, overwrite=True)  # there is nothing in it but an earlier export
    return folder


def _encoder_values(sam: Sam) -> dict[str, dict[str, Value]]:
    """Return the inputs and outputs of ``encoder.onnx`` by name."""
    image = Value(("height", "width", 3), "RGB, 0 to 255, the longer side resized to long_side pixels")
    return {
        "inputs": {"input_image": image},
        "outputs": {"image_embeddings": Value(_embedding(sam), "for the decoder")},
    }


def _decoder_values(sam: Sam) -> dict[str, dict[str, Value]]:
    """Return the inputs and outputs of ``decoder.onnx`` by name."""
    low_res = sam.model.prompt_encoder.mask_input_size
    labels = "1 foreground, 0 background, 2 and 3 the first and last corner of a box, -1 padding (for no box)"
    one_or_each = "low-res logits of an earlier mask, one for all prompts or one for each; zeros where there is none"
    return {
        "inputs": {
            "image_embeddings": Value(_embedding(sam), "from the encoder"),
            "point_coords": Value(("prompts", "points", 2), "(x, y) pixels of the resized image"),
            "point_labels": Value(("prompts", "points"), labels),
            "mask_input": Value(("mask_inputs", 1, *low_res), one_or_each),
            "has_mask_input": Value((1,), "1 where mask_input counts, else 0"),
            "orig_im_size": Value((2,), "height and width of the original image; float32, as in Meta's export"),
        },
        "outputs": {
            "masks": Value(("prompts", 4, "height", "width"), "logits at the original size"),
            "iou_predictions": Value(("prompts", 4), "predicted IoU of each mask"),
            "low_res_masks": Value(("prompts", 4, *low_res), "logits of the padded square, for mask_input"),
        },
    }


def _embedding(sam: Sam) -> tuple[int, ...]:
    return (1, 256, *sam.model.prompt_encoder.image_embedding_size)


def _describe(sam: Sam, int8: bool) -> dict[str, Any]:
    """Return the content of ``model.json``."""
    official = sam.weights in {sha256(WEIGHTS), *(checkpoint.sha256 for checkpoint in CHECKPOINTS.values())}
    return {
        "model": sam.name,
        "weights_sha256": sam.weights,
        "licence": "Apache-2.0" if official else "that of the weights, which are not the official ones",
        "long_side": sam.side,
        "low_res_side": sam.model.prompt_encoder.mask_input_size[0],
        "mean": [round(value, 3) for value in sam.model.pixel_mean.flatten().tolist()],
        "std": [round(value, 3) for value in sam.model.pixel_std.flatten().tolist()],
        "mask_threshold": float(sam.model.mask_threshold),
        "preprocessing": PREPROCESSING,
        "masks": MASKS,
        "encoder_weights": "float32, of matrix products int8" if int8 else "float32",
        "opset": OPSET,
        "exporter": f"PyTorch {torch.__version__.partition('+')[0]}, TorchScript",
        "encoder": {"file": ENCODER, **_as_json(_encoder_values(sam))},
        "decoder": {"file": DECODER, **_as_json(_decoder_values(sam))},
    }


def _as_json(values: Mapping[str, Mapping[str, Value]]) -> dict[str, dict[str, dict[str, object]]]:
    return {
        kind: {name: {"dtype": "float32", **value._asdict()} for name, value in named.items()}
        for kind, named in values.items()
    }


def _check_folder(folder: Path, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{str(folder)!r} is a file: expected the path of a folder")
    held = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if held - FILES:
        raise FileExistsError(
            f"{str(folder)!r} holds other files ({', '.join(sorted(held - FILES)[:3])}): choose another folder"
        )
    if held and not overwrite:
        raise FileExistsError(f"{str(folder)!r} holds an export already: choose another folder, or say overwrite=True")


def _to_export(model: SamModel) -> SamModel:
    """Return a copy on the CPU, float32, whose layers the exporter takes."""
    model = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
    # Matrix products in place of transposed convolutions are faster in PyTorch alone, and fix the number of prompts.
    plain: dict[type, type] = {FastDecoder: SteppedDecoder, FastLiteDecoder: LiteDecoder}
    model.mask_decoder.__class__ = plain.get(type(model.mask_decoder), type(model.mask_decoder))
    return model


def _export(module: nn.Module, given: tuple[torch.Tensor, ...], path: Path, about: dict[str, Any]) -> None:
    """Write one graph, checked by onnx."""
    import onnx  # noqa: PLC0415 - an extra, and half a second

    sizes = {
        name: {axis: size for axis, size in enumerate(value["shape"]) if isinstance(size, str)}
        for name, value in {**about["inputs"], **about["outputs"]}.items()
    }
    options: dict[str, Any] = {
        "input_names": list(about["inputs"]),
        "output_names": list(about["outputs"]),
        "dynamic_axes": {name: axes for name, axes in sizes.items() if axes},
        "opset_version": OPSET,
    }
    if "dynamo" in inspect.signature(torch.onnx.export).parameters:  # an older PyTorch has one exporter
        options["dynamo"] = False
    # Beyond 2 GiB the exporter writes a file for each tensor, in a folder that goes away.
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch, warnings.catch_warnings():
        # It warns of every constant in the trace, and that it is the older one. The tests compare what it writes.
        warnings.simplefilter("ignore")
        # With gradients enabled, layers run `segment_anything`'s own code, without loops over rows of an image.
        with torch.enable_grad():
            torch.onnx.export(module.eval(), given, str(Path(scratch) / path.name), **options)
        graph = onnx.load(str(Path(scratch) / path.name))
    _declare(graph.graph, {**about["inputs"], **about["outputs"]})
    onnx.save_model(
        graph,
        str(path),
        save_as_external_data=sum(tensor.nbytes for tensor in module.state_dict().values()) > MAX_BYTES,
        location=f"{path.name}.data",
    )
    onnx.checker.check_model(str(path), full_check=True)


def _declare(graph: Any, values: Mapping[str, Mapping[str, Any]]) -> None:
    """Set the shapes of a graph's inputs and outputs; the exporter finds some of its own names for them."""
    for value in (*graph.input, *graph.output):
        for size, dimension in zip(values[value.name]["shape"], value.type.tensor_type.shape.dim, strict=True):
            setattr(dimension, "dim_param" if isinstance(size, str) else "dim_value", size)


def _quantize(path: Path) -> None:
    """Replace a graph by one whose constant matrices are int8, a scale for each column."""
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415 - an extra

    full = path.rename(path.with_name(f"float32-{path.name}"))
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it advises to optimize the graph first, which makes no difference here
    try:
        kinds = ["MatMul", "Gemm"]
        quantize_dynamic(full, path, op_types_to_quantize=kinds, per_channel=True, weight_type=QuantType.QInt8)
    finally:
        logging.disable(disabled)
    full.unlink()
    path.with_name(f"{path.name}.data").unlink(missing_ok=True)
