"""Fine-tuning on a dozen labelled images: ``python benchmarks/finetune.py``.

Synthetic cells in a look that SAM segments badly (`sam_nb.learning.synthetic`, "stain"): 12 images for training, 4 for
validation, 8 for testing, and 4 test images in another look, "halo", without any in training; different ones for each
seed. Fine-tuned as in notebook 11, and beside it a U-Net that learns cell or background from the same 12 images; its
output is cut to the box around each cell, so that both are measured alike.
"""

import measure
import numpy as np

from sam_nb import finetune, iou, iou_by_prompt, load_sam, synthetic_cells, train_unet
from sam_nb.masks import bounding_box

SEEDS = (0, 1, 2)
STEPS = {"fine-tuning": 60, "U-Net": 80}


def pairs(seed):
    """Return a seed's images with their label maps: for training, validation and testing, and in another look."""
    scenes = [synthetic_cells(1000 * seed + number, look="stain" if number < 24 else "halo") for number in range(28)]
    made = [(scene.image, scene.labels) for scene in scenes]
    return made[:12], made[12:16], made[16:24], made[24:]


def in_boxes(unet, side):
    """Return the IoU of each cell with the U-Net's output in the box around the cell."""
    values = []
    for image, labels in side:
        predicted = unet.predict(image) == 1
        for number in np.unique(labels)[1:]:
            mask, cut = labels == number, np.zeros(labels.shape, bool)
            x0, y0, x1, y1 = bounding_box(mask)
            cut[y0:y1, x0:x1] = predicted[y0:y1, x0:x1]
            values.append(iou(cut, mask))
    return np.array(values)


def main():
    """Measure and print the table."""
    parser = measure.parser(__doc__)
    parser.add_argument("--model", default="lite")
    parser.add_argument("--lr", type=float, default=8e-4)
    arguments = parser.parse_args()
    sam, rows = load_sam(arguments.model, device=measure.DEVICE), []
    for seed in SEEDS:
        train, validation, test, other = pairs(seed)
        tuned = finetune(sam, train, validation, steps=STEPS["fine-tuning"], lr=arguments.lr, seed=seed)
        cells = [(image, labels > 0) for image, labels in train]
        unet = train_unet(cells, classes=1, steps=STEPS["U-Net"], seed=seed, device=measure.DEVICE)
        for look, side in (("stain", test), ("halo", other)):
            before, after = iou_by_prompt(sam, side), iou_by_prompt(tuned.sam, side)
            changes = [f"{before[kind].mean():.2f} → {after[kind].mean():.2f}" for kind in ("point", "box")]
            rows.append((seed, look, len(after["box"]), *changes, f"{in_boxes(unet, side).mean():.2f}"))
    columns = ["seed", "look", "cells", "one click", "a box", "U-Net, cut to the box"]
    about = (
        f"{arguments.model}, mean IoU of the cells before → after {STEPS['fine-tuning']} steps at {arguments.lr:g}. "
    )
    about += measure.machine()
    measure.report("finetune", columns, rows, about, arguments.write)


if __name__ == "__main__":
    main()
