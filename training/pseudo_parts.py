"""Parts that nobody annotated, found by a model: ``python -m training.pseudo_parts PACK ... --out PACK``.

Few photographs have their small parts annotated (an eye, a nose, a shoe), so a network learns that a click on one means
the whole. A trained `lite` finds such parts in a crop of an object, where they are larger; those that stand out from
what is around them become parts of the object, in a copy of the pack.
"""

import argparse
import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from sam_nb import Prompt, bounding_box, iou, load_sam
from sam_nb.model.everything import stability_score
from sam_nb.model.sam import Sam
from training.photos import PhotoPack, region_mask

SOURCES = ("openimages", "coco", "ccp")  # animals, people, everyday objects
MAX_OBJECTS, MAX_PARTS = 4, 5  # looked at in a photograph, kept of an object
MIN_OBJECT, MIN_PART = 3000, 120  # pixels
MAX_SHARE = 0.16  # of the object
MAX_CLICKS = 14
MIN_CONTRAST = 20  # CIE Lab, between the part's border and what is around it
STABILITY_OFFSET = 1.5  # of the logits
MIN_SOLIDITY, MIN_STABILITY, MIN_SCORE = 0.8, 0.7, 0.45

Mask = npt.NDArray[np.bool_]


def find_parts(sam: Sam, image: npt.NDArray[np.uint8], whole: Mask) -> list[Mask]:
    """Return parts of an object that stand out, at most `MAX_PARTS`, HxW bool each.

    Parameters
    ----------
    sam : Sam
    image : HxWx3 numpy.ndarray of uint8, RGB
    whole : HxW numpy.ndarray of bool
        The object.
    """
    if np.count_nonzero(whole) < MIN_OBJECT:
        return []
    left, top, right, bottom = bounding_box(whole)
    margin = int(0.06 * max(right - left, bottom - top))
    window = (slice(max(0, top - margin), bottom + margin), slice(max(0, left - margin), right + margin))
    crop, inside = np.ascontiguousarray(image[window]), whole[window]
    lab = cv2.cvtColor(crop, cv2.COLOR_RGB2LAB).astype(np.float32)
    clicks = _conspicuous(lab, inside)
    if not clicks:
        return []
    found = []
    prompts = [Prompt(points=[click]) for click in clicks]
    for masks in sam.decode_batch(sam.encode(crop), prompts, multimask_output=True):
        for index in range(len(masks)):
            logits, score = masks.logits[index], masks.scores[index]
            stability = stability_score(logits, STABILITY_OFFSET)
            # A mask is upscaled only after the tests that need none.
            if stability < MIN_STABILITY or score < MIN_SCORE or not _is_compact(masks.mask(index), inside):
                continue
            contrast = _contrast(lab, masks.mask(index))
            if contrast >= MIN_CONTRAST:
                found.append((contrast * stability * score, masks.mask(index)))
    kept: list[Mask] = []
    for _, mask in sorted(found, key=lambda pair: -pair[0]):
        if len(kept) < MAX_PARTS and all(iou(mask, other) < 0.5 for other in kept):
            kept.append(mask)
    return [_placed(mask, window, whole.shape) for mask in kept]


