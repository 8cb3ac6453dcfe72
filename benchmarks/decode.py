"""Many boxes on one image: ``python benchmarks/decode.py``.

Three ways to the same full-size masks, with `lite`, MobileSAM's vit_t and Meta's vit_b: a call of
`SamPredictor.predict` for each box, one of `SamPredictor.predict_torch` for all of them, and `Sam.decode_batch`. Then
the memory of `decode_batch` with more and more boxes. The weights of vit_t and vit_b are random: time and memory do not
depend on them.
"""

import measure
import numpy as np
import torch
from segment_anything import SamPredictor, sam_model_registry

from sam_nb import Prompt, load_image, load_sam
from sam_nb.model.loading import use_fast_layers
from sam_nb.model.sam import Sam
from sam_nb.networks.lite import build_lite
from sam_nb.networks.tiny_vit import build_vit_t

MODELS = ("lite", "vit_t", "vit_b")
COUNTS = (1, 10, 100)
MANY = (1, 100, 1000)


def models(name):
    """Return our model and upstream's `SamPredictor`, with the same weights."""
    if name == "lite":
        ours, theirs = load_sam("lite"), build_lite()
        theirs.load_state_dict(ours.model.state_dict())
        return ours, SamPredictor(theirs.to(ours.device))
    torch.manual_seed(0)
    build = build_vit_t if name == "vit_t" else sam_model_registry[name]
    theirs, ours = (build().eval().to(measure.DEVICE) for _ in range(2))
    ours.load_state_dict(theirs.state_dict())
    return Sam(use_fast_layers(ours), name, f"{name}, random"), SamPredictor(theirs)  # embeddings are kept by weights


def random_boxes(count, size, seed=0):
    """Return random boxes Nx4 (x0, y0, x1, y1) in an image of a size (height, width)."""
    corners = np.random.default_rng(seed).uniform(0, 1, (count, 2, 2)) * size[::-1]
    return np.hstack([corners.min(1), corners.max(1) + 1]).clip(0, np.tile(size[::-1], 2))


def memory_of(name, count):
    """Return the peak memory of this process, MB, after decoding so many boxes."""
    ours, _ = models(name)
    image = load_image("street")
    embedding = ours.encode(image)
    ours.decode_batch(embedding, [Prompt(box=box) for box in random_boxes(count, image.shape[:2])])
    return measure.own_peak_memory()


def ways(ours, predictor, image, boxes):
    """Return the three ways, functions that return the boxes' masks, NxHxW bool."""
    embedding = ours.encode(image)
    predictor.set_image(image)
    on_device = torch.as_tensor(boxes, dtype=torch.float32, device=measure.DEVICE)
    on_device = predictor.transform.apply_boxes_torch(on_device, image.shape[:2])
    prompts = [Prompt(box=box) for box in boxes]

    def one_by_one():
        return np.stack([predictor.predict(box=box, multimask_output=False)[0][0] for box in boxes])

    def one_batch():
        return predictor.predict_torch(None, None, on_device, multimask_output=False)[0][:, 0].cpu().numpy()

    def here():
        return np.stack([masks.best for masks in ours.decode_batch(embedding, prompts)])

    return {"predict": one_by_one, "predict_torch": one_batch, "decode_batch": here}


def main():
    """Measure and print the tables."""
    parser = measure.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-of", nargs=2, metavar=("MODEL", "BOXES"), help="print a peak memory, nothing else")
    arguments = parser.parse_args()
    if arguments.memory_of:
        name, count = arguments.memory_of
        print(memory_of(name, int(count)))
        return
    image = load_image("street")
    rows = []
    for name in MODELS:
        ours, predictor = models(name)
        for count in COUNTS:
            sides = ways(ours, predictor, image, random_boxes(count, image.shape[:2]))
            times, masks = measure.in_turns(sides, arguments.rounds)
            alike = 100 * np.mean(masks["decode_batch"] == masks["predict"])
            each = [f"{1000 * times[side] / count:.0f}" for side in sides]
            ratio = times["predict"] / times["decode_batch"]
            rows.append((name, count, *each, f"{ratio:.2f}", f"{alike:.3f} %"))
    columns = ["model", "boxes", *(f"`{side}`, ms a box" for side in sides)]
    columns += ["times as fast as `predict`", "pixels alike"]
    about = f"Street image, 1152 x 648, full-size masks; medians of {arguments.rounds}, in turns. {measure.machine()}"
    measure.report("decode", columns, rows, about, arguments.write)
    rows = []
    for name in MODELS:
        memory = [measure.printed_by(__file__, "--memory-of", name, count)[0] for count in MANY]
        rows.append((name, *(f"{megabytes:.0f}" for megabytes in memory)))
    print()
    about = "Peak memory of the process, MB. What grows are the masks: the low-res logits of each, 256 kB."
    measure.report("decode memory", ["model", *(f"boxes: {count}" for count in MANY)], rows, about, arguments.write)


if __name__ == "__main__":
    main()
