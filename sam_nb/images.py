"""Images in: whatever the reader has becomes an HxWx3 uint8 RGB array, or an error that says why not.

SAM itself checks too little: an RGBA array fails with an assertion about "BCHW", and a float image in [0, 1] passes
silently and gives wrong masks. So everything is converted here, once, at the edge.
"""

import contextlib
import difflib
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError
from PIL import TiffImagePlugin as Tiff

ImageLike = str | Path | bytes | bytearray | memoryview | Image.Image | npt.NDArray[np.generic]
"""What `load_image` takes, and with it every public function that takes an image."""

SAMPLES = ("street", "astronaut", "cat", "coffee", "coins", "rocket")
"""Names that `load_image` knows: "street" is painted by this project, the others are scikit-image's photographs."""

_DATA = Path(__file__).parent / "data"

URL_TIMEOUT = 30  # seconds without a byte
MAX_DOWNLOAD = 200_000_000  # bytes: an image, not a disk image
MAX_WORDS, MAX_REASON = 300, 300  # characters of a path or an address, and of another library's error, in our errors

DEPTHS = (8, 10, 12, 14, 16)  # bits of a sensor whose values are kept in 16

# How files begin that people take for images: offset, bytes, what it is and what to do.
_OTHER_FILES = (
    *(
        (
            4,
            brand,
            "a HEIC photograph: pip install pillow-heif, then once import pillow_heif; "
            "pillow_heif.register_heif_opener(), or export it as JPEG",
        )
        for brand in (b"ftyphei", b"ftyphev", b"ftypmif1")
    ),
    (4, b"ftypavi", "an AVIF image: pip install --upgrade pillow, or export it as PNG"),
    (4, b"ftyp", "a video: take a frame of it, with OpenCV's VideoCapture"),
    (4, b"JXL ", "a JPEG XL image: export it as PNG"),
    (0, b"\xff\x0a", "a JPEG XL image: export it as PNG"),
    (0, b"%PDF", "a PDF: export the page as PNG"),
    (0, b"PK\x03\x04", "a ZIP archive: unpack it first"),
    (0, b"\x1f\x8b", "a gzip archive: unpack it first"),
    (0, b"\x93NUMPY", "a NumPy file: give the array, load_image(numpy.load(path))"),
    (0, b"\x89HDF", "an HDF5 file: read it with h5py and give the array"),
    (128, b"DICM", "a DICOM file: read it with pydicom and give the array"),
    (0, b"version https://git-lfs", "a placeholder of Git LFS: fetch the image itself with git lfs pull"),
    (0, b"<svg", "a drawing in SVG: export it as PNG"),
    (0, b"<?xml", "XML, perhaps a drawing in SVG: export it as PNG"),
    (0, b"<", "a web page: open the image in it by itself, and take its address"),
)


def load_image(source: ImageLike) -> npt.NDArray[np.uint8]:
    """Return an image as RGB, whatever form it comes in.

    Parameters
    ----------
    source : str, pathlib.Path, bytes, bytearray, memoryview, PIL.Image.Image or numpy.ndarray
        One of

        * a sample's name, see `SAMPLES`;
        * the path of an image file (a `Path` is always a file, never a sample);
        * a URL beginning with ``http://`` or ``https://``;
        * the bytes of an image file (bytes, bytearray or memoryview), as ipywidgets' upload button holds them:
          ``upload.value[0].content``;
        * a PIL image;
        * an array HxW (grey), HxWx1, HxWx3 (RGB, not OpenCV's BGR) or HxWx4 (RGBA), as integers in [0, 255], as 16-bit
          integers, whose largest value decides the depth (8, 10, 12, 14 or 16 bits), bool, or float in [0, 1].

        ``docs/images.md`` has a table of every type, range, mode and number of bands.

    Returns
    -------
    numpy.ndarray
        HxWx3 uint8, RGB, a copy. Files are turned upright by their EXIF tag; transparent pixels are blended over white.

    Warns
    -----
    UserWarning
        The file holds more pages or frames than the first, which is taken.

    Raises
    ------
    FileNotFoundError
        There is no such file; the message lists similar names.
    ValueError
        The source is not an image, is empty or damaged, cannot be fetched, or is an array whose shape, type or range is
        none of the above, or that holds NaN. The message names the file.
    OSError
        The file may not be read.
    """
    if isinstance(source, str) and source in SAMPLES:
        return _sample(source)
    if isinstance(source, str) and source.lower().startswith(("http://", "https://")):
        return decode_image(fetch(source), source)
    if isinstance(source, str) and ("://" in source or source.lower().startswith("data:")):
        raise ValueError(
            f"cannot read an image from {_short(source)}: expected an address that begins with http:// or https://; "
            "of a data: address give the bytes, base64.b64decode(address.partition(',')[2])"
        )
    if isinstance(source, str | Path):
        return decode_image(_existing(Path(source)).read_bytes(), source)
    if isinstance(source, bytes | bytearray | memoryview):
        content = bytes(source)
        return decode_image(content, f"<{len(content):,} bytes>")
    if isinstance(source, Image.Image):
        return _from_pil(source)
    if isinstance(source, np.ndarray):
        return _from_array(np.asarray(source))  # without what a subclass makes of it
    is_list = isinstance(source, list | tuple)
    cure = "; make it an array, numpy.array(source), with rows of one length" if is_list else ""
    raise ValueError(
        "not an image: expected a sample's name, a path, a URL, a file's bytes (of an upload button: "
        "upload.value[0].content), a PIL image or a NumPy array, "
        f"got {type(source).__name__}{cure}"
    )


