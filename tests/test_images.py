import http.server
import io
import os
import threading
from pathlib import Path

import ipywidgets
import numpy as np
import pytest
from PIL import Image, features

from sam_nb.images import SAMPLES, decode_image, load_image

RGB = np.linspace(0, 255, 4 * 6 * 3).astype(np.uint8).reshape(4, 6, 3)


def test_samples_are_rgb_uint8():
    for name in SAMPLES:
        image = load_image(name)
        assert image.dtype == np.uint8
        assert image.ndim == 3
        assert image.shape[2] == 3
        assert image.flags.c_contiguous


def test_rgb_array_comes_back_as_a_copy():
    image = load_image(RGB)
    assert np.array_equal(image, RGB)
    assert not np.shares_memory(image, RGB)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (RGB[..., 0], np.repeat(RGB[..., :1], 3, axis=2)),
        (RGB[..., :1], np.repeat(RGB[..., :1], 3, axis=2)),
        (RGB.astype(np.uint16) * 257, RGB),
        (RGB.astype(np.int64), RGB),
        (RGB / 255, RGB),
        ((RGB / 255).astype(np.float32), RGB),
        (RGB > 30, (RGB > 30) * np.uint8(255)),
        (RGB[:, ::-1], RGB[:, ::-1]),
        (RGB[..., 0].view(np.matrix), np.repeat(RGB[..., :1], 3, axis=2)),
    ],
    ids=["grey", "one channel", "16 bit", "int64", "float64", "float32", "bool", "reversed view", "matrix"],
)
def test_arrays_of_every_type(array, expected):
    image = load_image(array)
    assert np.array_equal(image, expected)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous


def test_transparency_is_laid_over_white():
    rgba = np.dstack([RGB, np.zeros((4, 6), np.uint8)])
    rgba[0, 0, 3] = 255
    rgba[0, 1, 3] = 51
    image = load_image(rgba)
    assert np.array_equal(image[0, 0], RGB[0, 0])
    assert np.array_equal(image[0, 1], np.rint(RGB[0, 1] * 0.2 + 255 * 0.8))
    assert (image[1:] == 255).all()
    assert np.array_equal(load_image(Image.fromarray(rgba)), image)


def test_files_of_every_format(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "rgb.png")
    Image.fromarray((RGB[..., 0].astype(np.uint16)) * 257).save(tmp_path / "grey16.png")
    Image.fromarray(RGB).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "cmyk.tif")
    assert np.array_equal(load_image(tmp_path / "rgb.png"), RGB)
    assert np.array_equal(load_image(str(tmp_path / "rgb.png")), RGB)
    assert np.array_equal(load_image(tmp_path / "grey16.png"), np.repeat(RGB[..., :1], 3, axis=2))
    assert load_image(tmp_path / "palette.png").shape == RGB.shape
    assert load_image(tmp_path / "cmyk.tif").shape == RGB.shape


@pytest.mark.parametrize("form", [bytes, bytearray, memoryview])
def test_the_bytes_of_a_file(tmp_path, form):
    image = Image.fromarray(RGB)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    content = (tmp_path / "turned.png").read_bytes()
    assert np.array_equal(load_image(form(content)), np.rot90(RGB, -1))
    with pytest.raises(ValueError, match=r"'<5 bytes>' is not an image"):
        load_image(form(b"notes"))
    with pytest.raises(ValueError, match=rf"'<{len(content) - 40} bytes>' is damaged"):
        load_image(form(content[:-40]))


def test_the_content_of_an_upload_button():
    upload = ipywidgets.FileUpload()
    file = io.BytesIO()
    Image.fromarray(RGB).save(file, "PNG")
    about = {"name": "a.png", "type": "image/png", "size": len(file.getvalue()), "last_modified": 0}
    # What the browser sends.
    upload.set_state({"value": [about | {"content": memoryview(file.getvalue())}]})
    assert np.array_equal(load_image(upload.value[0].content), RGB)
    for wrong in (upload.value, upload.value[0]):
        with pytest.raises(ValueError, match=r"of an upload button: upload.value\[0\].content"):
            load_image(wrong)


def test_exif_turns_the_image_upright(tmp_path):
    image = Image.fromarray(RGB)
    exif = image.getexif()
    exif[0x0112] = 6  # stored on its side: to be turned clockwise by 90 degrees
    image.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(load_image(tmp_path / "turned.png"), np.rot90(RGB, -1))


def test_a_path_object_is_never_a_sample(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError):
        load_image(Path("street"))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (np.zeros((0, 5, 3), np.uint8), "empty"),
        (np.zeros((5, 5, 2), np.uint8), r"expected HxW, HxWx3 .* got the shape \(5, 5, 2\)"),
        (np.zeros((3, 50, 60), np.uint8), r"channels first.*transpose\(1, 2, 0\)"),
        (np.zeros((1, 5, 5, 3), np.uint8), "batch"),
        (np.full((5, 5), np.nan), "NaN"),
        (np.full((5, 5), 200.0), r"floats in \[0, 1\], got \[200, 200\]"),
        (np.full((5, 5), -1), r"integers in \[0, 255\], got \[-1, -1\]"),
        (np.full((5, 5), 1j), "expected numbers"),
        (None, "not an image: expected a sample's name.*got NoneType$"),
        (
            [[1, 2], [3]],
            r"not an image: .*got list; make it an array, numpy\.array\(source\), with rows of one length$",
        ),
        (np.array([[1, "a"]], object), "expected numbers .* got an array of object"),
        ("ftp://127.0.0.1/x.png", "an image from .ftp.* begins with http"),
    ],
)
def test_what_is_not_an_image_is_refused(source, words):
    with pytest.raises(ValueError, match=words):
        load_image(source)


