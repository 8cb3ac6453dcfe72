"""How good masks are: a simulated user prompts a model for one case after another.

Measures of a case are kept by name, so that weights that were evaluated in different runs can be compared case by case
(`training.compare`).
"""

import time
from collections import defaultdict
from collections.abc import Sequence
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr
from segment_anything import SamPredictor
from skimage.measure import perimeter_crofton

from sam_nb.clicks import innermost, next_click
from sam_nb.masks import bounding_box, iou
from training.cases import Case

Mask: TypeAlias = npt.NDArray[np.bool_]

MAX_CLICKS = 10
TARGET_IOU = 0.85  # the simulated user stops here
MIN_IOU_TO_BE_RAGGED = 0.8  # below it a border is not ragged but wrong


def perimeter(mask: Mask) -> float:
    """Return the length of a mask's border, holes included, in pixels.

    Parameters
    ----------
    mask : HxW numpy.ndarray of bool
        Beyond the image is outside: an object that fills the image has a border too, which can be divided by.
    """
    if not mask.any():
        return 0.0
    left, top, right, bottom = bounding_box(mask)
    # Crofton's formula: how often lines in four directions cross the border. Counting the edges between pixels makes a
    # slanted border 1.4 times as long as an upright one and takes a staircase of any step for the same length; chains
    # of border pixels cut off teeth along a diagonal. This keeps within 6 % in every direction, and a border with teeth
    # of one pixel comes out a fifth longer, or more, in every direction.
    return float(perimeter_crofton(mask[top:bottom, left:right], directions=4))


def raggedness(mask: Mask, ground_truth: Mask) -> float:
    """Return the perimeter of a mask divided by that of the ground truth, both HxW bool and not empty.

    1 for a border as smooth as the ground truth's, more where it is jagged or the mask has specks and holes, less where
    details are cut off.
    """
    return perimeter(mask) / perimeter(ground_truth)


