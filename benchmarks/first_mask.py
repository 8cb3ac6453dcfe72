"""From the start of a kernel to the first mask: ``python benchmarks/first_mask.py``.

A fresh Jupyter kernel runs the cells that a reader runs: import, load the model, encode the street image, decode a
click. `lite` with this package alone and with `segment_anything` imported first, as in its own examples; vit_b and
vit_t (random weights) by this package and by `segment_anything` or MobileSAM's own code alone. The embedding cache is
empty.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

import measure
import torch
from jupyter_client.manager import start_new_kernel
from segment_anything import sam_model_registry
from tqdm.auto import tqdm

from sam_nb.networks.tiny_vit import build_vit_t

OURS = {
    "import": "from sam_nb import Prompt, load_image, load_sam",
    "load": "image = load_image('street'); sam = load_sam({model}, device={device!r})",
    "encode": "embedding = sam.encode(image)",
    "decode": "sam.decode(embedding, Prompt(points=[(500, 375)])).best",
}
ARTICLE_S = OURS | {"import": "import segment_anything; segment_anything.SamPredictor; " + OURS["import"]}
UPSTREAM = {
    "import": (
        "import numpy as np; from {package} import SamPredictor, sam_model_registry; from sam_nb import load_image"
    ),
    "load": (
        "image = load_image('street'); sam = sam_model_registry[{name!r}](checkpoint={weights!r}); "
        "predictor = SamPredictor(sam.to({device!r}).eval())"
    ),
    "encode": "predictor.set_image(image)",
    "decode": "predictor.predict(np.array([[500, 375]]), np.array([1]))",
}
STEPS = ("kernel", *OURS)


def run(cells, folder, **names):
    """Return the seconds of each step in a fresh kernel, a dict."""
    os.environ["SAM_NB_HOME"] = tempfile.mkdtemp(dir=folder)
    started = time.perf_counter()
    manager, client = start_new_kernel()
    seconds = {"kernel": time.perf_counter() - started}
    try:
        for name, cell in cells.items():
            started = time.perf_counter()
            reply = client.execute_interactive(cell.format(**names), output_hook=lambda _: None, timeout=300)
            if reply["content"]["status"] != "ok":
                raise RuntimeError("\n".join(reply["content"]["traceback"]))
            seconds[name] = time.perf_counter() - started
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    return seconds


def main():
    """Measure and print the table."""
    parser = measure.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        files = {name: str(Path(folder) / f"{name}.pth") for name in ("vit_b", "vit_t")}
        torch.save(sam_model_registry["vit_b"]().state_dict(), files["vit_b"])
        torch.save(build_vit_t().state_dict(), files["vit_t"])
        sides = {
            "`lite`, `segment_anything` imported first": (ARTICLE_S, {"model": "'lite'"}),
            "`lite`": (OURS, {"model": "'lite'"}),
        }
        for name, package in (("vit_t", "mobile_sam"), ("vit_b", "segment_anything")):
            theirs = {"package": package, "name": name, "weights": files[name]}
            sides[f"{name}, `{package}` alone"] = (UPSTREAM, theirs)
            sides[name] = (OURS, {"model": f"{name!r}, checkpoint={files[name]!r}"})
        taken = {name: [] for name in sides}
        for _ in tqdm(range(arguments.rounds), unit="round"):
            for name, (cells, filled) in sides.items():
                taken[name].append(run(cells, folder, device=measure.DEVICE, **filled))
    rows = []
    for name, rounds in taken.items():
        steps = [statistics.median(seconds[step] for seconds in rounds) for step in STEPS]
        total = statistics.median(sum(seconds.values()) for seconds in rounds)
        rows.append((name, *(f"{step:.2f}" for step in steps), f"{total:.2f}"))
    about = f"Seconds of each step and of all; medians of {arguments.rounds} fresh kernels. {measure.machine()}"
    measure.report("first mask", ["model", *STEPS, "all"], rows, about, arguments.write)


if __name__ == "__main__":
    main()
