"""Masks as files, written and read: PNG, transparent cut-out, COCO JSON, YOLO's labels, LabelMe JSON.

Nothing is overwritten unless asked for, and nothing is left half-written: a file gets its name when it is whole.
"""

from pathlib import Path

from sam_nb.files.coco import (
    coco_segments,
    decode_label_map,
    decode_mask,
    encode_coco,
    encode_cutout,
    encode_label_map,
    encode_labelme,
    encode_mask,
    encode_yolo,
    labelme_segments,
    yolo_segments,
)
from sam_nb.storage import distinct_file_names, replace_folder, write_bytes, writing_folder


def save_mask(mask, path, *, overwrite=False):
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
    write_bytes(path, encode_mask(mask), overwrite=overwrite)


def save_cutout(image, mask, path, *, overwrite=False):
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
    write_bytes(path, encode_cutout(image, mask), overwrite=overwrite)


def save_label_map(segments, size, path, *, overwrite=False):
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
    write_bytes(path, encode_label_map(segments, size), overwrite=overwrite)


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
    write_bytes(path, encode_coco(segments, size, picture, model, as_polygons), overwrite=overwrite)


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
    write_bytes(path, encode_yolo(segments, size, categories, tolerance), overwrite=overwrite)


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
    write_bytes(path, encode_labelme(segments, size, picture, tolerance), overwrite=overwrite)


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
    names = distinct_file_names([segment.name for segment in segments])
    # Everything is made before anything is written, and written beside its place before it gets there.
    files = {"coco.json": encode_coco(segments, image.shape[:2], picture, model)}
    for name, segment in zip(names, segments, strict=True):
        files[f"masks/{name}.png"] = encode_mask(segment.mask)
        files[f"cutouts/{name}.png"] = encode_cutout(image, segment.mask)
    if prompts is not None:
        files["prompts.json"] = prompts.encode("utf-8")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with writing_folder(folder) as part:
        for name, content in files.items():
            (part / name).parent.mkdir(exist_ok=True)
            (part / name).write_bytes(content)
        if folder.exists():
            for name in files:
                (folder / name).parent.mkdir(exist_ok=True)
                (part / name).replace(folder / name)
        else:
            replace_folder(part, folder)
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
    return decode_mask(_read(path))


def load_label_map(path):
    """Return the label map, HxW uint8, of a file by `save_label_map`; 0 is background. Raises as `load_mask`."""
    return decode_label_map(_read(path))


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


def _read(path):
    return Path(path).expanduser().read_bytes()
