"""What `lite` is measured on: sets of cases, each one object to segment in one image.

Compositions of held-out objects over held-out backgrounds, from a fixed seed; photographs whose outlines were drawn by
hand for this project; and annotated photographs of many sources that training never sees (`training.photos`).
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from sam_nb.clicks import innermost
from sam_nb.ground_truth import outlined_masks
from sam_nb.masks import bounding_box
from training.photos import HELD_OUT, PhotoPack, part_targets, region_mask
from training.scenes import MIN_OBJECT, Composer, is_target
from training.sources import SourcePack

COMPOSED_SIDE = 512  # pixels of a composition's long side: whatever the network's input, the cases stay the same
PHOTOGRAPHS = {"held_out": "held-out photographs", "train": "training photographs"}  # title of the set, by split
PART_EVERY = 3  # every third case of a source is a part, where the source has parts


@dataclass(frozen=True)
class Case:
    """One object to segment in one image.

    Attributes
    ----------
    name : str
        Its own within the set.
    kind : {"object", "part", "rest", "group"}
        As in `training.scenes.Target`.
    source : str
        Where the image is from.
    ground_truth : HxW numpy.ndarray of bool
    box : 4 numpy.ndarray of float32
        The tightest (x0, y0, x1, y1) around what a box is drawn around, in pixels.
    negative : (float, float), or None
        The negative click that goes with the box, where the object is only a part of what the box holds.
    """

    name: str
    kind: str
    source: str
    ground_truth: npt.NDArray[np.bool_]
    box: npt.NDArray[np.float32]
    negative: tuple[float, float] | None = None


@dataclass(frozen=True)
class CaseSet:
    """Cases that are summarised together.

    Attributes
    ----------
    title : str
    images : iterable of (HxWx3 numpy.ndarray of uint8, list of Case)
        To go through once.
    count : int
        How many images.
    by_source : bool
        Whether a measure of the set is the mean over its sources of the mean over each source's cases, so that a
        source with many objects does not dominate; else it is the mean over all cases.
    """

    title: str
    images: Iterable[tuple[npt.NDArray[np.uint8], list[Case]]]
    count: int
    by_source: bool = False


def tight_box(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Return the tightest box around a mask, HxW bool, as a prompt takes it: 4 float32."""
    return np.array(bounding_box(mask), np.float32)


def compositions(pack: SourcePack, scenes: int, seed: int, per_scene: int = 3) -> CaseSet:
    """Return the set of `scenes` held-out compositions, each with at most `per_scene` cases."""

    def compose() -> Iterator[tuple[npt.NDArray[np.uint8], list[Case]]]:
        composer = Composer(pack, COMPOSED_SIDE)
        for number in range(scenes):
            rng = np.random.default_rng([seed, number])
            scene = composer.compose(rng)
            cases = []
            for row, target in enumerate(scene.draw(per_scene, rng)):
                negative = None if target.excluded is None else innermost(target.excluded)
                box = tight_box(target.region)
                cases.append(Case(f"{number}-{row}", target.kind, "composed", target.mask, box, negative))
            yield scene.image, cases

    return CaseSet("held-out compositions", compose(), scenes)


def outlined_photographs(entries: list[dict], folders: dict[str, Path]) -> CaseSet:
    """Return the set of photographs with hand-drawn ground truth.

    Parameters
    ----------
    entries : list of dict
        From `sam_nb.ground_truth.read_outlines`.
    folders : dict of str to pathlib.Path
        Where the photographs of each source are.

    Raises
    ------
    FileNotFoundError, ValueError
        While its images are gone through: a photograph is missing, or has another size than its outlines.
    """

    def read() -> Iterator[tuple[npt.NDArray[np.uint8], list[Case]]]:
        for entry in entries:
            path = folders[entry["source"]] / entry["file"]
            image = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if image is None:
                raise FileNotFoundError(f"{path} is missing: install {entry['source']}, or name its folder")
            if image.shape[:2] != (entry["height"], entry["width"]):
                raise ValueError(
                    f"{path}: expected {entry['width']}x{entry['height']} pixels, which the outlines were drawn on, "
                    f"got {image.shape[1]}x{image.shape[0]}; take the version of "
                    f"{entry['source']} in training/ground_truth"
                )
            masks = outlined_masks(entry)
            cases = []
            for outlined in entry["objects"]:
                mask = masks[outlined["name"]]
                name = f"{path.stem}: {outlined['name']}"
                cases.append(Case(name, outlined["kind"], entry["source"], mask, tight_box(mask)))
            yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB), cases

    return CaseSet("photographs", read(), len(entries))


