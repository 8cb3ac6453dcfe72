"""The image encoder of Meta's vit_b against upstream's, with the same weights: ``python benchmarks/encode.py``.

Prints a table: seconds, ratio to upstream's, largest difference of the features, and the peak memory of a process that
does nothing but load the model and encode one picture. Times are taken in turns, in one process. The weights are
random: they decide neither time nor memory. On a computer with a graphics card it is the graphics card that is
measured. Linux and macOS only: Windows has no such count of memory.
"""

import argparse
import copy
import os
import platform
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
from segment_anything import SamPredictor, sam_model_registry
from tqdm.auto import tqdm

from sam_nb.attention import compute_in, speed_up

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
VARIANTS = ("upstream", "float32", "bfloat16")
PICTURE = np.random.default_rng(0).integers(0, 256, (640, 1024, 3), dtype=np.uint8)


def build(variant, model=None):
    """Return a predictor of one variant."""
    if model is None:
        torch.manual_seed(0)
        model = sam_model_registry["vit_b"]().eval().to(DEVICE)
    if variant != "upstream":
        model = compute_in(speed_up(model), getattr(torch, variant))
    return SamPredictor(model)


def encode(predictor):
    """Encode the picture; return the features and the seconds."""
    started = time.perf_counter()
    predictor.set_image(PICTURE)
    features = predictor.features.cpu()
    return features, time.perf_counter() - started


def peak_memory(variant):
    """Return the peak memory of a process that loads the model and encodes one picture, MB."""
    run = [sys.executable, __file__, "--memory-of", variant]
    return float(subprocess.run(run, capture_output=True, text=True, check=True).stdout)


def main():
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-of", choices=VARIANTS, help="print one variant's peak memory in MB, nothing else")
    arguments = parser.parse_args()
    if arguments.memory_of:
        import resource  # noqa: PLC0415 (Windows has none)

        encode(build(arguments.memory_of))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2))
        return
    memory = {variant: peak_memory(variant) for variant in VARIANTS}
    first = build("upstream").model
    predictors = {variant: build(variant, copy.deepcopy(first)) for variant in VARIANTS}
    times, features = {variant: [] for variant in VARIANTS}, {}
    for _ in tqdm(range(arguments.rounds + 1), unit="round"):
        for variant, predictor in predictors.items():
            features[variant], took = encode(predictor)
            times[variant].append(took)
    medians = {variant: statistics.median(taken[1:]) for variant, taken in times.items()}  # the first one warms up
    machine = torch.cuda.get_device_name() if DEVICE == "cuda" else f"{os.cpu_count()} cores, {platform.machine()}"
    print(f"vit_b, random weights, picture 1024 x 640, {machine}, torch {torch.__version__}\n")
    print("| image encoder | seconds | times as fast | largest difference of features | peak memory, MB |")
    print("|---|---|---|---|---|")
    for variant in VARIANTS:
        difference = (features[variant] - features["upstream"]).abs().max()
        ratio = medians["upstream"] / medians[variant]
        name = "`segment_anything`, float32" if variant == "upstream" else f"`sam_nb`, {variant}"
        print(f"| {name} | {medians[variant]:.2f} | {ratio:.2f} | {difference:.1e} | {memory[variant]:.0f} |")


if __name__ == "__main__":
    main()
