"""Everything-mode: a grid of clicks over the picture, and of all the answers those that are worth keeping.

The parameters, the records and the order of the filters are those of `segment_anything.SamAutomaticMaskGenerator`. What
differs is when masks are brought to the size of the picture: upstream does it with all three of every click, and keeps
some; here what can be refused is refused on the low-res logits, and the rest is enlarged one by one.
"""

import numpy as np
import torch
from pycocotools import mask as rle
from torchvision.ops import batched_nms
from tqdm.auto import tqdm

from sam_nb.images import load_image
from sam_nb.masks import MASK_THRESHOLD, bounding_box
from sam_nb.model.upstream import amg
from sam_nb.prompts import Prompt

OUTPUT_MODES = ("binary_mask", "uncompressed_rle", "coco_rle")
MARGIN = 0.05  # by which stability on low-res logits may miss the threshold, being a little off that of the full size


def segment_everything(
    sam,
    image,
    *,
    points_per_side=32,
    points_per_batch=64,
    pred_iou_thresh=0.88,
    stability_score_thresh=0.95,
    stability_score_offset=1.0,
    box_nms_thresh=0.7,
    crop_n_layers=0,
    crop_nms_thresh=0.7,
    crop_overlap_ratio=512 / 1500,
    crop_n_points_downscale_factor=1,
    point_grids=None,
    min_mask_region_area=0,
    output_mode="binary_mask",
):
    """Return masks of everything in a picture, with a progress bar.

    Parameters
    ----------
    sam : Sam
    image : HxWx3 numpy.ndarray of uint8, RGB
        Or anything else that `load_image` takes.
    points_per_side : int, or None
        Clicks along each side of the grid.
    points_per_batch : int
        Clicks that are answered before the progress bar moves.
    pred_iou_thresh : float
        Predicted IoU that a mask must exceed. The default is made for Meta's models; `lite` is less sure of itself:
        take 0.4, and 0.6 for its stability.
    stability_score_thresh, stability_score_offset : float
        The mask must hardly change when its logits are cut this much higher or lower: the IoU of the two.
    box_nms_thresh, crop_nms_thresh : float
        Of two masks whose boxes overlap more than this (IoU) the better-scored stays; among crops, that of the smaller.
    crop_n_layers : int
        How many times the picture is cut into smaller crops (4, then 16 ...), which are searched as well.
    crop_overlap_ratio : float
        Overlap of the first layer's crops, share of the picture's shorter side.
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
        ``segmentation`` (HxW bool, or a run-length code), ``area``, ``bbox`` (x, y, width, height), ``predicted_iou``,
        ``point_coords``, ``stability_score``, ``crop_box``: the records of `SamAutomaticMaskGenerator`.

    Raises
    ------
    ValueError
        An unknown output mode; both or neither of `points_per_side` and `point_grids`; too few grids for the layers.
    """
    if output_mode not in OUTPUT_MODES:
        raise ValueError(f"no output_mode {output_mode!r}: expected one of {', '.join(OUTPUT_MODES)}")
    if (points_per_side is None) == (point_grids is None):
        raise ValueError("give points_per_side or point_grids, and None for the other")
    grids = point_grids or amg.build_all_layer_point_grids(
        points_per_side, crop_n_layers, crop_n_points_downscale_factor
    )
    if len(grids) <= crop_n_layers:
        raise ValueError(f"point_grids: expected one for the picture and one for each layer of crops, got {len(grids)}")
    image = load_image(image)
    size = image.shape[:2]
    crops = list(zip(*amg.generate_crop_boxes(size, crop_n_layers, crop_overlap_ratio), strict=True))
    records = []
    with tqdm(total=sum(len(grids[layer]) for _, layer in crops), unit="click") as bar:
        for crop, layer in crops:
            x0, y0, x1, y1 = crop
            part = image[y0:y1, x0:x1]
            embedding = sam.encode(part)
            found = []
            points = np.asarray(grids[layer]) * part.shape[1::-1]
            for point, masks in _answers(sam, embedding, points, points_per_batch, bar):
                inside = _share_of_square(embedding, masks.logits.shape[-2:])
                for index in np.flatnonzero((masks.scores > pred_iou_thresh) | (pred_iou_thresh <= 0)):
                    low = masks.logits[index][inside]
                    if _stability(low, stability_score_offset) < stability_score_thresh - MARGIN:
                        continue
                    record = _record(masks, index, point, crop=crop, size=size, offset=stability_score_offset)
                    if record is not None:
                        found.append(record)
            records += select(
                found,
                pred_iou_thresh=pred_iou_thresh,
                stability_score_thresh=stability_score_thresh,
                box_nms_thresh=box_nms_thresh,
            )
    if len(crops) > 1:
        smallness = [1 / (record["crop_box"][2] * record["crop_box"][3]) for record in records]
        records = _non_max_suppression(records, smallness, crop_nms_thresh)
    if min_mask_region_area > 0:
        records = _tidied(records, min_mask_region_area, max(box_nms_thresh, crop_nms_thresh))
    for record in records:
        record["segmentation"] = _encoded(record["segmentation"], output_mode)
    return records


