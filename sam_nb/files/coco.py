"""Masks in the forms that other programs read, and back: PNG, COCO, YOLO, LabelMe. Bytes and text, no files.

PNG and COCO's run lengths are exact. Polygons are, too, for the programs that fill them as their format means it
(tests/test_formats.py reads them with those); a tolerance makes them shorter and less exact.
"""

import io
import json

import numpy as np
import pycocotools.mask
from PIL import Image

from sam_nb.files.polygons import in_one, polygons
from sam_nb.masks import Segment, as_mask, bounding_box
from sam_nb.palette import PALETTE
from sam_nb.rasterize import rasterize

# Where in its pixel a point lies that stands for the pixel: readers that round and readers that cut off both get it.
WITHIN = 0.25


def encode_mask(mask):
    """Return a mask, HxW bool, as the bytes of a PNG: 255 inside, 0 outside."""
    return _png(Image.fromarray(as_mask(mask).astype(np.uint8) * 255))


def decode_mask(content):
    """Return the mask, HxW bool, of a picture's bytes: True where it is not black or, if it has alpha, not transparent.

    Raises
    ------
    ValueError
        This is no picture.
    """
    picture = _opened(content)
    if picture.has_transparency_data:
        return np.asarray(picture.convert("RGBA"))[..., 3] > 0
    return np.asarray(picture.convert("L")) > 0


def encode_cutout(image, mask):
    """Return the object alone as the bytes of a PNG: HxWx3 uint8 RGB where the mask, HxW bool, is; else transparent."""
    mask = as_mask(mask)
    if mask.shape != image.shape[:2]:
        raise ValueError(f"the picture has {image.shape[:2]} (height, width) and the mask {mask.shape}")
    # Colours under transparent pixels would come back in programs that drop the alpha: they are black instead.
    return _png(Image.fromarray(np.dstack([image * mask[..., None], mask.astype(np.uint8) * 255])))


def encode_label_map(segments, size):
    """Return the bytes of a PNG of objects' numbers; arguments as in `sam_nb.files.results.save_label_map`."""
    if len(segments) > 255:
        raise ValueError(
            f"8 bits tell 255 objects apart, and these are {len(segments)}: save them in parts, or as COCO"
        )
    numbers = np.zeros(size, np.uint8)
    for number, segment in enumerate(segments, start=1):
        numbers[_checked(segment, size)] = number
    picture = Image.frombytes("P", size[::-1], numbers.tobytes())
    # Other programs show the palette's colours and keep the numbers.
    picture.putpalette([0, 0, 0, *np.resize(PALETTE, 3 * 255).tolist()])
    return _png(picture)


def decode_label_map(content):
    """Return the numbers of the objects, HxW uint8, from the bytes of such a PNG.

    Raises
    ------
    ValueError
        This is no picture, or one of colours and not of numbers.
    """
    picture = _opened(content)
    if picture.mode not in ("P", "L"):
        raise ValueError(f"expected a picture of numbers (8 bits, one channel), got one of {picture.mode}")
    return np.array(picture)


