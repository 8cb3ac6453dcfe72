"""Pictures in: whatever the reader has becomes an HxWx3 uint8 RGB array, or an error that says why not.

SAM itself is not picky enough: an RGBA array fails with an assertion about "BCHW", and a float image in [0, 1] is taken
without a word and gives wrong masks. So everything passes through here once, at the edge.
"""

import difflib
import io
import urllib.request
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

ImageLike = str | Path | bytes | bytearray | memoryview | Image.Image | npt.NDArray[np.generic]
"""What `load_image` takes, and with it every public function that takes an image."""

SAMPLES = ("street", "astronaut", "cat", "coffee", "coins", "rocket")
"""Names that `load_image` knows: "street" is painted by this project, the others are scikit-image's photographs."""

_DATA = Path(__file__).parent / "data"

URL_TIMEOUT = 30  # seconds without an answer
MAX_DOWNLOAD = 200_000_000  # bytes: a picture, not a disk image


def load_image(source):
    """Return a picture as RGB, whatever form it comes in.

    Parameters
    ----------
    source : str, pathlib.Path, bytes, PIL.Image.Image or numpy.ndarray
        One of

        * a sample's name, see `SAMPLES`;
        * the path of a picture file (a `Path` is always a file, never a sample);
        * a URL beginning with ``http://`` or ``https://``;
        * the bytes of a picture file (bytes, bytearray or memoryview), as ipywidgets' upload button holds them:
          ``upload.value[0].content``;
        * a PIL picture;
        * an array HxW (grey), HxWx1, HxWx3 (RGB, not OpenCV's BGR) or HxWx4 (RGBA), as uint8 or integers in [0, 255],
          uint16 over its full range, bool, or float in [0, 1].

    Returns
    -------
    numpy.ndarray
        HxWx3 uint8, RGB, a copy. Files are turned upright by their EXIF tag; transparent pixels are laid over white.

    Raises
    ------
    FileNotFoundError
        There is no such file; the message lists the names that come near.
    ValueError
        The source is not a picture, is empty, has a shape, a range or NaNs that no picture has.
    """
    if isinstance(source, str) and source in SAMPLES:
        return _sample(source)
    if isinstance(source, str) and source.lower().startswith(("http://", "https://")):
        return _from_pil(_open(io.BytesIO(_fetch(source)), source))
    if isinstance(source, str) and "://" in source:
        raise ValueError(
            f"cannot read a picture from {source!r}: expected an address that begins with http:// or https://"
        )
    if isinstance(source, str | Path):
        return _from_pil(_open(_existing(Path(source)), source))
    if isinstance(source, bytes | bytearray | memoryview):
        return _from_pil(_open(io.BytesIO(source), f"<{memoryview(source).nbytes:,} bytes>"))
    if isinstance(source, Image.Image):
        return _from_pil(source)
    if isinstance(source, np.ndarray):
        return _from_array(source)
    raise ValueError(
        "cannot make a picture of this: expected a sample's name, a path, a URL, a file's bytes (of an upload button: "
        "upload.value[0].content), a PIL image or a NumPy array, "
        f"got {type(source).__name__}"
    )


def _sample(name):
    if name == "street":
        return _from_pil(Image.open(_DATA / "street.jpg"))
    import skimage.data  # noqa: PLC0415  a fifth of a second that only readers of these photographs need to wait

    return _from_array(skimage.data.chelsea() if name == "cat" else getattr(skimage.data, name)())


def _fetch(url):
    try:
        with urllib.request.urlopen(url, timeout=URL_TIMEOUT) as reply:  # http and https only, by the check above
            data = reply.read(MAX_DOWNLOAD + 1)
    except OSError as error:  # urllib's URLError and HTTPError are OSErrors
        raise ValueError(
            f"could not fetch {url}: {error}. Save the picture in your browser and give its path instead"
        ) from error
    if len(data) > MAX_DOWNLOAD:
        raise ValueError(f"{url} is larger than {MAX_DOWNLOAD // 1_000_000} MB: not taken for a picture")
    return data