def select(records, *, pred_iou_thresh=0.88, stability_score_thresh=0.95, box_nms_thresh=0.7):
    """Return the records that stricter thresholds leave, best first, without decoding anything again.

    Parameters
    ----------
    records : list of dict
        From `segment_everything` with looser thresholds; all that there is with ``pred_iou_thresh=0,
        stability_score_thresh=0, box_nms_thresh=1``.
    pred_iou_thresh, stability_score_thresh, box_nms_thresh : float
        As in `segment_everything`.

    Returns
    -------
    list of dict
        What `segment_everything` with these thresholds would have returned, if it searched no crops and tidied nothing.
    """
    left = [
        record
        for record in records
        if (record["predicted_iou"] > pred_iou_thresh or pred_iou_thresh <= 0)
        and not record["stability_score"] < stability_score_thresh
    ]
    return _non_max_suppression(left, [record["predicted_iou"] for record in left], box_nms_thresh)


def _answers(sam, embedding, points, points_per_batch, bar):
    """Yield every point, Nx2 pixels of the embedded picture, with its three masks; the bar moves by batches."""
    for start in range(0, len(points), points_per_batch):
        batch = points[start : start + points_per_batch]
        prompts = [Prompt(points=[point]) for point in batch]
        yield from zip(batch, sam.decode_batch(embedding, prompts, multimask_output=True), strict=True)
        bar.update(len(batch))


def _share_of_square(embedding, low_res):
    """Return the slices of low-res logits that lie on the picture; the rest of the square is padding."""
    side = max(embedding.input_size)
    return tuple(slice(round(n * length / side)) for n, length in zip(embedding.input_size, low_res, strict=True))


def _stability(logits, offset):
    """Return the IoU of the masks that a higher and a lower threshold cut; nan where both are empty, as upstream."""
    high = np.count_nonzero(logits > MASK_THRESHOLD + offset)
    low = np.count_nonzero(logits > MASK_THRESHOLD - offset)
    return high / low if low else np.nan


def _record(masks, index, point, *, crop, size, offset):
    """Return what is known about a mask of a crop, or None if it reaches the crop's edge inside the picture."""
    logits = masks.upscale(index)
    mask = logits > MASK_THRESHOLD
    box = _box(mask)
    (x0, y0, x1, y1), (height, width) = crop, size
    if amg.is_box_near_crop_edge(torch.tensor([box]), crop, [0, 0, width, height]).item():
        return None
    whole = np.zeros(size, dtype=np.uint8, order="F")
    whole[y0:y1, x0:x1] = mask
    return {
        "segmentation": rle.encode(whole),
        "area": int(np.count_nonzero(mask)),
        "bbox": [box[0] + x0, box[1] + y0, box[2] - box[0], box[3] - box[1]],
        "predicted_iou": float(masks.scores[index]),
        "point_coords": [[float(point[0] + x0), float(point[1] + y0)]],
        "stability_score": float(_stability(logits, offset)),
        "crop_box": [x0, y0, x1 - x0, y1 - y0],
    }


def _box(mask):
    """Return the box (x0, y0, x1, y1) around a mask as upstream counts: x1 and y1 are the last pixel, not one past."""
    x0, y0, x1, y1 = map(int, bounding_box(mask))
    return [x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)]


def _non_max_suppression(records, scores, threshold):
    """Return the records without those whose box nearly equals that of a better-scored one, best first."""
    if not records:
        return []
    boxes = torch.tensor([record["bbox"] for record in records], dtype=torch.float32)
    boxes[:, 2:] += boxes[:, :2]
    scores = torch.tensor(scores, dtype=torch.float32)
    kept = batched_nms(boxes, scores, torch.zeros(len(boxes)), threshold)
    return [records[index] for index in kept.tolist()]


def _tidied(records, least, threshold):
    """Return the records with small holes filled and small islands removed; of new doubles untouched masks stay."""
    untouched = []
    for record in records:
        mask, filled = amg.remove_small_regions(rle.decode(record["segmentation"]).astype(bool), least, mode="holes")
        mask, removed = amg.remove_small_regions(mask, least, mode="islands")
        untouched.append(float(not (filled or removed)))
        if filled or removed:
            x0, y0, x1, y1 = _box(mask)
            record["segmentation"] = rle.encode(np.asfortranarray(mask, dtype=np.uint8))
            record["bbox"] = [x0, y0, x1 - x0, y1 - y0]
            record["area"] = int(np.count_nonzero(mask))
    return _non_max_suppression(records, untouched, threshold)


def _encoded(code, output_mode):
    """Return a mask, kept as pycocotools' code, in the form that was asked for."""
    if output_mode == "coco_rle":
        return code | {"counts": code["counts"].decode("ascii")}
    mask = rle.decode(code).astype(bool)
    return mask if output_mode == "binary_mask" else amg.mask_to_rle_pytorch(torch.from_numpy(mask[None]))[0]