def decode_image(content: bytes, name: str | Path) -> npt.NDArray[np.uint8]:
    """Return the image that the bytes of a file hold, HxWx3 uint8 RGB, as `load_image` does.

    Parameters
    ----------
    content : bytes
        Of the file.
    name : str or pathlib.Path
        What messages call it.

    Raises
    ------
    ValueError
        As `image_pixels`, or there is no colour image to make of the pixels.
    """
    pixels = image_pixels(content, name)
    try:
        return _from_array(pixels)
    except ValueError as error:
        raise ValueError(f"{_short(name)}: {error}. The array is numpy.asarray(PIL.Image.open(path))") from error


def image_pixels(content: bytes, name: str | Path) -> npt.NDArray[Any]:
    """Return the pixels of an image file as they are stored, upright.

    Parameters
    ----------
    content : bytes
        Of the file.
    name : str or pathlib.Path
        What messages call it.

    Returns
    -------
    numpy.ndarray
        HxW, HxWx3 (RGB) or HxWx4 (RGBA): bool, uint8, uint16, other integers or float32. Palettes are looked up.

    Raises
    ------
    ValueError
        Not an image, or damaged, or of a kind that Pillow does not read.
    """
    image = open_image(content, name)
    try:
        pixels = _deep_colours(content, image) if _has_deep_colours(content) else _stored(image, content)
    except ValueError as error:
        raise ValueError(f"{_short(name)}: {error}") from error
    return _upright(pixels, image)


def open_image(content: bytes, name: str | Path) -> Image.Image:
    """Return an image file as Pillow opens it, its first page, decoded. Parameters and errors as `image_pixels`."""
    try:
        image = Image.open(io.BytesIO(content))
        image.load()
    except UnidentifiedImageError as error:
        raise ValueError(
            f"{_short(name)} is not an image that Pillow can read (JPEG, PNG, WebP, TIFF ...){_other_file(content)}"
        ) from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{_short(name)} is too large to open: {error}. Make it smaller first") from error
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise anything for a cut or damaged file
        raise ValueError(f"{_short(name)} is damaged: {error}. Download or export it again") from error
    pages = _page_count(content)
    if pages > 1:
        warnings.warn(
            f"{_short(name)} holds {pages} pages or frames; the first is taken. For another: "
            "image = PIL.Image.open(path); image.seek(1); load_image(image)",
            stacklevel=5,  # of the caller of `load_image`
        )
    return image


def _sample(name: str) -> npt.NDArray[np.uint8]:
    if name == "street":
        return _from_pil(Image.open(_DATA / "street.jpg"))
    import skimage.data  # noqa: PLC0415  a fifth of a second that only readers of these photographs need to wait

    return _from_array(skimage.data.chelsea() if name == "cat" else getattr(skimage.data, name)())


# Where the bytes come from ----------------------------------------------------------------------------------------


