"""A closer look at small objects against one look at the whole image: ``python benchmarks/closer.py``.

IoU with the ground truth of what the samples show, by a tight box and by one click on the innermost pixel, of objects
up to a third of their image's longer side. ``--model vit_b`` measures another model whose weights are here.
"""

import time

import measure
import numpy as np
from tqdm.auto import tqdm

from sam_nb import SAMPLES, Prompt, bounding_box, innermost, iou, load_ground_truth, load_image, load_sam, look_closer


def small_objects(image, ground_truth):
    """Yield the masks of those up to a third of the image's longer side."""
    for mask in ground_truth.values():
        left, top, right, bottom = bounding_box(mask)
        if max(right - left, bottom - top) <= max(image.shape[:2]) / 3:
            yield mask


def main():
    """Measure and print the table."""
    parser = measure.parser(__doc__)
    parser.add_argument("--model", default="lite")
    arguments = parser.parse_args()
    sam = load_sam(arguments.model)
    rows, seconds = [], []
    for sample in tqdm(SAMPLES, unit="image"):
        image = load_image(sample)
        embedding = sam.encode(image)
        ious = []
        for mask in small_objects(image, load_ground_truth(sample)):
            for prompt in (Prompt(box=bounding_box(mask)), Prompt(points=[innermost(mask)])):
                first = sam.decode(embedding, prompt)
                started = time.perf_counter()
                second = look_closer(sam, image, prompt, first)
                seconds.append(time.perf_counter() - started)
                ious.append((iou(first.best, mask), iou(second.best, mask)))
        if ious:
            box, click = np.reshape(ious, (-1, 2, 2)).transpose(1, 0, 2)
            means = [f"{before:.2f} → {after:.2f}" for before, after in (box.mean(axis=0), click.mean(axis=0))]
            rows.append((sample, len(box), *means, f"{np.sum(box[:, 1] > box[:, 0])} of {len(box)}"))
    columns = ["image", "small objects", "a box, IoU", "one click, IoU", "better with a box"]
    about = f"{sam.name}, one look → two; the second takes {np.median(seconds):.2f} s. {measure.machine()}"
    measure.report("closer", columns, rows, about, arguments.write)


if __name__ == "__main__":
    main()