def _conspicuous(lab: npt.NDArray[np.float32], inside: Mask) -> list[tuple[float, float]]:
    """Return the pixels (x, y) of an object whose colour differs most from what is around them."""
    side = max(inside.shape)
    near, far = (cv2.GaussianBlur(lab, (0, 0), max(least, share * side)) for least, share in ((2, 0.012), (6, 0.06)))
    depth = cv2.distanceTransform(np.pad(inside.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    difference = np.where(depth < 0.02 * side, 0, np.linalg.norm(near - far, axis=2)).astype(np.float32)
    points = []
    for _ in range(MAX_CLICKS):
        y, x = np.unravel_index(difference.argmax(), difference.shape)
        if difference[y, x] <= 4:
            break
        points.append((float(x), float(y)))
        cv2.circle(difference, (int(x), int(y)), max(4, int(0.035 * side)), 0, -1)
    return points


def _is_compact(mask: Mask, inside: Mask) -> bool:
    """Tell whether a mask is a small part of the object, in one connected component without deep bays."""
    area = np.count_nonzero(mask)
    if not MIN_PART <= area <= MAX_SHARE * np.count_nonzero(inside) or np.count_nonzero(mask & inside) < 0.97 * area:
        return False
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = cv2.contourArea(cv2.convexHull(np.concatenate(contours)))
    return bool(stats[1:, cv2.CC_STAT_AREA].max() >= 0.95 * area and area >= MIN_SOLIDITY * hull)


def _contrast(lab: npt.NDArray[np.float32], mask: Mask) -> float:
    """Return how far apart the mean colours on both sides of a mask's border are."""
    reach = max(2, int(0.12 * np.count_nonzero(mask) ** 0.5))
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    grown, shrunk = (change(mask.astype(np.uint8), kernel) > 0 for change in (cv2.dilate, cv2.erode))
    if not (grown & ~mask).any():
        return 0.0
    return float(np.linalg.norm(lab[mask & ~shrunk].mean(0) - lab[grown & ~mask].mean(0)))


def _placed(mask: Mask, window: tuple[slice, slice], shape: tuple[int, ...]) -> Mask:
    whole = np.zeros(shape, bool)
    whole[window] = mask
    return whole


def add_parts(labels: npt.NDArray[np.integer], objects: list[dict], found: dict[int, list[Mask]]) -> np.ndarray:
    """Make masks parts of their objects: regions are split so that they stay disjoint.

    Parameters
    ----------
    labels : HxW numpy.ndarray of uint8 or uint16
    objects : list of dict
        With "regions" and "parts", as in `training.photos.Photograph`; changed in place.
    found : dict of int to list of HxW numpy.ndarray of bool
        By the object's place in the list.

    Returns
    -------
    HxW numpy.ndarray of uint16
        The new labels.
    """
    labels = labels.astype(np.uint16)
    for number, parts in found.items():
        for part in parts:
            regions = np.unique(labels[part & region_mask(labels, objects[number]["regions"])]).tolist()
            objects[number]["parts"].append([_split_off(labels, objects, region, part) for region in regions])
    return labels


def _split_off(labels: npt.NDArray[np.uint16], objects: list[dict], region: int, part: Mask) -> int:
    """Make what a part has of a region a region of its own, in place; return its number."""
    here = part & (labels == region)
    if here.sum() == (labels == region).sum():
        return region
    fresh = int(labels.max()) + 1
    labels[here] = fresh
    for one in objects:
        for group in (one["regions"], *one["parts"]):
            if region in group:
                group.append(fresh)
    return fresh


def main() -> None:
    """Write a pack with the parts that were found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("packs", nargs="+", type=Path)
    parser.add_argument("--weights", type=Path, help="of the model that finds them (default: the embedded ones)")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    sam = load_sam(None if arguments.weights else "lite", checkpoint=arguments.weights)
    pack, manifest = PhotoPack(arguments.packs, "train"), []
    with zipfile.ZipFile(arguments.out, "w") as out:
        for number, photograph in enumerate(tqdm(pack.photographs)):
            image, labels = pack.read(number)
            objects = json.loads(json.dumps(photograph.objects))
            if photograph.source in SOURCES:
                wholes = [region_mask(labels, one["regions"]) for one in objects[:MAX_OBJECTS]]
                labels = add_parts(labels, objects, {k: find_parts(sam, image, w) for k, w in enumerate(wholes)})
            out.writestr(photograph.name + ".jpg", pack.encoded_image(number))
            out.writestr(photograph.name + ".png", cv2.imencode(".png", labels)[1].tobytes())
            manifest.append({"name": photograph.name, "objects": objects})
        out.writestr("manifest.json", json.dumps(manifest))


if __name__ == "__main__":
    main()
