"""Labelled folders in: where COCO, YOLO, LabelMe and folders of masks keep images and labels, and which is which."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import yaml
from PIL import Image

from sam_nb.datasets.dataset import Dataset, LabelledImage, Size, Skipped, named
from sam_nb.files.coco import CocoImage, decode_coco_images
from sam_nb.files.folder import looks_like_image
from sam_nb.files.labelme import decode_labelme_image
from sam_nb.files.png import LOSSLESS, decode_label_map
from sam_nb.files.records import naming
from sam_nb.files.yolo import CLASSES, read_classes, yolo_objects
from sam_nb.images import image_pixels
from sam_nb.masks import Segment, as_labels
from sam_nb.storage import read_bytes

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "JPEGImages")
MASK_FOLDERS = ("masks", "mask", "annotations", "ground_truth", "gt", "labels", "SegmentationObject")
MASK_ENDINGS = ("_mask", "_masks", "_gt", "_label", "_labels", ".mask")  # of a mask's name beside its image
YOLO_FILE = "data.yaml"
MAX_CLASSES = 1000  # of YOLO's labels where no file names them
BORDER = 255  # in VOC's label maps: pixels to ignore

Found = tuple[list[LabelledImage], list[Skipped]]
Objects = Callable[[Size], Iterator[Segment | ValueError]]


def load_dataset(path: str | Path, *, layout: str | None = None, images: str | Path | None = None) -> Dataset:
    """Read a folder of labelled images, or a file that lists them; images and masks are read when they are needed.

    Parameters
    ----------
    path : str or pathlib.Path
        One of these, sub-folders included:

        * ``"coco"``: a JSON file with images, annotations and categories, or a folder that holds one, beside the images
          or in ``annotations/``;
        * ``"yolo"``: ``images/.../a.jpg`` and ``labels/.../a.txt``, or the two side by side; ``data.yaml`` or
          ``classes.txt`` names the classes;
        * ``"labelme"``: ``a.json`` beside its image;
        * ``"masks"``: ``images/a.jpg`` and ``masks/a.png``, or ``a.jpg`` and ``a_mask.png`` side by side: the mask of
          one object, or a label map with a number for each; or ``masks/a/``, a folder with a mask for each object. What
          has the number 255 in a label map of fewer objects is ignored, as in VOC.
    layout : {"coco", "yolo", "labelme", "masks"}, optional
        Default: what the folder looks like.
    images : str or pathlib.Path, optional
        Where the images of a COCO file lie. Default: beside it, in ``images/`` there, or one folder up.

    Returns
    -------
    Dataset
        With ``skipped``: images without labels, labels without an image, and why. Objects that no mask can be made of
        are found when they are read; see `Dataset.checked`.

    Raises
    ------
    FileNotFoundError
        There is no such file or folder.
    ValueError
        It looks like none of these or like several, or no image in it has labels. The message says what was found.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"no file or folder {str(path)!r} (looked in {str(path.parent.resolve())!r})")
    if layout is not None and layout not in LAYOUTS:
        raise ValueError(f"no layout {layout!r}: expected one of {', '.join(LAYOUTS)}")
    if layout is None:
        layout = _layout_of(path)
    found, skipped = LAYOUTS[layout](path, Path(images).expanduser() if images is not None else None)
    dataset = named(found, skipped, path if path.is_dir() else path.parent)
    if not dataset.images:
        raise ValueError(f"{str(path)!r}: no image with labels in the layout {layout!r}; {dataset!r}")
    return dataset


def _layout_of(path: Path) -> str:
    """Return which layout a folder or file has."""
    if path.is_file():
        if path.suffix.lower() in (".yaml", ".yml"):
            return "yolo"
        if path.suffix.lower() != ".json":
            raise ValueError(f"{str(path)!r}: expected a folder, a COCO JSON or a {YOLO_FILE}")
        return "labelme" if b'"shapes"' in read_bytes(path) else "coco"
    fitting = [name for name, fits in _SIGNS.items() if fits(path)]
    if len(fitting) != 1:
        looks = f"it looks like {' and '.join(fitting)}" if fitting else "it looks like none of the layouts"
        raise ValueError(
            f"{str(path)!r}: {looks}; say which it is, layout= one of {', '.join(LAYOUTS)}, or give the COCO file"
        )
    return fitting[0]


# COCO --------------------------------------------------------------------------------------------------------------


def _coco_files(folder: Path) -> list[Path]:
    return [file for file in sorted([*folder.glob("*.json"), *folder.glob("annotations/*.json")]) if _is_coco(file)]


def _is_coco(file: Path) -> bool:
    content = read_bytes(file)
    return b'"annotations"' in content and b'"shapes"' not in content


