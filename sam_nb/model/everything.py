"""Everything-mode: a grid of clicks over the image, and of all their masks those worth keeping.

The parameters, the records and the order of the filters are those of `segment_anything.SamAutomaticMaskGenerator`. What
differs is when masks are upscaled to the size of the image: upstream upscales all three of every click and keeps some;
here low-res logits are filtered first, and the remaining masks upscaled one by one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypedDict, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torchvision.ops import batched_nms
from tqdm.auto import tqdm

from sam_nb.images import load_image
from sam_nb.masks import MASK_THRESHOLD, Masks, bounding_box
from sam_nb.model.embeddings import Embedding
from sam_nb.model.sam import Sam, Thresholds, fitted_size
from sam_nb.networks.upstream import amg
from sam_nb.prompts import Prompt, checked_integer, checked_number

if TYPE_CHECKING:
    from sam_nb.images import ImageLike

OUTPUT_MODES = ("binary_mask", "uncompressed_rle", "coco_rle")
MARGIN = 0.05  # by which the stability score of low-res logits may miss the threshold: it differs from the full size's


class RunLengths(TypedDict):
    """A run-length code: column by column, starting with False; `counts` is a str in COCO's compressed form."""

    size: list[int]
    counts: list[int] | str


class Scored(TypedDict):
    """What filters look at: a record without its mask."""

    area: int
    bbox: list[int]
    predicted_iou: float
    point_coords: list[list[float]]
    stability_score: float
    crop_box: list[int]


class Record(Scored):
    """A mask of everything-mode, as `segment_anything.SamAutomaticMaskGenerator` returns it.

    Its fields: ``segmentation`` (HxW bool, or a run-length code), ``area``, ``bbox`` (x, y, width, height),
    ``predicted_iou``, ``point_coords`` (of its click), ``stability_score``, ``crop_box``.
    """

    segmentation: npt.NDArray[np.bool_] | RunLengths


class _Candidate(Scored):
    runs: npt.NDArray[np.int32]  # a thousand masks of this kind take megabytes, and gigabytes as arrays of bool


AnyScored = TypeVar("AnyScored", bound=Scored)


