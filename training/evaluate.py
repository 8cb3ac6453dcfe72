"""Measure `lite` as its users meet it, through `segment_anything.SamPredictor`: one command.

Three sets: compositions of held-out objects over held-out backgrounds, from a fixed seed; real photographs whose truth
was drawn by hand; and the article's prompts on the painted street. OpenCV's GrabCut gets the same boxes.
"""

import argparse
import json
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.stats import spearmanr
from segment_anything import SamPredictor
from tqdm import tqdm

from sam_nb.clicks import innermost, next_click
from sam_nb.images import load_image
from sam_nb.lite import IMAGE_SIZE
from sam_nb.masks import bounding_box, iou
from sam_nb.models import load_sam
from sam_nb.truth import OUTLINES, load_truth, outlined_masks, read_outlines
from training.scenes import Composer
from training.sources import SourcePack

MOST_CLICKS = 10
GOOD_ENOUGH = 0.85  # the IoU that the simulated user is content with


@dataclass(frozen=True)
class Case:
    """One object to find in one picture.

    Attributes
    ----------
    name : str
    kind : {"object", "part", "rest", "group"}
        As in `training.scenes.Target`.
    truth : HxW numpy.ndarray of bool
    box : 4 numpy.ndarray of float32
        The tightest (x0, y0, x1, y1) around what a box is drawn around.
    negative : (float, float), or None
        The negative click that goes with the box, where the object is only a part of what the box holds.
    """

    name: str
    kind: str
    truth: np.ndarray
    box: np.ndarray
    negative: tuple | None = None


def tight_box(mask):
    """Return the tightest box around a mask as a prompt takes it, 4 float32."""
    return np.array(bounding_box(mask), np.float32)


def compositions(pack, scenes, seed, per_scene=3):
    """Yield (image HxWx3 uint8, list of `Case`) of held-out compositions."""
    composer = Composer(pack, IMAGE_SIZE)
    for number in range(scenes):
        rng = np.random.default_rng([seed, number])
        scene = composer.compose(rng)
        cases = []
        for row, target in enumerate(scene.draw(per_scene, rng)):
            negative = None if target.excluded is None else innermost(target.excluded)
            cases.append(Case(f"{number}-{row}", target.kind, target.mask, tight_box(target.region), negative))
        yield scene.image, cases


def photographs(entries, folders):
    """Yield (image HxWx3 uint8, list of `Case`) of the photographs with hand-drawn truth.

    Parameters
    ----------
    entries : list of dict
        From `sam_nb.truth.read_outlines`.
    folders : dict of str to pathlib.Path
        Where the photographs of each source are.
    """
    for entry in entries:
        path = folders[entry["source"]] / entry["file"]
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise FileNotFoundError(f"{path} is missing: install {entry['source']}, or name its folder")
        if image.shape[:2] != (entry["height"], entry["width"]):
            raise ValueError(f"{path} is {image.shape[1]}x{image.shape[0]}: the truth is for another version of it")
        masks = outlined_masks(entry)
        cases = []
        for thing in entry["objects"]:
            mask = masks[thing["name"]]
            cases.append(Case(f"{path.stem}: {thing['name']}", thing["kind"], mask, tight_box(mask)))
        yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB), cases