def fetch(url: str) -> bytes:
    """Return what an address holds; ValueError if it cannot be fetched, or is too large for an image."""
    import requests  # noqa: PLC0415  only those who fetch wait for it; it takes spaces and letters of any language

    blocks, size = [], 0
    try:
        with requests.get(url, stream=True, timeout=URL_TIMEOUT) as reply:
            reply.raise_for_status()
            for block in reply.iter_content(1 << 20):
                blocks.append(block)
                size += len(block)
                if size > MAX_DOWNLOAD:
                    break
    except (OSError, ValueError) as error:  # requests' own errors are OSErrors; a name that no host can have is not
        raise ValueError(
            f"could not fetch {_short(url)}: {str(error)[:MAX_REASON]}. Save the image in your browser and give its "
            "path instead"
        ) from error
    if size > MAX_DOWNLOAD:
        raise ValueError(f"{_short(url)} is larger than {MAX_DOWNLOAD // 1_000_000} MB: too large for an image")
    return b"".join(blocks)


def _existing(path: Path) -> Path:
    with contextlib.suppress(RuntimeError):  # there is no such user
        path = path.expanduser()
    try:
        if path.is_dir():
            raise ValueError(f"{str(path)!r} is a folder: expected an image file, such as {str(path / 'image.jpg')!r}")
        if path.is_file():
            return path
        if path.exists():
            raise ValueError(f"{str(path)!r} is neither a file nor a folder: expected an image file")
    except OSError as error:  # longer than the file system takes, or in a folder that may not be read
        raise FileNotFoundError(f"no image {_short(path)}: {error.strerror}") from error
    near = difflib.get_close_matches(path.name, SAMPLES, n=2)
    with contextlib.suppress(OSError):
        names = [entry.name for entry in path.parent.iterdir()]
        near += [str(path.parent / found) for found in difflib.get_close_matches(path.name, names, n=3)]
    hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else "Nothing there has a similar name."
    raise FileNotFoundError(
        f"no image {_short(path)} (looked in {str(path.parent.resolve())!r}). {hint} Samples: {', '.join(SAMPLES)}"
    )


def _short(name: str | Path) -> str:
    """Return a name as messages show it, in quotes: of an address that holds a whole image, both ends."""
    text = str(name)
    return repr(text if len(text) <= MAX_WORDS else f"{text[: MAX_WORDS // 2]}...{text[-MAX_WORDS // 4 :]}")


def _other_file(content: bytes) -> str:
    """Return what a file is that Pillow does not read, and the cure, to end a sentence; "" if that is unknown."""
    if not content:
        return ": it is empty"
    if content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return f": it is {_tiff_in_words(content)}"
    text = content[:1000].lstrip().lower()
    start = text if text.startswith(b"<") else content
    kinds = [words for offset, magic, words in _OTHER_FILES if start[offset : offset + len(magic)] == magic]
    return f": it is {kinds[0]}" if kinds else ""


def _tiff_in_words(content: bytes) -> str:
    words, take = "a TIFF", ""
    with contextlib.suppress(Exception):  # damaged: there is nothing to say of it
        is_big = b"+" in content[2:4]
        tags = Tiff.ImageFileDirectory_v2(content[: 16 if is_big else 8])
        file = io.BytesIO(content)
        file.seek(tags.next)
        tags.load(file)
        if Tiff.IMAGEWIDTH not in tags:
            return "a TIFF that is cut or damaged"
        bands, kind = (
            _tag(tags, Tiff.SAMPLESPERPIXEL, 1),
            {2: "signed integers", 3: "floats"}.get(_tag(tags, Tiff.SAMPLEFORMAT, 1), "integers"),
        )
        words = f"a TIFF of {_tag(tags, Tiff.BITSPERSAMPLE, 1)}-bit {kind}, bands: {bands}"
        take = "[:, :, :3]" if bands > 1 else ""
    choice = ", choose one or three of its bands" if take else ""
    return (
        f"{words}. Read it with tifffile, which scikit-image brings{choice}, and give the array: "
        f"load_image(tifffile.imread(path){take})"
    )


# What Pillow opens ------------------------------------------------------------------------------------------------


def _page_count(content: bytes) -> int:
    """Return how many pages or frames a file holds, 1 if that cannot be said."""
    with contextlib.suppress(Exception):  # damage beyond the first page is no reason to refuse the first
        image = Image.open(io.BytesIO(content))  # apart: counting moves from page to page
        # Further images in these are previews and layers of the first.
        return 1 if image.format in ("MPO", "PSD") else getattr(image, "n_frames", 1)
    return 1