def segment_everything(
    sam: Sam,
    image: "ImageLike",
    *,
    points_per_side: int | None = 32,
    points_per_batch: int = 64,
    pred_iou_thresh: float | None = None,
    stability_score_thresh: float | None = None,
    stability_score_offset: float = 1.0,
    box_nms_thresh: float | None = None,
    crop_n_layers: int = 0,
    crop_nms_thresh: float = 0.7,
    crop_overlap_ratio: float = 512 / 1500,
    crop_n_points_downscale_factor: int = 1,
    point_grids: Sequence[npt.ArrayLike] | None = None,
    min_mask_region_area: int = 0,
    output_mode: str = "binary_mask",
) -> list[Record]:
    """Return masks of everything in an image, with a progress bar.

    Parameters
    ----------
    sam : Sam
    image : HxWx3 numpy.ndarray of uint8, RGB
        Or anything else that `load_image` takes.
    points_per_side : int, or None
        Clicks along each side of the grid.
    points_per_batch : int
        Clicks between two steps of the progress bar.
    pred_iou_thresh : float, optional
        Predicted IoU that a mask must exceed. Default: what suits the model, `Sam.thresholds`.
    stability_score_thresh : float, optional
        Stability score that a mask must reach. Default: what suits the model.
    stability_score_offset : float
        The stability score is the IoU of the masks that the logits give when cut this much higher and lower.
    box_nms_thresh : float, optional
        Of two masks whose boxes overlap more than this (IoU) the one with the higher predicted IoU stays. Default: what
        suits the model.
    crop_n_layers : int
        How many times the image is cut into smaller crops (4, then 16 ...), which are searched as well.
    crop_nms_thresh : float
        As `box_nms_thresh`, among crops: the mask of the smaller crop stays.
    crop_overlap_ratio : float
        Overlap of the first layer's crops, share of the image's shorter side.
    crop_n_points_downscale_factor : int
        The grid of layer n has this to the power n times fewer clicks along a side.
    point_grids : list of Nx2 array-like, optional
        Clicks for each layer, in shares of width and height, in place of `points_per_side` (which is None then).
    min_mask_region_area : int
        Pixels; smaller holes are filled and smaller islands removed.
    output_mode : {"binary_mask", "uncompressed_rle", "coco_rle"}

    Returns
    -------
    list of dict
        See `Record`: the records of `SamAutomaticMaskGenerator`.

    Raises
    ------
    ValueError
        An unknown output mode; both or neither of `points_per_side` and `point_grids`; not one grid for the image and
        each layer; a number out of its range; or more layers of crops than the image has room for.
    """
    if output_mode not in OUTPUT_MODES:
        raise ValueError(f"no output_mode {output_mode!r}: expected one of {', '.join(OUTPUT_MODES)}")
    points_per_batch = checked_integer(points_per_batch, "points_per_batch", 1)
    crop_n_layers = checked_integer(crop_n_layers, "crop_n_layers", 0)
    crop_nms_thresh = checked_number(crop_nms_thresh, "crop_nms_thresh")
    min_mask_region_area = checked_integer(min_mask_region_area, "min_mask_region_area", 0)
    stability_score_offset = checked_number(stability_score_offset, "stability_score_offset")
    thresholds = _thresholds(
        sam,
        pred_iou_thresh=pred_iou_thresh,
        stability_score_thresh=stability_score_thresh,
        box_nms_thresh=box_nms_thresh,
    )
    image = load_image(image)
    size = (image.shape[0], image.shape[1])
    crops = _crops(sam, size, crop_n_layers, crop_overlap_ratio)
    grids = _grids(points_per_side, point_grids, crop_n_layers, crop_n_points_downscale_factor)
    candidates: list[_Candidate] = []
    with tqdm(total=sum(len(grids[layer]) for _, layer in crops), unit="click") as bar:
        for crop, layer in crops:
            x0, y0, x1, y1 = crop
            embedding = sam.encode(image[y0:y1, x0:x1])
            in_crop = []
            for point, masks in _decode_grid(sam, embedding, grids[layer], points_per_batch, bar):
                for index in _worth_upscaling(embedding, masks, thresholds, stability_score_offset):
                    candidate = _candidate(masks, index, point, crop=crop, size=size, offset=stability_score_offset)
                    if candidate is not None:
                        in_crop.append(candidate)
            candidates += select(in_crop, **vars(thresholds))
    if len(crops) > 1:
        smallness = [1 / (candidate["crop_box"][2] * candidate["crop_box"][3]) for candidate in candidates]
        candidates = _non_max_suppression(candidates, smallness, crop_nms_thresh)
    if min_mask_region_area > 0:
        unchanged = [_remove_small_regions(candidate, size, min_mask_region_area) for candidate in candidates]
        candidates = _non_max_suppression(candidates, unchanged, max(thresholds.box_nms_thresh, crop_nms_thresh))
    return [_record(candidate, size, output_mode) for candidate in candidates]


def select(
    records: Sequence[AnyScored],
    *,
    pred_iou_thresh: float = 0.0,
    stability_score_thresh: float = 0.0,
    box_nms_thresh: float = 1.0,
) -> list[AnyScored]:
    """Return the records that stricter thresholds leave, the highest predicted IoU first, without decoding again.

    Parameters
    ----------
    records : list of dict
        From `segment_everything` with looser thresholds; all that there are with ``pred_iou_thresh=0,
        stability_score_thresh=0, box_nms_thresh=1``.
    pred_iou_thresh, stability_score_thresh, box_nms_thresh : float
        As in `segment_everything`. Default: every record stays.

    Returns
    -------
    list of dict
        What `segment_everything` returns with these thresholds, without crops and `min_mask_region_area`.

    Raises
    ------
    ValueError
        A threshold is not a finite number.
    """
    pred_iou_thresh = checked_number(pred_iou_thresh, "pred_iou_thresh")
    stability_score_thresh = checked_number(stability_score_thresh, "stability_score_thresh")
    box_nms_thresh = checked_number(box_nms_thresh, "box_nms_thresh")
    left = [
        record
        for record in records
        if (record["predicted_iou"] > pred_iou_thresh or pred_iou_thresh <= 0)
        and not record["stability_score"] < stability_score_thresh
    ]
    return _non_max_suppression(left, [record["predicted_iou"] for record in left], box_nms_thresh)


