"""Image encoders in several implementations: ``python benchmarks/encode.py``.

Meta's vit_b: `segment_anything`, this package in both precisions, transformers' `SamModel` and ONNX Runtime on the
exported encoder (the last two if they are installed: ``pip install transformers onnx onnxruntime``). MobileSAM's vit_t:
its own code (the package mobilesam-mirror) and this package. `lite`: this package alone has it. All implementations of
a model have the same weights, random but for `lite`'s: time and memory do not depend on them. Each runs in a process of
its own, so that none inherits another's memory. On a computer with a graphics card, that card is measured.
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
    "segment_anything": "`segment_anything`, float32",
    "mobile_sam": "`mobile_sam`, float32",
    "float32": "`sam_nb`, float32",
    "bfloat16": "`sam_nb`, bfloat16",
    "transformers": "`transformers`, float32",
    "onnxruntime": "ONNX Runtime, float32",
}
SIDES = {  # the first of each is what the others are compared with
    "vit_b": ("segment_anything", "float32", "bfloat16", "transformers", "onnxruntime"),
    "vit_t": ("mobile_sam", "float32", "bfloat16"),
    "lite": ("float32", "bfloat16"),
}
MAY_BE_MISSING = ("transformers", "onnxruntime")
EXPORTED = "encoder.onnx"
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


def build(model):
    """Return vit_b, or vit_t as MobileSAM's own code builds it, with the same random weights each time."""
    torch.manual_seed(0)
    if model == "vit_t":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # timm has moved what it imports
            import mobile_sam  # noqa: PLC0415 (slow to import, and no other side needs it)
        return mobile_sam.sam_model_registry["vit_t"]().eval().to(measure.DEVICE)
    made = sam_model_registry["vit_b"]().eval()
    for name, parameter in made.image_encoder.named_parameters():
        if "rel_pos" in name or "pos_embed" in name:  # zeros as built
            torch.nn.init.normal_(parameter, std=0.02)
    return made.to(measure.DEVICE)


def export(path):
    """Write the encoder as ONNX, 360 MB."""
    encoder = build("vit_b").image_encoder.cpu()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing fixes sizes, which never change here
        torch.onnx.export(encoder, (torch.zeros(1, 3, 1024, 1024),), path, dynamo=False, input_names=["pixels"])


def encoder(model, side, folder):
    """Return the encoder of one side, a function; `folder` holds weights and the exported encoder."""
    if side in ("segment_anything", "mobile_sam"):
        return build(model).image_encoder
    if side == "transformers":
        from transformers import SamConfig, SamModel  # noqa: PLC0415 (may be missing)

        theirs = SamModel(SamConfig()).vision_encoder.eval().to(measure.DEVICE)
        state = build("vit_b").image_encoder.state_dict()
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
    weights = None if model == "lite" else folder / f"{model}.pth"
    return load_sam(model, checkpoint=weights, precision=side).model.image_encoder


def encode(model, side, folder):
    """Write one side's features into `folder`; print the seconds of its first and third image and its peak, MB."""
    torch.manual_seed(1)
    length = load_sam("lite").model.image_encoder.img_size if model == "lite" else 1024
    pixels = torch.randn(1, 3, length, length).to(measure.DEVICE)
    seconds = []
    with torch.no_grad():
        run = encoder(model, side, folder)
        for _ in range(3):
            started = time.perf_counter()
            features = run(pixels).cpu()
            seconds.append(time.perf_counter() - started)
    torch.save(features, folder / f"{model} {side}.pt")
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
    parser.add_argument("--side", nargs=2, metavar=("MODEL", "SIDE"), help="measure it here, print only that")
    parser.add_argument("--folder", type=Path, help="with --side: the folder of weights and features")
    arguments = parser.parse_args()
    if arguments.side:
        encode(*arguments.side, arguments.folder)
        return
    sides = [
        (model, side)
        for model, names in SIDES.items()
        for side in names
        if side not in MAY_BE_MISSING or importlib.util.find_spec(side)
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model in ("vit_b", "vit_t"):
            torch.save(build(model).state_dict(), folder / f"{model}.pth")
        if ("vit_b", "onnxruntime") in sides:
            export(folder / EXPORTED)
        measured = {side: [] for side in sides}
        for _ in tqdm(range(arguments.rounds), unit="round"):
            for side, numbers in measured.items():
                numbers.append(measure.printed_by(__file__, "--side", *side, "--folder", folder))
        features = {side: torch.load(folder / f"{' '.join(side)}.pt", weights_only=True) for side in sides}
    medians = {side: np.median(numbers, axis=0) for side, numbers in measured.items()}
    rows = []
    for (model, side), numbers in medians.items():
        reference = (model, SIDES[model][0])
        first, later, _ = medians[reference]
        difference = (features[model, side] - features[reference]).abs().max()
        row = f"{numbers[0]:.2f}", f"{first / numbers[0]:.2f}", f"{numbers[1]:.2f}", f"{later / numbers[1]:.2f}"
        rows.append((model, NAMES[side], *row, f"{difference:.1e}", f"{numbers[2]:.0f}"))
    columns = ["model", "image encoder", "first image, s", "times as fast", "third image, s", "times as fast"]
    columns += ["largest difference of features", "peak memory, MB"]
    packages = measure.machine("segment-anything-py", "mobilesam-mirror", "transformers", "onnxruntime")
    about = (
        f"Each in a process of its own, medians of {arguments.rounds}, in turns. {packages} "
        f"Masks of {PROMPTS} random prompts on `lite`, bfloat16 against float32: mean IoU {agreement():.3f}."
    )
    measure.report("encode", columns, rows, about, arguments.write)


if __name__ == "__main__":
    main()
