"""Weights from anyone's file: nothing runs, nothing grows, and what is odd is refused in words."""

import collections
import io
import json
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch

from sam_nb.model.loading import load_sam
from sam_nb.weights import weights_file
from sam_nb.weights.weights_file import read_weights

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(3, dtype=torch.float16)}


def saved(state, **options):
    file = io.BytesIO()
    torch.save(state, file, **options)
    return file.getvalue()


def archived(entries, compression=zipfile.ZIP_STORED):
    """Return a ZIP archive of names and bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(f"archive/{name}", content)
    return file.getvalue()


def entries_of(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def safetensors_of(header, data=b""):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.fixture
def file(tmp_path):
    def write(content, suffix=".pth"):
        path = tmp_path / f"weights{suffix}"
        path.write_bytes(content)
        return path

    return write


def test_weights_come_back(file):
    for path in (file(saved(STATE)), file(safetensors.torch.save(STATE), ".safetensors"), file(saved(STATE), ".PT")):
        state = read_weights(path)
        assert list(state) == list(STATE) or sorted(state) == sorted(STATE)
        assert all(torch.equal(state[name], value) for name, value in STATE.items())
    assert set(read_weights(file(saved(collections.OrderedDict(STATE))))) == set(STATE)


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("is_archive", [True, False])
def test_a_pickle_runs_no_code(file, tmp_path, is_archive):
    trap = {"weights": Trap(tmp_path / "sprung")}
    for content in (saved(trap, _use_new_zipfile_serialization=is_archive), pickle.dumps(trap)):
        with pytest.raises(ValueError, match="holds no weights that can be read") as caught:
            read_weights(file(content))
        assert "weights_only" not in str(caught.value)
    with pytest.raises(ValueError, match="holds no weights that can be read"):
        load_sam("vit_b", checkpoint=file(saved(trap)))
    assert not (tmp_path / "sprung").exists()


def test_a_torchscript_program_is_not_loaded(file, monkeypatch):
    monkeypatch.setattr(torch, "load", None)  # older versions run it even with weights_only=True
    for name in ("constants.pkl", "code/__torch__.py"):
        with pytest.raises(ValueError, match="it is a TorchScript program"):
            read_weights(file(archived(entries_of(saved(STATE)) | {name: b"import os"}, zipfile.ZIP_DEFLATED)))


@pytest.mark.parametrize("form", ["pickle", "tar"])
def test_formats_from_before_version_1_6_are_not_loaded(file, monkeypatch, form):
    content = saved(STATE, _use_new_zipfile_serialization=False) if form == "pickle" else b"storages" + bytes(2000)
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(ValueError, match=r"pickle from before PyTorch 1.6|not an archive of torch.save"):
        read_weights(file(content))


def test_a_compressed_archive_is_not_unpacked(file, monkeypatch):
    """A ZIP bomb: 50 MB out of 50 kB."""
    content = archived(entries_of(saved(STATE)) | {"data/0": bytes(50_000_000)}, zipfile.ZIP_DEFLATED)
    assert len(content) < 100_000
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(ValueError, match="its archive is compressed"):
        read_weights(file(content))


def test_an_archive_whose_entries_overlap_is_not_unpacked(file, monkeypatch):
    content = archived({"data.pkl": b"x" * 1000})
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        start = archive.start_dir
    record = content[start : content.index(b"PK\x05\x06")]
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 50, 50, 50 * len(record), start, 0)
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(ValueError, match="says that it holds more than it has bytes"):
        read_weights(file(content[:start] + record * 50 + end))


def test_a_long_pickle_is_not_read(file, monkeypatch):
    monkeypatch.setattr(weights_file, "MAX_PICKLE", 100)
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(ValueError, match="its pickle is too long"):
        read_weights(file(saved(STATE)))


def test_a_huge_file_is_not_read(file, monkeypatch):
    monkeypatch.setattr(weights_file, "MAX_BYTES", 1000)
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(ValueError, match=r"has 1,[0-9]{3} bytes: expected weights of SAM, which have at most 1,000"):
        read_weights(file(saved(STATE)))


def forged(old, new):
    """Return an archive of one tensor of 64 floats, with some of its pickle's instructions replaced."""
    entries = entries_of(saved({"w": torch.ones(64)}))
    assert entries["data.pkl"].count(old) >= 1
    return archived(entries | {"data.pkl": entries["data.pkl"].replace(old, new)})


