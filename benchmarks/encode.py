"""The image encoder of Meta's vit_b, by whom it is computed: ``python benchmarks/encode.py``.

`segment_anything`, this package in both precisions, transformers' `SamModel` and ONNX Runtime on the exported encoder
(the last two if they are installed: ``pip install transformers onnx onnxruntime``), all with the same weights. They are
random: that decides neither time nor memory. Peak memory is that of a process that loads the model and encodes one
picture. On a computer with a graphics card it is the graphics card that is measured.
"""

import importlib.util
import re
import tempfile
import warnings
from pathlib import Path

import measure
import numpy as np
import torch
from segment_anything import sam_model_registry

from sam_nb import SAMPLES, Prompt, iou, load_image, load_sam
from sam_nb.attention import compute_in, speed_up

NAMES = {
    "upstream": "`segment_anything`, float32",
    "float32": "`sam_nb`, float32",
    "bfloat16": "`sam_nb`, bfloat16",
    "transformers": "`transformers`, float32",
    "onnxruntime": "ONNX Runtime, float32",
}

PROMPTS = 100  # of which the masks in bfloat16 and in float32 are compared

RENAMED = (  # transformers' names of the encoder's layers, where they differ
    (r"^patch_embed\.proj", "patch_embed.projection"),
    (r"^blocks\.(\d+)\.norm", r"layers.\1.layer_norm"),
    (r"^blocks", "layers"),
    (r"^neck\.0", "neck.conv1"),
    (r"^neck\.1", "neck.layer_norm1"),
    (r"^neck\.2", "neck.conv2"),
    (r"^neck\.3", "neck.layer_norm2"),
)


def build():
    """Return vit_b with the same random weights each time."""
    torch.manual_seed(0)
    model = sam_model_registry["vit_b"]().eval()
    for name, parameter in model.image_encoder.named_parameters():
        if "rel_pos" in name or "pos_embed" in name:  # zeros as built
            torch.nn.init.normal_(parameter, std=0.02)
    return model.to(measure.DEVICE)


def export(path):
    """Write the encoder as ONNX, 360 MB."""
    encoder = build().image_encoder.cpu()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing fixes sizes, which are always the same here
        torch.onnx.export(encoder, (torch.zeros(1, 3, 1024, 1024),), path, dynamo=False, input_names=["pixels"])


def encoder(side, exported):
    """Return what makes features of pixels, for one of the sides; `exported` is the path of the ONNX file."""
    if side == "transformers":
        from transformers import SamConfig, SamModel  # noqa: PLC0415 (may be missing)

        theirs = SamModel(SamConfig()).vision_encoder.eval().to(measure.DEVICE)
        state = build().image_encoder.state_dict()
        for old, new in RENAMED:
            state = {re.sub(old, new, name): value for name, value in state.items()}
        theirs.load_state_dict(state)
        return lambda pixels: theirs(pixels).last_hidden_state
    if side == "onnxruntime":
        import onnxruntime  # noqa: PLC0415 (may be missing)

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        provider = "CUDAExecutionProvider" if measure.DEVICE == "cuda" else "CPUExecutionProvider"
        session = onnxruntime.InferenceSession(str(exported), options, providers=[provider])
        return lambda pixels: torch.from_numpy(session.run(None, {"pixels": pixels.cpu().numpy()})[0])
    model = build()
    if side != "upstream":
        compute_in(speed_up(model), getattr(torch, side))
    return model.image_encoder


def agreement():
    """Return the mean IoU of the masks of `PROMPTS` random prompts, `lite` in bfloat16 against itself in float32."""
    exact, rough = (load_sam("lite", device=measure.DEVICE, precision=name) for name in ("float32", "bfloat16"))
    found = []
    for name, numbers in zip(SAMPLES, np.array_split(range(PROMPTS), len(SAMPLES)), strict=True):
        image = load_image(name)
        pair = [(sam, sam.encode(image)) for sam in (exact, rough)]
        rng = np.random.default_rng(0)
        for number in numbers:
            corners = rng.uniform(0, 1, (2, 2)) * image.shape[1::-1]
            box = (*corners.min(0), *corners.max(0) + 2)
            prompt = Prompt(box=box) if number % 2 else Prompt(points=corners[:1])
            found.append(iou(*(sam.decode(embedding, prompt).best for sam, embedding in pair)))
    return np.mean(found)


def main():
    """Measure and print the table."""
    parser = measure.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-of", choices=NAMES, help="print one side's peak memory, MB, and nothing else")
    parser.add_argument("--exported", type=Path, help="the ONNX file, with --memory-of onnxruntime")
    arguments = parser.parse_args()
    torch.manual_seed(1)
    pixels = torch.randn(1, 3, 1024, 1024).to(measure.DEVICE)
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        if arguments.memory_of:
            encoder(arguments.memory_of, arguments.exported)(pixels)
            print(measure.own_peak_memory())
            return
        exported = Path(folder) / "encoder.onnx"
        sides = [
            side for side in NAMES if side not in ("transformers", "onnxruntime") or importlib.util.find_spec(side)
        ]
        if "onnxruntime" in sides:
            export(exported)
        memory = {side: measure.peak_memory(__file__, "--memory-of", side, "--exported", exported) for side in sides}
        encoders = {side: encoder(side, exported) for side in sides}
        times, features = measure.in_turns(
            {side: lambda run=run: run(pixels).cpu() for side, run in encoders.items()}, arguments.rounds
        )
    rows = [
        (
            NAMES[side],
            f"{times[side]:.2f}",
            f"{times['upstream'] / times[side]:.2f}",
            f"{(features[side] - features['upstream']).abs().max():.1e}",
            f"{memory[side]:.0f}",
        )
        for side in sides
    ]
    columns = ["image encoder", "seconds", "times as fast", "largest difference of features", "peak memory, MB"]
    packages = measure.machine("segment-anything-py", "transformers", "onnxruntime")
    about = (
        f"vit_b, random weights, one picture; medians of {arguments.rounds}, in turns. {packages} Masks of "
        f"{PROMPTS} random prompts on `lite`, bfloat16 against float32: mean IoU {agreement():.3f}."
    )
    measure.report("encode", columns, rows, about, arguments.write)


if __name__ == "__main__":
    main()
