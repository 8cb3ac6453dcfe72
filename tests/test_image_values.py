"""What `load_image` makes of each type, range, mode and number of bands: every row of the table in docs/images.md."""

import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile  # scikit-image brings it
from PIL import Image

from sam_nb.images import load_image

RAMP = np.array([[0, 51, 102], [153, 204, 255]], np.uint8)  # has both ends, so each depth is recognised
RGB = np.dstack([RAMP, RAMP[:, ::-1], RAMP[::-1]])
ROW = re.compile(r"^\| (.+?) \| (.+) \|$", re.MULTILINE)


def rows(title):
    """Return the first cells of the table below a title in docs/images.md."""
    text = (Path(__file__).parent.parent / "docs" / "images.md").read_text(encoding="utf-8")
    (part,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return [first for first, _ in ROW.findall(part)][1:]


def grey(values):
    return np.repeat(np.asarray(values, np.uint8)[:, :, None], 3, axis=2)


def over_white(pixels, alpha):
    return np.rint(pixels * (alpha[..., None] / 255) + 255 * (1 - alpha[..., None] / 255)).astype(np.uint8)


def tiff(array, **how):
    file = io.BytesIO()
    tifffile.imwrite(file, array, **how)
    return file.getvalue()


def saved(image, kind="PNG", **how):
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(array, depth, colours, before=b""):
    """Return a PNG of any depth and kind of colours, which Pillow can't write; `array` holds rows of bytes."""
    height, width = array.shape[0], array.shape[1] * (8 // depth if depth < 8 else 1)
    header = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    lines = zlib.compress(b"".join(b"\0" + row.tobytes() for row in array))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


def depth(top):
    """Return 16-bit integers up to `top`, signed and unsigned, native and big-endian, as arrays and files."""
    wide = np.rint(RAMP / 255 * top).astype(np.uint16)
    forms = [
        wide,
        wide.astype(">u2"),
        saved(Image.fromarray(wide)),
        tiff(wide),
        tiff(wide.astype(">u2"), byteorder=">"),
    ]
    if top < 2**15:
        forms += [wide.astype(np.int16), tiff(wide.astype(np.int16))]
    colours = np.rint(RGB / 255 * top).astype(np.uint16)
    return [(form, grey(RAMP)) for form in forms] + [(colours, RGB), (png(colours.astype(">u2"), 16, 2), RGB)]


ALPHA = np.array([[0, 51, 255], [255, 255, 0]], np.uint8)
DEEP_ALPHA = np.dstack([RGB.astype(np.uint16) * 16, ALPHA.astype(np.uint16) * 257])
DEEP_ALPHA[:, :, :3][RGB == 255] = 4095

# Each row of the table: (what comes in, what comes out or the words of the error), one or more.
PIXELS = {
    "array HxW or HxWx1": [(RAMP, grey(RAMP)), (RAMP[..., None], grey(RAMP))],
    "array HxWx3": [(RGB, RGB), (RGB[:, ::-1], RGB[:, ::-1])],
    "array HxWx4": [(np.dstack([RGB, ALPHA]), over_white(RGB, ALPHA))],
    "array of another shape": [
        (np.zeros((5, 5, 2), np.uint8), r"got the shape \(5, 5, 2\); choose one band, array\[:, :, 0\]"),
        (np.zeros((3, 50, 60), np.uint8), r"channels first.*transpose\(1, 2, 0\)"),
        (np.zeros((8, 50, 60), np.uint8), r"bands first: choose one, array\[0\]"),
        (np.zeros((1, 5, 5, 3), np.uint8), "batch"),
        (np.zeros((0, 5), np.uint8), "empty"),
        (np.zeros(7, np.uint8), r"got the shape \(7,\)"),
    ],
    "bool": [(RAMP > 100, grey((RAMP > 100) * 255))],
    "integers of any type in [0, 255]": [
        (RAMP.astype(kind), grey(RAMP)) for kind in ("u1", "u2", "u4", "u8", "i2", "i4", "i8", ">u2", ">i4")
    ]
    + [(RAMP.astype(np.uint8).clip(max=100).astype(np.int8), grey(RAMP.clip(max=100)))]
    + [(tiff(RAMP.astype(kind)), grey(RAMP)) for kind in ("u1", "u2", "u4", "i2", "i4")],
    "16-bit integers up to 1023": depth(1023),
    "16-bit integers up to 4095": depth(4095),
    "16-bit integers up to 16383": depth(16383),
    "16-bit integers above 16383": depth(65535),
    "16-bit alpha": [
        (DEEP_ALPHA, over_white(np.rint(DEEP_ALPHA[..., :3] / 4095 * 255), ALPHA)),
        (png(DEEP_ALPHA.astype(">u2"), 16, 6), over_white(np.rint(DEEP_ALPHA[..., :3] / 4095 * 255), ALPHA)),
    ],
    "32- and 64-bit integers above 255": [
        (np.full((4, 4), 256, kind), rf"got {kind} in \[256, 256\]: array / array.max\(\)")
        for kind in ("int32", "uint32", "int64", "uint64")
    ],
    "negative values, NaN, infinity": [
        (np.array([[-1000, 3000]], np.int16), r"integers in \[0, 255\], got \[-1000, 3000\]: choose what .* black"),
        (np.array([[-0.5, 1]]), r"floats in \[0, 1\], got \[-0.5, 1\]: choose what .* black"),
        (np.full((2, 2), np.nan), "NaN"),
        (np.full((2, 2), np.inf), "infinite"),
        (Image.fromarray(np.full((2, 2), np.nan, np.float32)), "NaN"),
    ],
    "floats in [0, 1]": [((RGB / 255).astype(kind), RGB) for kind in ("f2", "f4", "f8", ">f4")],
    "floats above 1": [(RGB / 100, r"floats in \[0, 1\], got \[0, 2.55\]: divide by the largest")],
    "big-endian numbers": [(np.full((4, 4), 60000, ">u2"), grey(np.full((4, 4), 233)))],
    "complex numbers, text, objects": [
        (np.full((5, 5), 1j), "expected numbers"),
        (np.full((5, 5), "a"), "expected numbers"),
        (np.full((5, 5), None), "expected numbers"),
    ],
}


def lone(mode, colour):
    return Image.new(mode, (3, 2), colour)


def exif_with(*entries, more=b""):
    tags = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + tags + struct.pack("<I", 0) + more


TURNED = (0x112, 3, 1, struct.pack("<HH", 6, 0))
ODD_EXIF = exif_with(TURNED, (0x11A, 10, 1, struct.pack("<I", 38)), more=struct.pack("<ii", -1, 0))  # -1/0 dpi
PALETTE = Image.fromarray(RGB).quantize(6)
HIDDEN = RAMP == 153
CT = np.array([[-1000, -500, 0], [40, 1000, 3000]], np.int16)
HEIC = b"\0\0\0\x18ftypheic" + bytes(50)

FILES = {
    "modes 1, L, P and RGB": [
        (saved(Image.fromarray(RAMP > 100)), grey((RAMP > 100) * 255)),
        (saved(Image.fromarray(RAMP)), grey(RAMP)),
        (saved(PALETTE), np.asarray(PALETTE.convert("RGB"))),
        (saved(Image.fromarray(RGB)), RGB),
        (saved(Image.fromarray(np.tile(RGB, (1, 99, 1))), "BMP"), np.tile(RGB, (1, 99, 1))),
        (b"P6 3 2 255\n" + RGB.tobytes(), RGB),
    ],
    "modes LA, PA, RGBA and RGBa": [
        (saved(Image.fromarray(np.dstack([RAMP, ALPHA]))), over_white(grey(RAMP), ALPHA)),
        (saved(Image.fromarray(np.dstack([RGB, ALPHA]))), over_white(RGB, ALPHA)),
        (lone("PA", (0, 0)), np.full((2, 3, 3), 255)),
        (lone("RGBa", (0, 0, 0, 0)), np.full((2, 3, 3), 255)),
    ],
    "modes 1, L, P, RGB and I;16 with a transparent colour": [
        (saved(Image.fromarray(RAMP > 100), transparency=0), np.full((2, 3, 3), 255)),
        (saved(Image.fromarray(RAMP), transparency=153), grey(np.where(HIDDEN, 255, RAMP))),
        (png(np.array([[0x0F]], np.uint8), 4, 0, chunk(b"tRNS", b"\0\0")), grey([[255, 255]])),
        (png(np.array([[0x0F]], np.uint8), 4, 0, chunk(b"tRNS", b"\0\x0f")), grey([[0, 255]])),
        (png(np.array([[0x3A]], np.uint8), 4, 0, chunk(b"tRNS", b"\0\x0a")), grey([[51, 255]])),
        (png(np.array([[0, 40000]], ">u2"), 16, 0, chunk(b"tRNS", b"\x9c\x40")), grey([[0, 255]])),
        (saved(Image.fromarray(RGB), transparency=tuple(RGB[0, 0].tolist()))[:], np.where(RGB[0, 0] == RGB, 255, RGB)),
        (
            saved(PALETTE, transparency=0),
            np.where(np.asarray(PALETTE)[..., None] == 0, 255, np.asarray(PALETTE.convert("RGB"))),
        ),
    ],
    "modes CMYK, YCbCr, HSV and RGBX": [
        (saved(lone("CMYK", (0, 255, 255, 0)), "TIFF"), np.full((2, 3, 3), (255, 0, 0))),
        (lone("YCbCr", (255, 128, 128)), np.full((2, 3, 3), 255)),
        (lone("HSV", (0, 255, 255)), np.full((2, 3, 3), (255, 0, 0))),
        (lone("RGBX", (1, 2, 3, 4)), np.full((2, 3, 3), (1, 2, 3))),
    ],
    "mode La": [(lone("La", (1, 2)), "mode La: .* Export it as RGB")],
    "modes I;16 and I up to 65535": [
        (Image.fromarray(RAMP.astype(np.uint16) * 257), grey(RAMP)),
        (Image.fromarray(RAMP.astype(np.int32) * 257), grey(RAMP)),
        (b"P5 3 2 65535\n" + (RAMP.astype(">u2") * 257).tobytes(), grey(RAMP)),
    ],
    "mode I above 65535": [(Image.fromarray(np.full((2, 3), 70000, np.int32)), r"got int32 in \[70000, 70000\]")],
    "mode F": [
        (tiff((RAMP / 255).astype(np.float32)), grey(RAMP)),
        (Image.fromarray((RAMP / 255).astype(np.float32)), grey(RAMP)),
        (tiff(RAMP.astype(np.float32)), r"floats in \[0, 1\], got \[0, 255\]"),
    ],
    "colours of 16 bits in PNG, TIFF and PPM": [
        (png(RGB.astype(">u2"), 16, 2), RGB),  # small values, of which Pillow would keep nothing
        (png(np.dstack([RAMP, ALPHA]).astype(">u2") * 257, 16, 4), over_white(grey(RAMP), ALPHA)),
        (tiff(RGB.astype(np.uint16), photometric="rgb"), RGB),
        (tiff(RGB.astype(np.uint16) * 257, photometric="rgb"), RGB),
        (b"P6 3 2 65535\n" + RGB.astype(">u2").tobytes(), RGB),
    ],
    "TIFF, bands one after the other": [
        (tiff(RGB.transpose(2, 0, 1), photometric="rgb", planarconfig="separate"), RGB),
        (
            tiff(RGB.transpose(2, 0, 1).astype(np.uint16), photometric="rgb", planarconfig="separate"),
            r"16 bits, stored in an unusual way.*tifffile.imread\(path\)",
        ),
    ],
    "TIFF, 4th band of no meaning": [
        (tiff(np.dstack([RGB, RAMP * 0]), photometric="rgb", extrasamples=["unspecified"]), RGB),
        (tiff(np.dstack([RGB, RAMP * 0]).astype(np.uint16), photometric="rgb", extrasamples=["unspecified"]), RGB),
    ],
    "TIFF, grey, 0 is white": [
        (tiff(255 - RAMP, photometric="miniswhite"), grey(RAMP)),
        (tiff(65535 - RAMP.astype(np.uint16) * 257, photometric="miniswhite"), grey(RAMP)),
    ],
    "TIFF, signed integers": [
        (tiff(CT), r"'<\d+ bytes>': expected integers in \[0, 255\], got \[-1000, 3000\]: choose what"),
        (tiff(CT.astype(">i2"), byteorder=">"), r"got \[-1000, 3000\]"),
        (tiff(CT.astype(np.int8)), r"got \[-?\d+, \d+\]: choose what"),
        (tiff(CT.clip(min=0)), grey(np.rint(CT.clip(min=0) / 4095 * 255))),
        (tiff(CT.clip(0, 100).astype(np.int8)), grey(CT.clip(0, 100))),
    ],
    "TIFF, 32-bit integers above 65535": [
        (tiff(np.array([[0, 100000]], np.int32)), r"got int32 in \[0, 100000\]"),
        (tiff(np.array([[0, 4 * 10**9]], np.uint32)), r"got uint32 in \[0, 4000000000\]"),
    ],
    "TIFF, float colours, 64 bits, two or more than four bands": [
        (
            tiff((RGB / 255).astype(np.float32), photometric="rgb"),
            r"TIFF of 32-bit floats, bands: 3. Read it with tifffile.*\[:, :, :3\]",
        ),
        (tiff(RAMP.astype(np.uint64)), r"TIFF of 64-bit integers, bands: 1. .*load_image\(tifffile.imread\(path\)\)"),
        (tiff(RAMP / 255.0, bigtiff=True), "TIFF of 64-bit floats, bands: 1"),
        *(
            (
                tiff(np.ones((8, 8, bands), np.uint8), photometric="minisblack", planarconfig="contig"),
                f"(a TIFF of {bands} bands|bands: {bands})",
            )
            for bands in (2, 5)
        ),
    ],
    "several pages or frames": [
        (tiff(np.stack([RAMP, RAMP[::-1]]), photometric="minisblack"), grey(RAMP)),
        (saved(lone("L", 7), "GIF", save_all=True, append_images=[lone("L", 9), lone("L", 8)]), grey([[7] * 3] * 2)),
    ],
    "several images in one JPEG (MPO), as phones write": [
        (
            saved(lone("RGB", (255, 255, 255)), "MPO", save_all=True, append_images=[lone("RGB", 0)]),
            grey([[255] * 3] * 2),
        )
    ],
    "turned by EXIF": [
        (saved(Image.fromarray(RGB), exif=exif_with(TURNED)), np.rot90(RGB, -1)),
        (saved(Image.fromarray(RGB), exif=ODD_EXIF), np.rot90(RGB, -1)),
        *(
            (saved(Image.fromarray(RGB), exif=exif_with((0x112, 3, 1, struct.pack("<HH", turn, 0)))), turned)
            for turn, turned in enumerate(
                [
                    *(RGB, RGB[:, ::-1], RGB[::-1, ::-1], RGB[::-1], RGB.swapaxes(0, 1)),
                    *(np.rot90(RGB, -1), RGB[::-1, ::-1].swapaxes(0, 1), np.rot90(RGB)),
                ],
                start=1,
            )
        ),
        (png(RGB.astype(">u2") * 257, 16, 2, chunk(b"eXIf", exif_with(TURNED)[6:])), np.rot90(RGB, -1)),
        (tiff(RGB.astype(np.uint16), photometric="rgb", extratags=[(274, "H", 1, 6, True)]), np.rot90(RGB, -1)),
    ],
    "HEIC, JPEG XL, DICOM, SVG, PDF, a web page": [
        (HEIC, r"HEIC photograph: pip install pillow-heif"),
        (b"\xff\x0a" + bytes(20), "JPEG XL"),
        (bytes(128) + b"DICM" + bytes(20), "pydicom"),
        (b'\n<svg xmlns="...">', "SVG: export it as PNG"),
        (b"%PDF-1.7", "a PDF"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"\x93NUMPY" + bytes(20), r"numpy.load\(path\)"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
    ],
    "cut, damaged or empty": [
        (b"", "not an image .*: it is empty"),
        (b"notes", "'<5 bytes>' is not an image"),
        (saved(Image.fromarray(np.random.default_rng(0).integers(0, 255, (99, 99), np.uint8)))[:4000], "is damaged"),
        (b"II*\0" + bytes(4), "it is a TIFF that is cut or damaged"),
    ],
}


def test_the_table_has_these_rows_and_no_others():
    assert rows("Pixels") == list(PIXELS)
    assert rows("Files") == list(FILES)


@pytest.mark.parametrize("row", PIXELS | FILES)
@pytest.mark.filterwarnings("ignore:.*pages or frames:UserWarning")
def test_load_image_does_what_the_table_says(row):
    for number, (source, expected) in enumerate((PIXELS | FILES)[row]):
        if isinstance(expected, str):
            with pytest.raises(ValueError, match=expected):
                load_image(source)
        else:
            image = load_image(source)
            assert image.dtype == np.uint8
            assert image.flags.c_contiguous
            np.testing.assert_array_equal(image, expected, err_msg=f"{row}, {number}")


def test_further_pages_are_mentioned_and_can_be_chosen(tmp_path):
    stack = np.stack([np.full((20, 30), value, np.uint8) for value in (10, 100, 200, 250)])
    (tmp_path / "stack.tif").write_bytes(tiff(stack, photometric="minisblack"))
    with pytest.warns(
        UserWarning, match=r"stack.tif' holds 4 pages or frames; the first is taken. .*image.seek\(1\)"
    ) as seen:
        assert load_image(tmp_path / "stack.tif").max() == 10
    assert [warning.filename for warning in seen] == [__file__]
    image = Image.open(tmp_path / "stack.tif")
    image.seek(2)
    assert load_image(image).max() == 200


def test_an_error_of_a_file_s_values_names_the_file(tmp_path):
    (tmp_path / "ct.tif").write_bytes(tiff(CT))
    with pytest.raises(
        ValueError, match=r"ct.tif': expected integers.*The array is numpy.asarray\(PIL.Image.open\(path\)\)"
    ):
        load_image(tmp_path / "ct.tif")


def test_a_cut_pil_image_is_refused(tmp_path):
    content = saved(Image.fromarray(np.random.default_rng(0).integers(0, 255, (99, 99), np.uint8)))
    with pytest.raises(ValueError, match="the PIL image is damaged"):
        load_image(Image.open(io.BytesIO(content[:4000])))
