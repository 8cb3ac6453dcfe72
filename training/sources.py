"""Pack cut-outs, photographs and textures into one file, and read them back.

The pack is an uncompressed zip of WebP images and PNG label maps, small enough (under 50 MB) to be copied to another
machine as one file, with `manifest.json` beside them: name, kind, family, split and source of every image.

Objects and backgrounds are held out for evaluation whole and by family (`lion1` and `lion2`, or the man and the woman
of the same emoji, fall on the same side), by a hash of the family's name: no evaluation image has a near-duplicate in
training, and adding a source moves nothing from one split to the other.
"""

import argparse
import hashlib
import json
import re
import zipfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

CUTOUT_SIDE = 448
BACKGROUND_SIDE = 900
HELD_OUT_SHARE = 0.10

# Stamps that are not objects: letters, digits, operators and notes are strokes, flags are plain rectangles.
SKIPPED_STAMPS = ("symbols/alphabets", "symbols/math", "symbols/music", "town/flags", "_mirror", "_flip")
# The five skin tones repeat the same drawing.
SKIN_TONES = {"1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"}
# Code points that join, vary or gender an emoji without changing what it shows.
EMOJI_MODIFIERS = SKIN_TONES | {"200d", "fe0f", "1f468", "1f469", "1f9d1", "2640", "2642"}

# Photographs that may lie behind the objects. A list of what is taken, not of what is skipped: so no image that
# notebooks show or that `ground_truth/` scores can slip in with a new version of a package.
# fmt: off
OPENCV_BACKGROUNDS = {
    "aero1", "aero3", "astra_color", "baboon", "basketball1", "board", "boat", "box", "box_in_scene", "budapest",
    "building", "corridor_fld", "ela_original", "fusion_mertens", "graf1", "graf3", "home", "left", "leuvenA",
    "leuvenB", "licenseplate_motion", "newspaper", "right", "rubberwhale1", "scenetext02", "scenetext03",
    "scenetext04", "scenetext05", "scenetext06", "scenetext_segmented_word01", "scenetext_segmented_word02",
    "scenetext_segmented_word03", "scenetext_segmented_word04", "scenetext_segmented_word05", "starry_night",
    "stuff", "sudoku",
}
# fmt: on
SKIMAGE_BACKGROUNDS = {"brick", "grass", "gravel", "hubble_deep_field", "ihc", "retina"}


@dataclass(frozen=True)
class Entry:
    """One image of the pack.

    Attributes
    ----------
    name : str
        Path inside the zip, without extension.
    kind : {"cutout", "background"}
    family : str
        Held out or trained on as one; look-alikes share it.
    split : {"train", "held_out"}
    source : str
        Package the image comes from.
    """

    name: str
    kind: str
    family: str
    split: str
    source: str


def split_of(family: str) -> str:
    """Return the split of a family: a hash of its name, the same on every machine and for every version of the pack."""
    fraction = int(hashlib.sha256(family.encode()).hexdigest()[:8], 16) / 2**32
    return "held_out" if fraction < HELD_OUT_SHARE else "train"


def family_of(source: str, stem: str) -> str:
    """Return the family of a file: its name without numbers and variants."""
    if source == "fluent-emoji-3d":
        core = [point for point in stem.split("-") if point not in EMOJI_MODIFIERS]
        return f"{source}/{'-'.join(core) or stem}"
    return f"{source}/{re.sub(r'[-_ ]*([0-9]+|[AB])$', '', stem) or stem}"


def title_of(source: str, path: Path) -> str:
    """Return the name of an image: its file's, or that of the folder whose files are its sizes or its views."""
    if source == "plasma-workspace-wallpapers":
        return path.parents[2].name
    return path.parent.name if source == "sweethome3d-furniture" else path.stem