class SimulatedUser:
    """Prompts a model for cases and measures the masks.

    Parameters
    ----------
    predictor : segment_anything.SamPredictor

    Attributes
    ----------
    seconds : dict of str to list of float
        For "encode", one an image, and "decode", one a prompt.
    predicted, found : list of float
        Predicted and true IoU of every mask of a first prompt or a later click.
    """

    def __init__(self, predictor: SamPredictor) -> None:
        self.predictor = predictor
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.predicted: list[float] = []
        self.found: list[float] = []

    def set_image(self, image: npt.NDArray[np.uint8]) -> None:
        """Encode an image, HxWx3 uint8."""
        started = time.perf_counter()
        self.predictor.set_image(image)
        self.seconds["encode"].append(time.perf_counter() - started)

    def measure(self, case: Case) -> tuple[dict[str, float], dict[str, Mask]]:
        """Prompt the model for one case in every way that is measured.

        Returns
        -------
        dict of str to float
            Measures.
        dict of str to HxW numpy.ndarray of bool
            Masks, by prompt: the box's, and the highest-scoring of the first click's.
        """
        if case.negative is not None:
            point = {"point_coords": np.array([case.negative]), "point_labels": np.array([0])}
            mask, _ = self._single(case.ground_truth, box=case.box, **point)
            return {"box and negative click": iou(mask, case.ground_truth)}, {"box and negative click": mask}
        box_mask, _ = self._single(case.ground_truth, box=case.box)
        clicks, first_mask = self._click(case.ground_truth)
        return box_measures(box_mask, case.ground_truth) | clicks, {"box": box_mask, "1 click": first_mask}

    def _click(self, ground_truth: Mask) -> tuple[dict[str, float], Mask]:
        """Click until the mask is good, at most `MAX_CLICKS` times; return measures, and the first click's mask."""
        points, labels = [innermost(ground_truth)], [1]
        masks, scores, logits = self._predict(point_coords=np.array(points), point_labels=np.array(labels))
        ious = [iou(mask, ground_truth) for mask in masks]
        self._keep(scores, ious)
        best = int(scores.argmax())
        first_mask = mask = masks[best]
        logits = logits[best]
        reached = [ious[best]]
        while len(reached) < MAX_CLICKS and (reached[-1] < TARGET_IOU or len(reached) < 3):
            correction = next_click(mask, ground_truth)
            if correction is None:
                break
            points.append(correction[0])
            labels.append(correction[1])
            prompt = {"point_coords": np.array(points), "point_labels": np.array(labels), "mask_input": logits[None]}
            mask, logits = self._single(ground_truth, **prompt)
            reached.append(iou(mask, ground_truth))
        needed = next((number for number, value in enumerate(reached, 1) if value >= TARGET_IOU), None)
        measures = {
            "1 click": reached[0],
            "oracle of three": max(ious),
            "3 clicks": reached[min(2, len(reached) - 1)],
            "clicks needed": float(needed or MAX_CLICKS),
            "not reached": float(needed is None),
        }
        return measures, first_mask

    def _single(self, ground_truth: Mask, **prompt: npt.NDArray) -> tuple[Mask, npt.NDArray[np.float32]]:
        masks, scores, logits = self._predict(**prompt, multimask_output=False)
        self._keep(scores, [iou(masks[0], ground_truth)])
        return masks[0], logits[0]

    def _predict(self, **prompt: npt.NDArray | bool) -> tuple[npt.NDArray, npt.NDArray, npt.NDArray]:
        started = time.perf_counter()
        predicted = self.predictor.predict(**prompt)
        self.seconds["decode"].append(time.perf_counter() - started)
        return predicted

    def _keep(self, scores: Sequence[float], ious: list[float]) -> None:
        self.predicted += [float(score) for score in scores]
        self.found += ious

    def summary(self) -> dict[str, float]:
        """Return what is measured over all prompts, not by case: times in seconds, and errors of the predicted IoU."""
        return {
            "encode": float(np.median(self.seconds["encode"])),
            "decode": float(np.median(self.seconds["decode"])),
            "predicted IoU, mean error": float(np.abs(np.subtract(self.predicted, self.found)).mean()),
            "predicted IoU, rank correlation": float(spearmanr(self.predicted, self.found).statistic),
        }


def box_measures(mask: Mask, ground_truth: Mask) -> dict[str, float]:
    """Return the measures of a box's mask, HxW bool: its IoU and, where that is high enough, its raggedness."""
    found = iou(mask, ground_truth)
    measures = {"box": found}
    if found >= MIN_IOU_TO_BE_RAGGED:
        measures["raggedness"] = raggedness(mask, ground_truth)
    return measures


def grabcut(image: npt.NDArray[np.uint8], box: npt.NDArray[np.float32]) -> Mask:
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


def mean_over_groups(values: Sequence[float], groups: Sequence[str]) -> float:
    """Return the mean over groups of the mean over each group's values; `groups` names the group of every value."""
    by_group = defaultdict(list)
    for value, group in zip(values, groups, strict=True):
        by_group[group].append(value)
    return float(np.mean([np.mean(of_group) for of_group in by_group.values()]))


def summarise(records: list[dict], column: str, by_source: bool) -> dict[str, float]:
    """Return the measures of a set.

    Parameters
    ----------
    records : list of dict
        One a case, each with "kind", "source" and "values", a dict of column to dict of measure to float.
    column : str
        Whose values: the name of weights, or "GrabCut".
    by_source : bool
        As in `training.cases.CaseSet`.

    Returns
    -------
    dict of str to float
        The mean of every measure over the cases that have it; that of "box" also by kind, as "box, part".
    """
    values, groups = defaultdict(list), defaultdict(list)
    for record in records:
        measures = record["values"].get(column, {})
        if "box" in measures:
            measures = measures | {f"box, {record['kind']}": measures["box"]}
        for measure, value in measures.items():
            values[measure].append(value)
            groups[measure].append(record["source"] if by_source else "")
    return {measure: mean_over_groups(values[measure], groups[measure]) for measure in values}
