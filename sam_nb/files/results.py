"""What *Save* writes: everything about one image in one folder.

::

    street/
      masks/front_wheel.png      a mask for each object
      cutouts/front_wheel.png    the object alone, transparent elsewhere
      coco.json                  all masks with names, categories, areas, boxes and scores
      prompts.json               the prompts that made them, if given

Nothing is overwritten by default, and nothing is left half-written: the folder gets its name when it is whole, and
where one is there already, all files get their place in it or none.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sam_nb.files.coco import encode_coco
from sam_nb.files.png import encode_cutout, encode_mask
from sam_nb.images import load_image
from sam_nb.masks import Segment
from sam_nb.storage import distinct_file_names, replace_folder, write_files, writing_folder

if TYPE_CHECKING:
    from sam_nb.images import ImageLike


def save_segments(
    segments: Sequence[Segment],
    image: "ImageLike",
    folder: str | Path,
    *,
    prompts: str | None = None,
    file_name: str = "image",
    model: str = "",
    overwrite: bool = False,
) -> Path:
    """Write everything about one image into a folder.

    It then holds ``masks/NAME.png``, ``cutouts/NAME.png``, ``coco.json`` and, if given, ``prompts.json``.

    Parameters
    ----------
    segments : sequence of Segment
    image : HxWx3 numpy.ndarray of uint8, RGB
        Or anything else that `load_image` takes.
    folder : str or pathlib.Path
    prompts : str, optional
        JSON text with the prompts that made the masks: what `Session.to_json` returned.
    file_name : str
        The image's file name, for ``coco.json``.
    model : str
        The name of the model that made the masks, for ``coco.json``.
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
    NotADirectoryError
        `folder` is a file.
    OSError
        A file cannot be written, the disk being full for example. Nothing has changed.
    ValueError
        There is no segment, not an image, or a mask is empty or has another size than the image.
    """
    folder = Path(folder).expanduser()
    if not segments:
        raise ValueError("nothing to save: there is no mask yet")
    if folder.exists() and not overwrite:
        raise FileExistsError(f"{str(folder)!r} exists already: choose another folder, or say overwrite=True")
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{str(folder)!r} is a file: choose another name for the folder")
    rgb = load_image(image)
    names = distinct_file_names([segment.name for segment in segments])
    # Everything is encoded before anything is written, and written beside its place before it gets there.
    files = {"coco.json": encode_coco(segments, rgb.shape[:2], file_name=file_name, model=model)}
    for name, segment in zip(names, segments, strict=True):
        files[f"masks/{name}.png"] = encode_mask(segment.mask)
        files[f"cutouts/{name}.png"] = encode_cutout(rgb, segment.mask)
    if prompts is not None:
        files["prompts.json"] = prompts.encode("utf-8")
    if folder.exists():
        write_files({folder / name: content for name, content in files.items()})
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with writing_folder(folder) as part:
        for name, content in files.items():
            (part / name).parent.mkdir(exist_ok=True)
            (part / name).write_bytes(content)
        replace_folder(part, folder)
    return folder