def _existing(path):
    path = path.expanduser()
    if path.is_dir():
        raise ValueError(f"{str(path)!r} is a folder: expected a picture file, such as {str(path / 'picture.jpg')!r}")
    if path.exists():
        return path
    near = difflib.get_close_matches(path.name, SAMPLES, n=2)
    if path.parent.is_dir():
        names = [entry.name for entry in path.parent.iterdir()]
        near += [str(path.parent / found) for found in difflib.get_close_matches(path.name, names, n=3)]
    hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else "Nothing there has a name like it."
    raise FileNotFoundError(
        f"no picture {str(path)!r} (looked in {str(path.parent.resolve())!r}). {hint} Samples: {', '.join(SAMPLES)}"
    )


def _open(file, name):
    try:
        picture = Image.open(file)
        picture.load()
    except UnidentifiedImageError as error:
        raise ValueError(f"{str(name)!r} is not a picture that Pillow can read (JPEG, PNG, WebP, TIFF ...)") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{str(name)!r} is too large to open: {error}. Make it smaller first") from error
    except (OSError, SyntaxError, RuntimeError) as error:  # Pillow's words for a cut or damaged file
        raise ValueError(f"{str(name)!r} is damaged: {error}. Download or export it again") from error
    return picture


def _from_pil(picture):
    picture = ImageOps.exif_transpose(picture)
    if picture.mode in ("I;16", "I;16B", "I;16L", "I", "F", "1", "L"):
        array = np.asarray(picture)
        # Pillow widens 16-bit files to mode "I" (32 bits) in some formats; the values still are 16-bit.
        return _from_array(array.astype(np.uint16) if picture.mode.startswith("I") else array)
    if picture.has_transparency_data:
        return _from_array(np.asarray(picture.convert("RGBA")))
    return _from_array(np.asarray(picture.convert("RGB")))


def fit_to_side(image, side):
    """Return a picture enlarged or reduced so that its longer side has `side` pixels, as `segment_anything` does it.

    Parameters
    ----------
    image : HxWx3 numpy.ndarray of uint8
    side : int

    Returns
    -------
    hxwx3 numpy.ndarray of uint8

    Raises
    ------
    ValueError
        The picture is so thin that not one line of it would be left.
    """
    height, width = image.shape[:2]
    scale = side / max(height, width)
    rows, columns = int(height * scale + 0.5), int(width * scale + 0.5)
    if min(rows, columns) < 1:
        raise ValueError(f"a picture of {width}x{height} is too thin: resized to {side} it has less than one line")
    return np.array(Image.fromarray(image).resize((columns, rows), Image.Resampling.BILINEAR))


def _from_array(array):
    if array.size == 0:
        raise ValueError(f"the picture is empty: its shape is {array.shape}")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        hint = ""
        if array.ndim == 3 and array.shape[0] in (1, 3, 4):
            hint = "; this looks like channels first, as torch has it: transpose(1, 2, 0)"
        if array.ndim == 4:
            hint = "; this looks like a batch: give one picture, array[0]"
        raise ValueError(f"expected HxW, HxWx3 (RGB) or HxWx4 (RGBA), got the shape {array.shape}{hint}")
    array = _to_uint8(array)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.shape[2] == 1:
        return np.repeat(array, 3, axis=2)
    if array.shape[2] == 4:
        alpha = array[:, :, 3:].astype(np.float32) / 255
        return np.rint(array[:, :, :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return np.array(array, order="C")


def _to_uint8(array):
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype == np.uint16:
        return np.rint(array / 257).astype(np.uint8)
    if not np.issubdtype(array.dtype, np.integer) and not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"expected numbers (uint8, uint16 or float), got an array of {array.dtype}")
    if not np.isfinite(array).all():
        raise ValueError("the picture holds NaN or infinite values: replace them first, with numpy.nan_to_num(array)")
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