HUGE = b"\x8a\x06" + (1 << 40).to_bytes(6, "little")  # LONG1, the integer 2 ** 40
VIEW = b"K\x00K@\x85q\x08K\x01\x85"  # it begins at 0, has the shape (64,), steps by 1
MINUS = b"J\xff\xff\xff\xff"
FORGED = {
    "-1 rows": (VIEW, b"K\x00" + MINUS + b"\x85q\x08K\x01\x85"),
    "-1 rows of none": (VIEW, b"K\x00" + MINUS + b"K\x00\x86q\x08K\x01K\x01\x86"),
    "-1 rows of -1": (VIEW, b"K\x00" + 2 * MINUS + b"\x86q\x08K\x01K\x01\x86"),
    "steps backwards": (VIEW, b"K\x3fK@\x85q\x08" + MINUS + b"\x85"),
    "one number 2^40 times": (VIEW, b"K\x00" + HUGE + b"\x85q\x08K\x00\x85"),
    "a storage of 4 TB": (b"K@t", HUGE + b"t"),
    "a view of 4 TB": (b"K@\x85", HUGE + b"\x85"),
    "a view that begins behind the end": (b"K\x00K@\x85", HUGE + b"K@\x85"),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_tensor_is_not_larger_than_its_file(file, name):
    path = file(forged(*FORGED[name]))
    try:
        state = read_weights(path)
    except ValueError:
        return
    # What the pickle says of the storage is cut to what is there.
    assert name == "a storage of 4 TB"
    assert state["w"].untyped_storage().nbytes() <= path.stat().st_size


@pytest.mark.parametrize(
    "code", [b"", b".", b"N.", b"}", b"\x80\x02}q\x00(X\xff\xff\xff\xff", b"(" * 5000 + b"l.", b"h\x05."]
)
def test_odd_pickles(file, code):
    entries = entries_of(saved(STATE))
    with pytest.raises(ValueError, match=r"holds no weights that can be read|something other than weights"):
        read_weights(file(archived(entries | {"data.pkl": code})))


@pytest.mark.parametrize("cut", [0, 1, 3, 100, -1])
def test_cut_files(file, cut):
    for content, suffix in ((saved(STATE), ".pth"), (safetensors.torch.save(STATE), ".safetensors")):
        with pytest.raises(ValueError, match=r"bytes\) holds no weights that can be read. An incomplete download\?"):
            read_weights(file(content[:cut], suffix))


F32 = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
LYING = {
    "a header longer than the file": struct.pack("<Q", 1 << 40) + b"{}",
    "a header of 2^63 bytes": struct.pack("<Q", 1 << 63) + b"{}",
    "a shape larger than the data": safetensors_of({"a": F32 | {"shape": [1 << 31, 1 << 31]}}, bytes(24)),
    "a shape that overflows": safetensors_of({"a": F32 | {"shape": [1 << 33, 1 << 33]}}, bytes(24)),
    "offsets behind the end": safetensors_of({"a": F32 | {"data_offsets": [0, 1 << 40]}}, bytes(24)),
    "offsets that run backwards": safetensors_of({"a": F32 | {"data_offsets": [24, 0]}}, bytes(24)),
    "tensors that overlap": safetensors_of({"a": F32, "b": F32}, bytes(24)),
    "bytes of no tensor": safetensors_of({"a": F32}, bytes(99)),
    "a negative side": safetensors_of({"a": F32 | {"shape": [-2, -3]}}, bytes(24)),
    "an unknown type": safetensors_of({"a": F32 | {"dtype": "F13"}}, bytes(24)),
    "not JSON": struct.pack("<Q", 5) + b"{oops",
    "a list": safetensors_of([1, 2]),
}


@pytest.mark.parametrize("name", LYING)
def test_headers_that_lie(file, name):
    with pytest.raises(ValueError, match="holds no weights that can be read"):
        read_weights(file(LYING[name], ".safetensors"))


@pytest.mark.parametrize(
    "state",
    [
        [torch.ones(2)],
        {"epoch": 3, "model": STATE},
        {1: torch.ones(2)},
        {"a": torch.ones(2, dtype=torch.complex64)},
        {"a": torch.ones(2, dtype=torch.int8)},
        {"a": torch.eye(3).to_sparse()},
        {"a": torch.empty(3, device="meta")},
        {"a": torch.ones(1).expand(2**40)},
        {"a": torch.ones(3, 1).expand(3, 2**10)},
    ],
    ids=["list", "trainer's", "numbers for names", "complex", "int8", "sparse", "meta", "4 TB", "12 KB"],
)
def test_what_is_not_weights(file, state):
    with pytest.raises(ValueError, match=r"something other than weights: expected a state dict|holds no weights"):
        read_weights(file(saved(state)))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_of_a_training_that_diverged(file, value):
    for content, suffix in (
        (saved({"a": torch.tensor([1.0, value])}), ".pth"),
        (safetensors.torch.save({"a": torch.tensor([1.0, value])}), ".safetensors"),
    ):
        with pytest.raises(ValueError, match=r"a holds NaN or infinite numbers.*take an earlier checkpoint"):
            read_weights(file(content, suffix))


def test_weights_of_other_shapes(file):
    state = load_sam("lite", device="cpu").model.state_dict()
    name = "mask_decoder.iou_token.weight"
    for changed in (
        state | {name: torch.ones(1, 1)},
        state | {"more": torch.ones(1)},
        {"image_encoder.backbone.conv_stem.weight": torch.ones(())},
    ):
        with pytest.raises(ValueError, match="does not hold the weights of lite"):
            load_sam(checkpoint=file(saved(changed)), device="cpu")
    for odd in (torch.ones(()), torch.ones(5, 3)):
        with pytest.raises(ValueError, match="unknown model"):
            load_sam(checkpoint=file(saved({"image_encoder.patch_embed.proj.weight": odd})), device="cpu")


def test_a_disk_that_fails_is_not_a_damaged_file(file, monkeypatch):
    path = file(saved(STATE))

    def fail(*args, **options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(zipfile, "is_zipfile", fail)
    with pytest.raises(PermissionError, match=r"weights.pth"):
        read_weights(path)
