"""Pack cut-outs, photographs and textures into one file, and read them back.

The pack is an uncompressed zip of WebP pictures and PNG label maps, small enough (under 50 MB) to be carried to another
machine as one file, with `manifest.json` beside them: name, kind, family, split and source of every picture.

Objects and backgrounds are held out for evaluation whole and by family (`lion1` and `lion2`, or the man and the woman
of the same emoji, fall on the same side), by a hash of the family's name: no evaluation picture has a near-duplicate in
training, and adding a source moves nothing across.
"""

import argparse
import hashlib
import json
import re
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

CUTOUT_SIDE = 448
BACKGROUND_SIDE = 900
HELD_OUT_SHARE = 0.10

# Stamps that are not objects: letters, digits, operators and notes are strokes, flags are plain rectangles.
STAMPS_LEFT_OUT = ("symbols/alphabets", "symbols/math", "symbols/music", "town/flags", "_mirror", "_flip")
# The five skin tones repeat the same drawing.
SKIN_TONES = {"1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"}
# Code points that join, vary or gender an emoji without changing what it shows.
EMOJI_MODIFIERS = SKIN_TONES | {"200d", "fe0f", "1f468", "1f469", "1f9d1", "2640", "2642"}

# Photographs that may lie behind the objects. A list of what is taken, not of what is left out: so no picture that
# notebooks show or that `truth/` scores can slip in with a new version of a package.
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
    """One picture of the pack.

    Attributes
    ----------
    name : str
        Path inside the zip, without extension.
    kind : {"cutout", "background"}
    family : str
        What the hold-out is decided on; look-alikes share it.
    split : {"train", "held_out"}
    source : str
        Package the picture comes from.
    """

    name: str
    kind: str
    family: str
    split: str
    source: str


def split_of(family):
    """Return the split of a family: a hash of its name, the same on every machine and for every version of the pack."""
    fraction = int(hashlib.sha256(family.encode()).hexdigest()[:8], 16) / 2**32
    return "held_out" if fraction < HELD_OUT_SHARE else "train"


def family_of(source, stem):
    """Return the family of a file: its name without what merely numbers or varies it."""
    if source == "fluent-emoji-3d":
        core = [point for point in stem.split("-") if point not in EMOJI_MODIFIERS]
        return f"{source}/{'-'.join(core) or stem}"
    return f"{source}/{re.sub(r'[-_ ]*([0-9]+|[AB])$', '', stem) or stem}"


def title_of(source, path):
    """Return the name of a picture: its file's, or that of the folder whose files are its sizes or its views."""
    if source == "plasma-workspace-wallpapers":
        return path.parents[2].name
    return path.parent.name if source == "sweethome3d-furniture" else path.stem