def _from_pil(image: Image.Image) -> npt.NDArray[np.uint8]:
    try:
        image.load()
    except (OSError, SyntaxError, RuntimeError) as error:
        raise ValueError(f"the PIL image is damaged: {error}. Download or export it again") from error
    return _from_array(_upright(_stored(image), image))


def _upright(array: npt.NDArray[Any], image: Image.Image) -> npt.NDArray[Any]:
    """Turn an image's pixels upright by its EXIF tag."""
    # Not by `ImageOps.exif_transpose`, which writes the tags anew and fails where one of them is odd.
    turn = 1
    with contextlib.suppress(Exception):  # an image does not fail by what is written beside it
        turn = image.getexif().get(ExifTags.Base.Orientation, 1)
    if turn in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    return array[:: -1 if turn in (3, 4, 7, 8) else 1, :: -1 if turn in (2, 3, 6, 7) else 1]


def _has_deep_colours(content: bytes) -> bool:
    """Tell whether a file holds colours of more than 8 bits, of which Pillow keeps the upper 8."""
    image = Image.open(io.BytesIO(content))  # before it is decoded: then how it was stored is forgotten
    if image.mode not in ("RGB", "RGBX", "RGBA", "RGBa", "LA", "PA"):
        return False
    raw = _raw_modes(image)
    if image.format == "PPM":
        return any(isinstance(largest, int) and largest > 255 for largest in raw)
    return _tag(_tags(image), Tiff.BITSPERSAMPLE, 8) > 8 or any(";16" in mode for mode in raw if isinstance(mode, str))


def _raw_modes(image: Image.Image) -> list[Any]:
    """Return how an image that is not yet decoded is stored, in Pillow's words: ``"RGB;16B"``, sizes, and so on."""
    args = [tile[3] for tile in image.tile] if isinstance(image, ImageFile.ImageFile) else []
    return [value for each in args for value in (each if isinstance(each, tuple) else (each,))]


def _deep_colours(content: bytes, image: Image.Image) -> npt.NDArray[Any]:
    """Return 16-bit colours, HxWx3 or HxWx4 uint16, by OpenCV, which keeps all bits."""
    import cv2  # noqa: PLC0415  for few images

    # OpenCV takes the bands of a TIFF that lie one after the other for pixels.
    is_planar = _tag(_tags(image), Tiff.PLANAR_CONFIGURATION, 1) == 2
    stored = None
    with contextlib.suppress(cv2.error):
        stored = None if is_planar else cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if stored is None or stored.ndim != 3 or stored.dtype != np.uint16:
        raise ValueError(
            "colours of 16 bits, stored in an unusual way: export the image with 8 bits, or give the array, of a TIFF "
            "load_image(tifffile.imread(path))"
        )
    # OpenCV's order is blue, green, red. A fourth band is transparency only if the file says so.
    return stored[:, :, [2, 1, 0, 3] if stored.shape[2] == 4 and image.has_transparency_data else [2, 1, 0]]


def _stored(image: Image.Image, content: bytes = b"") -> npt.NDArray[Any]:
    """Return the pixels of a decoded image: HxW as they are, or HxWx3 or HxWx4 uint8."""
    if image.mode in ("1", "L", "I", "F") or image.mode.startswith("I;16"):
        grey = _grey(image)
        hidden = image.info.get("transparency")
        if not isinstance(hidden, int):
            return grey
        # Pillow's own conversion knows no transparency of 1 and 16 bits.
        shown = grey != (bool(hidden) if grey.dtype == bool else hidden * _grey_step(content))
        return np.dstack([grey, grey, grey, shown * grey.dtype.type(65535 if grey.dtype.itemsize > 1 else 255)])
    try:
        return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))
    except (OSError, ValueError) as error:
        raise ValueError(f"an image of Pillow's mode {image.mode}: {error}. Export it as RGB") from error