class Judge:
    """Prompts a model for cases and keeps the results.

    Attributes
    ----------
    results : dict of str to list of float
        IoUs and times by measure.
    predicted, found : list of float
        Predicted and true IoU of every mask of a first prompt or a later click.
    """

    def __init__(self, weights, threads):
        torch.set_num_threads(threads)
        self.predictor = SamPredictor(load_sam("lite", checkpoint=weights, device="cpu").model)
        self.results = defaultdict(list)
        self.predicted, self.found = [], []

    def look(self, image):
        """Encode a picture, HxWx3 uint8."""
        started = time.perf_counter()
        self.predictor.set_image(image)
        self.results["encode"].append(time.perf_counter() - started)

    def judge(self, case):
        """Prompt the model for one case in every way that is measured; return the masks, a dict of HxW bool."""
        if case.negative is not None:
            point = {"point_coords": np.array([case.negative]), "point_labels": np.array([0])}
            mask, _ = self._single(case.truth, box=case.box, **point)
            self.results["box and negative click"].append(iou(mask, case.truth))
            return {"box and negative click": mask}
        box_mask, _ = self._single(case.truth, box=case.box)
        self.results["box"].append(iou(box_mask, case.truth))
        self.results[f"box, {case.kind}"].append(iou(box_mask, case.truth))
        first = self._click(case)
        return {"box": box_mask, "1 click": first}

    def _click(self, case):
        """Click until the mask is good, at most `MOST_CLICKS` times; return the best-scored mask of the first click."""
        truth = case.truth
        points, labels = [innermost(truth)], [1]
        masks, scores, logits = self._predict(point_coords=np.array(points), point_labels=np.array(labels))
        ious = [iou(mask, truth) for mask in masks]
        self._keep(scores, ious)
        best = int(scores.argmax())
        first = mask = masks[best]
        logits = logits[best]
        reached = [ious[best]]
        self.results["oracle of three"].append(max(ious))
        while len(reached) < MOST_CLICKS and (reached[-1] < GOOD_ENOUGH or len(reached) < 3):
            correction = next_click(mask, truth)
            if correction is None:
                break
            points.append(correction[0])
            labels.append(correction[1])
            prompt = {"point_coords": np.array(points), "point_labels": np.array(labels), "mask_input": logits[None]}
            mask, logits = self._single(truth, **prompt)
            reached.append(iou(mask, truth))
        self.results["1 click"].append(reached[0])
        self.results["3 clicks"].append(reached[min(2, len(reached) - 1)])
        needed = next((number for number, value in enumerate(reached, 1) if value >= GOOD_ENOUGH), None)
        self.results["clicks needed"].append(needed or MOST_CLICKS)
        self.results["failed"].append(float(needed is None))
        return first

    def _single(self, truth, **prompt):
        masks, scores, logits = self._predict(**prompt, multimask_output=False)
        self._keep(scores, [iou(masks[0], truth)])
        return masks[0], logits[0]

    def _predict(self, **prompt):
        started = time.perf_counter()
        answer = self.predictor.predict(**prompt)
        self.results["decode"].append(time.perf_counter() - started)
        return answer

    def _keep(self, scores, ious):
        self.predicted += [float(score) for score in scores]
        self.found += ious

    def summary(self):
        """Return the measures as a dict of str to float."""
        means = {name: float(np.mean(values)) for name, values in self.results.items()}
        means["encode"] = float(np.median(self.results["encode"]))
        means["decode"] = float(np.median(self.results["decode"]))
        means["predicted IoU, mean error"] = float(np.abs(np.subtract(self.predicted, self.found)).mean())
        means["predicted IoU, rank correlation"] = float(spearmanr(self.predicted, self.found).statistic)
        return means


def grabcut(image, box):
    """Return GrabCut's mask, HxW bool, for a box (Rother et al., "GrabCut", 2004; five iterations)."""
    x0, y0, x1, y1 = (int(side) for side in box)
    labels = np.zeros(image.shape[:2], np.uint8)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    if (x1 - x0) * (y1 - y0) >= image.shape[0] * image.shape[1]:
        return np.ones(image.shape[:2], bool)  # nothing outside the box to learn the background from
    cv2.setRNGSeed(0)
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    cv2.grabCut(bgr, labels, (x0, y0, x1 - x0, y1 - y0), *models, 5, cv2.GC_INIT_WITH_RECT)
    return (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)


def outline(image, case, mask, value):
    """Return a picture with the truth in green and the mask in red, HxWx3 uint8, and the IoU written on it."""
    drawn = image.copy()
    for bits, colour in ((case.truth, (0, 255, 0)), (mask, (255, 0, 0))):
        contours, _ = cv2.findContours(bits.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawn, contours, -1, colour, 2)
    cv2.putText(drawn, f"{case.name} {value:.2f}", (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 0), 1)
    return drawn


def measure(pictures, judges, with_grabcut, folder):
    """Put every case to every judge.

    Parameters
    ----------
    pictures : iterable of (HxWx3 numpy.ndarray of uint8, list of Case)
    judges : dict of str to Judge
    with_grabcut : bool
    folder : pathlib.Path or None
        Where pictures of the masks go, named by IoU so that failures come first.

    Returns
    -------
    dict of str to dict of str to float
        Measures by column of the table.
    dict of str to dict of str to float
        Box IoU by case and column, to see what fails.
    """
    cut, cases_seen = defaultdict(list), defaultdict(dict)
    for image, cases in pictures:
        for judge in judges.values():
            judge.look(image)
        for case in cases:
            if with_grabcut and case.negative is None:
                value = iou(grabcut(image, case.box), case.truth)
                cut["box"].append(value)
                cut[f"box, {case.kind}"].append(value)
                cases_seen[f"{case.name} (box)"]["GrabCut"] = value
            for name, judge in judges.items():
                for prompt, mask in judge.judge(case).items():
                    value = iou(mask, case.truth)
                    cases_seen[f"{case.name} ({prompt})"][name] = value
                    if folder is not None:
                        picture = cv2.cvtColor(outline(image, case, mask, value), cv2.COLOR_RGB2BGR)
                        label = "".join(letter if letter.isalnum() else "_" for letter in case.name)
                        cv2.imwrite(str(folder / f"{value:.2f}-{name}-{prompt.replace(' ', '_')}-{label}.jpg"), picture)
    columns = {name: judge.summary() for name, judge in judges.items()}
    if with_grabcut:
        columns["GrabCut"] = {name: float(np.mean(values)) for name, values in cut.items()}
    return columns, cases_seen


