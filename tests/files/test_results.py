"""What Save writes into a folder: everything or nothing, and nothing of the user's is lost."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from random_masks import ragged_mask

from sam_nb import Segment, save_mask, save_segments


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(1, 255, (60, 90, 3), np.uint8)


def test_a_folder_holds_everything(image, tmp_path):
    names = ["front wheel", "Front/Wheel", "轮子"]
    segments = [Segment(ragged_mask(seed), name) for seed, name in enumerate(names, start=1)]
    folder = save_segments(segments, image, tmp_path / "out" / "street", prompts='{"a": 1}', file_name="street.jpg")
    written = sorted(str(path.relative_to(folder)).replace("\\", "/") for path in folder.rglob("*") if path.is_file())
    names = ["Front_Wheel_2.png", "front_wheel.png", "轮子.png"]
    expected = ["coco.json", *(f"cutouts/{name}" for name in names), *(f"masks/{name}" for name in names)]
    assert written == [*expected, "prompts.json"]
    np.testing.assert_array_equal(np.array(Image.open(folder / "masks" / "front_wheel.png")) > 0, segments[0].mask)
    assert json.loads((folder / "coco.json").read_text(encoding="utf-8"))["images"][0]["file_name"] == "street.jpg"
    assert [path.name for path in folder.parent.iterdir()] == ["street"]


def test_the_image_comes_in_every_form(image, tmp_path):
    Image.fromarray(image).save(tmp_path / "image.png")
    forms = image, Image.fromarray(image), str(tmp_path / "image.png"), (tmp_path / "image.png").read_bytes()
    for number, form in enumerate(forms):
        save_segments([Segment(ragged_mask(1), "a")], form, tmp_path / str(number))
    assert len({(tmp_path / str(number) / "cutouts" / "a.png").read_bytes() for number in range(len(forms))}) == 1


def test_names_that_windows_keeps_for_devices(image, tmp_path):
    names = ["CON", "aux.b", "lpt1", "console", "con 2"]
    folder = save_segments([Segment(ragged_mask(1), name) for name in names], image, tmp_path / "out")
    expected = ["_CON.png", "_aux.b.png", "_lpt1.png", "con_2.png", "console.png"]
    assert sorted(path.name for path in (folder / "masks").iterdir()) == expected


def test_nothing_is_overwritten_by_default(image, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="choose another folder"):
        save_segments([Segment(ragged_mask(1), "a")], image, folder)
    save_segments([Segment(ragged_mask(1), "a")], image, folder, overwrite=True)
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "masks" / "a.png").exists()


def test_a_failing_disk_leaves_nothing_half_written(image, tmp_path, monkeypatch):
    written = []
    write_bytes = Path.write_bytes

    def full(path, content):
        written.append(path)
        if len(written) > 2:
            write_bytes(path, content[:10])
            raise OSError(28, "No space left on device")
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    segments = [Segment(ragged_mask(seed), f"object {seed}") for seed in range(3)]
    with pytest.raises(OSError, match="No space left"):
        save_segments(segments, image, tmp_path / "out")
    with pytest.raises(OSError, match="No space left"):
        save_mask(ragged_mask(1), tmp_path / "mask.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("step", ["write_bytes", "replace"])
def test_a_disk_that_fails_between_two_files_changes_nothing(image, tmp_path, monkeypatch, step):
    folder = save_segments([Segment(ragged_mask(1), "a"), Segment(ragged_mask(2), "b")], image, tmp_path / "out")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    true, calls = getattr(Path, step), []

    def fail(path, argument):
        calls.append(path)
        if len(calls) == 4:
            raise OSError(28, "No space left on device")
        return true(path, argument)

    monkeypatch.setattr(Path, step, fail)
    with pytest.raises(OSError, match="No space left"):
        save_segments([Segment(ragged_mask(3), "a"), Segment(ragged_mask(4), "c")], image, folder, overwrite=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_file_in_the_place_of_the_folder(image, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(NotADirectoryError, match=r"out' is a file: choose another name"):
        save_segments([Segment(ragged_mask(1), "a")], image, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out").read_text() == "mine"


def test_invalid_segments_are_refused_before_anything_is_written(image, tmp_path):
    with pytest.raises(ValueError, match="nothing to save"):
        save_segments([], image, tmp_path / "out")
    with pytest.raises(ValueError, match="a: image and mask differ in size"):
        save_segments([Segment(np.zeros((5, 5), bool), "a")], image, tmp_path / "out")
    assert not list(tmp_path.iterdir())
