"""Downloads, from servers on 127.0.0.1 that serve a checkpoint whole, cut, changed, or not at all."""

import contextlib
import dataclasses
import errno
import hashlib
import http.server
import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sam_nb.model import loading
from sam_nb.storage import cache_dir
from sam_nb.weights import download as downloads
from sam_nb.weights.checkpoints import CHECKPOINTS, sha256
from sam_nb.weights.download import download


@pytest.fixture(scope="module")
def checkpoint_file(random_vit_b, tmp_path_factory):
    """Return a checkpoint as Meta's: `torch.save` of the state dict, 375 MB."""
    import torch

    path = tmp_path_factory.mktemp("served") / "sam_vit_b_random.pth"
    torch.save(random_vit_b.state_dict(), path)
    yield path
    path.unlink()


class Server(http.server.ThreadingHTTPServer):
    """Serves one file: whole, cut in the middle, with one bit changed, or by a server that cannot continue.

    A request for a range gets the file from there on, except under /plain.
    """

    def __init__(self, path):
        self.path = path
        self.requests = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        wanted = self.headers.get("Range", "bytes=0-")
        self.server.requests.append((self.path, wanted))
        if self.path not in ("/whole", "/cut", "/changed", "/plain"):
            self.send_error(404)
            return
        data = self.server.path.read_bytes()
        if self.path == "/changed":
            data = bytes([data[0] ^ 1]) + data[1:]
        start = 0 if self.path == "/plain" else int(wanted.removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start : len(data) // 2 if self.path == "/cut" else None])

    def log_message(self, *args):
        pass


@pytest.fixture
def serve(checkpoint_file, monkeypatch):
    """Return a function that makes vit_b's address a path on the local server, and the server."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server(checkpoint_file) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def point_to(path):
            checkpoint = dataclasses.replace(
                CHECKPOINTS["vit_b"],
                url=f"http://127.0.0.1:{server.server_port}{path}",
                size=checkpoint_file.stat().st_size,
                sha256=sha256(checkpoint_file),
            )
            monkeypatch.setitem(CHECKPOINTS, "vit_b", checkpoint)
            return checkpoint

        yield point_to, server
        server.shutdown()


def kept(checkpoint):
    """Return the names of what lies in the checkpoints folder, locks aside."""
    return sorted(path.name for path in checkpoint.path.parent.iterdir() if path.suffix != ".lock")


def test_a_whole_file_is_fetched_once_and_becomes_a_model(serve, random_vit_b, capsys):
    import torch

    point_to, server = serve
    checkpoint = point_to("/whole")
    sam = loading.load_sam("vit_b", device="cpu")
    assert "vit_b: Meta's SAM, 93.7 M parameters, on cpu." in capsys.readouterr().out
    expected = random_vit_b.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in sam.model.state_dict().items())
    assert kept(checkpoint) == ["sam_vit_b_01ec64.pth"]
    # From now on it is on this computer: found without being named, and not fetched again.
    assert loading.load_sam(device="cpu").name == "vit_b"
    assert server.requests == [("/whole", "bytes=0-")]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (
            "/changed",
            r"could not download vit_b .*changed: it is another file, .*Nothing of it was kept.*load_sam\(.lite.\)",
        ),
        ("/absent", r"could not download vit_b .*404"),
    ],
)
def test_nothing_is_kept_of_a_bad_download(serve, path, words):
    point_to, _ = serve
    checkpoint = point_to(path)
    with pytest.raises(RuntimeError, match=words):
        download("vit_b")
    assert kept(checkpoint) == []


@pytest.mark.parametrize("path", ["/whole", "/plain"])
def test_an_interrupted_download_resumes(serve, path):
    point_to, server = serve
    checkpoint = point_to("/cut")
    with pytest.raises(
        RuntimeError,
        match=r"could not download vit_b \(375 MB\).* 18[67] MB are kept: call again to resume.*by hand: open",
    ):
        download("vit_b")
    assert kept(checkpoint) == ["sam_vit_b_01ec64.part"]
    have = checkpoint.path.with_suffix(".part").stat().st_size
    assert 0 < have <= checkpoint.size // 2
    checkpoint = point_to(path)
    assert sha256(download("vit_b")) == checkpoint.sha256
    assert kept(checkpoint) == ["sam_vit_b_01ec64.pth"]
    assert server.requests[1] == (path, f"bytes={have}-")


def test_models_that_cannot_be_downloaded():
    with pytest.raises(
        ValueError, match=r"no weights to download for 'vit_z': expected one of vit_t, vit_b, vit_l, vit_h$"
    ):
        download("vit_z")
    with pytest.raises(ValueError, match=r"for 'lite': expected one of .*lite is part of the package"):
        download("lite")


def test_an_address_without_a_server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setitem(
        CHECKPOINTS, "vit_b", dataclasses.replace(CHECKPOINTS["vit_b"], url="http://127.0.0.1:9/sam_vit_b_01ec64.pth")
    )
    with pytest.raises(RuntimeError, match=r"could not download vit_b.*To download it by hand"):
        download("vit_b")


def test_two_calls_at_once_share_one_download(serve):
    point_to, server = serve
    checkpoint = point_to("/whole")
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(download, ["vit_b", "vit_b"])) == [checkpoint.path] * 2
    assert server.requests == [("/whole", "bytes=0-")]
    assert sha256(checkpoint.path) == checkpoint.sha256


def test_a_wrong_file_under_the_right_name_is_left_alone(serve):
    point_to, server = serve
    checkpoint = point_to("/whole")
    checkpoint.path.parent.mkdir(parents=True)
    checkpoint.path.write_bytes(b"my own weights")
    with pytest.raises(ValueError, match=r"not vit_b's official file: expected .* got 14 bytes.*checkpoint="):
        loading.load_sam("vit_b")
    assert checkpoint.path.read_bytes() == b"my own weights"
    assert server.requests == []


def test_a_local_file_is_taken_instead(checkpoint_file, capsys):
    named = loading.load_sam("vit_b", checkpoint=checkpoint_file, device="cpu")
    unnamed = loading.load_sam(checkpoint=str(checkpoint_file), device="cpu")
    assert named.name == unnamed.name == "vit_b"
    assert named.weights == unnamed.weights == sha256(checkpoint_file)
    assert "vit_b: weights from sam_vit_b_random.pth, 93.7 M parameters" in capsys.readouterr().out


def test_local_files_that_are_not_weights(checkpoint_file, tmp_path):
    import torch

    with pytest.raises(FileNotFoundError, match=r"no weights at .*absent.pth"):
        loading.load_sam("vit_b", checkpoint=tmp_path / "absent.pth")
    cut = tmp_path / "cut.pth"
    cut.write_bytes(checkpoint_file.read_bytes()[:1_000_000])
    with pytest.raises(ValueError, match=r"\(1,000,000 bytes\) holds no weights.*An incomplete download\?"):
        loading.load_sam("vit_b", checkpoint=cut)
    torch.save({"image_encoder.patch_embed.proj.weight": torch.zeros(5)}, tmp_path / "foreign.pth")
    with pytest.raises(ValueError, match="unknown model"):
        loading.load_sam(checkpoint=tmp_path / "foreign.pth")
    with pytest.raises(ValueError, match="does not hold the weights of vit_l"):
        loading.load_sam("vit_l", checkpoint=checkpoint_file)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="something other than weights"):
        loading.load_sam("vit_b", checkpoint=tmp_path / "list.pth")


# Mirrors --------------------------------------------------------------------------------------------------------------

CONTENT = bytes(range(256)) * 20  # of the file, 5120 bytes
OTHER = CONTENT[::-1]


class Mirror(http.server.ThreadingHTTPServer):
    """Serves files by name, and remembers the ranges that it was asked for.

    Parameters
    ----------
    files : dict of str to bytes
    cut : int, optional
        Bytes of the body after which the connection ends, slowly.
    form : str
        "ranges", "whole" (a server that knows no ranges), "refuses" (416 for each range), "elsewhere" (sends another
        range than the one requested) or "unannounced" (sends whole files
        and does not say their length).
    """

    def __init__(self, files, cut=None, form="ranges"):
        self.files, self.cut, self.form = files, cut, form
        self.asked = []
        super().__init__(("127.0.0.1", 0), _MirrorHandler)

    def address(self, name=""):
        return f"http://127.0.0.1:{self.server_port}/folder/{name}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return super().__enter__()

    def __exit__(self, *error):
        self.shutdown()
        super().__exit__(*error)


class _MirrorHandler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        mirror, given = self.server, self.headers.get("Range")
        mirror.asked.append(given)
        assert self.headers["Accept-Encoding"] == "identity"  # a compressed file has other lengths
        name = self.path.removeprefix("/folder/")
        if name not in mirror.files:
            self.send_error(404)
            return
        data = mirror.files[name]
        start = (
            int(given.removeprefix("bytes=").removesuffix("-"))
            if given and mirror.form in ("ranges", "refuses", "elsewhere")
            else 0
        )
        if given and (mirror.form == "refuses" or start >= len(data)):
            self.send_error(416)
            return
        start += 7 if start and mirror.form == "elsewhere" else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if mirror.form != "unannounced":
            self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        body = data[start:][: mirror.cut]
        for half in (body[: len(body) // 2], body[len(body) // 2 :]):
            with contextlib.suppress(ConnectionError):  # who reads has seen enough
                self.wfile.write(half)
                self.wfile.flush()
            time.sleep(0 if mirror.cut is None else 0.1)

    def log_message(self, *args):
        pass


@pytest.fixture
def official(monkeypatch):
    """Return a function that makes a server vit_t's official address, and the checkpoint with `CONTENT`."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(downloads, "BLOCK", 500)

    def make(server):
        url = "http://127.0.0.1:9/folder/mobile_sam.pt" if server is None else server.address("mobile_sam.pt")
        digest = hashlib.sha256(CONTENT).hexdigest()
        checkpoint = dataclasses.replace(CHECKPOINTS["vit_t"], url=url, size=len(CONTENT), sha256=digest)
        monkeypatch.setitem(CHECKPOINTS, "vit_t", checkpoint)
        return checkpoint

    return make


def mirror_of(content=CONTENT, **options):
    return Mirror({"mobile_sam.pt": content}, **options)


DOWN = "http://127.0.0.1:9/folder"


def test_mirrors_that_fail_lead_to_the_official_address(official, monkeypatch, capsys):
    """The first is down, the second slow and cut, the third sends wrong bytes."""
    with mirror_of(cut=3000) as cut, mirror_of(OTHER) as wrong, mirror_of() as last:
        checkpoint = official(last)
        monkeypatch.setenv("SAM_NB_MIRRORS", f"{DOWN}/, {cut.address()}\n{wrong.address()}")
        path = download("vit_t")
    assert path.read_bytes() == CONTENT
    assert kept(checkpoint) == ["mobile_sam.pt"]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    for line, server, reason in zip(
        lines, (None, cut, wrong), ("refused", "the connection ended early", "another file"), strict=False
    ):
        where = f"{DOWN}/mobile_sam.pt" if server is None else server.address("mobile_sam.pt")
        assert line.startswith(f"vit_t is not from {where}: ")
        assert line.endswith(". Trying the next address.")
        assert re.search(reason, line)
    assert lines[3] == f"vit_t: 0 MB from {checkpoint.url}, its SHA-256 is right."
    # The third resumed what the second had sent. The digest was wrong: so it was asked for the whole, as was the last.
    assert cut.asked == [None]
    assert wrong.asked == ["bytes=3000-", None]
    assert last.asked == [None]


def test_a_mirror_is_enough(official, capsys):
    checkpoint = official(None)
    with mirror_of() as server:
        assert download("vit_t", mirrors=[server.address()]).read_bytes() == CONTENT
        assert capsys.readouterr().out == f"vit_t: 0 MB from {server.address('mobile_sam.pt')}, its SHA-256 is right.\n"
        assert download("vit_t", mirrors=server.address()) == checkpoint.path  # it is there now
        assert server.asked == [None]
        assert capsys.readouterr().out == ""


def test_what_is_given_goes_before_the_environment(official, monkeypatch):
    with mirror_of() as chosen, mirror_of() as last:
        official(last)
        monkeypatch.setenv("SAM_NB_MIRRORS", "not an address")
        assert download("vit_t", mirrors=[]).read_bytes() == CONTENT
        last.files["mobile_sam.pt"] = OTHER
        CHECKPOINTS["vit_t"].path.unlink()
        assert download("vit_t", mirrors=f"{chosen.address()},{DOWN}").read_bytes() == CONTENT


@pytest.mark.parametrize("form", ["ranges", "whole", "refuses", "unannounced"])
def test_one_address_resumes_what_another_began(official, form):
    with mirror_of(cut=3000) as cut, mirror_of(form=form) as last:
        official(last)
        assert download("vit_t", [cut.address()]).read_bytes() == CONTENT
    assert last.asked == (["bytes=3000-", None] if form == "refuses" else ["bytes=3000-"])


def test_wrong_bytes_at_the_beginning_are_not_resumed_for_ever(official):
    with mirror_of(OTHER, cut=3000) as cut, mirror_of() as last:
        official(last)
        assert download("vit_t", [cut.address()]).read_bytes() == CONTENT
    assert last.asked == ["bytes=3000-", None]


@pytest.mark.parametrize(
    ("content", "form", "reason"),
    [
        (CONTENT + b"more", "ranges", "another file, with 5124 bytes for 5120"),
        (CONTENT * 9, "unannounced", "more than 5,120 bytes"),
        (CONTENT[:4000], "ranges", "another file, with 4000 bytes for 5120"),
        (CONTENT[:2000], "ranges", "another file, with 2000 bytes for 5120"),
        (CONTENT[:2000], "unannounced", "the connection ended early"),
        (b"<html>Sign in</html>", "whole", "another file, with 20 bytes for 5120"),
        (CONTENT, "elsewhere", "it sends from byte 3,007 on, not from 3,000"),
    ],
)
def test_a_file_of_another_size_takes_nothing_from_what_has_arrived(official, capsys, content, form, reason):
    with mirror_of(cut=3000) as cut, mirror_of(content, form=form) as other, mirror_of() as last:
        official(last)
        assert download("vit_t", [cut.address(), other.address()]).read_bytes() == CONTENT
    assert reason in capsys.readouterr().out
    if "more than" not in reason:  # such a sender is noticed only after some of its bytes
        assert last.asked == ["bytes=3000-"]


def test_all_addresses_fail(official, capsys):
    with mirror_of(cut=3000) as cut, Mirror({}) as empty:
        checkpoint = official(None)
        with pytest.raises(RuntimeError) as caught:
            download("vit_t", [empty.address(), cut.address()])
    first, *reasons, last = str(caught.value).splitlines()
    assert first == "could not download vit_t (0 MB) from:"
    assert [reason.split(": ")[0] for reason in reasons] == [
        f"- {address}" for address in (empty.address("mobile_sam.pt"), cut.address("mobile_sam.pt"), checkpoint.url)
    ]
    assert "404" in reasons[0]
    assert capsys.readouterr().out.count("Trying the next address.\n") == 2
    assert last.startswith("0 MB are kept: call again to resume. To download it by hand: open http://127.0.0.1:9/")
    assert checkpoint.path.with_suffix(".part").read_bytes() == CONTENT[:3000]


@pytest.mark.parametrize(
    "mirror", ["example.org/sam", "ftp://example.org", "file:///etc", "https://", "https://a.b/?x=1", "https://a.b/#c"]
)
def test_what_is_not_a_mirror(official, monkeypatch, mirror):
    official(None)
    with pytest.raises(ValueError, match=r"no mirror .*: expected the http or https address of a folder, such as"):
        download("vit_t", [mirror])
    monkeypatch.setenv("SAM_NB_MIRRORS", mirror)
    with pytest.raises(ValueError, match="set by the environment variable SAM_NB_MIRRORS"):
        loading.load_sam("vit_t")


def test_a_password_in_an_address_is_not_shown(official, capsys):
    with Mirror({}) as empty, mirror_of() as last:
        official(last)
        download("vit_t", [empty.address().replace("//", "//reader:secret@")])
    said = capsys.readouterr().out
    assert "404" in said
    assert "secret" not in said


def test_a_full_disk_is_no_reason_to_try_the_next(official, monkeypatch):
    with mirror_of() as first, mirror_of() as last:
        official(last)
        monkeypatch.setattr(downloads, "flush", refuse(errno.ENOSPC))
        with pytest.raises(RuntimeError, match=r"No space left on device.*Make room"):
            download("vit_t", [first.address()])
    assert last.asked == []


# Folders that fail ----------------------------------------------------------------------------------------------------


def refuse(code):
    def fail(*args, **options):
        raise OSError(code, os.strerror(code))

    return fail


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Return a checkpoint of 1000 bytes and its content; its address is one where nothing listens."""
    content = b"w" * 1000
    checkpoint = dataclasses.replace(
        CHECKPOINTS["vit_b"],
        url="http://127.0.0.1:9/sam_vit_b_01ec64.pth",
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setitem(CHECKPOINTS, "vit_b", checkpoint)
    return checkpoint, content


def test_a_file_that_is_there_needs_nothing_written(small, monkeypatch):
    checkpoint, content = small
    checkpoint.path.parent.mkdir(parents=True)
    checkpoint.path.write_bytes(content)
    for step in ("pathlib.Path.mkdir", "filelock.FileLock.acquire"):
        monkeypatch.setattr(step, refuse(errno.EROFS))
    assert download("vit_b") == checkpoint.path
    assert [path.name for path in checkpoint.path.parent.iterdir()] == [checkpoint.file]


@pytest.mark.parametrize("step", ["pathlib.Path.mkdir", "filelock.FileLock.acquire"])
def test_a_folder_that_cannot_be_written(small, monkeypatch, step):
    monkeypatch.setattr(step, refuse(errno.EACCES))
    with pytest.raises(
        RuntimeError, match=r"could not download vit_b .*Permission denied.*SAM_NB_HOME.*To download it by hand: open"
    ):
        download("vit_b")


def test_a_disk_that_gets_full_keeps_what_has_arrived(serve, monkeypatch):
    point_to, _ = serve
    checkpoint = point_to("/whole")
    monkeypatch.setattr(downloads, "BLOCK", 1 << 20)
    open_file, written = Path.open, []

    class Full:
        """A file that takes three blocks."""

        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def write(self, block):
            written.append(block)
            if len(written) > 3:
                raise OSError(28, "No space left on device")
            self.file.write(block)

    def opened(path, mode="r", *args, **options):
        file = open_file(path, mode, *args, **options)
        return Full(file) if path.suffix == ".part" else file

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(
        RuntimeError, match=r"No space left on device. 3 MB are kept: call again to resume. Make room, or"
    ):
        download("vit_b")
    assert kept(checkpoint) == ["sam_vit_b_01ec64.part"]


@pytest.mark.skipif(os.name != "posix", reason="permissions as POSIX has them")
def test_a_cache_that_may_not_be_read_leaves_lite(small, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # what the system says there; root may read everything
    assert loading.available_models() == ["lite"]
    assert loading.load_sam(device="cpu").name == "lite"


def test_mobilesam_comes_as_vit_t_and_is_found_by_itself(random_vit_t, tmp_path, monkeypatch, capsys):
    import torch

    (tmp_path / "served").mkdir()
    file = tmp_path / "served" / "mobile_sam.pt"
    torch.save(random_vit_t.state_dict(), file)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Mirror({"mobile_sam.pt": file.read_bytes()}) as server:
        checkpoint = dataclasses.replace(
            CHECKPOINTS["vit_t"], url=server.address("mobile_sam.pt"), size=file.stat().st_size, sha256=sha256(file)
        )
        monkeypatch.setitem(CHECKPOINTS, "vit_t", checkpoint)
        sam = loading.load_sam("vit_t", device="cpu")
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"vit_t: 41 MB from {checkpoint.url}, its SHA-256 is right."
    assert second == "vit_t: MobileSAM, distilled from Meta's SAM, 10.1 M parameters, on cpu."
    assert all(torch.equal(value, random_vit_t.state_dict()[name]) for name, value in sam.model.state_dict().items())
    assert kept(checkpoint) == ["mobile_sam.pt"]
    assert sam.weights == checkpoint.sha256
    assert loading.load_sam(device="cpu").name == "vit_t"
    # vit_b goes before it, and what the environment says before both.
    CHECKPOINTS["vit_b"].path.touch()
    assert loading._default_name() == "vit_b"
    monkeypatch.setenv("SAM_NB_MODEL", "lite")
    assert loading._default_name() == "lite"


class Small(http.server.BaseHTTPRequestHandler):
    """Serves 1000 bytes, slowly."""

    def do_GET(self):
        self.server.requests.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        time.sleep(0.2)
        self.wfile.write(b"w" * 1000)

    def log_message(self, *args):
        pass


DOWNLOADS = """
import dataclasses, sys
from sam_nb.weights.checkpoints import CHECKPOINTS
from sam_nb.weights.download import download
CHECKPOINTS["vit_b"] = dataclasses.replace(CHECKPOINTS["vit_b"], url=sys.argv[1], size=1000, sha256=sys.argv[2])
print(download("vit_b"))
"""


def test_eight_processes_share_one_download(small):
    checkpoint, _ = small
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Small) as server:
        server.requests = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        given = [sys.executable, "-c", DOWNLOADS, f"http://127.0.0.1:{server.server_port}/", checkpoint.sha256]
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
        runs = [subprocess.Popen(given, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(8)]
        said = [run.communicate(timeout=300)[0].strip() for run in runs]
        server.shutdown()
    assert sorted(said)[:7] == [str(checkpoint.path)] * 7
    assert sorted(said)[7].startswith("vit_b: 0 MB from http://127.0.0.1")  # one of them, the one that downloaded
    assert sorted(said)[7].endswith(f"\n{checkpoint.path}")
    assert server.requests == ["/"]
    assert kept(checkpoint) == ["sam_vit_b_01ec64.pth"]


def test_a_download_is_on_the_disk_before_it_gets_its_name(small, monkeypatch):
    checkpoint, _ = small
    flushed = []

    def spy(path):
        flushed.append((path.name, checkpoint.path.exists()))

    monkeypatch.setattr("sam_nb.weights.download.flush", spy)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Small) as server:
        server.requests = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setitem(CHECKPOINTS, "vit_b", dataclasses.replace(checkpoint, url=address))
        download("vit_b")
        server.shutdown()
    assert flushed == [("sam_vit_b_01ec64.part", False), ("checkpoints", True)]


def test_the_table():
    for checkpoint in CHECKPOINTS.values():
        assert checkpoint.url.startswith("https://")
        assert checkpoint.url.endswith(checkpoint.file)
        assert len(checkpoint.sha256) == 64
        assert checkpoint.licence == "Apache-2.0"
    assert list(loading.ARCHITECTURES) == ["lite", *CHECKPOINTS]


def test_home(monkeypatch, tmp_path):
    monkeypatch.setenv("SAM_NB_HOME", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("SAM_NB_HOME")
    assert cache_dir().name == "sam-nb"


def test_sha256_by_the_standard_s_example(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "long").write_bytes(np.zeros(3 << 20, np.uint8).tobytes())
    assert sha256(tmp_path / "long").startswith("bbd05cf6097ac9b1")