MEASURES = {
    "box": "box, mIoU",
    "box, object": "box, whole objects only, mIoU",
    "box, part": "box, parts only, mIoU",
    "box, group": "box, two objects, one on the other, mIoU",
    "box and negative click": "box and a negative click, mIoU",
    "1 click": "1 click, best-scored of three, mIoU",
    "oracle of three": "1 click, oracle of three, mIoU",
    "3 clicks": "3 clicks, mIoU",
    "clicks needed": f"clicks to IoU {GOOD_ENOUGH} (at most {MOST_CLICKS})",
    "failed": f"not reached in {MOST_CLICKS} clicks",
    "predicted IoU, mean error": "predicted IoU, mean absolute error",
    "predicted IoU, rank correlation": "predicted IoU, rank correlation (Spearman)",
    "encode": "encode, s",
    "decode": "decode one prompt, s",
}

# The article's prompts, each with the name of what it means in the street picture.
STREET_PROMPTS = {
    "point": ("car", {"point_coords": [(500, 375)], "point_labels": [1]}),
    "two points": ("car", {"point_coords": [(500, 375), (184, 359)], "point_labels": [1, 1]}),
    "box": ("car", {"box": (44, 160, 1011, 504)}),
    "box and negative point: ring without hub": (
        "tyre",
        {"box": (250, 370, 410, 510), "point_coords": [(334, 438)], "point_labels": [0]},
    ),
    "first of three boxes": ("car", {"box": (24, 170, 998, 472)}),
    "second of three boxes": ("rear_wheel", {"box": (830, 338, 966, 458)}),
    "third of three boxes": ("small_window", {"box": (720, 209, 772, 258)}),
}


def street(predictor):
    """Return the IoU of each of the article's prompts on the street picture, a dict of str to float."""
    truth = load_truth("street")
    predictor.set_image(load_image("street"))
    ious = {}
    for name, (meant, prompt) in STREET_PROMPTS.items():
        arrays = {key: np.array(value) for key, value in prompt.items()}
        masks, _, _ = predictor.predict(**arrays, multimask_output=False)
        ious[name] = iou(masks[0], truth[meant])
    return ious


def table(title, columns, labels):
    """Return a Markdown table.

    Parameters
    ----------
    title : str
    columns : dict of str to dict of str to float
        Measures by column.
    labels : dict of str to str
        What each measure is called, in the order of the rows.
    """
    lines = [f"| {title} | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    for key, label in labels.items():
        values = [f"{means[key]:.3f}" if key in means else "" for means in columns.values()]
        if any(values):
            lines.append(f"| {label} | {' | '.join(values)} |")
    return "\n".join(lines)


def main():
    """Evaluate weights: the command `python -m training.evaluate`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", nargs="+", help="safetensors to compare, each as name=path")
    parser.add_argument("--sources", type=Path, default=Path("training/sources.zip"), help="from training.sources")
    parser.add_argument("--scenes", type=int, default=100, help="held-out compositions; 0 leaves them out")
    parser.add_argument("--seed", type=int, default=2023, help="of the compositions")
    parser.add_argument("--skimage-data", type=Path, help="data folder of scikit-image; without it, no photographs")
    parser.add_argument("--opencv-doc", type=Path, default=Path("/usr/share/doc/opencv-doc/examples"))
    parser.add_argument("--truth", type=Path, default=Path(__file__).parent / "truth" / "truth.json")
    parser.add_argument("--no-grabcut", action="store_true", help="leave GrabCut out, which takes most of the time")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="folder for results.json")
    parser.add_argument("--pictures", action="store_true", help="also write every mask as a picture to --out")
    arguments = parser.parse_args()
    if arguments.pictures and arguments.out is None:
        parser.error("--pictures needs --out")
    weights = dict(pair.split("=", 1) for pair in arguments.weights)
    cv2.setNumThreads(arguments.threads)
    sets = {}
    if arguments.scenes:
        pack = SourcePack(arguments.sources, "held_out")
        sets["held-out compositions"] = (compositions(pack, arguments.scenes, arguments.seed), arguments.scenes)
    if arguments.skimage_data:
        folders = {"scikit-image": arguments.skimage_data, "opencv-doc": arguments.opencv_doc}
        # Two dozen coins that look alike would be half of all objects.
        samples = [entry for entry in read_outlines(OUTLINES) if entry["sample"] != "coins"]
        entries = samples + read_outlines(arguments.truth)
        sets["photographs"] = (photographs(entries, folders), len(entries))
    report = {}
    for title, (pictures, total) in sets.items():
        judges = {name: Judge(path, arguments.threads) for name, path in weights.items()}
        folder = arguments.out / title.replace(" ", "-") if arguments.pictures else None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        columns, by_case = measure(tqdm(pictures, desc=title, total=total), judges, not arguments.no_grabcut, folder)
        print("\n" + table(title, columns, MEASURES), flush=True)
        report[title] = {"measures": columns, "cases": by_case}
    columns = {name: street(Judge(path, arguments.threads).predictor) for name, path in weights.items()}
    print("\n" + table("street, IoU", columns, {name: name for name in STREET_PROMPTS}))
    report["street"] = {"measures": columns}
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "results.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
