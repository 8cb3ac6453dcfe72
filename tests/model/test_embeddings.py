"""The cache of embeddings: whatever its folder does, the work goes on, and what comes out is what went in."""

import errno
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from sam_nb.model.embeddings import Embedding, EmbeddingCache
from sam_nb.model.sam import Sam


def embedding(number=0, key=None):
    features = torch.from_numpy(np.random.default_rng(number).standard_normal((1, 256, 8, 8), np.float32))
    return Embedding(features, (300, 451), (681, 1024), "lite", "0a", key or f"{number:064x}")


def same(found, expected):
    return found is not None and torch.equal(found.features, expected.features) and found.key == expected.key


def refuse(code):
    def fail(*args, **options):
        raise OSError(code, os.strerror(code))

    return fail


@pytest.fixture
def cache(tmp_path):
    """Return a cache that holds nothing in memory."""
    return EmbeddingCache(tmp_path, in_memory=0)


def test_an_embedding_comes_back(cache):
    made = embedding(1)
    cache.put(made)
    assert same(cache.get(made.key), made)
    for field in ("original_size", "input_size", "model", "weights"):
        assert getattr(cache.get(made.key), field) == getattr(made, field)
    assert cache.get("0" * 64) is None


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EIO, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize(
    "step", ["os.open", "os.fsync", "pathlib.Path.write_bytes", "pathlib.Path.replace", "pathlib.Path.mkdir"]
)
def test_a_folder_that_cannot_be_written_costs_one_warning(tmp_path, monkeypatch, step, code):
    cache = EmbeddingCache(tmp_path / "embeddings", in_memory=2)
    monkeypatch.setattr(step, refuse(code))
    with pytest.warns(
        UserWarning, match=r"not kept in .*embeddings' \(.*\): .*Make room, or set .*SAM_NB_HOME"
    ) as said:
        cache.put(embedding(1))
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.put(embedding(2))
    assert same(cache.get(embedding(1).key), embedding(1))
    monkeypatch.undo()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_model_encodes_though_its_cache_is_a_file(lite, photo, tmp_path):
    (tmp_path / "file").write_text("in the way")
    sam = Sam(lite.model, lite.name, lite.weights, cache=EmbeddingCache(tmp_path / "file"))
    with pytest.warns(UserWarning, match="not kept in"):
        assert sam.encode(photo).original_size == (300, 451)
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_folder_that_may_only_be_read_is_read(cache, monkeypatch):
    made = embedding(1)
    cache.put(made)
    monkeypatch.setattr(os, "utime", refuse(errno.EROFS))
    assert same(cache.get(made.key), made)


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_a_file_that_cannot_be_read_is_absent(cache, monkeypatch, code):
    cache.put(embedding(1))
    monkeypatch.setattr(Path, "read_bytes", refuse(code))
    assert cache.get(embedding(1).key) is None


def damaged_files():
    """Yield what a disk or another program can make of a file."""
    whole = safetensors.torch.save({"features": torch.zeros(1, 4)}, metadata={"key": "x"})
    yield "empty", lambda content: b""
    yield "cut in the header", lambda content: content[:50]
    yield "cut", lambda content: content[:-1]
    yield "zeros, after a power cut", lambda content: bytes(len(content))
    yield "one bit", lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
    yield "other metadata", lambda content: whole
    yield "no metadata", lambda content: safetensors.torch.save({"features": torch.zeros(1, 4)})
    yield "other tensors", lambda content: safetensors.torch.save({"weights": torch.zeros(1, 4)})
    yield "a huge header", lambda content: (1 << 62).to_bytes(8, "little") + content[8:]
    yield "a list for a header", lambda content: (2).to_bytes(8, "little") + b"[]"


@pytest.mark.parametrize("damage", [pytest.param(change, id=name) for name, change in damaged_files()])
def test_a_damaged_file_is_absent_and_written_again(cache, damage):
    made = embedding(1)
    cache.put(made)
    (path,) = cache.folder.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    assert cache.get(made.key) is None
    cache.put(made)
    assert same(cache.get(made.key), made)


def test_a_file_under_another_s_name_is_absent(cache):
    cache.put(embedding(1))
    (path,) = cache.folder.iterdir()
    path.rename(cache.folder / f"{2:064x}.safetensors")
    assert cache.get(f"{2:064x}") is None


def test_what_a_killed_process_left_goes_when_it_is_old(cache):
    old, new, other = (cache.folder / name for name in (".a.safetensors-00000000", ".b.safetensors-00000000", "notes"))
    for path in (old, new, other):
        path.write_bytes(b"half")
    for path in (old, other):
        os.utime(path, (time.time() - 7200,) * 2)
    cache.put(embedding(1))
    assert [path.exists() for path in (old, new, other)] == [False, True, True]


def test_eviction_beside_another_process(tmp_path, monkeypatch):
    """Files that vanish, or may not be removed, do not keep the others from going."""
    cache = EmbeddingCache(tmp_path, in_memory=0, on_disk=100_000)  # one embedding of 66 kB
    for number in range(3):
        cache.put(embedding(number))
        os.utime(tmp_path / f"{number:064x}.safetensors", (number, number))
    stat, unlink = Path.stat, Path.unlink

    def vanished(path, **options):
        if path.name.startswith("gone"):
            raise FileNotFoundError(2, "No such file or directory")
        return stat(path, **options)

    def refused(path, missing_ok=False):
        if path.name.endswith("1.safetensors"):
            raise PermissionError(13, "Permission denied")
        return unlink(path, missing_ok)

    for name in (f"{1:064x}", "gone", "x"):
        (tmp_path / f"{name}.safetensors").write_bytes(bytes(50_000))
        if name != "gone":
            os.utime(tmp_path / f"{name}.safetensors", (9, 9))
    monkeypatch.setattr(Path, "stat", vanished)
    monkeypatch.setattr(Path, "unlink", refused)
    cache.put(embedding(5))
    left = {path.name[: -len(".safetensors")].lstrip("0") for path in tmp_path.iterdir()}
    assert left == {"1", "5", "gone"}


SHARED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_embeddings import EmbeddingCache, embedding, same

cache = EmbeddingCache(Path(sys.argv[2]), in_memory=0, on_disk=200_000)  # three of five
for number in [*range(5)] * 6:
    found = cache.get(embedding(number).key)
    assert found is None or same(found, embedding(number))
    cache.put(embedding(number))
"""


def test_several_processes_share_a_folder(tmp_path):
    given = [sys.executable, "-W", "error", "-c", SHARED, str(Path(__file__).parent), str(tmp_path)]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    runs = [subprocess.Popen(given, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for run in runs:
        said = run.communicate(timeout=300)[1]
        assert run.returncode == 0, said
    assert all(path.name.endswith(".safetensors") for path in tmp_path.iterdir())
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 200_000