def _coco(path: Path, images: Path | None) -> Found:
    files = [path] if path.is_file() else _coco_files(path)
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise ValueError(f"{str(path)!r}: expected one COCO file, got {names}: give the file itself")
    (file,) = files
    with naming(repr(str(file))):
        listed = decode_coco_images(read_bytes(file))
    found: list[LabelledImage] = []
    skipped: list[Skipped] = []
    for image in listed:
        if isinstance(image, ValueError):
            skipped.append(Skipped(file.name, str(image)))
            continue
        place = _image_of(image.file_name, file.parent, images)
        if place is None:
            skipped.append(Skipped(image.file_name, f"there is no such image beside {file.name}: give images="))
        elif not image.annotations:
            skipped.append(Skipped(image.file_name, "it has no annotations"))
        else:
            found.append(LabelledImage("", place, partial(_coco_objects, image)))
    return found, skipped


def _image_of(name: str, folder: Path, images: Path | None) -> Path | None:
    """Return where an image lies that a file in a folder names, often with folders of another computer."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    roots = [images] if images is not None else [folder, folder / "images", folder.parent, folder.parent / "images"]
    for root in roots:
        for start in range(len(parts)):
            place = root.joinpath(*parts[start:])
            if ".." not in parts[start:] and place.is_file():
                return place
    return None


def _coco_objects(image: CocoImage, size: Size) -> Iterator[Segment | ValueError]:
    _check_size(image.size, size)
    # Those of crowds, too: programs mark by `iscrowd` what they wrote as run-length encoding, such as masks with holes.
    yield from image.objects()


def _check_size(labels: Size, image: Size) -> None:
    if labels != image:
        cure = (
            "the labels were made on the image before its EXIF tag turned it: turn the image itself, and save it"
            if labels == image[::-1]
            else "use the image that was labelled"
        )
        raise ValueError(f"the labels are for {labels[1]}x{labels[0]}, the image is {image[1]}x{image[0]}: {cure}")


# YOLO --------------------------------------------------------------------------------------------------------------


def _looks_like_yolo(folder: Path) -> bool:
    return (folder / YOLO_FILE).is_file() or any(_yolo_label(image) is not None for image in _images_in(folder))


def _yolo(path: Path, _: Path | None) -> Found:
    folder = path.parent if path.is_file() else path
    classes = _yolo_classes(folder, path if path.is_file() else None)

    def objects_of(image: Path) -> Objects | None:
        label = _yolo_label(image)
        return None if label is None else partial(_yolo_objects, label, classes)

    return _with_labels(_images_in(folder), objects_of, "it has no file of labels")


def _yolo_label(image: Path) -> Path | None:
    """Return the file of labels of an image: in ``labels`` for ``images``, or beside it."""
    places = [image.with_suffix(".txt")]
    parts = image.parts
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        places.insert(0, Path(*parts[:last], "labels", *parts[last + 1 :]).with_suffix(".txt"))
    return next((place for place in places if place.is_file() and place.name != CLASSES), None)


def _yolo_objects(label: Path, classes: Sequence[str], size: Size) -> Iterator[Segment | ValueError]:
    with naming(label.name):
        yield from yolo_objects(read_bytes(label), size, classes)


def _yolo_classes(folder: Path, file: Path | None) -> list[str]:
    """Return the classes that a file names, in the folder or one up; else "class 0" and so on."""
    around = [folder, folder / "labels", folder.parent]
    about = file or next((place / YOLO_FILE for place in around if (place / YOLO_FILE).is_file()), None)
    if about is not None:
        with naming(repr(str(about))):
            return _yaml_classes(read_bytes(about))
    listed = next((place / CLASSES for place in around if (place / CLASSES).is_file()), None)
    return read_classes(listed) if listed else [f"class {number}" for number in range(MAX_CLASSES)]


def _yaml_classes(content: bytes) -> list[str]:
    try:
        record = yaml.safe_load(content)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not YAML: {error}") from error
    names = record.get("names") if isinstance(record, dict) else None
    if isinstance(names, Mapping) and all(isinstance(key, int) and 0 <= key < MAX_CLASSES for key in names):
        names = [names.get(key, f"class {key}") for key in range(max(names, default=-1) + 1)]
    if not isinstance(names, list) or not names:
        raise ValueError(f"expected names, a list of classes, got {type(names).__name__}")
    return [str(name) for name in names]


# LabelMe -----------------------------------------------------------------------------------------------------------


def _labelme_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*.json") if b'"shapes"' in read_bytes(file))


def _labelme(path: Path, images: Path | None) -> Found:
    found: list[LabelledImage] = []
    skipped: list[Skipped] = []
    for file in [path] if path.is_file() else _labelme_files(path):
        try:
            labels = decode_labelme_image(read_bytes(file))
        except ValueError as error:
            skipped.append(Skipped(file.name, str(error)))
            continue
        place = _image_of(labels.file_name, file.parent, images) or _same_stem(file)
        if place is None:
            skipped.append(Skipped(file.name, f"its image {labels.file_name!r} is not beside it"))
        elif not labels.shapes:
            skipped.append(Skipped(file.name, "it has no shapes"))
        else:
            found.append(LabelledImage("", place, partial(_labelme_objects, file)))
    return found, skipped


def _same_stem(file: Path) -> Path | None:
    beside = sorted(file.parent.glob(f"{_literal(file.stem)}.*"))
    return next((place for place in beside if looks_like_image(place)), None)


def _literal(name: str) -> str:
    """Return a name as a pattern for `Path.glob` that matches it alone."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)