def trim_cutout(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8] | None:
    """Crop a cut-out to its alpha and shrink it, or reject it.

    Parameters
    ----------
    image : HxWx4 numpy.ndarray of uint8, BGRA

    Returns
    -------
    hxwx4 numpy.ndarray of uint8, BGRA, or None
        None where one click could not mean the whole: almost nothing opaque, a full rectangle, or scattered components.
    """
    opaque = image[..., 3] > 127
    if opaque.sum() < 400:
        return None
    _, _, stats, _ = cv2.connectedComponentsWithStats(opaque.astype(np.uint8))
    areas = stats[1:, cv2.CC_STAT_AREA]
    if areas.max() < 0.85 * areas.sum():
        return None
    ys, xs = np.nonzero(image[..., 3] > 20)
    image = image[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    if (image[..., 3] > 127).mean() > 0.97:
        return None
    scale = CUTOUT_SIDE / max(image.shape[:2])
    if scale >= 1:
        return image
    # Colours are averaged with alpha as weight: those of transparent pixels must not bleed into the border.
    alpha = image[..., 3:].astype(np.float32) / 255
    weighted = np.dstack([image[..., :3] * alpha, alpha])
    weighted = cv2.resize(weighted, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    colour = weighted[..., :3] / np.maximum(weighted[..., 3:], 1 / 255)
    return np.dstack([colour, weighted[..., 3:] * 255]).round().clip(0, 255).astype(np.uint8)


def colour_parts(cutout: npt.NDArray[np.uint8], clusters: int = 6, max_count: int = 5) -> npt.NDArray[np.uint8]:
    """Find parts of a cut-out that stand out by colour: eyes, wheels, leaves, a handle.

    Parameters
    ----------
    cutout : hxwx4 numpy.ndarray of uint8, BGRA
    clusters : int
        Number of colours.
    max_count : int
        Number of parts kept, largest first.

    Returns
    -------
    hxw numpy.ndarray of uint8
        0 where there is no part, 1, 2, ... inside each part.
    """
    opaque = cutout[..., 3] > 127
    smooth = cv2.pyrMeanShiftFiltering(np.ascontiguousarray(cutout[..., :3]), 6, 18)
    lab = cv2.cvtColor(smooth.astype(np.float32) / 255, cv2.COLOR_BGR2Lab)
    cv2.setRNGSeed(0)
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 20, 0.5)
    _, assigned, _ = cv2.kmeans(lab[opaque], clusters, None, criteria, 1, cv2.KMEANS_PP_CENTERS)
    cluster_map = np.full(opaque.shape, -1, np.int32)
    cluster_map[opaque] = assigned[:, 0]
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    found = []
    for cluster in range(clusters):
        cleaned = cv2.morphologyEx((cluster_map == cluster).astype(np.uint8), cv2.MORPH_OPEN, kernel)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(cleaned)
        for index in range(1, count):
            area = stats[index, cv2.CC_STAT_AREA]
            part = labels == index
            if 0.025 * opaque.sum() < area < 0.6 * opaque.sum() and _stands_out(part, opaque, lab, kernel):
                found.append((area, part))
    parts = np.zeros(opaque.shape, np.uint8)
    for number, (_, part) in enumerate(sorted(found, key=lambda item: -item[0])[:max_count], start=1):
        parts[part] = number
    return parts


def material_parts(
    owner: npt.NDArray[np.uint8], min_share: float = 0.006, max_share: float = 0.35, max_count: int = 8
) -> npt.NDArray[np.uint8]:
    """Find parts of a rendered object: connected components of one material.

    Parameters
    ----------
    owner : hxw numpy.ndarray of uint8
        Number of the material at each pixel, 0 outside the object.
    min_share, max_share : float
        Of the object's area; what is larger is nearly the object itself, and no part of it.
    max_count : int
        Number of parts kept, largest first.

    Returns
    -------
    hxw numpy.ndarray of uint8
        0 where there is no part, 1, 2, ... inside each part.
    """
    whole = np.count_nonzero(owner)
    found = []
    for number in np.unique(owner[owner > 0]):
        region = cv2.morphologyEx((owner == number).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        count, labels, stats, _ = cv2.connectedComponentsWithStats(region)
        areas = stats[1:count, cv2.CC_STAT_AREA]
        found += [(a, labels == i) for i, a in enumerate(areas, 1) if min_share < a / whole < max_share]
    out = np.zeros(owner.shape, np.uint8)
    for number, (_, region) in enumerate(sorted(found, key=lambda item: -item[0])[:max_count], start=1):
        out[region] = number
    return out


def _stands_out(
    part: npt.NDArray[np.bool_],
    opaque: npt.NDArray[np.bool_],
    lab: npt.NDArray[np.float32],
    kernel: npt.NDArray[np.uint8],
) -> bool:
    """Return whether a region is compact and differs from the object just outside it (Lab distance of 18 or more)."""
    contours, _ = cv2.findContours(part.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(contours, key=cv2.contourArea)
    if cv2.contourArea(outline) < 0.8 * cv2.contourArea(cv2.convexHull(outline)):
        return False
    grown = cv2.dilate(part.astype(np.uint8), kernel, iterations=3) > 0
    ring = grown & ~part & opaque
    shrunk = part & ~(cv2.erode(part.astype(np.uint8), kernel, iterations=2) > 0)
    # A part most of whose rim is the object's own rim is not surrounded: clicking it means the object.
    if ring.sum() < 0.5 * (grown & ~part).sum():
        return False
    return bool(np.linalg.norm(lab[ring].mean(0) - lab[shrunk].mean(0)) > 18)


def find_cutouts(stamps: Path, emoji: Path, renders: Path) -> Iterator[tuple[str, Path]]:
    """Yield (source, file) of every cut-out of the three packages, in a fixed order."""
    for path in sorted(stamps.rglob("*.png")):
        if not any(word in path.as_posix() for word in SKIPPED_STAMPS):
            yield "tuxpaint-stamps-default", path
    for path in sorted(emoji.glob("*.webp")):
        points = path.stem.split("-")
        # Country flags, pairs of regional indicators, would be an eighth of all emoji.
        if not SKIN_TONES & set(points) and not points[0].startswith(("1f1e", "1f1f")):
            yield "fluent-emoji-3d", path
    for path in sorted(renders.rglob("*.png")):
        if not path.stem.endswith(".parts"):
            yield "sweethome3d-furniture", path


def find_backgrounds(opencv_doc: Path, wallpapers: Path, skimage_data: Path) -> Iterator[tuple[str, Path]]:
    """Yield (source, file) of every background, in a fixed order."""
    seen = set()
    for path in sorted(opencv_doc.rglob("*.[jp][pn]g")):
        if path.stem in OPENCV_BACKGROUNDS and path.stem not in seen:
            seen.add(path.stem)
            yield "opencv-doc", path
    for path in sorted((wallpapers / "backgrounds" / "gnome").rglob("*.webp")):
        yield "gnome-backgrounds", path
    for path in sorted((wallpapers / "backgrounds" / "mate" / "nature").glob("*.jpg")):
        yield "mate-backgrounds", path
    # Each of Plasma's wallpapers is a folder with several sizes of one image; the largest file is the widest.
    for folder in sorted((wallpapers / "wallpapers").glob("*/contents/images")):
        path = max(folder.iterdir(), key=lambda path: path.stat().st_size)
        yield "plasma-workspace-wallpapers", path
    for path in sorted(skimage_data.glob("*.[jp][pn]g")):
        if path.stem in SKIMAGE_BACKGROUNDS:
            yield "scikit-image", path


def write_pack(
    target: Path, cutouts: Iterable[tuple[str, Path]], backgrounds: Iterable[tuple[str, Path]]
) -> list[Entry]:
    """Read, trim and encode every image, and write the pack.

    Parameters
    ----------
    target : pathlib.Path
    cutouts, backgrounds : iterable of (str, pathlib.Path)
        Source and file, as `find_cutouts` and `find_backgrounds` yield them.

    Returns
    -------
    list of Entry
        The manifest that was written.
    """
    entries = []
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as pack:

        def add(kind: str, source: str, path: Path, files: dict[str, bytes]) -> None:
            title = title_of(source, path)
            family = family_of(source, title)
            name = f"{kind}s/{source}/{len(entries):05d}-{title}"
            entries.append(Entry(name, kind, family, split_of(family), source))
            for suffix, content in files.items():
                pack.writestr(name + suffix, content)

        for source, path in tqdm(list(cutouts), desc="cut-outs"):
            image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            if image is None or image.ndim != 3 or image.shape[2] != 4 or image.dtype != np.uint8:
                continue
            cutout = trim_cutout(image)
            if cutout is not None:
                files = {".webp": _encode(".webp", cutout, [cv2.IMWRITE_WEBP_QUALITY, 88])}
                known = path.with_suffix(".parts.png")
                parts = cv2.imread(str(known), cv2.IMREAD_UNCHANGED) if known.exists() else colour_parts(cutout)
                if parts.shape != cutout.shape[:2]:
                    raise ValueError(f"{known} is {parts.shape}, its cut-out {cutout.shape[:2]}: render it again")
                if parts.any():
                    files[".parts.png"] = _encode(".png", parts, [cv2.IMWRITE_PNG_COMPRESSION, 9])
                add("cutout", source, path, files)
        for source, path in tqdm(list(backgrounds), desc="backgrounds"):
            image = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if image is None or min(image.shape[:2]) < 200:
                continue
            scale = min(1.0, BACKGROUND_SIDE / max(image.shape[:2]))
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            files = {".webp": _encode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, 88])}
            add("background", source, path, files)
        pack.writestr("manifest.json", json.dumps([asdict(entry) for entry in entries], indent=1))
    return entries


def _encode(suffix: str, image: npt.NDArray[np.uint8], options: list[int]) -> bytes:
    done, content = cv2.imencode(suffix, image, options)
    if not done:
        raise RuntimeError(f"OpenCV could not encode an image of shape {image.shape} as {suffix}")
    return content.tobytes()


class SourcePack:
    """The images of one split, kept encoded in memory (so that forked workers share them) and decoded on demand.

    Parameters
    ----------
    path : pathlib.Path
        File written by this module's command.
    split : {"train", "held_out"}

    Attributes
    ----------
    cutouts, backgrounds : list of Entry
    """

    def __init__(self, path: Path, split: str) -> None:
        with zipfile.ZipFile(path) as pack:
            manifest = [Entry(**fields) for fields in json.loads(pack.read("manifest.json"))]
            chosen = [entry for entry in manifest if entry.split == split]
            names = {entry.name for entry in chosen}
            self._content = {name: pack.read(name) for name in pack.namelist() if name.split(".")[0] in names}
        self._decoded: dict[str, npt.NDArray[np.uint8]] = {}
        self.cutouts = [entry for entry in chosen if entry.kind == "cutout"]
        self.backgrounds = [entry for entry in chosen if entry.kind == "background"]
        if not self.cutouts or not self.backgrounds:
            raise ValueError(f"{path} has no cut-outs or no backgrounds of the split {split!r}: write the pack again")

    def cutout(self, index: int) -> tuple[npt.NDArray[np.uint8], list[npt.NDArray[np.bool_]]]:
        """Return a cut-out, hxwx4 uint8 RGBA, and the masks of its parts, each hxw bool."""
        name = self.cutouts[index].name
        image = cv2.cvtColor(self._decode(name + ".webp", cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)
        if name + ".parts.png" not in self._content:
            return image, []
        parts = self._decode(name + ".parts.png", cv2.IMREAD_UNCHANGED)
        return image, [parts == number for number in range(1, int(parts.max()) + 1)]

    def background(self, index: int) -> npt.NDArray[np.uint8]:
        """Return a background, hxwx3 uint8 RGB."""
        return cv2.cvtColor(self._decode(self.backgrounds[index].name + ".webp", cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)

    def decode_all(self, threads: int) -> None:
        """Keep everything decoded in memory from now on, about 4 GB, which forked workers share."""

        def decoded(name: str) -> tuple[str, npt.NDArray[np.uint8]]:
            return name, self._decode(name, cv2.IMREAD_UNCHANGED)

        with ThreadPoolExecutor(threads) as pool:
            self._decoded = dict(pool.map(decoded, self._content))

    def _decode(self, name: str, flags: int) -> npt.NDArray[np.uint8]:
        if name in self._decoded:
            return self._decoded[name]
        return cv2.imdecode(np.frombuffer(self._content[name], np.uint8), flags)


def main() -> None:
    """Write the pack: the command `python -m training.sources`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--stamps", type=Path, required=True, help="/usr/share/tuxpaint/stamps of tuxpaint-stamps-default"
    )
    parser.add_argument("--emoji", type=Path, required=True, help="assets folder of @lobehub/fluent-emoji-3d")
    parser.add_argument("--renders", type=Path, required=True, help="what training.renders wrote")
    parser.add_argument("--opencv-doc", type=Path, required=True, help="/usr/share/doc/opencv-doc of opencv-doc")
    parser.add_argument(
        "--wallpapers",
        type=Path,
        required=True,
        help="/usr/share, with gnome-backgrounds, mate-backgrounds and plasma-workspace-wallpapers installed",
    )
    parser.add_argument("--skimage-data", type=Path, required=True, help="data folder of the installed scikit-image")
    parser.add_argument("--out", type=Path, default=Path("training/sources.zip"))
    arguments = parser.parse_args()
    entries = write_pack(
        arguments.out,
        find_cutouts(arguments.stamps, arguments.emoji, arguments.renders),
        find_backgrounds(arguments.opencv_doc, arguments.wallpapers, arguments.skimage_data),
    )
    for kind in ("cutout", "background"):
        splits = [entry.split for entry in entries if entry.kind == kind]
        print(f"{kind}s: {splits.count('train')} to train on, {splits.count('held_out')} held out")
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