def _grids(
    points_per_side: int | None,
    point_grids: Sequence[npt.ArrayLike] | None,
    crop_n_layers: int,
    crop_n_points_downscale_factor: int,
) -> list[npt.NDArray[np.float64]]:
    """Return the clicks of each layer, Nx2 in shares of width and height."""
    if (points_per_side is None) == (point_grids is None):
        raise ValueError("give points_per_side or point_grids, and None for the other")
    if point_grids is None:
        per_side = checked_integer(points_per_side, "points_per_side", 1)
        factor = checked_integer(crop_n_points_downscale_factor, "crop_n_points_downscale_factor", 1)
        if per_side < factor**crop_n_layers:
            raise ValueError(
                f"crop_n_points_downscale_factor: with {factor} the grid of layer {crop_n_layers} has no click left of "
                f"{per_side} a side; expected a smaller factor, more points_per_side or fewer crop_n_layers"
            )
        return amg.build_all_layer_point_grids(per_side, crop_n_layers, factor)
    count = len(point_grids) if isinstance(point_grids, Sequence | np.ndarray) else type(point_grids).__name__
    if count != 1 + crop_n_layers:
        raise ValueError(
            "point_grids: expected a list of one grid for the image and one for each layer of crops, "
            f"{1 + crop_n_layers}, got {count}"
        )
    return [_grid(grid, f"point_grids[{number}]") for number, grid in enumerate(point_grids)]


def _grid(given: npt.ArrayLike, name: str) -> npt.NDArray[np.float64]:
    """Return the clicks of a layer, Nx2 in shares of width and height, checked."""
    try:
        grid = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected numbers, Nx2, in shares of width and height") from error
    if grid.ndim != 2 or grid.shape[1] != 2 or not len(grid):
        raise ValueError(f"{name}: expected Nx2, got the shape {grid.shape}; a single grid goes into a list, [grid]")
    if not ((grid >= 0) & (grid <= 1)).all():
        raise ValueError(
            f"{name}: expected shares of width and height, 0 to 1, got values from {grid.min():g} to {grid.max():g}; "
            "divide pixels by the image's width and height"
        )
    return grid


def _crops(sam: Sam, size: tuple[int, int], layers: int, overlap_ratio: float) -> list[tuple[list[int], int]]:
    """Return the boxes (x0, y0, x1, y1) of the image and its crops, each with its layer, checked before any work."""
    if not 0 <= checked_number(overlap_ratio, "crop_overlap_ratio") < 1:
        raise ValueError(f"crop_overlap_ratio: expected a share from 0 to less than 1, got {overlap_ratio!r}")
    # A layer halves the sides; millions of crops without a pixel are not even listed.
    if layers < min(size).bit_length():
        crops = list(zip(*amg.generate_crop_boxes(size, layers, overlap_ratio), strict=True))
        if all(x0 < x1 and y0 < y1 for (x0, y0, x1, y1), _ in crops):
            for (x0, y0, x1, y1), _ in crops:
                fitted_size(y1 - y0, x1 - x0, sam.side)  # raises where a crop is too thin
            return crops
    height, width = size
    raise ValueError(
        f"crop_n_layers: an image of {width}x{height} is too small for {layers} layers of crops; use fewer"
    )


def _thresholds(sam: Sam, **given: float | None) -> Thresholds:
    """Return the given thresholds, and the model's own for those that are None."""
    checked = {name: checked_number(value, name) for name, value in given.items() if value is not None}
    return replace(sam.thresholds, **checked)


def _decode_grid(
    sam: Sam, embedding: Embedding, grid: npt.NDArray[np.float64], points_per_batch: int, bar: "tqdm[None]"
) -> Iterator[tuple[npt.NDArray[np.float64], Masks]]:
    """Yield each click, 2 pixels of the embedded image, with its three masks; the bar moves by batches."""
    points = grid * embedding.original_size[::-1]
    for start in range(0, len(points), points_per_batch):
        batch = points[start : start + points_per_batch]
        prompts = [Prompt(points=point[None]) for point in batch]
        yield from zip(batch, sam.decode_batch(embedding, prompts, multimask_output=True), strict=True)
        bar.update(len(batch))


def _worth_upscaling(embedding: Embedding, masks: Masks, thresholds: Thresholds, offset: float) -> Iterator[int]:
    """Yield the indices of masks that may pass the thresholds, judged by their low-res logits."""
    # The rest of the square is padding.
    side, low_res = max(embedding.input_size), masks.logits.shape[-2:]
    inside = tuple(slice(round(n * length / side)) for n, length in zip(embedding.input_size, low_res, strict=True))
    passing = (masks.scores > thresholds.pred_iou_thresh) | (thresholds.pred_iou_thresh <= 0)
    for index in np.flatnonzero(passing):
        if not stability_score(masks.logits[index][inside], offset) < thresholds.stability_score_thresh - MARGIN:
            yield int(index)


