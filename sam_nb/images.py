"""Images in: whatever the reader has becomes an HxWx3 uint8 RGB array, or an error that says why not.

SAM itself checks too little: an RGBA array fails with an assertion about "BCHW", and a float image in [0, 1] passes
silently and gives wrong masks. So everything is converted here, once, at the edge.
"""

import difflib
import io
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

ImageLike = str | Path | bytes | bytearray | memoryview | Image.Image | npt.NDArray[np.generic]
"""What `load_image` takes, and with it every public function that takes an image."""

SAMPLES = ("street", "astronaut", "cat", "coffee", "coins", "rocket")
"""Names that `load_image` knows: "street" is painted by this project, the others are scikit-image's photographs."""

_DATA = Path(__file__).parent / "data"

URL_TIMEOUT = 30  # seconds without a byte
MAX_DOWNLOAD = 200_000_000  # bytes: an image, not a disk image


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
        * an array HxW (grey), HxWx1, HxWx3 (RGB, not OpenCV's BGR) or HxWx4 (RGBA), as uint8 or integers in [0, 255],
          uint16 over its full range, bool, or float in [0, 1].

    Returns
    -------
    numpy.ndarray
        HxWx3 uint8, RGB, a copy. Files are turned upright by their EXIF tag; transparent pixels are blended over white.

    Raises
    ------
    FileNotFoundError
        There is no such file; the message lists similar names.
    ValueError
        The source is not an image, is empty or damaged, cannot be fetched, or is an array whose shape, type or range is
        none of the above, or that holds NaN.
    """
    if isinstance(source, str) and source in SAMPLES:
        return _sample(source)
    if isinstance(source, str) and source.lower().startswith(("http://", "https://")):
        return decode_image(_fetch(source), source)
    if isinstance(source, str) and "://" in source:
        raise ValueError(
            f"cannot read an image from {source!r}: expected an address that begins with http:// or https://"
        )
    if isinstance(source, str | Path):
        return _read(_existing(Path(source)), source)
    if isinstance(source, bytes | bytearray | memoryview):
        return decode_image(source, f"<{memoryview(source).nbytes:,} bytes>")
    if isinstance(source, Image.Image):
        return _from_pil(source)
    if isinstance(source, np.ndarray):
        return _from_array(source)
    raise ValueError(
        "not an image: expected a sample's name, a path, a URL, a file's bytes (of an upload button: "
        "upload.value[0].content), a PIL image or a NumPy array, "
        f"got {type(source).__name__}"
    )


def decode_image(content: bytes | bytearray | memoryview, name: str) -> npt.NDArray[np.uint8]:
    """Return the image that the bytes of a file hold, HxWx3 uint8 RGB, as `load_image` does.

    Parameters
    ----------
    content : bytes, bytearray or memoryview
    name : str
        What errors call the file.

    Raises
    ------
    ValueError
        The bytes are not an image, or a damaged one.
    """
    return _read(io.BytesIO(content), name)


def _sample(name: str) -> npt.NDArray[np.uint8]:
    if name == "street":
        return _from_pil(Image.open(_DATA / "street.jpg"))
    import skimage.data  # noqa: PLC0415  a fifth of a second that only readers of these photographs need to wait

    return _from_array(skimage.data.chelsea() if name == "cat" else getattr(skimage.data, name)())


def _fetch(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=URL_TIMEOUT) as reply:  # http and https only, by the check above
            data: bytes = reply.read(MAX_DOWNLOAD + 1)
    except OSError as error:  # urllib's URLError and HTTPError are OSErrors
        raise ValueError(
            f"could not fetch {url}: {error}. Save the image in your browser and give its path instead"
        ) from error
    if len(data) > MAX_DOWNLOAD:
        raise ValueError(f"{url} is larger than {MAX_DOWNLOAD // 1_000_000} MB: too large for an image")
    return data


def _existing(path: Path) -> Path:
    path = path.expanduser()
    if path.is_dir():
        raise ValueError(f"{str(path)!r} is a folder: expected an image file, such as {str(path / 'image.jpg')!r}")
    if path.exists():
        return path
    near = difflib.get_close_matches(path.name, SAMPLES, n=2)
    if path.parent.is_dir():
        names = [entry.name for entry in path.parent.iterdir()]
        near += [str(path.parent / found) for found in difflib.get_close_matches(path.name, names, n=3)]
    hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else "Nothing there has a similar name."
    raise FileNotFoundError(
        f"no image {str(path)!r} (looked in {str(path.parent.resolve())!r}). {hint} Samples: {', '.join(SAMPLES)}"
    )


def _read(file: Path | io.BytesIO, name: str | Path) -> npt.NDArray[np.uint8]:
    """Return the image in a file; every error names the file."""
    image = _open(file, name)
    try:
        return _from_pil(image)
    except ValueError as error:
        raise ValueError(f"{str(name)!r}: {error}") from error


def _open(file: Path | io.BytesIO, name: str | Path) -> Image.Image:
    try:
        image = Image.open(file)
        image.load()
    except UnidentifiedImageError as error:
        raise ValueError(f"{str(name)!r} is not an image that Pillow can read (JPEG, PNG, WebP, TIFF ...)") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{str(name)!r} is too large to open: {error}. Make it smaller first") from error
    except (OSError, SyntaxError, RuntimeError) as error:  # what Pillow raises for a cut or damaged file
        raise ValueError(f"{str(name)!r} is damaged: {error}. Download or export it again") from error
    return image


def _from_pil(image: Image.Image) -> npt.NDArray[np.uint8]:
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F", "1", "L"):
        array = np.asarray(image)
        # Pillow widens 16-bit files to mode "I" (32 bits) in some formats; the values still are 16-bit.
        return _from_array(array.astype(np.uint16) if image.mode.startswith("I") else array)
    if image.has_transparency_data:
        return _from_array(np.asarray(image.convert("RGBA")))
    return _from_array(np.asarray(image.convert("RGB")))


def _from_array(array: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    if array.size == 0:
        raise ValueError(f"the image is empty: its shape is {array.shape}")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        hint = ""
        if array.ndim == 3 and array.shape[0] in (1, 3, 4):
            hint = "; this looks like channels first, as torch has it: transpose(1, 2, 0)"
        if array.ndim == 4:
            hint = "; this looks like a batch: give one image, array[0]"
        raise ValueError(f"expected HxW, HxWx3 (RGB) or HxWx4 (RGBA), got the shape {array.shape}{hint}")
    pixels = _to_uint8(array)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    if pixels.shape[2] == 4:
        alpha = pixels[:, :, 3:].astype(np.float32) / 255
        return np.rint(pixels[:, :, :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return np.array(pixels, order="C")


def _to_uint8(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype == np.uint16:
        return np.rint(array / 257).astype(np.uint8)
    if not np.issubdtype(array.dtype, np.integer) and not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"expected numbers (uint8, uint16 or float), got an array of {array.dtype}")
    if not np.isfinite(array).all():
        raise ValueError("the image holds NaN or infinite values: replace them first, with numpy.nan_to_num(array)")
    low, high = array.min(), array.max()
    if np.issubdtype(array.dtype, np.integer):
        if low < 0 or high > 255:
            raise ValueError(f"expected integers in [0, 255], got [{low}, {high}]: rescale, then astype(numpy.uint8)")
        return array.astype(np.uint8)
    if low < 0 or high > 1:
        raise ValueError(
            f"expected floats in [0, 1], got [{low:g}, {high:g}]: divide by the largest value, or, if these are "
            "values from 0 to 255, astype(numpy.uint8)"
        )
    return np.rint(array * 255).astype(np.uint8)
