"""Measure `lite` as its users meet it, through `segment_anything.SamPredictor`: one command.

Three sets of cases (`training.cases`) and the article's prompts on the painted street (`training.street`). OpenCV's
GrabCut gets the same boxes. Every case's values go into results.json, for `training.compare`.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from segment_anything import SamPredictor
from tqdm import tqdm

from sam_nb.article import ARTICLE_PROMPTS
from sam_nb.ground_truth import OUTLINES, load_ground_truth, read_outlines
from sam_nb.images import load_image
from sam_nb.masks import iou
from sam_nb.model.loading import load_sam
from training.cases import PHOTOGRAPHS, Case, CaseSet, annotated_photographs, compositions, outlined_photographs
from training.measures import (
    MAX_CLICKS,
    MIN_IOU_TO_BE_RAGGED,
    TARGET_IOU,
    SimulatedUser,
    box_measures,
    grabcut,
    summarise,
)
from training.photos import PhotoPack
from training.sources import SourcePack
from training.street import ask

GRABCUT = "GrabCut"  # its column

MEASURES = {
    "box": "box, mIoU",
    "box, object": "box, whole objects only, mIoU",
    "box, part": "box, parts only, mIoU",
    "box, group": "box, two objects, one on the other, mIoU",
    "raggedness": f"box, perimeter / that of the ground truth (IoU {MIN_IOU_TO_BE_RAGGED} or more)",
    "box and negative click": "box and a negative click, mIoU",
    "1 click": "1 click, highest-scoring of three, mIoU",
    "oracle of three": "1 click, oracle of three, mIoU",
    "3 clicks": "3 clicks, mIoU",
    "clicks needed": f"clicks to IoU {TARGET_IOU} (at most {MAX_CLICKS})",
    "not reached": f"not reached in {MAX_CLICKS} clicks",
    "predicted IoU, mean error": "predicted IoU, mean absolute error",
    "predicted IoU, rank correlation": "predicted IoU, rank correlation (Spearman)",
    "encode": "encode, s",
    "decode": "decode one prompt, s",
}

BY_SOURCE = {"box": "box", "1 click": "1 click", "oracle of three": "oracle", "3 clicks": "3 clicks"}


def measure(cases: CaseSet, predictors: dict[str, SamPredictor], with_grabcut: bool, folder: Path | None) -> dict:
    """Prompt every model for every case of a set.

    Parameters
    ----------
    cases : CaseSet
    predictors : dict of str to segment_anything.SamPredictor
        By column of the table.
    with_grabcut : bool
    folder : pathlib.Path or None
        Where images of the masks go, named by IoU so that failures come first.

    Returns
    -------
    dict
        What results.json holds of the set: "by_source"; "measures", by column and measure; and "cases", a list with
        each case's "name", "kind", "source", "pixels" (of its ground truth) and "values", by column and measure.
    """
    users = {name: SimulatedUser(predictor) for name, predictor in predictors.items()}
    records = []
    for image, of_image in tqdm(cases.images, desc=cases.title, total=cases.count):
        for user in users.values():
            user.set_image(image)
        for case in of_image:
            record = _record(case.name, case.kind, case.source, case.ground_truth)
            records.append(record)
            if with_grabcut and case.negative is None:
                record["values"][GRABCUT] = box_measures(grabcut(image, case.box), case.ground_truth)
            for name, user in users.items():
                record["values"][name], masks = user.measure(case)
                if folder is not None:
                    write_outlines(folder, image, case, name, masks)
    columns = {name: summarise(records, name, cases.by_source) | user.summary() for name, user in users.items()}
    if with_grabcut:
        columns[GRABCUT] = summarise(records, GRABCUT, cases.by_source)
    return {"by_source": cases.by_source, "measures": columns, "cases": records}


def measure_street(predictors: dict[str, SamPredictor], with_grabcut: bool) -> dict:
    """Give every model the article's prompts; return what `measure` does, each prompt a case with the measure "IoU"."""
    image, ground_truth = load_image("street"), load_ground_truth("street")
    records = []
    for name, (meant, prompt) in ARTICLE_PROMPTS.items():
        record = _record(name, meant, "painted", ground_truth[meant])
        records.append(record)
        if with_grabcut and prompt.box is not None and prompt.points is None:
            mask = grabcut(image, prompt.box.astype(np.float32))
            record["values"][GRABCUT] = {"IoU": iou(mask, ground_truth[meant])}
    for column, predictor in predictors.items():
        predictor.set_image(image)
        for record, (meant, prompt) in zip(records, ARTICLE_PROMPTS.values(), strict=True):
            record["values"][column] = {"IoU": iou(ask(predictor, prompt), ground_truth[meant])}
    columns = {column: {} for column in [*predictors, *([GRABCUT] if with_grabcut else [])]}
    for column, values in columns.items():
        values |= {row["name"]: row["values"][column]["IoU"] for row in records if column in row["values"]}
    return {"by_source": False, "measures": columns, "cases": records}


def _record(name: str, kind: str, source: str, ground_truth: npt.NDArray[np.bool_]) -> dict:
    # The area tells cases apart that share a name by accident, such as compositions from two packs.
    pixels = int(np.count_nonzero(ground_truth))
    return {"name": name, "kind": kind, "source": source, "pixels": pixels, "values": {}}