def annotated_photographs(pack: PhotoPack, max_count: int, seed: int) -> CaseSet:
    """Return the set of the annotated photographs of a pack's split, uncropped.

    Parameters
    ----------
    pack : training.photos.PhotoPack
    max_count : int
        Cases of a source. See `choose`.
    seed : int

    Raises
    ------
    ValueError
        The pack has no photograph with a target.
    """
    title = PHOTOGRAPHS[pack.split]
    chosen = choose(pack, max_count, seed)
    if not chosen:
        named = "names" if pack.split == "held_out" else "does not name"
        raise ValueError(
            f"no {title}: expected some that {HELD_OUT.name} {named}, got {len(pack.photographs)} of the "
            "split without a target; take the packs that the list was made from"
        )

    def read() -> Iterator[tuple[npt.NDArray[np.uint8], list[Case]]]:
        for number, names in sorted(chosen.items()):
            image, cases = candidates(pack, number, seed)
            yield image, [case for case in cases if case.name in names]

    return CaseSet(title, read(), len(chosen), by_source=True)


def candidates(pack: PhotoPack, number: int, seed: int) -> tuple[npt.NDArray[np.uint8], list[Case]]:
    """Return all cases that a photograph can give: whole objects, and connected components of parts.

    Parameters
    ----------
    pack : training.photos.PhotoPack
    number : int
        The photograph's place in `pack.photographs`.
    seed : int

    Returns
    -------
    HxWx3 numpy.ndarray of uint8
        The photograph.
    list of Case
        In a random order that depends on the seed and the photograph's name alone, so other photographs change nothing.
    """
    image, labels = pack.read(number)
    photograph = pack.photographs[number]
    rng = np.random.default_rng([seed, _hash(photograph.name)])
    cases = []
    for place, annotated in enumerate(photograph.objects):
        whole = region_mask(labels, annotated["regions"])
        if not is_target(whole, MIN_OBJECT):
            continue
        name = f"{photograph.name}: object {place}"
        cases.append(Case(name, "object", photograph.source, whole, tight_box(whole)))
        for part, regions in enumerate(annotated["parts"]):
            targets = part_targets(region_mask(labels, regions), whole, rng)
            masks = [target.mask for target in targets if target.kind == "part"]
            cases += [
                Case(f"{name}, part {part}, component {row}", "part", photograph.source, mask, tight_box(mask))
                for row, mask in enumerate(masks)
            ]
    return image, [cases[row] for row in rng.permutation(len(cases))]


def choose(pack: PhotoPack, max_count: int, seed: int) -> dict[int, set[str]]:
    """Choose at most `max_count` cases of every source, from every photograph once before any is taken twice.

    About a third of a source's cases are parts, where it has enough of them.

    Returns
    -------
    dict of int to set of str
        Names of the chosen cases, by the photograph's place in `pack.photographs`.
    """
    by_source = defaultdict(list)
    for number, photograph in enumerate(pack.photographs):
        by_source[photograph.source].append(number)
    chosen = defaultdict(set)
    for numbers in by_source.values():
        left = {}  # names of the cases that are not taken yet, by photograph and kind
        taken = Counter()
        # Shuffled by a hash of the names, so that one photograph more changes nothing for the others.
        waiting = sorted(numbers, key=lambda number: _hash(f"{seed} {pack.photographs[number].name}"))
        while waiting and taken.total() < max_count:
            for number in list(waiting):
                if taken.total() == max_count:
                    break
                if number not in left:
                    left[number] = {"object": [], "part": []}
                    for case in candidates(pack, number, seed)[1]:
                        left[number][case.kind].append(case.name)
                kind = _next_kind(left[number], taken, max_count)
                if kind is None:
                    waiting.remove(number)
                    continue
                chosen[number].add(left[number][kind].pop())
                taken[kind] += 1
    return dict(chosen)


def _next_kind(left: dict[str, list[str]], taken: Counter, max_count: int) -> str | None:
    """Return the kind of a source's next case, out of what is left in a photograph, or None where nothing is."""
    parts = left["part"] if taken["part"] < max_count // PART_EVERY else []
    part_is_due = taken["part"] < (taken.total() + 1) // PART_EVERY
    if parts and (part_is_due or not left["object"]):
        return "part"
    return "object" if left["object"] else None


def _hash(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)
