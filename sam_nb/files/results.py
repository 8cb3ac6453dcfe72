"""Masks as files, written and read: PNG, transparent cut-out, COCO JSON, YOLO's labels, LabelMe JSON.

Nothing is overwritten unless asked for, and nothing is left half-written: a file gets its name when it is whole.
"""

import re
import shutil
import tempfile
from pathlib import Path

from sam_nb.files.coco import (
    coco_file,
    coco_segments,
    cutout_file,
    index_file,
    index_from_file,
    labelme_file,
    labelme_segments,
    mask_file,
    mask_from_file,
    yolo_file,
    yolo_segments,
)

# Windows takes a file of such a name, whatever its ending, for a device.
DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)


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
    write_whole(path, mask_file(mask), overwrite)


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
    write_whole(path, cutout_file(image, mask), overwrite)


def save_index(segments, size, path, overwrite=False):
    """Write all masks into one PNG of 8 bits: pixel values are the objects' numbers from 1, 0 is none of them.

    Parameters
    ----------
    segments : sequence of Segment
        At most 255. Where two overlap, the later one is on top.
    size : (int, int)
        Height and width of the picture.
    path, overwrite
        As in `save_mask`.

    Raises
    ------
    FileExistsError, ValueError
        As in `save_mask`; also if there are too many.
    """
    write_whole(path, index_file(segments, size), overwrite)


def save_coco(segments, size, path, *, picture="picture", model="", as_polygons=False, overwrite=False):
    """Write masks as COCO JSON.

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
    as_polygons : bool
        Whether masks are polygons, which some programs insist on; else run lengths.

    Raises
    ------
    FileExistsError, ValueError
        As in `save_mask`; also if an empty mask should become a polygon.
    """
    write_whole(path, coco_file(segments, size, picture, model, as_polygons), overwrite)


def save_yolo(segments, size, path, *, categories=None, tolerance=0.0, overwrite=False):
    """Write masks as YOLO's segmentation labels: a line for each, its class and its outline in shares of the picture.

    Parameters
    ----------
    segments : sequence of Segment
        Pieces of one mask are joined by lines one pixel wide, because a line of the file holds one outline.
    size : (int, int)
        Height and width of the picture.
    path, overwrite
        As in `save_mask`.
    categories : list of str, optional
        The classes in the order of their numbers, as the training's data.yaml has them. Left out: those of the
        segments, in alphabetical order.
    tolerance : float
        Pixels by which outlines may be off to save points.

    Raises
    ------
    FileExistsError, ValueError
        As in `save_mask`; also if a mask is empty or of a class that `categories` does not have.
    """
    write_whole(path, yolo_file(segments, size, categories, tolerance), overwrite)


def save_labelme(segments, size, path, *, picture="picture", tolerance=0.0, overwrite=False):
    """Write masks as a LabelMe JSON, to be opened and corrected there.

    Parameters
    ----------
    segments : sequence of Segment
    size : (int, int)
        Height and width of the picture.
    path, overwrite
        As in `save_mask`.
    picture : str
        The picture's path as seen from the JSON file.
    tolerance : float
        Pixels by which outlines may be off: 1 leaves far fewer points to drag.

    Raises
    ------
    FileExistsError, ValueError
        As in `save_mask`; also if a mask is empty.
    """
    write_whole(path, labelme_file(segments, size, picture, tolerance), overwrite)


def save_segments(segments, image, folder, *, prompts=None, picture="picture", model="", overwrite=False):
    """Write everything about one picture into a folder.

    It then holds ``masks/NAME.png``, ``cutouts/NAME.png``, ``coco.json`` and, if given, ``prompts.json``.

    Parameters
    ----------
    segments : sequence of Segment
    image : HxWx3 numpy.ndarray of uint8, RGB
    folder : str or pathlib.Path
    prompts : str, optional
        JSON text that tells how the masks were asked for: what `Session.to_json` returned.
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


def load_mask(path):
    """Return the mask, HxW bool, of a file by `save_mask` or `save_cutout`, or of any picture: what is not black.

    Parameters
    ----------
    path : str or pathlib.Path

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It is none of this format.
    """
    return mask_from_file(_read(path))


def load_index(path):
    """Return the objects' numbers, HxW uint8, of a file by `save_index`; 0 is none of them. Raises as `load_mask`."""
    return index_from_file(_read(path))


def load_coco(path):
    """Return the segments of a COCO JSON about one picture, a list of `Segment`. Raises as `load_mask`."""
    return coco_segments(_read(path))


def load_yolo(path, size, categories):
    """Return the segments of YOLO's labels, a list of `Segment`.

    Parameters
    ----------
    path : str or pathlib.Path
    size : (int, int)
        Height and width of the picture, which the file does not tell.
    categories : list of str
        The classes in the order of their numbers.

    Raises
    ------
    FileNotFoundError, ValueError
        As `load_mask`; also if the file has a class that `categories` does not.
    """
    return yolo_segments(_read(path), size, categories)


def load_labelme(path):
    """Return the segments of a LabelMe JSON of polygons, a list of `Segment`. Raises as `load_mask`."""
    return labelme_segments(_read(path))


def write_whole(path, content, overwrite=False):
    """Write a file that is there whole or not at all.

    Parameters
    ----------
    path : str or pathlib.Path
    content : bytes
    overwrite : bool

    Raises
    ------
    FileExistsError
        As in `save_mask`.
    """
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


def _read(path):
    return Path(path).expanduser().read_bytes()


def _file_names(names):
    """Return names that every file system takes, all different."""
    safe = []
    for name in names:
        plain = re.sub(r"[^\w.-]+", "_", name).strip("._") or "object"
        plain = f"_{plain}" if DEVICES.match(plain) else plain
        number = 2
        unique = plain
        # Windows and macOS do not tell upper case from lower case.
        while unique.lower() in {other.lower() for other in safe}:
            unique = f"{plain}_{number}"
            number += 1
        safe.append(unique)
    return safe