def _labelme_objects(file: Path, size: Size) -> Iterator[Segment | ValueError]:
    labels = decode_labelme_image(read_bytes(file))  # again: LabelMe may keep the whole image in it
    _check_size(labels.size, size)
    yield from labels.objects()


# Masks -------------------------------------------------------------------------------------------------------------


def _looks_like_masks(folder: Path) -> bool:
    return any(_mask_of(image) is not None for image in _images_in(folder))


def _masks(path: Path, _: Path | None) -> Found:
    def objects_of(image: Path) -> Objects | None:
        masks = _mask_of(image)
        return None if masks is None else partial(_mask_objects, masks)

    return _with_labels(_images_in(path), objects_of, "it has no mask")


def _mask_of(image: Path) -> list[Path] | None:
    """Return the file, or the files, of an image's mask."""
    parts = image.parts
    places = [image.parent]
    for folder in set(IMAGE_FOLDERS) & set(parts):
        last = len(parts) - 1 - parts[::-1].index(folder)
        places += [Path(*parts[:last], masks, *parts[last + 1 : -1]) for masks in MASK_FOLDERS]
    for place in places:
        stems = [f"{image.stem}{ending}" for ending in MASK_ENDINGS]
        for stem in stems if place == image.parent else [image.stem, *stems]:
            files = [place / f"{stem}{suffix}" for suffix in (".png", ".tif", ".tiff", ".bmp", ".gif", ".jpg")]
            if single := next((file for file in files if file.is_file()), None):
                return [single]
        if place != image.parent and (place / image.stem).is_dir():
            return sorted(file for file in (place / image.stem).iterdir() if looks_like_image(file))
    return None


def _mask_objects(files: Sequence[Path], size: Size) -> Iterator[Segment | ValueError]:
    for file in files:
        try:
            labels = _read_labels(file)
            _check_size(labels.shape[:2], size)
        except ValueError as error:
            yield ValueError(f"{file.name}: {error}") if file.name not in str(error) else error
            continue
        numbers = np.setdiff1d(labels, [0])
        if len(numbers) > 1 and numbers[-1] == BORDER and numbers[-2] < BORDER - 1:
            numbers = numbers[:-1]
        for number in numbers:
            name = file.stem if len(numbers) == 1 else f"object {number}"
            yield Segment(labels == number, name, "object")


def _read_labels(file: Path) -> np.ndarray:
    """Return the labels of a file, HxW: bool for one object, or a number for each."""
    content = read_bytes(file)
    try:
        header = Image.open(io.BytesIO(content))
    except OSError:
        header = None  # `image_pixels` says it in words
    if header is not None and header.mode == "P" and header.format in LOSSLESS:
        return decode_label_map(content, file.name)  # numbers, and not the colours that they are shown in
    return as_labels(image_pixels(content, file.name), file.name)


def _with_labels(images: Sequence[Path], objects_of: Callable[[Path], Objects | None], missing: str) -> Found:
    """Return the images that have labels, and those that have none with the reason `missing`."""
    found, skipped = [], []
    for image in images:
        objects = objects_of(image)
        if objects is None:
            skipped.append(Skipped(image.name, missing))
        else:
            found.append(LabelledImage("", image, objects))
    return found, skipped


# Images ------------------------------------------------------------------------------------------------------------


def _images_in(folder: Path) -> list[Path]:
    """Return the images below a folder, by name in order, those left out that are masks."""
    found = sorted(path for path in folder.rglob("*") if looks_like_image(path) and path.is_file())
    return [path for path in found if not _is_mask(path, folder)]


def _is_mask(path: Path, folder: Path) -> bool:
    inside = path.relative_to(folder).parts[:-1]
    is_image = bool(set(inside) & set(IMAGE_FOLDERS))
    return path.stem.endswith(MASK_ENDINGS) or (not is_image and bool(set(inside) & set(MASK_FOLDERS)))


LAYOUTS: dict[str, Callable[[Path, Path | None], Found]] = {
    "coco": _coco,
    "yolo": _yolo,
    "labelme": _labelme,
    "masks": _masks,
}
"""Name of a layout -> what finds its images."""

_SIGNS: dict[str, Callable[[Path], bool]] = {
    "coco": lambda folder: bool(_coco_files(folder)),
    "yolo": _looks_like_yolo,
    "labelme": lambda folder: bool(_labelme_files(folder)),
    "masks": _looks_like_masks,
}