def trim_cutout(picture):
    """Crop a cut-out to its alpha and shrink it, or refuse it.

    Parameters
    ----------
    picture : ndarray, (H, W, 4) uint8, BGRA

    Returns
    -------
    ndarray, (h, w, 4) uint8, BGRA, or None
        None where one click could not mean the picture: almost nothing opaque, a full rectangle, or loose pieces.
    """
    opaque = picture[..., 3] > 127
    if opaque.sum() < 400:
        return None
    _, _, stats, _ = cv2.connectedComponentsWithStats(opaque.astype(np.uint8))
    areas = stats[1:, cv2.CC_STAT_AREA]
    if areas.max() < 0.85 * areas.sum():
        return None
    ys, xs = np.nonzero(picture[..., 3] > 20)
    picture = picture[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    if (picture[..., 3] > 127).mean() > 0.97:
        return None
    scale = CUTOUT_SIDE / max(picture.shape[:2])
    if scale >= 1:
        return picture
    # Colours are averaged with alpha as weight: what is hidden under transparent pixels must not bleed into the edge.
    alpha = picture[..., 3:].astype(np.float32) / 255
    weighted = np.dstack([picture[..., :3] * alpha, alpha])
    weighted = cv2.resize(weighted, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    colour = weighted[..., :3] / np.maximum(weighted[..., 3:], 1 / 255)
    return np.dstack([colour, weighted[..., 3:] * 255]).round().clip(0, 255).astype(np.uint8)


def colour_parts(cutout, clusters=6, max_count=5):
    """Find parts of a cut-out that stand out by colour: eyes, wheels, leaves, a handle.

    Parameters
    ----------
    cutout : ndarray, (h, w, 4) uint8, BGRA
    clusters : int
        Number of colours looked for.
    most : int
        Number of parts kept, largest first.

    Returns
    -------
    ndarray, (h, w) uint8
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


def material_parts(owner, smallest=0.006, largest=0.35, max_count=8):
    """Find parts of a rendered thing: connected regions of one material.

    Parameters
    ----------
    owner : hxw numpy.ndarray of uint8
        Number of the material at each pixel, 0 outside the thing.
    smallest, largest : float
        Shares of the thing; what is larger is nearly the thing itself, and no part of it.
    most : int
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
        found += [(a, labels == i) for i, a in enumerate(areas, 1) if smallest < a / whole < largest]
    out = np.zeros(owner.shape, np.uint8)
    for number, (_, region) in enumerate(sorted(found, key=lambda item: -item[0])[:max_count], start=1):
        out[region] = number
    return out


def _stands_out(part, opaque, lab, kernel):
    """Tell whether a region is compact and differs from the object just outside it (Lab distance of 18 or more)."""
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


def find_cutouts(stamps, emoji, renders):
    """Yield (source, file) of every cut-out of the three packages, in a fixed order."""
    for path in sorted(stamps.rglob("*.png")):
        if not any(word in path.as_posix() for word in STAMPS_LEFT_OUT):
            yield "tuxpaint-stamps-default", path
    for path in sorted(emoji.glob("*.webp")):
        points = path.stem.split("-")
        # Country flags, pairs of regional indicators, would be an eighth of all emoji.
        if not SKIN_TONES & set(points) and not points[0].startswith(("1f1e", "1f1f")):
            yield "fluent-emoji-3d", path
    for path in sorted(renders.rglob("*.png")):
        if not path.stem.endswith(".parts"):
            yield "sweethome3d-furniture", path


def find_backgrounds(opencv_doc, wallpapers, skimage_data):
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
    # Each of Plasma's wallpapers is a folder with several sizes of one picture; the largest file is the widest.
    for folder in sorted((wallpapers / "wallpapers").glob("*/contents/images")):
        path = max(folder.iterdir(), key=lambda path: path.stat().st_size)
        yield "plasma-workspace-wallpapers", path
    for path in sorted(skimage_data.glob("*.[jp][pn]g")):
        if path.stem in SKIMAGE_BACKGROUNDS:
            yield "scikit-image", path


def write_pack(target, cutouts, backgrounds):
    """Read, trim and encode every picture, and write the pack.

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

        def add(kind, source, path, files):
            title = title_of(source, path)
            family = family_of(source, title)
            name = f"{kind}s/{source}/{len(entries):05d}-{title}"
            entries.append(Entry(name, kind, family, split_of(family), source))
            for suffix, content in files.items():
                pack.writestr(name + suffix, content)

        for source, path in tqdm(list(cutouts), desc="cut-outs"):
            picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            if picture is None or picture.ndim != 3 or picture.shape[2] != 4 or picture.dtype != np.uint8:
                continue
            cutout = trim_cutout(picture)
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
            picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if picture is None or min(picture.shape[:2]) < 200:
                continue
            scale = min(1.0, BACKGROUND_SIDE / max(picture.shape[:2]))
            picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            files = {".webp": _encode(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, 88])}
            add("background", source, path, files)
        pack.writestr("manifest.json", json.dumps([asdict(entry) for entry in entries], indent=1))
    return entries


def _encode(suffix, picture, options):
    done, content = cv2.imencode(suffix, picture, options)
    if not done:
        raise RuntimeError(f"OpenCV could not encode a picture of shape {picture.shape} as {suffix}")
    return content.tobytes()


class SourcePack:
    """The pictures of one split, kept encoded in memory (so that forked workers share them) and decoded on demand.

    Parameters
    ----------
    path : pathlib.Path
        File written by this module's command.
    split : {"train", "held_out"}

    Attributes
    ----------
    cutouts, backgrounds : list of Entry
    """

    def __init__(self, path, split):
        with zipfile.ZipFile(path) as pack:
            manifest = [Entry(**fields) for fields in json.loads(pack.read("manifest.json"))]
            chosen = [entry for entry in manifest if entry.split == split]
            names = {entry.name for entry in chosen}
            self._content = {name: pack.read(name) for name in pack.namelist() if name.split(".")[0] in names}
        self._decoded = {}
        self.cutouts = [entry for entry in chosen if entry.kind == "cutout"]
        self.backgrounds = [entry for entry in chosen if entry.kind == "background"]
        if not self.cutouts or not self.backgrounds:
            raise ValueError(f"{path} has no cut-outs or no backgrounds of the split {split!r}: write the pack again")

    def cutout(self, index):
        """Return a cut-out, (h, w, 4) uint8 RGBA, and the masks of its parts, each (h, w) bool."""
        name = self.cutouts[index].name
        picture = cv2.cvtColor(self._decode(name + ".webp", cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)
        if name + ".parts.png" not in self._content:
            return picture, []
        parts = self._decode(name + ".parts.png", cv2.IMREAD_UNCHANGED)
        return picture, [parts == number for number in range(1, int(parts.max()) + 1)]

    def background(self, index):
        """Return a background, (h, w, 3) uint8 RGB."""
        return cv2.cvtColor(self._decode(self.backgrounds[index].name + ".webp", cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)

    def decode_all(self, threads):
        """Keep everything decoded in memory from now on, about 4 GB, which forked workers share."""

        def decoded(name):
            return name, self._decode(name, cv2.IMREAD_UNCHANGED)

        with ThreadPoolExecutor(threads) as pool:
            self._decoded = dict(pool.map(decoded, self._content))

    def _decode(self, name, flags):
        if name in self._decoded:
            return self._decoded[name]
        return cv2.imdecode(np.frombuffer(self._content[name], np.uint8), flags)


def main():
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
