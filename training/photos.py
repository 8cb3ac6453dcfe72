"""Scenes from annotated photographs, beside the composed ones of `training.scenes`.

A pack is a zip of JPEG or WebP images, label PNGs that number disjoint regions of each, and `manifest.json`: a list of
photographs, each with a name and its objects; an object is the numbers of its regions, and those of every part of it.
The first part of a name is the source (`ccp/0002`). Sources and licences: README.md here.

Photographs that are held out are listed in `held_out.txt`, about a tenth of every source, whole scenes at a time
(`python -m training.photos split`).
"""

import argparse
import hashlib
import json
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from sam_nb.masks import bounding_box
from training.scenes import MIN_OBJECT, MIN_PART, Composer, Scene, Target, degrade, is_target, recolour

Labels: TypeAlias = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
Look: TypeAlias = tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]

HELD_OUT = Path(__file__).parent / "held_out.txt"
HELD_OUT_SHARE = 0.10

# Each photograph of these was taken by another person at another place: only near-duplicates go together.
# Of all other sources, neighbours by name were taken one after the other.
UNRELATED = {"ccp", "coco", "openimages"}
RUN = 4  # photographs taken one after the other that stay together

# How often a photograph is drawn from these; the others share the rest by the square root of their numbers, so that a
# source that repeats itself (pipes, book spines) does not dominate.
SHARES = {"ccp": 0.18, "coco": 0.26, "openimages": 0.18, "facade": 0.16}
RENDERED = 0.2  # scenes of `training.rendered` for each photograph, where its pack is given

AROUND_ONE = 0.35  # share of scenes that are cut out around one object
MIN_VISIBLE = 0.3  # share of an object that lies in a scene, for it to be a target
MAX_OBJECTS, MAX_PARTS = 8, 5  # of a scene, and of each of its objects: of sixty book spines a few will do
PASTED = 0.3  # share of the photographs onto which objects are pasted
MAX_JOINED = 2  # pairs of parts of an object that are targets
MAX_GAP = 5  # pixels between objects, or parts, that count as touching


@dataclass(frozen=True)
class Photograph:
    """One annotated photograph.

    Attributes
    ----------
    name : str
        Path in the pack, without suffix.
    objects : list of dict
        Each with "regions", a list of int, and "parts", a list of lists of int.
    """

    name: str
    objects: list[dict]

    @property
    def source(self) -> str:
        """The name of the data set."""
        return self.name.split("/")[0]


