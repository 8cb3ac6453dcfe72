"""Everything-mode against `SamAutomaticMaskGenerator` on the same model: ``python benchmarks/everything.py``.

Prints a table: seconds of both, the ratio, and how far their masks agree. `lite` has lower thresholds, because it is
less sure of itself than Meta's models. With ``--model vit_b`` the weights are random: only time means something then,
and the threshold is set so that a third of the masks pass.
"""

import argparse
import copy
import os
import platform
import time

import numpy as np
import torch
from segment_anything import SamAutomaticMaskGenerator, sam_model_registry

from sam_nb import Prompt, iou, load_image, load_sam, segment_everything
from sam_nb.attention import speed_up
from sam_nb.lite import build_lite
from sam_nb.models import Sam

PICTURES = ("street", "coffee", "cat")


def models(name):
    """Return our model and upstream's with the same weights."""
    if name == "lite":
        ours, theirs = load_sam("lite"), build_lite()
        theirs.load_state_dict(ours.model.state_dict())
        return ours, theirs.to(ours.device).eval()
    torch.manual_seed(0)
    theirs = sam_model_registry[name]().eval()
    return Sam(speed_up(copy.deepcopy(theirs)), name, "random"), theirs


def thresholds(sam, image):
    """Return the settings under which about a third of a random model's masks pass."""
    if sam.name == "lite":
        return {"pred_iou_thresh": 0.4, "stability_score_thresh": 0.6}
    embedding = sam.encode(image)
    points = np.random.default_rng(0).uniform(0, image.shape[1::-1], (8, 2))
    answers = sam.decode_many(embedding, [Prompt(points=[point]) for point in points], multimask_output=True)
    scores = np.concatenate([masks.scores for masks in answers])
    return {"pred_iou_thresh": float(np.quantile(scores, 2 / 3)), "stability_score_thresh": 0.0}


def main():
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="lite")
    parser.add_argument("--points-per-side", type=int, default=32)
    arguments = parser.parse_args()
    ours, theirs = models(arguments.model)
    side = arguments.points_per_side
    print(f"{arguments.model}, {side} x {side} clicks, {os.cpu_count()} cores ({platform.machine()}), {ours.device}\n")
    print("| picture | upstream, s | here, s | times as fast | masks, upstream / here | found again at IoU >= 0.95 |")
    print("|---|---|---|---|---|---|")
    for name in PICTURES:
        image = load_image(name)
        settings = thresholds(ours, image) | {"points_per_side": side}
        started = time.perf_counter()
        found = segment_everything(ours, image, **settings)
        here = time.perf_counter() - started
        started = time.perf_counter()
        expected = SamAutomaticMaskGenerator(theirs, **settings).generate(image)
        there = time.perf_counter() - started
        again = [max(iou(one["segmentation"], other["segmentation"]) for other in found) >= 0.95 for one in expected]
        size = f"{image.shape[1]} x {image.shape[0]}"
        print(
            f"| {name}, {size} | {there:.1f} | {here:.1f} | {there / here:.1f} | {len(expected)} / {len(found)} "
            f"| {100 * np.mean(again):.0f} % |",
            flush=True,
        )


if __name__ == "__main__":
    main()