def write_outlines(
    folder: Path, image: npt.NDArray[np.uint8], case: Case, column: str, masks: dict[str, npt.NDArray[np.bool_]]
) -> None:
    """Write an image for each mask (HxW bool, by prompt): the ground truth in green, the mask in red, and its IoU."""
    label = "".join(letter if letter.isalnum() else "_" for letter in case.name)
    for prompt, mask in masks.items():
        value = iou(mask, case.ground_truth)
        drawn = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        for bits, colour in ((case.ground_truth, (0, 255, 0)), (mask, (0, 0, 255))):
            contours, _ = cv2.findContours(bits.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(drawn, contours, -1, colour, 2)
        text = f"{case.name} {value:.2f}"
        cv2.putText(drawn, text, (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 255, 255), 1)
        cv2.imwrite(str(folder / f"{value:.2f}-{column}-{prompt.replace(' ', '_')}-{label}.jpg"), drawn)


def table(title: str, columns: dict[str, dict[str, float]], labels: dict[str, str]) -> str:
    """Return a Markdown table.

    Parameters
    ----------
    title : str
    columns : dict of str to dict of str to float
        Measures by column.
    labels : dict of str to str
        Label of each measure, in the order of the rows.
    """
    lines = [f"| {title} | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    for key, label in labels.items():
        values = [f"{means[key]:.3f}" if key in means else "" for means in columns.values()]
        if any(values):
            lines.append(f"| {label} | {' | '.join(values)} |")
    return "\n".join(lines)


def table_by_source(records: list[dict], columns: list[str]) -> str:
    """Return a Markdown table of the measures `BY_SOURCE`: a row for each source, a cell for each column.

    Parameters
    ----------
    records : list of dict
        As in `training.measures.summarise`.
    columns : list of str
    """
    lines = [f"| {' / '.join(BY_SOURCE.values())} | cases | {' | '.join(columns)} |", "|---" * (2 + len(columns)) + "|"]
    for source in sorted({record["source"] for record in records}):
        of_source = [record for record in records if record["source"] == source]
        means = [summarise(of_source, column, by_source=False) for column in columns]
        cells = [" / ".join(f"{one[key]:.3f}" for key in BY_SOURCE if key in one) for one in means]
        lines.append(f"| {source} | {len(of_source)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Evaluate weights: the command `python -m training.evaluate`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", nargs="+", help="safetensors to evaluate, each as name=path")
    parser.add_argument("--sources", type=Path, default=Path("training/sources.zip"), help="from training.sources")
    parser.add_argument("--scenes", type=int, default=100, help="held-out compositions; 0 skips them")
    parser.add_argument("--seed", type=int, default=2023, help="of the compositions and of the choice of cases")
    parser.add_argument("--skimage-data", type=Path, help="data folder of scikit-image; without it, no photographs")
    parser.add_argument("--opencv-doc", type=Path, default=Path("/usr/share/doc/opencv-doc/examples"))
    parser.add_argument("--outlines", type=Path, default=Path(__file__).parent / "ground_truth" / "outlines.json")
    parser.add_argument("--photos", type=Path, nargs="+", help="packs of annotated photographs (training.photos)")
    parser.add_argument(
        "--split",
        choices=PHOTOGRAPHS,
        default="held_out",
        help="of --photos; train: those that it learned from. Both alike: it has not learned them by heart",
    )
    parser.add_argument("--per-source", type=int, default=40, help="cases of each source of --photos, at most")
    parser.add_argument("--no-grabcut", action="store_true", help="skip GrabCut, which takes most of the time")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="folder for results.json")
    parser.add_argument("--images", action="store_true", help="also write every mask as an image to --out")
    arguments = parser.parse_args()
    if arguments.images and arguments.out is None:
        parser.error("--images needs --out")
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(arguments.threads)
    predictors = {}
    for pair in arguments.weights:
        name, equals, path = pair.partition("=")
        if not (name and equals and path) or name in {GRABCUT, *predictors}:
            parser.error(f"expected weights as name=path, each with a name of its own, got {pair!r}")
        predictors[name] = SamPredictor(load_sam("lite", checkpoint=path, device="cpu").model)
    report = {}

    def keep(title: str, results: dict) -> None:
        report[title] = results
        if arguments.out is not None:  # after every set, because together they take long
            arguments.out.mkdir(parents=True, exist_ok=True)
            (arguments.out / "results.json").write_text(json.dumps(report, indent=1) + "\n")

    for cases in _case_sets(arguments):
        folder = arguments.out / cases.title.replace(" ", "-") if arguments.images else None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        results = measure(cases, predictors, not arguments.no_grabcut, folder)
        print("\n" + table(cases.title, results["measures"], MEASURES), flush=True)
        if cases.by_source:
            print("\n" + table_by_source(results["cases"], list(results["measures"])), flush=True)
        keep(cases.title, results)
    results = measure_street(predictors, not arguments.no_grabcut)
    print("\n" + table("street, IoU", results["measures"], {name: name for name in ARTICLE_PROMPTS}))
    keep("street", results)


def _case_sets(arguments: argparse.Namespace) -> Iterator[CaseSet]:
    """Yield the sets that the command line asks for."""
    if arguments.scenes:
        yield compositions(SourcePack(arguments.sources, "held_out"), arguments.scenes, arguments.seed)
    if arguments.skimage_data:
        folders = {"scikit-image": arguments.skimage_data, "opencv-doc": arguments.opencv_doc}
        # Two dozen coins that look alike would be half of all objects.
        samples = [entry for entry in read_outlines(OUTLINES) if entry["sample"] != "coins"]
        yield outlined_photographs(samples + read_outlines(arguments.outlines), folders)
    if arguments.photos:
        yield annotated_photographs(PhotoPack(arguments.photos, arguments.split), arguments.per_source, arguments.seed)


if __name__ == "__main__":
    main()