def _grey(image: Image.Image) -> npt.NDArray[Any]:
    """Return the pixels of an image of one band, in the type that the file says they have."""
    array, tags = np.asarray(image), _tags(image)
    bands, depth, signed = (
        _tag(tags, Tiff.SAMPLESPERPIXEL, 1),
        _tag(tags, Tiff.BITSPERSAMPLE, 0),
        _tag(tags, Tiff.SAMPLEFORMAT, 1) == 2,
    )
    if bands > 1:
        raise ValueError(f"a TIFF of {bands} bands: read it with tifffile and give one or three of them as an array")
    if image.mode == "L" and signed:
        return array.view(np.int8)
    if image.mode == "I" and depth == 32 and not signed:
        array = array.view(np.uint32)
    # Pillow widens 16 bits to 32 in some formats; where the values fit, they are 16-bit.
    if array.dtype.itemsize == 4 and image.mode == "I" and array.min() >= 0 and array.max() <= 65535:
        array = array.astype(np.uint16)
    white_is_zero = depth == 16 and _tag(tags, Tiff.PHOTOMETRIC_INTERPRETATION, 1) == 0  # of 8 bits Pillow knows it
    return 65535 - array if white_is_zero and array.dtype.kind == "u" else array


def _grey_step(content: bytes) -> int:
    """Return how far apart two greys of a PNG lie: Pillow widens 2 and 4 bits to 8, but not the transparent grey."""
    if not content:
        return 1
    raw = _raw_modes(Image.open(io.BytesIO(content)))
    return 85 if "L;2" in raw else 17 if "L;4" in raw else 1


def _tags(image: Image.Image) -> Any:
    """Return the tags of a TIFF; none of another file."""
    return getattr(image, "tag_v2", {})


def _tag(tags: Any, number: int, default: int) -> int:
    """Return the first value of a TIFF tag."""
    value = tags.get(number, default)
    return int(value[0] if isinstance(value, tuple) else value)


# From any array to uint8 ------------------------------------------------------------------------------------------


def _from_array(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if array.size == 0:
        raise ValueError(f"the image is empty: its shape is {array.shape}")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ValueError(f"expected HxW, HxWx3 (RGB) or HxWx4 (RGBA), got the shape {array.shape}{_shape_cure(array)}")
    if array.ndim == 2:
        array = array[:, :, None]
    pixels = _to_uint8(array[:, :, :3])
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    if array.shape[2] == 4:
        # By itself: opaque in 16 bits is 65535, whatever the depth of the colours.
        alpha = _to_uint8(array[:, :, 3:]).astype(np.float32) / 255
        pixels = np.rint(pixels * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return np.array(pixels, order="C")


def _shape_cure(array: npt.NDArray[Any]) -> str:
    if array.ndim == 4:
        return "; this looks like a batch: give one image, array[0]"
    if array.ndim == 3 and array.shape[0] in (1, 3, 4):
        return "; this looks like channels first, as torch has it: transpose(1, 2, 0)"
    if array.ndim == 3 and array.shape[0] < min(array.shape[1:]):
        return "; this looks like bands first: choose one, array[0], or three, array[[2, 1, 0]].transpose(1, 2, 0)"
    if array.ndim == 3:
        return "; choose one band, array[:, :, 0], or three, array[:, :, [2, 1, 0]]"
    return ""


def _to_uint8(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    kind = array.dtype.kind
    if kind == "b":
        return array.astype(np.uint8) * 255
    if kind not in "uif":
        raise ValueError(f"expected numbers (uint8, uint16 or float), got an array of {array.dtype}")
    if not np.isfinite(array).all():
        raise ValueError("the image holds NaN or infinite values: replace them first, with numpy.nan_to_num(array)")
    low, high = array.min(), array.max()
    if low < 0:
        raise ValueError(
            f"expected {'floats in [0, 1]' if kind == 'f' else 'integers in [0, 255]'}, got [{low:g}, {high:g}]: "
            "choose what is to be black and what white, numpy.clip((array - black) / (white - black), 0, 1)"
        )
    if kind == "f":
        if high > 1:
            raise ValueError(
                f"expected floats in [0, 1], got [{low:g}, {high:g}]: divide by the largest value, or, if these are "
                "values from 0 to 255, astype(numpy.uint8)"
            )
        return np.rint(array * np.float32(255)).astype(np.uint8)
    if high <= 255:
        return array.astype(np.uint8)
    if array.dtype.itemsize != 2:
        raise ValueError(
            f"expected integers in [0, 255], or of 16 bits, got {array.dtype} in [{low}, {high}]: array / array.max() "
            "shows all of them; 16-bit values are astype(numpy.uint16)"
        )
    # A camera of 12 bits writes 4095 at most: over all 16 bits it would be black.
    white = next(2**depth - 1 for depth in DEPTHS if high < 2**depth)
    return np.rint(array * (255 / white)).astype(np.uint8)