class PhotoPack:
    """Annotated photographs from packs, kept encoded in memory (so that forked workers share them).

    Parameters
    ----------
    paths : sequence of pathlib.Path
    split : {"train", "held_out"}

    Attributes
    ----------
    photographs : list of Photograph
    split : {"train", "held_out"}
    """

    def __init__(self, paths: Sequence[Path], split: str) -> None:
        self.split = split
        held_out = set(HELD_OUT.read_text().split())
        self.photographs: list[Photograph] = []
        self._content: list[tuple[bytes, bytes]] = []
        self._decoded: list[tuple[npt.NDArray[np.uint8], Labels]] = []
        for path in paths:
            with zipfile.ZipFile(path) as pack:
                suffix = _suffix(pack)
                for entry in json.loads(pack.read("manifest.json")):
                    name = entry["name"]
                    if (name in held_out) == (split == "held_out"):
                        self.photographs.append(Photograph(name, entry["objects"]))
                        self._content.append((pack.read(name + suffix), pack.read(name + ".png")))

    def decode_all(self, threads: int) -> None:
        """Keep everything decoded in memory from now on, about 1 MB a photograph, which forked workers share."""
        with ThreadPoolExecutor(threads) as pool:
            self._decoded = list(pool.map(self.read, range(len(self.photographs))))

    def read(self, number: int) -> tuple[npt.NDArray[np.uint8], Labels]:
        """Return a photograph by its place in `photographs`: image HxWx3 uint8 RGB, labels HxW uint8 or uint16."""
        if self._decoded:
            return self._decoded[number]
        image, labels = (np.frombuffer(content, np.uint8) for content in self._content[number])
        image = cv2.cvtColor(cv2.imdecode(image, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        return image, cv2.imdecode(labels, cv2.IMREAD_UNCHANGED)

    def encoded_image(self, number: int) -> bytes:
        """Return a photograph's JPEG or WebP file, as it is in its pack."""
        return self._content[number][0]


def _suffix(pack: zipfile.ZipFile) -> str:
    """Return the suffix of a pack's images, which is not that of its labels."""
    return ({Path(name).suffix for name in pack.namelist()} - {".json", ".png"}).pop()


class PhotoComposer:
    """Draws scenes from photographs: crops of any size, flipped, rotated, recoloured and degraded.

    Parameters
    ----------
    pack : PhotoPack
    side : int
        Length of the images' long side, pixels.
    """

    def __init__(self, pack: PhotoPack, side: int) -> None:
        self.pack = pack
        self.side = side
        self._by_source = defaultdict(list)
        for number, photograph in enumerate(pack.photographs):
            self._by_source[photograph.source].append(number)
        others = sorted(self._by_source.keys() - SHARES.keys() - {"rendered"})
        weights = {name: len(self._by_source[name]) ** 0.5 for name in others}
        shares = {name: share for name, share in SHARES.items() if name in self._by_source}
        rest = (1 - sum(shares.values())) / max(1e-9, sum(weights.values()))
        shares |= {name: rest * weight for name, weight in weights.items()}
        if "rendered" in self._by_source:
            shares["rendered"] = RENDERED * sum(shares.values()) if shares else 1.0
        self._names = sorted(shares)
        total = sum(shares.values())
        self._probabilities = [shares[name] / total for name in self._names]

    def compose(self, rng: np.random.Generator) -> Scene:
        """Return a `Scene` with at least one target; `rng` is the only source of randomness."""
        while True:
            numbers = self._by_source[self._names[rng.choice(len(self._names), p=self._probabilities)]]
            number = numbers[rng.integers(len(numbers))]
            scene = self._scene(number, rng)
            if scene is not None and scene.targets:
                return scene

    def _scene(self, number: int, rng: np.random.Generator) -> Scene | None:
        image, labels = self.pack.read(number)
        objects = self.pack.photographs[number].objects
        window = _window(labels, objects, rng)
        if window is None:
            return None
        areas = np.bincount(labels.ravel())  # of whole regions, in pixels of the photograph
        image, labels = image[window], labels[window]
        height, width = labels.shape
        # Mostly the scene fills the network's input; sometimes it is smaller, as a small photograph would be.
        scale = self.side / max(height, width) * (1 if rng.random() < 0.9 else rng.uniform(0.6, 1))
        stretched = width * scale * np.exp(rng.normal(0, 0.05))
        size = tuple(max(32, min(self.side, round(length))) for length in (stretched, height * scale))
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        image = cv2.resize(np.ascontiguousarray(image), size, interpolation=method)
        labels = cv2.resize(np.ascontiguousarray(labels), size, interpolation=cv2.INTER_NEAREST)
        if rng.random() < 0.5:
            image, labels = image[:, ::-1], labels[:, ::-1]
        if rng.random() < 0.1:
            turns = int(rng.integers(1, 4))
            image, labels = np.rot90(image, turns), np.rot90(labels, turns)
        image, labels = np.ascontiguousarray(image), np.ascontiguousarray(labels)
        if rng.random() < 0.6:
            image = recolour(image, rng)
        if rng.random() < 0.5:
            image = degrade(image.astype(np.float32), rng)
        areas = areas * (size[0] * size[1] / (height * width))
        return Scene(image, _targets(labels, objects, areas, rng))


def _window(labels: Labels, objects: list[dict], rng: np.random.Generator) -> tuple[slice, slice] | None:
    """Return the crop of a photograph, two slices, or None where it would be too small."""
    height, width = labels.shape
    if rng.random() < AROUND_ONE:
        mask = region_mask(labels, objects[rng.integers(len(objects))]["regions"])
        if np.count_nonzero(mask) < 50:
            return None
        left, top, right, bottom = bounding_box(mask)
        margins = np.exp(rng.uniform(np.log(0.02), np.log(1.2), 4)) * np.tile([right - left, bottom - top], 2)
        left, top = int(max(0, left - margins[0])), int(max(0, top - margins[1]))
        right, bottom = int(min(width, right + margins[2])), int(min(height, bottom + margins[3]))
    else:
        share = rng.uniform(0.45, 1) ** 0.5
        columns, rows = (int(length * share * rng.uniform(0.85, 1)) for length in (width, height))
        left, top = rng.integers(width - columns + 1), rng.integers(height - rows + 1)
        right, bottom = left + columns, top + rows
    if min(right - left, bottom - top) < 64:
        return None
    return slice(top, bottom), slice(left, right)


def region_mask(labels: Labels, regions: list[int]) -> npt.NDArray[np.bool_]:
    """Return where labels, HxW, have one of these numbers, HxW bool."""
    table = np.zeros(np.iinfo(labels.dtype).max + 1, bool)
    table[regions] = True
    return table[labels]


def _targets(
    labels: Labels, objects: list[dict], areas: npt.NDArray[np.float64], rng: np.random.Generator
) -> list[Target]:
    """List what a prompt may mean: objects, their parts, an object without a part, two objects that touch."""
    targets, wholes = [], []
    for annotated in (objects[number] for number in rng.permutation(len(objects))[:MAX_OBJECTS]):
        whole = region_mask(labels, annotated["regions"])
        known = [number for number in annotated["regions"] if number < len(areas)]
        if np.count_nonzero(whole) < MIN_VISIBLE * areas[known].sum() or not is_target(whole, MIN_OBJECT):
            continue
        targets.append(Target("object", whole, whole))
        wholes.append(whole)
        parts = []
        for regions in (annotated["parts"][number] for number in rng.permutation(len(annotated["parts"]))[:MAX_PARTS]):
            parts += part_targets(region_mask(labels, regions), whole, rng)
        targets += parts + _joined_parts([part.mask for part in parts if part.kind == "part"], whole)
    return targets + _group_targets(wholes)


def part_targets(part: npt.NDArray[np.bool_], whole: npt.NDArray[np.bool_], rng: np.random.Generator) -> list[Target]:
    """List the connected components of a part that a prompt may mean, and the whole without each of them."""
    targets = []
    area, of_whole = np.count_nonzero(part), np.count_nonzero(whole)
    if area < MIN_PART:
        return targets
    left, top, right, bottom = bounding_box(part)
    window = slice(top, bottom), slice(left, right)
    count, components, stats, _ = cv2.connectedComponentsWithStats(part[window].astype(np.uint8))
    for number in range(1, count):
        size = stats[number, cv2.CC_STAT_AREA]
        if size < MIN_PART or size > 0.9 * of_whole:
            continue
        component = np.zeros_like(part)
        component[window] = components == number
        # One sleeve of two: only the annotator knows that they belong together.
        if (count > 2 and size < 0.85 * area and rng.random() < 0.5) or not is_target(component, MIN_PART):
            continue
        targets.append(Target("part", component, component))
        rest = whole & ~component
        if size > 0.05 * of_whole and is_target(rest, MIN_OBJECT):
            targets.append(Target("rest", rest, whole, component))
    return targets


def _joined_parts(parts: list[npt.NDArray[np.bool_]], whole: npt.NDArray[np.bool_]) -> list[Target]:
    """List pairs of parts that touch each other, at most two: hair and face are a head."""
    joined = []
    for part, other in _touching(parts):
        both = part | other
        area, larger = np.count_nonzero(both), max(np.count_nonzero(part), np.count_nonzero(other))
        # Two of which one lies in the other are no pair, and nearly the whole is no part.
        if 1.1 * larger < area < 0.7 * np.count_nonzero(whole) and is_target(both, MIN_PART):
            joined.append(Target("part", both, both))
    return joined[:MAX_JOINED]


def _group_targets(wholes: list[npt.NDArray[np.bool_]]) -> list[Target]:
    """List pairs of objects that touch each other, at most three."""
    pairs = (mask | other for mask, other in _touching(wholes[:4]))
    return [Target("group", both, both) for both in pairs if is_target(both, MIN_OBJECT)][:3]


def _touching(masks: list[npt.NDArray[np.bool_]]) -> Iterator[tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]]:
    """Yield the pairs of masks with at most `MAX_GAP` pixels between them."""
    near = np.ones((MAX_GAP, MAX_GAP), np.uint8)
    for number, mask in enumerate(masks):
        grown = cv2.dilate(mask.astype(np.uint8), near) > 0
        for other in masks[number + 1 :]:
            if (grown & other).any():
                yield mask, other


class Mixed:
    """Scenes of photographs with one probability, composed ones with the other: as `training.scenes.Composer`.

    Onto some photographs objects are pasted. Hardly any photograph has its small parts annotated (an eye, a logo, a
    label), so without these a network learns that a click on a small object means what it lies on.

    Parameters
    ----------
    photographs : PhotoComposer
    composed : training.scenes.Composer
    share : float
        Of the photographs.
    """

    def __init__(self, photographs: PhotoComposer, composed: Composer, share: float) -> None:
        self.photographs, self.composed, self.share = photographs, composed, share

    def compose(self, rng: np.random.Generator) -> Scene:
        """Return a `Scene` with at least one target; `rng` is the only source of randomness."""
        while True:
            if rng.random() >= self.share:
                return self.composed.compose(rng)
            scene = self.photographs.compose(rng)
            if rng.random() < PASTED:
                scene = self.composed.paste_onto(scene, rng)
            if scene.targets:
                return scene


def split(paths: Sequence[Path]) -> list[str]:
    """Return the names of the photographs to hold out: about a tenth of every source, whole scenes at a time.

    A scene is what was taken at one place, or looks alike: photographs of one run of neighbours by name, crops of one
    photograph, and near-duplicates wherever they are. A source that is one scene (`tools`) is trained on whole.
    """
    looks = defaultdict(dict)
    for path in paths:
        with zipfile.ZipFile(path) as pack:
            suffix = _suffix(pack)
            for entry in tqdm(json.loads(pack.read("manifest.json")), desc=Path(path).name):
                image = cv2.imdecode(np.frombuffer(pack.read(entry["name"] + suffix), np.uint8), cv2.IMREAD_COLOR)
                looks[entry["name"].split("/")[0]][entry["name"]] = _look(image)
    held_out = []
    for source, of_source in sorted(looks.items()):
        wanted = max(1, round(HELD_OUT_SHARE * len(of_source)))
        scenes = sorted(_scenes(source, of_source), key=lambda names: hashlib.sha256(min(names).encode()).hexdigest())
        chosen = []
        for names in scenes:
            if len(chosen) + len(names) <= max(1.3 * wanted, wanted + 1):
                chosen += names
            if len(chosen) >= wanted:
                break
        held_out += chosen
    return sorted(held_out)


def _look(image: npt.NDArray[np.uint8]) -> Look:
    """Return what near-duplicates have in common: a small grey image and a histogram of colours, each of length 1."""
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (16, 16), interpolation=cv2.INTER_AREA).ravel()
    grey = grey - grey.mean()
    colours = np.sqrt(cv2.calcHist([image], [0, 1, 2], None, [6, 6, 6], [0, 256] * 3).ravel())
    return grey / (np.linalg.norm(grey) + 1e-6), colours / np.linalg.norm(colours)


