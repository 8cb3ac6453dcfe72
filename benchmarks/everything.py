"""Everything-mode against `SamAutomaticMaskGenerator` on the same model: ``python benchmarks/everything.py``.

Seconds of both, the ratio, and how far their masks agree, at the default parameters but for the thresholds. Those for
`lite` let more masks pass than its own, for more to compare. The weights of vit_b are random, and its threshold lets a
tenth of the masks pass: only its time means something.
"""

import time

import measure
import numpy as np
from decode import models
from segment_anything import SamAutomaticMaskGenerator
from tqdm.auto import tqdm

from sam_nb import Prompt, iou, load_image, segment_everything

IMAGES = {"lite": ("street", "coffee"), "vit_b": ("street",)}


def thresholds(sam, image):
    """Return the thresholds for one model and image."""
    if sam.name == "lite":
        return {"pred_iou_thresh": 0.4, "stability_score_thresh": 0.6, "box_nms_thresh": 0.7}
    embedding = sam.encode(image)
    points = np.random.default_rng(0).uniform(0, image.shape[1::-1], (16, 2))
    decoded = sam.decode_batch(embedding, [Prompt(points=[point]) for point in points], multimask_output=True)
    scores = np.concatenate([masks.scores for masks in decoded])
    return {"pred_iou_thresh": float(np.quantile(scores, 0.9)), "stability_score_thresh": 0.0, "box_nms_thresh": 0.7}


def timed(run, *arguments, **settings):
    """Return what a function returns, and its seconds."""
    started = time.perf_counter()
    returned = run(*arguments, **settings)
    return returned, time.perf_counter() - started


def main():
    """Measure and print the table."""
    parser = measure.parser(__doc__)
    parser.add_argument("--points-per-side", type=int, default=32)
    arguments = parser.parse_args()
    side = arguments.points_per_side
    rows = []
    for model, names in IMAGES.items():
        ours, predictor = models(model)
        for name in tqdm(names, unit="image"):
            image = load_image(name)
            settings = thresholds(ours, image) | {"points_per_side": side}
            found, before = timed(segment_everything, ours, image, **settings)
            expected, there = timed(SamAutomaticMaskGenerator(predictor.model, **settings).generate, image)
            _, after = timed(segment_everything, ours, image, **settings)
            here = (before + after) / 2
            again = [max(iou(one["segmentation"], other["segmentation"]) for other in found) for one in expected]
            matched = np.array(again) >= 0.95
            size = f"{name}, {image.shape[1]} x {image.shape[0]}"
            counts = f"{len(expected)} / {len(found)}"
            times = (f"{there:.1f}", f"{here:.1f}", f"{there / here:.2f}")
            rows.append((model, size, *times, counts, f"{100 * matched.mean():.0f} %", f"{np.mean(again):.4f}"))
    columns = ["model", "image", "upstream, s", "here, s", "times as fast", "masks, upstream / here"]
    columns += ["found again at IoU >= 0.95", "mean IoU of these"]
    about = f"{side} x {side} clicks, encoding included; upstream once, here before and after it. {measure.machine()}"
    measure.report("everything", columns, rows, about, arguments.write)


if __name__ == "__main__":
    main()