def stability_score(logits: npt.NDArray[np.float32], offset: float) -> float:
    """Return the IoU of the masks at a higher and a lower threshold; nan where both are empty, as upstream."""
    high = np.count_nonzero(logits > MASK_THRESHOLD + offset)
    low = np.count_nonzero(logits > MASK_THRESHOLD - offset)
    return high / low if low else float("nan")


def _candidate(
    masks: Masks,
    index: int,
    point: npt.NDArray[np.float64],
    *,
    crop: list[int],
    size: tuple[int, int],
    offset: float,
) -> _Candidate | None:
    """Return one mask of a crop with its measures, or None if it reaches the crop's edge inside the image."""
    logits = masks.upscale(index)
    mask = logits > MASK_THRESHOLD
    box = _box(mask)
    (x0, y0, x1, y1), (height, width) = crop, size
    if amg.is_box_near_crop_edge(torch.tensor([box]), crop, [0, 0, width, height]).item():
        return None
    whole = np.zeros(size, dtype=bool)
    whole[y0:y1, x0:x1] = mask
    return {
        "runs": _encode_runs(whole),
        "area": int(np.count_nonzero(mask)),
        "bbox": [box[0] + x0, box[1] + y0, box[2] - box[0], box[3] - box[1]],
        "predicted_iou": float(masks.scores[index]),
        "point_coords": [[float(point[0] + x0), float(point[1] + y0)]],
        "stability_score": float(stability_score(logits, offset)),
        "crop_box": [x0, y0, x1 - x0, y1 - y0],
    }


def _box(mask: npt.NDArray[np.bool_]) -> list[int]:
    """Return the box (x0, y0, x1, y1) around a mask as upstream counts: x1 and y1 are the last pixel, not one past."""
    x0, y0, x1, y1 = map(int, bounding_box(mask))
    return [x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)]


def _non_max_suppression(records: Sequence[AnyScored], scores: Sequence[float], threshold: float) -> list[AnyScored]:
    """Return the records without those whose box nearly equals that of a higher-scoring one, highest scores first."""
    if not records:
        return []
    boxes = torch.tensor([record["bbox"] for record in records], dtype=torch.float32)
    boxes[:, 2:] += boxes[:, :2]
    kept = batched_nms(boxes, torch.tensor(scores, dtype=torch.float32), torch.zeros(len(boxes)), threshold)
    return [records[index] for index in kept.tolist()]


def _remove_small_regions(candidate: _Candidate, size: tuple[int, int], min_area: int) -> float:
    """Fill a mask's small holes and remove its small islands, in place; return 1 if there were none, else 0."""
    mask, filled = amg.remove_small_regions(_decode_runs(candidate["runs"], size), min_area, mode="holes")
    mask, removed = amg.remove_small_regions(mask, min_area, mode="islands")
    if filled or removed:
        x0, y0, x1, y1 = _box(mask)
        candidate["runs"] = _encode_runs(mask)
        candidate["bbox"] = [x0, y0, x1 - x0, y1 - y0]
        candidate["area"] = int(np.count_nonzero(mask))
    return float(not (filled or removed))


def _encode_runs(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Return the lengths of a mask's runs, column by column, starting with False."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(changes, prepend=0, append=flat.size)
    return np.concatenate([[0], runs] if flat[0] else [runs]).astype(np.int32)


def _decode_runs(runs: npt.NDArray[np.int32], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return the mask, HxW bool."""
    height, width = size
    return np.ascontiguousarray(np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T)


def _record(candidate: _Candidate, size: tuple[int, int], output_mode: str) -> Record:
    """Return the record with its mask in the form of `output_mode`."""
    segmentation: npt.NDArray[np.bool_] | RunLengths
    if output_mode == "binary_mask":
        segmentation = _decode_runs(candidate["runs"], size)
    else:
        segmentation = {"size": list(size), "counts": candidate["runs"].tolist()}
        if output_mode == "coco_rle":
            segmentation = amg.coco_encode_rle(segmentation)
    return {
        "segmentation": segmentation,
        "area": candidate["area"],
        "bbox": candidate["bbox"],
        "predicted_iou": candidate["predicted_iou"],
        "point_coords": candidate["point_coords"],
        "stability_score": candidate["stability_score"],
        "crop_box": candidate["crop_box"],
    }
