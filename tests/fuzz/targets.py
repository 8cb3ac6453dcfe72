"""What is tried: valid files, how they are damaged, what reads them, and what must hold of the result."""

import ast
import functools
import io
import json
import pickle
import random
import struct
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sam_nb import Masks, Prompt, Segment, Session, load_coco, load_label_map, load_labelme, load_mask, load_yolo
from sam_nb.files.coco import encode_coco
from sam_nb.files.labelme import encode_labelme
from sam_nb.files.prompt_file import read_prompt_file
from sam_nb.files.yolo import encode_yolo
from sam_nb.images import load_image
from sam_nb.masks import as_labels, as_mask, bounding_box, iou
from tests.fuzz.mutations import mutated_bytes, mutated_json, odd_call, with_checksums

SIZE = 20, 30  # height and width of the images that annotations are of


@dataclass(frozen=True)
class Target:
    """A function that is tried.

    `make` returns an input for a random generator, always the same for the same state. `read` takes the path of a file
    that holds it. `names_file` says whether errors must name that file. `suffix` ends its name.
    """

    name: str
    suffix: str
    make: Callable[[random.Random], bytes]
    read: Callable[[Path], object]
    names_file: bool = True


def expect(holds: object, words: str) -> None:
    """Raise an AssertionError, which is a fault, unless something holds of what was read."""
    if not holds:
        raise AssertionError(words)


# Images -------------------------------------------------------------------------------------------------------------