def test_a_mistyped_name_lists_similar_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(RGB).save("holiday.png")
    with pytest.raises(FileNotFoundError, match=r"Did you mean 'holiday.png'"):
        load_image("holyday.png")
    with pytest.raises(FileNotFoundError, match=r"Did you mean 'street'.*Samples: street, astronaut"):
        load_image("stret")
    with pytest.raises(FileNotFoundError, match="Nothing there has a similar name"):
        load_image("http:/example.org/x.jpg")  # one slash too few for a URL: a path, and nothing is fetched


def test_damaged_and_foreign_files(tmp_path):
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "empty.png").write_bytes(b"")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (99, 99, 3), np.uint8)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:9000])
    for name, words in (("notes.txt", "not an image"), ("empty.png", "not an image"), ("cut.png", "damaged")):
        with pytest.raises(ValueError, match=words):
            load_image(tmp_path / name)
    with pytest.raises(ValueError, match="is a folder"):
        load_image(tmp_path)


def test_whatever_was_read_from_a_file_names_it_in_its_errors(tmp_path):
    Image.fromarray(np.full((5, 5), 700, np.float32)).save(tmp_path / "heights.tif")
    Image.fromarray(RGB).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:70])
    for name, words in (("heights.tif", r"': expected floats in \[0, 1\]"), ("cut.png", "' is damaged: ")):
        with pytest.raises(ValueError, match=rf"^'.*{name}{words}"):
            load_image(tmp_path / name)
        with pytest.raises(ValueError, match=rf"^'{name}{words}"):
            decode_image((tmp_path / name).read_bytes(), name)
    assert np.array_equal(decode_image((tmp_path / "whole.png").read_bytes(), "whole.png"), RGB)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_a_damaged_file_whose_decoder_has_its_own_error():
    file = io.BytesIO()
    Image.fromarray(RGB).save(file, "AVIF")
    damaged = file.getvalue().replace(b"av01", b"av00")
    with pytest.raises(ValueError, match=r"is damaged|is not an image"):
        load_image(damaged)


def test_urls(tmp_path, monkeypatch):
    Image.fromarray(RGB).save(tmp_path / "rgb.png")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *args):
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert np.array_equal(load_image(f"{address}/rgb.png"), RGB)
        with pytest.raises(ValueError, match=r"404.*Save the image in your browser"):
            load_image(f"{address}/absent.png")
        server.shutdown()


@pytest.fixture
def odd_server(monkeypatch):
    """Give the address of a server with an image at every path, and broken replies at some."""
    file = io.BytesIO()
    Image.fromarray(RGB).save(file, "PNG")
    content = file.getvalue()
    replies = {
        "chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\nZZ\r\n",
        "short": b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n" + content,
        "gzip": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nabcde",
        "noise": b"\x00\xff\r\n\r\n",
        "nothing": b"",
        "loop": b"HTTP/1.1 302 Found\r\nLocation: /loop\r\nContent-Length: 0\r\n\r\n",
        "elsewhere": b"HTTP/1.1 302 Found\r\nLocation: http://[/\r\nContent-Length: 0\r\n\r\n",
        "page": b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>",
    }
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            asked.append(self.path)
            reply = replies.get(self.path.strip("/"), b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + content)
            self.wfile.write(reply)
            self.close_connection = True

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("图片.png", "/%E5%9B%BE%E7%89%87.png"),
        ("my picture.png?size=10 px&name=ü", "/my%20picture.png?size=10%20px&name=%C3%BC"),
        ("100%25 sure.png#part", "/100%25%20sure.png"),
        ("a%20b.png", "/a%20b.png"),
    ],
)
def test_an_address_may_have_spaces_and_letters_of_any_language(odd_server, path, sent):
    address, asked = odd_server
    assert np.array_equal(load_image(f"{address}/{path}"), RGB)
    assert asked == [sent]


@pytest.mark.parametrize("path", ["chunk", "short", "gzip", "noise", "nothing", "loop", "elsewhere"])
def test_a_broken_reply_is_an_error_in_words(odd_server, path):
    address, _ = odd_server
    with pytest.raises(ValueError, match=rf"could not fetch '{address}/{path}': .*Save the image in your browser"):
        load_image(f"{address}/{path}")


def test_a_web_page_is_no_image(odd_server):
    with pytest.raises(ValueError, match=r"/page' is not an image .*: it is a web page"):
        load_image(f"{odd_server[0]}/page")


@pytest.mark.parametrize(
    "address",
    ["http://", "http://[", "http://[::1", "http://a b/", "http://x:port/", "http://" + "a" * 70 + "/", "HTTP://.x/"],
)
def test_an_address_that_can_not_be_is_an_error_in_words(address):
    with pytest.raises(ValueError, match="could not fetch"):
        load_image(address)


def test_a_message_never_holds_the_image_itself(tmp_path):
    data = "data:image/png;base64," + "A" * 200_000
    for source in (data, "x" * 5000, tmp_path / ("y" * 5000), "http://127.0.0.1:1/" + "z" * 5000):
        with pytest.raises((ValueError, FileNotFoundError)) as caught:
            load_image(source)
        assert len(str(caught.value)) < 900
    with pytest.raises(ValueError, match=r"of a data: address give the bytes, base64.b64decode"):
        load_image(data)


def test_a_path_that_can_not_be_read_is_an_error_in_words():
    if os.name == "posix":
        with pytest.raises(ValueError, match="'/dev/null' is neither a file nor a folder"):
            load_image(Path("/dev/null"))
    with pytest.raises(FileNotFoundError, match=r"no image '~nobody-of-this-name/a.png'"):
        load_image("~nobody-of-this-name/a.png")
