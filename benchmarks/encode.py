"""The image encoder of Meta's vit_b in several implementations: ``python benchmarks/encode.py``.

`segment_anything`, this package in both precisions, transformers' `SamModel` and ONNX Runtime on the exported encoder
(the last two if they are installed: ``pip install transformers onnx onnxruntime``), all with the same random weights:
time and memory do not depend on them. Each runs in a process of its own, so that none inherits another's memory. On a
computer with a graphics card, that card is measured.
"""

import importlib.util
import re
import tempfile
import time
import warnings
from pathlib import Path

import measure
import numpy as np
import torch
from segment_anything import sam_model_registry
from tqdm.auto import tqdm

from sam_nb import SAMPLES, Prompt, iou, load_image, load_sam

NAMES = {
    "upstream": "`segment_anything`, float32",
    "float32": "`sam_nb`, float32",
    "bfloat16": "`sam_nb`, bfloat16",
    "transformers": "`transformers`, float32",
    "onnxruntime": "ONNX Runtime, float32",
}

WEIGHTS, EXPORTED = "vit_b.pth", "encoder.onnx"
PROMPTS = 100  # whose masks in bfloat16 and in float32 are compared

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
        warnings.simplefilter("ignore")  # tracing fixes sizes, which never change here
        torch.onnx.export(encoder, (torch.zeros(1, 3, 1024, 1024),), path, dynamo=False, input_names=["pixels"])


def encoder(side, folder):
    """Return the encoder of one side, a function; `folder` holds weights and the exported encoder."""
    if side == "upstream":
        return build().image_encoder
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
        session = onnxruntime.InferenceSession(str(folder / EXPORTED), options, providers=[provider])
        return lambda pixels: torch.from_numpy(session.run(None, {"pixels": pixels.cpu().numpy()})[0])
    return load_sam("vit_b", checkpoint=folder / WEIGHTS, precision=side).model.image_encoder


def encode(side, folder):
    """Write one side's features into `folder`; print the seconds of its first and third image and its peak, MB."""
    torch.manual_seed(1)
    pixels = torch.randn(1, 3, 1024, 1024).to(measure.DEVICE)
    seconds = []
    with torch.no_grad():
        run = encoder(side, folder)
        for _ in range(3):
            started = time.perf_counter()
            features = run(pixels).cpu()
            seconds.append(time.perf_counter() - started)
    torch.save(features, folder / f"{side}.pt")
    print(seconds[0], seconds[2], measure.own_peak_memory())


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
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=NAMES, help="measure one side in this process and print only that")
    parser.add_argument("--folder", type=Path, help="with --side: the folder of weights and features")
    arguments = parser.parse_args()
    if arguments.side:
        encode(arguments.side, arguments.folder)
        return
    sides = [side for side in NAMES if side not in ("transformers", "onnxruntime") or importlib.util.find_spec(side)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.save(build().state_dict(), folder / WEIGHTS)
        if "onnxruntime" in sides:
            export(folder / EXPORTED)
        measured = {side: [] for side in sides}
        for _ in tqdm(range(arguments.rounds), unit="round"):
            for side, numbers in measured.items():
                numbers.append(measure.printed_by(__file__, "--side", side, "--folder", folder))
        features = {side: torch.load(folder / f"{side}.pt", weights_only=True) for side in sides}
    medians = {side: np.median(numbers, axis=0) for side, numbers in measured.items()}
    first, later, _ = medians["upstream"]
    rows = [
        (
            NAMES[side],
            f"{numbers[0]:.2f}",
            f"{first / numbers[0]:.2f}",
            f"{numbers[1]:.2f}",
            f"{later / numbers[1]:.2f}",
            f"{(features[side] - features['upstream']).abs().max():.1e}",
            f"{numbers[2]:.0f}",
        )
        for side, numbers in medians.items()
    ]
    columns = ["image encoder", "first image, s", "times as fast", "third image, s", "times as fast"]
    columns += ["largest difference of features", "peak memory, MB"]
    packages = measure.machine("segment-anything-py", "transformers", "onnxruntime")
    about = (
        f"vit_b, random weights; each in a process of its own, medians of {arguments.rounds}, in turns. {packages} "
        f"Masks of {PROMPTS} random prompts on `lite`, bfloat16 against float32: mean IoU {agreement():.3f}."
    )
    measure.report("encode", columns, rows, about, arguments.write)


if __name__ == "__main__":
    main()