def _scenes(source: str, looks: dict[str, Look]) -> list[list[str]]:
    """Group the photographs of a source, a dict of name to `_look`: a list of lists of names."""
    names = sorted(looks)
    grey, colours = (np.array([looks[name][part] for name in names]) for part in (0, 1))
    shape, colour = grey @ grey.T, colours @ colours.T
    same = (shape > 0.8) & (colour > 0.9)
    stems = [re.sub(r"(_scaled_\d+|_[TBLRM]{1,2})(_png)?_jpg$", "", name) for name in names]
    same |= np.array(stems)[:, None] == np.array(stems)
    if source not in UNRELATED:
        runs = np.arange(len(names)) // RUN
        same |= runs[:, None] == runs
        apart = np.abs(np.subtract.outer(np.arange(len(names)), np.arange(len(names))))
        same |= (apart == 1) & (shape > 0.5) & (colour > 0.85)
    else:
        same &= shape > 0.8
    group = np.arange(len(names))
    for one, other in zip(*np.nonzero(np.triu(same, 1)), strict=True):
        group[group == group[other]] = group[one]
    return [[names[number] for number in np.nonzero(group == each)[0]] for each in np.unique(group)]


def shrink(paths: Sequence[Path], target: Path, side: int, quality: int) -> None:
    """Write the training photographs into one smaller pack, to be copied to another machine as one file.

    Parameters
    ----------
    paths : sequence of pathlib.Path
    target : pathlib.Path
    side : int
        Long side at most, pixels.
    quality : int
        Of the WebP images, 1 to 100.
    """
    pack, manifest = PhotoPack(paths, "train"), []
    with zipfile.ZipFile(target, "w") as out:
        for number, photograph in enumerate(tqdm(pack.photographs)):
            image, labels = pack.read(number)
            scale = min(1, side / max(labels.shape))
            size = tuple(round(length * scale) for length in labels.shape[::-1])
            image = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), size, interpolation=cv2.INTER_AREA)
            labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
            labels = labels.astype(np.uint8 if labels.max() < 256 else np.uint16)
            image = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, quality])[1]
            labels = cv2.imencode(".png", labels, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]
            out.writestr(photograph.name + ".webp", image.tobytes())
            out.writestr(photograph.name + ".png", labels.tobytes())
            manifest.append({"name": photograph.name, "objects": photograph.objects})
        out.writestr("manifest.json", json.dumps(manifest))


def main() -> None:
    """Split or shrink packs: the command `python -m training.photos`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("split", help="choose what is held out, and write held_out.txt")
    small = commands.add_parser("shrink", help="write the training photographs into one smaller pack")
    small.add_argument("--out", type=Path, required=True)
    small.add_argument("--side", type=int, default=512)
    small.add_argument("--quality", type=int, default=50)
    for command in commands.choices.values():
        command.add_argument("packs", nargs="+", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "split":
        HELD_OUT.write_text("".join(f"{name}\n" for name in split(arguments.packs)))
    else:
        shrink(arguments.packs, arguments.out, arguments.side, arguments.quality)


if __name__ == "__main__":
    main()
