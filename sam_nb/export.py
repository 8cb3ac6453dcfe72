"""Masks as files that other programs read: PNG, transparent cut-out, COCO JSON.

Nothing is overwritten unless asked for, and nothing is left half-written: a file gets its name when it is whole.
"""

import io
import json
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycocotools.mask
from PIL import Image

from sam_nb.masks import as_mask, bounding_box


@dataclass(frozen=True, eq=False)
class Segment:
    """A mask to be saved.

    Attributes
    ----------
    mask : HxW numpy.ndarray of bool
    name : str
        Becomes the files' name.
    category : str
        Its class.
    score : float, optional
        The model's predicted IoU.
    """

    mask: np.ndarray
    name: str
    category: str = "object"
    score: float | None = None


def save_mask(mask, path, overwrite=False):
    """Write a mask as a PNG of one channel: 255 inside, 0 outside.

    Parameters
    ----------
    mask : HxW numpy.ndarray of bool
    path : str or pathlib.Path
    overwrite : bool

    Raises
    ------
    FileExistsError
        There is a file already, and `overwrite` is false.
    ValueError
        This is no mask.
    """
    _write(path, mask_file(mask), overwrite)


def save_cutout(image, mask, path, overwrite=False):
    """Write the object alone, in its own colours, as a PNG that is transparent elsewhere.

    Parameters
    ----------
    image : HxWx3 numpy.ndarray of uint8, RGB
    mask : HxW numpy.ndarray of bool
    path, overwrite
        As in `save_mask`.

    Raises
    ------
    FileExistsError, ValueError
        As in `save_mask`; also if picture and mask differ in size.
    """
    _write(path, cutout_file(image, mask), overwrite)


def save_coco(segments, size, path, *, picture="picture", model="", overwrite=False):
    """Write masks as COCO JSON, exact to the pixel (run lengths).

    Parameters
    ----------
    segments : sequence of Segment
    size : (int, int)
        Height and width of the picture.
    path, overwrite
        As in `save_mask`.
    picture : str
        The picture's file name, for the JSON.
    model : str
        What made the masks, for the JSON.

    Raises
    ------
    FileExistsError, ValueError
        As in `save_mask`.
    """
    _write(path, coco_file(segments, size, picture, model), overwrite)


def save_segments(segments, image, folder, *, prompts=None, picture="picture", model="", overwrite=False):
    """Write everything about one picture into a folder.

    It then holds ``masks/NAME.png``, ``cutouts/NAME.png``, ``coco.json`` and, if given, ``prompts.json``.

    Parameters
    ----------
    segments : sequence of Segment
    image : HxWx3 numpy.ndarray of uint8, RGB
    folder : str or pathlib.Path
    prompts : str, optional
        What `Session.to_json` returned.
    picture, model
        As in `save_coco`.
    overwrite : bool
        Whether an existing folder's files of the same names may be replaced; others stay.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    FileExistsError
        The folder exists, and `overwrite` is false.
    ValueError
        There is nothing to save, or a mask has another size than the picture.
    """
    folder = Path(folder).expanduser()
    if not segments:
        raise ValueError("nothing to save: there is no mask yet")
    if folder.exists() and not overwrite:
        raise FileExistsError(f"{str(folder)!r} exists already: choose another folder, or say overwrite=True")
    names = _file_names([segment.name for segment in segments])
    # Everything is made before anything is written, and written beside its place before it gets there.
    files = {"coco.json": coco_file(segments, image.shape[:2], picture, model)}
    for name, segment in zip(names, segments, strict=True):
        files[f"masks/{name}.png"] = mask_file(segment.mask)
        files[f"cutouts/{name}.png"] = cutout_file(image, segment.mask)
    if prompts is not None:
        files["prompts.json"] = prompts.encode("utf-8")
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        for name, content in files.items():
            (part / name).parent.mkdir(exist_ok=True)
            (part / name).write_bytes(content)
        if folder.exists():
            for name in files:
                (folder / name).parent.mkdir(exist_ok=True)
                (part / name).replace(folder / name)
        else:
            part.chmod(0o755)
            part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def mask_file(mask):
    """Return a mask, HxW bool, as the bytes of a PNG: 255 inside, 0 outside."""
    return _png(as_mask(mask).astype(np.uint8) * 255)


def cutout_file(image, mask):
    """Return the object alone as the bytes of a PNG: HxWx3 uint8 RGB where the mask, HxW bool, is; else transparent."""
    mask = as_mask(mask)
    if mask.shape != image.shape[:2]:
        raise ValueError(f"the picture has {image.shape[:2]} (height, width) and the mask {mask.shape}")
    # Colours under transparent pixels would come back in programs that drop the alpha: they are black instead.
    return _png(np.dstack([image * mask[..., None], mask.astype(np.uint8) * 255]))


def coco_file(segments, size, picture, model):
    """Return the bytes of a COCO JSON; arguments as in `save_coco`."""
    height, width = size
    categories = sorted({segment.category for segment in segments})
    annotations = []
    for number, segment in enumerate(segments, start=1):
        mask = as_mask(segment.mask)
        if mask.shape != (height, width):
            raise ValueError(f"{segment.name}: the picture has {(height, width)} and the mask {mask.shape}")
        runs = pycocotools.mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        x0, y0, x1, y1 = (int(side) for side in bounding_box(mask))
        annotation = {
            "id": number,
            "image_id": 1,
            "category_id": 1 + categories.index(segment.category),
            "segmentation": {"size": [height, width], "counts": runs["counts"].decode("ascii")},
            "area": int(np.count_nonzero(mask)),
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "iscrowd": 0,
            "name": segment.name,
        }
        annotations.append(annotation | ({} if segment.score is None else {"score": float(segment.score)}))
    record = {
        "info": {"description": f"masks by {model}" if model else "masks"},
        "images": [{"id": 1, "file_name": picture, "height": height, "width": width}],
        "categories": [{"id": number, "name": name} for number, name in enumerate(categories, start=1)],
        "annotations": annotations,
    }
    return json.dumps(record, indent=1, ensure_ascii=False).encode("utf-8")


def _png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def _write(path, content, overwrite):
    path = Path(path).expanduser()
    if path.exists() and not overwrite:
        raise FileExistsError(f"{str(path)!r} exists already: choose another name, or say overwrite=True")
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
        part = Path(file.name)
    try:
        part.write_bytes(content)
        part.chmod(0o644)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _file_names(names):
    """Return names that every file system takes, all different."""
    safe = []
    for name in names:
        plain = re.sub(r"[^\w.-]+", "_", name).strip("._") or "object"
        number = 2
        unique = plain
        # Windows and macOS do not tell upper case from lower case.
        while unique.lower() in {other.lower() for other in safe}:
            unique = f"{plain}_{number}"
            number += 1
        safe.append(unique)
    return safe