def encode_coco(segments, size, picture, model, as_polygons=False):
    """Return the bytes of a COCO JSON; arguments as in `sam_nb.files.results.save_coco`."""
    height, width = size
    categories = _categories(segments)
    annotations = []
    for number, segment in enumerate(segments, start=1):
        mask = _checked(segment, size)
        x0, y0, x1, y1 = (int(side) for side in bounding_box(mask))
        if as_polygons:
            form = [points.ravel().tolist() for points in _outlines(segment, finer=2)]
        else:
            runs = pycocotools.mask.encode(np.asfortranarray(mask.astype(np.uint8)))
            form = {"size": [height, width], "counts": runs["counts"].decode("ascii")}
        annotation = {
            "id": number,
            "image_id": 1,
            "category_id": 1 + categories.index(segment.category),
            "segmentation": form,
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
    return _json(record)


def coco_segments(content):
    """Return the segments of a COCO JSON about one picture, a list of `Segment`.

    Parameters
    ----------
    content : bytes

    Raises
    ------
    ValueError
        This is no COCO JSON, or one about several pictures.
    """
    record = _read_json(content, "COCO JSON", ("images", "annotations", "categories"))
    if len(record["images"]) != 1:
        raise ValueError(f"expected COCO JSON about one picture, got one about {len(record['images'])}")
    (picture,) = record["images"]
    size = picture["height"], picture["width"]
    names = {category["id"]: category["name"] for category in record["categories"]}
    segments = []
    for annotation in record["annotations"]:
        form = annotation["segmentation"]
        if isinstance(form, list):
            form = pycocotools.mask.merge(pycocotools.mask.frPyObjects(form, *size))
        elif isinstance(form["counts"], list):
            form = pycocotools.mask.frPyObjects(form, *size)
        mask = pycocotools.mask.decode(form).astype(bool)
        name = annotation.get("name", f"object {annotation['id']}")
        segments.append(Segment(mask, name, names[annotation["category_id"]], annotation.get("score")))
    return segments


def encode_yolo(segments, size, categories=None, tolerance=0.0):
    """Return the bytes of YOLO's segmentation labels; arguments as in `sam_nb.files.results.save_yolo`."""
    categories = _categories(segments) if categories is None else list(categories)
    lines = []
    for segment in segments:
        _checked(segment, size)
        if segment.category not in categories:
            raise ValueError(f"{segment.name}: the category {segment.category!r} is none of {', '.join(categories)}")
        points = (in_one(_outlines(segment, tolerance=tolerance)) + WITHIN) / size[::-1]
        numbers = " ".join(f"{value:.6f}" for value in points.ravel())
        lines.append(f"{categories.index(segment.category)} {numbers}\n")
    return "".join(lines).encode("ascii")


def yolo_segments(content, size, categories):
    """Return the segments of YOLO's labels, a list of `Segment`; arguments as in `sam_nb.files.results.load_yolo`."""
    segments = []
    for number, line in enumerate(content.decode("utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        index, *numbers = line.split()
        if len(numbers) < 6 or len(numbers) % 2 or not index.isdecimal() or int(index) >= len(categories):
            last = len(categories) - 1
            raise ValueError(
                f"line {number}: expected a class from 0 to {last} and at least three points, got {line[:60]!r}"
            )
        points = np.array(numbers, float).reshape(-1, 2) * size[::-1]
        segments.append(Segment(rasterize([points], size), f"object {number}", categories[int(index)]))
    return segments


def encode_labelme(segments, size, picture, tolerance=0.0):
    """Return the bytes of a LabelMe JSON; arguments as in `sam_nb.files.results.save_labelme`."""
    shapes = []
    for number, segment in enumerate(segments, start=1):
        _checked(segment, size)
        shapes += [
            {
                "label": segment.category,
                "points": (points + WITHIN).tolist(),
                "group_id": number,  # pieces of one object share it
                "description": segment.name,
                "shape_type": "polygon",
                "flags": {},
            }
            for points in _outlines(segment, tolerance=tolerance)
        ]
    height, width = size
    record = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": picture, "imageData": None}
    return _json(record | {"imageHeight": height, "imageWidth": width})


def labelme_segments(content):
    """Return the segments of a LabelMe JSON, a list of `Segment`: shapes of one group are one object.

    Parameters
    ----------
    content : bytes

    Raises
    ------
    ValueError
        This is no LabelMe JSON, or a shape in it is no polygon.
    """
    record = _read_json(content, "LabelMe JSON", ("shapes", "imageHeight", "imageWidth"))
    size = record["imageHeight"], record["imageWidth"]
    objects = {}
    for number, shape in enumerate(record["shapes"]):
        if shape["shape_type"] != "polygon":
            raise ValueError(f"shape {number} is a {shape['shape_type']}: only polygons are read")
        group = shape.get("group_id")
        objects.setdefault(("alone", number) if group is None else group, []).append(shape)
    return [
        Segment(
            rasterize([shape["points"] for shape in shapes], size),
            shapes[0].get("description") or f"object {number}",
            shapes[0]["label"],
        )
        for number, shapes in enumerate(objects.values(), start=1)
    ]


def _categories(segments):
    return sorted({segment.category for segment in segments})


def _checked(segment, size):
    mask = as_mask(segment.mask)
    if mask.shape != tuple(size):
        raise ValueError(f"{segment.name}: the picture has {tuple(size)} (height, width) and the mask {mask.shape}")
    return mask


def _outlines(segment, **options):
    found = polygons(segment.mask, **options)
    if not found:
        raise ValueError(f"{segment.name}: an empty mask has no outline; leave it out")
    return found


def _opened(content):
    try:
        picture = Image.open(io.BytesIO(content))
        picture.load()
    except OSError as error:
        raise ValueError(f"this is no picture that can be read: {error}") from error
    return picture


def _png(picture):
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _json(record):
    return json.dumps(record, indent=1, ensure_ascii=False).encode("utf-8")


def _read_json(content, kind, keys):
    try:
        record = json.loads(content)
    except ValueError as error:
        raise ValueError(f"this is no {kind}: {error}") from error
    missing = [key for key in keys if not isinstance(record, dict) or key not in record]
    if missing:
        raise ValueError(f"this is no {kind}: it has no {', '.join(missing)}")
    return record