def _saved(image: Image.Image, kind: str, **how: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


@functools.cache
def valid_images() -> tuple[bytes, ...]:
    """Return small image files of every format, mode and compression that people have."""
    rng = np.random.default_rng(0)
    rgba = Image.fromarray(rng.integers(0, 256, (11, 17, 4), np.uint8))
    deep = Image.fromarray(rng.integers(0, 65536, (11, 17), np.uint16))
    colours = {mode: rgba.convert("RGB").convert(mode) for mode in ("1", "L", "P", "RGB", "CMYK", "YCbCr")}
    colours["LAB"] = Image.frombytes("LAB", rgba.size, colours["RGB"].tobytes())
    grey = colours["L"].point(lambda value: 255 * (value > 127))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a cat"
    found = [_saved(colours[mode], "PNG") for mode in ("1", "L", "P", "RGB")] + [_saved(grey, "PNG")]
    found += [_saved(colours[mode], "PNG", transparency=7) for mode in ("L", "P")]
    found += [_saved(rgba, "PNG", exif=exif), _saved(rgba.convert("LA"), "PNG"), _saved(deep, "PNG")]
    found += [_saved(rgba, "PNG", save_all=True, append_images=[rgba.rotate(90)])]
    found += [_saved(colours[mode], "JPEG", exif=exif) for mode in ("L", "RGB", "CMYK")]
    found += [_saved(colours["RGB"], "JPEG", progressive=True), _saved(grey, "JPEG")]
    found += [_saved(colours[mode], "TIFF") for mode in ("1", "L", "P", "RGB", "CMYK", "YCbCr", "LAB")]
    found += [_saved(colours["RGB"], "TIFF", compression=way) for way in ("tiff_lzw", "tiff_adobe_deflate", "packbits")]
    found += [_saved(colours["RGB"], "TIFF", compression="jpeg"), _saved(colours["1"], "TIFF", compression="group4")]
    found += [_saved(rgba, "TIFF", exif=exif), _saved(deep, "TIFF")]
    found += [_saved(Image.fromarray(rng.random((5, 7)).astype(kind)), "TIFF") for kind in ("f4", "i4")]
    found += [_saved(colours["L"], "TIFF", save_all=True, append_images=[colours["P"]], big_tiff=True)]
    found += [_saved(colours["P"], "GIF", save_all=True, append_images=[colours["L"]], transparency=7)]
    found += [_saved(colours[mode], "BMP") for mode in ("1", "L", "P", "RGB")] + [_saved(rgba, "BMP")]
    found += [_saved(rgba, "WEBP", lossless=way, exif=exif) for way in (True, False)]
    found += [_saved(rgba, "WEBP", save_all=True, append_images=[rgba.rotate(90)])]
    found += [_saved(colours["RGB"], kind) for kind in ("PPM", "TGA", "PCX", "ICO", "JPEG2000", "SGI", "DDS", "MPO")]
    return (*found, b"P5 5 3 65535\n" + bytes(30))


def damaged_image(rng: random.Random) -> bytes:
    content = rng.choice(valid_images())
    changed = mutated_bytes(rng, content) if rng.random() < 0.97 else content
    return with_checksums(changed) if changed[:4] == b"\x89PNG" and rng.random() < 0.8 else changed


def read_image(path: Path) -> None:
    image = load_image(path)
    expect(image.dtype == np.uint8 and image.size and image.shape == (*image.shape[:2], 3), "an image is HxWx3 uint8")


def read_mask(path: Path) -> None:
    mask = load_mask(path)
    expect(mask.dtype == bool and mask.ndim == 2 and mask.size, "a mask is HxW bool")


def read_label_map(path: Path) -> None:
    labels = load_label_map(path)
    expect(labels.dtype == np.uint8 and labels.ndim == 2 and labels.size, "a label map is HxW uint8")


# Annotations --------------------------------------------------------------------------------------------------------


def segments() -> list[Segment]:
    """Return a mask with a hole, a small one, and one of several components."""
    ring, dot, parts = (np.zeros(SIZE, bool) for _ in range(3))
    ring[3:12, 4:15], ring[6:9, 7:10] = True, False
    dot[17, 28] = True
    parts[2:5, 20:25] = parts[10:14, 18:29] = parts[16, 3] = True
    return [Segment(ring, "a ring", "ring", 0.9), Segment(dot, "a dot", "dot"), Segment(parts, "parts", "ring", 0.5)]


@functools.cache
def valid_coco() -> tuple[bytes, ...]:
    texts = [encode_coco(segments(), SIZE, as_polygons=as_polygons) for as_polygons in (True, False)]
    record = json.loads(texts[0])
    runs = {"size": list(SIZE), "counts": [43, 4, 16, 4, 533]}
    record["annotations"][0] |= {"segmentation": runs, "iscrowd": 1}
    record["annotations"][1] |= {"image_id": 2}
    return *texts, json.dumps(record).encode()


@functools.cache
def valid_labelme() -> tuple[bytes, ...]:
    text = encode_labelme(segments(), SIZE)
    record = json.loads(text)
    record["shapes"][0] |= {"shape_type": "rectangle", "points": [[3, 4], [9, 11]]}
    record["shapes"][1].pop("shape_type")
    return text, json.dumps(record).encode()


YOLO_WORDS = (b"nan", b"-inf", b"1e999", b"2e8", b"-1", b"0", b"1.5", b"1e-320", b"", b"\xd9\xa1", b"0x1", b"1_0", b"7")


def damaged_yolo(rng: random.Random) -> bytes:
    content = encode_yolo(segments(), SIZE, categories=["dot", "ring"])
    if rng.random() < 0.4:
        return mutated_bytes(rng, content)
    lines = [line.split(b" ") for line in content.splitlines()]
    for _ in range(rng.choice((1, 1, 2, 5))):
        line = rng.choice(lines)
        place = rng.randrange(len(line) + 1)
        word = rng.choice((*YOLO_WORDS, *line))
        line[place : place + rng.randrange(2)] = [word] * rng.choice((1, 1, 2, 3000))
    return b"\n".join(b" ".join(line) for line in lines)


def read_segments(load: Callable[[Path], list[Segment]], path: Path) -> None:
    for segment in load(path):
        expect(segment.mask.dtype == bool and segment.mask.ndim == 2 and segment.mask.any(), "a mask is HxW, not empty")
        expect(segment.score is None or np.isfinite(segment.score), "a score is finite")


def load_yolo_of_size(path: Path) -> list[Segment]:
    return load_yolo(path, SIZE, ["dot", "ring"])


def damaged_classes(rng: random.Random) -> bytes:
    return mutated_bytes(rng, "dot\nring\n自行车\n".encode())


def load_yolo_with_classes(path: Path) -> list[Segment]:
    """Load labels whose classes are the damaged file."""
    with tempfile.TemporaryDirectory(prefix="sam-nb-fuzz-") as folder:
        labels = Path(folder) / "labels.txt"
        labels.write_bytes(encode_yolo(segments(), SIZE, categories=["dot", "ring"]))
        labels.with_name("classes.txt").write_bytes(path.read_bytes())
        return load_yolo(labels, SIZE)


# Prompts and sessions -----------------------------------------------------------------------------------------------


def decode(prompt: Prompt) -> Masks:
    """Return masks of everything, as many as a model gives: three for a lone click."""
    count = 3 if prompt.points is not None and len(prompt.points) == 1 and prompt.box is None else 1
    return Masks(np.ones(count, np.float32), np.full((count, 4, 4), 5, np.float32), "fake", SIZE, _upscaled)


def _upscaled(_: int) -> np.ndarray:
    return np.ones(SIZE, np.float32)


@functools.cache
def valid_sessions() -> tuple[bytes, ...]:
    session = Session(decode, SIZE, "fake")
    session.add_point(4, 5)
    session.choose(2)
    session.add_point(9, 7, label=0)
    session.new_object()
    session.set_box(3, 4, 20, 15)
    session.rename(1, "wheel", "part")
    return (session.to_json().encode(),)


@functools.cache
def valid_prompts() -> tuple[bytes, ...]:
    logits = np.linspace(-9, 9, 16, dtype=np.float32).reshape(1, 4, 4)
    prompts = (Prompt(points=[(3, 4), (9, 11)], labels=[1, 0], box=(1, 2, 9.5, 14)), Prompt(mask_input=logits))
    return tuple(prompt.to_json().encode() for prompt in prompts)


@functools.cache
def valid_prompt_files() -> tuple[bytes, ...]:
    wheel = {"name": "wheel", "category": "part", "box": [1, 2, 9, 11]}
    objects = [wheel, {"points": [[3, 4], [5, 6]], "labels": [1, 0]}]
    record = {"a.jpg": objects, "b.jpg": json.loads(valid_sessions()[0]), "*": [{"box": [4, 1, 11, 5]}], "c.jpg": []}
    return (json.dumps(record).encode(),)


def read_session(path: Path) -> None:
    session = Session(decode, SIZE)
    session.load_json(path.read_text(encoding="utf-8", errors="surrogateescape"))
    session.segments()
    again = Session(decode, SIZE)
    again.load_json(session.to_json())
    expect(again.objects == session.objects, "a session comes back")


def read_prompts(path: Path) -> None:
    for entry in read_prompt_file(path).values():
        if entry is not None:
            json.dumps(entry.to_record())


def read_prompt(path: Path) -> None:
    same_prompt(Prompt.from_json(path.read_text(encoding="utf-8", errors="surrogateescape")))


def same_prompt(prompt: Prompt) -> None:
    again = Prompt.from_json(prompt.to_json())
    for name in ("points", "labels", "box", "mask_input"):
        value, other = getattr(prompt, name), getattr(again, name)
        expect((value is None) == (other is None) and np.array_equal(value, other), f"{name} comes back")
        expect(value is None or np.isfinite(value).all(), f"{name} is finite")
    prompt.check_inside(10**9, 10**9)


# Calls --------------------------------------------------------------------------------------------------------------

ARRAYS = ("np.zeros((5, 7), bool)", "np.eye(5, 7)", "np.full((5, 7, 3), 200, np.uint8)", "np.eye(5, 7) * 4000")
PROMPT = {
    "points": ("[(3, 4)]", "[(3, 4), (5, 6)]", "np.ones((2, 2))"),
    "labels": ("[1]", "[1, 0]", "np.ones(2)"),
    "box": ("(1, 2, 9, 11)", "np.arange(4)", "np.arange(4.)[None]"),
    "mask_input": ("np.linspace(-9, 9, 35).reshape(5, 7)", "np.full((1, 4, 4), -8., np.float32)"),
}
CALLS = {
    "load_image": {"source": ARRAYS},
    "as_mask": {"value": ARRAYS},
    "as_labels": {"value": ARRAYS},
    "bounding_box": {"mask": ARRAYS},
    "iou": {"mask": ARRAYS, "ground_truth": ARRAYS},
}


def odd_prompt_call(rng: random.Random) -> bytes:
    return odd_call(rng, "Prompt", PROMPT).encode()


def odd_array_call(rng: random.Random) -> bytes:
    name = rng.choice([*CALLS])
    return odd_call(rng, name, {argument: values for argument, values in CALLS[name].items()}).encode()


def run_call(path: Path) -> None:
    """Run a call of one of our functions, given as source; an argument that cannot be made is None."""
    functions = (Prompt, load_image, as_mask, as_labels, bounding_box, iou)
    call = ast.parse(path.read_text(encoding="utf-8"), mode="eval").body
    arguments = {keyword.arg: _made(ast.unparse(keyword.value)) for keyword in call.keywords}
    function = next(each for each in functions if each.__name__ == call.func.id)
    if function is not Prompt and not arguments:
        arguments = dict.fromkeys(CALLS[call.func.id])
    elif function is iou:
        arguments = {"mask": None, "ground_truth": None} | arguments
    found = function(**arguments)
    if function is Prompt:
        same_prompt(found)
    elif function in (as_mask, load_image):
        expect(isinstance(found, np.ndarray) and found.dtype == (bool if function is as_mask else np.uint8), "its type")
    elif function is iou:
        expect(0 <= found <= 1, "an IoU lies in [0, 1]")


def _made(source: str) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return eval(source, _names())
        except Exception:
            return None


@functools.cache
def _names() -> dict[str, object]:
    import decimal
    import fractions

    import torch

    loop: list[object] = []
    loop.append(loop)
    known = {"nan": float("nan"), "inf": float("inf"), "loop": loop, "Odd": Odd, "Path": Path, "Image": Image}
    return known | {"np": np, "torch": torch, "Decimal": decimal.Decimal, "Fraction": fractions.Fraction}


class Odd:
    """Pretends to be an array and a number, and fails as both."""

    def __array__(self, *args: object, **options: object) -> np.ndarray:
        raise KeyError("no array")

    def __float__(self) -> float:
        raise AttributeError("no number")

    def __repr__(self) -> str:
        return "Odd()"


# Weights ------------------------------------------------------------------------------------------------------------


class Trap:
    """Would run a command when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        import os

        return os.system, ("exit 7",)


@functools.cache
def valid_weights(kind: str) -> tuple[bytes, ...]:
    import safetensors.torch
    import torch

    generator = torch.Generator().manual_seed(0)
    state = {"a.weight": torch.rand(2, 3, generator=generator), "a.bias": torch.ones(3, dtype=torch.float16)}
    if kind == "safetensors":
        return (safetensors.torch.save(state), safetensors.torch.save(state, {"by": "fuzz"}))
    found = []
    for content in (
        state,
        state | {"view": torch.rand(8, generator=generator)[2:4]},
        {"a": torch.ones(1).expand(9)},
        {"trap": Trap()},
        [state],
    ):
        file = io.BytesIO()
        torch.save(content, file)
        found.append(file.getvalue())
    return (*found, pickle.dumps({"a": [1.0]}, protocol=2))


def damaged_safetensors(rng: random.Random) -> bytes:
    content = rng.choice(valid_weights("safetensors"))
    if rng.random() < 0.3:
        return mutated_bytes(rng, content)
    (length,) = struct.unpack_from("<Q", content)
    header = mutated_json(rng, content[8 : 8 + length])
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def damaged_pickle(rng: random.Random) -> bytes:
    content = rng.choice(valid_weights("pth"))
    if rng.random() < 0.3 or not zipfile.is_zipfile(io.BytesIO(content)):
        return mutated_bytes(rng, content)
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(file, "w") as changed:
        for name in archive.namelist():
            part = archive.read(name)
            is_changed = rng.random() < (0.9 if name.endswith("data.pkl") else 0.1)
            # Not by its name alone, which would write the time of day.
            changed.writestr(zipfile.ZipInfo(name), _damaged_instructions(rng, part) if is_changed else part)
    return file.getvalue()


def _damaged_instructions(rng: random.Random, content: bytes) -> bytes:
    """Return a pickle in which integers are others, or bytes are."""
    if rng.random() < 0.4:
        return mutated_bytes(rng, content)
    changed = bytearray(content)
    small = [place for place in range(len(content) - 1) if content[place] == ord("K")]  # BININT1
    for place in sorted(rng.sample(small, min(len(small), rng.choice((1, 1, 2, 4)))), reverse=True):
        number = rng.choice((0, 1, 2, 3, -1, 255, 2**31, 2**40, 2**62, 2**63 - 1, -(2**63)))
        changed[place : place + 2] = b"\x8a\x08" + number.to_bytes(8, "little", signed=True)  # LONG1
    return bytes(changed)


def read_weights(path: Path) -> None:
    from sam_nb.weights import weights_file

    state = weights_file.read_weights(path)
    size = path.stat().st_size
    expect(all(value.nbytes <= size for value in state.values()), "no tensor is larger than its file")
    expect(all(value.isfinite().all() for value in state.values()), "weights are finite")


# All ----------------------------------------------------------------------------------------------------------------


def damaged(valid: Callable[[], tuple[bytes, ...]], rng: random.Random) -> bytes:
    content = rng.choice(valid())
    return mutated_bytes(rng, content) if rng.random() < 0.2 else mutated_json(rng, content)


def json_target(
    name: str, valid: Callable[[], tuple[bytes, ...]], read: Callable[[Path], object], **more: bool
) -> Target:
    return Target(name, ".json", functools.partial(damaged, valid), read, **more)


def of_segments(load: Callable[[Path], list[Segment]]) -> Callable[[Path], None]:
    return functools.partial(read_segments, load)


TARGETS = {
    target.name: target
    for target in (
        Target("images", ".image", damaged_image, read_image),
        Target("masks", ".image", damaged_image, read_mask),
        Target("label_maps", ".image", damaged_image, read_label_map),
        json_target("coco", valid_coco, of_segments(load_coco)),
        json_target("labelme", valid_labelme, of_segments(load_labelme)),
        Target("yolo", ".txt", damaged_yolo, of_segments(load_yolo_of_size)),
        Target("yolo_classes", ".txt", damaged_classes, of_segments(load_yolo_with_classes), names_file=False),
        json_target("sessions", valid_sessions, read_session, names_file=False),
        json_target("prompt_files", valid_prompt_files, read_prompts),
        json_target("prompts", valid_prompts, read_prompt, names_file=False),
        Target("prompt_calls", ".py", odd_prompt_call, run_call, names_file=False),
        Target("array_calls", ".py", odd_array_call, run_call, names_file=False),
        Target("safetensors", ".safetensors", damaged_safetensors, read_weights),
        Target("pickles", ".pth", damaged_pickle, read_weights),
    )
}
