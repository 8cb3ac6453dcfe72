"""What is written reads back to the same mask, by the libraries that will read it; nothing of the user's is lost."""

import json
from pathlib import Path

import numpy as np
import pycocotools.mask
import pytest
from PIL import Image
from pycocotools.coco import COCO

from sam_nb.files import results as export
from sam_nb.files.results import save_coco, save_cutout, save_mask, save_segments
from sam_nb.masks import Segment


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(1, 255, (60, 90, 3), np.uint8)


def ragged(seed):
    """Return a mask of several pieces with holes, 60x90 bool."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((10, 15)).repeat(6, axis=0).repeat(6, axis=1)
    return (coarse + 0.3 * rng.random((60, 90))) > rng.uniform(0.4, 0.9)


@pytest.mark.parametrize("seed", range(10))
def test_round_trips(image, tmp_path, seed):
    mask = ragged(seed)
    save_mask(mask, tmp_path / "mask.png")
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "mask.png")), mask * np.uint8(255))
    save_cutout(image, mask, tmp_path / "cutout.png")
    cutout = np.array(Image.open(tmp_path / "cutout.png"))
    np.testing.assert_array_equal(cutout[..., 3] > 0, mask)
    np.testing.assert_array_equal(cutout[mask][:, :3], image[mask])
    assert not cutout[~mask].any()
    save_coco([Segment(mask, "a", "wheel", 0.5), Segment(~mask, "b", "car")], mask.shape, tmp_path / "coco.json")
    coco = COCO(tmp_path / "coco.json")
    first, second = coco.loadAnns([1, 2])
    np.testing.assert_array_equal(coco.annToMask(first), mask)
    np.testing.assert_array_equal(coco.annToMask(second), ~mask)
    assert first["area"] == mask.sum()
    np.testing.assert_array_equal(first["bbox"], pycocotools.mask.toBbox(first["segmentation"]))
    assert coco.loadCats(first["category_id"])[0]["name"] == "wheel"
    assert first["score"] == 0.5
    assert "score" not in second


def test_the_box_in_coco_is_corner_and_size(blob, tmp_path):
    save_coco([Segment(blob, "a")], blob.shape, tmp_path / "coco.json")
    (annotation,) = json.loads((tmp_path / "coco.json").read_text(encoding="utf-8"))["annotations"]
    ys, xs = np.nonzero(blob)
    assert annotation["bbox"] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]


def test_a_folder_holds_everything(image, tmp_path):
    segments = [Segment(ragged(1), "front wheel"), Segment(ragged(2), "Front/Wheel"), Segment(ragged(3), "轮子")]
    folder = save_segments(segments, image, tmp_path / "out" / "street", prompts='{"a": 1}', picture="street.jpg")
    written = sorted(str(path.relative_to(folder)).replace("\\", "/") for path in folder.rglob("*") if path.is_file())
    names = ["Front_Wheel_2.png", "front_wheel.png", "轮子.png"]
    expected = ["coco.json", *(f"cutouts/{name}" for name in names), *(f"masks/{name}" for name in names)]
    assert written == [*expected, "prompts.json"]
    np.testing.assert_array_equal(np.array(Image.open(folder / "masks" / "front_wheel.png")) > 0, segments[0].mask)
    assert json.loads((folder / "coco.json").read_text(encoding="utf-8"))["images"][0]["file_name"] == "street.jpg"
    assert [path.name for path in folder.parent.iterdir()] == ["street"]


def test_names_that_windows_keeps_for_devices(image, tmp_path):
    names = ["CON", "aux.b", "lpt1", "console", "con 2"]
    folder = save_segments([Segment(ragged(1), name) for name in names], image, tmp_path / "out")
    expected = ["_CON.png", "_aux.b.png", "_lpt1.png", "con_2.png", "console.png"]
    assert sorted(path.name for path in (folder / "masks").iterdir()) == expected


def test_nothing_is_overwritten_unasked(image, tmp_path):
    path = tmp_path / "mask.png"
    path.write_text("mine")
    for save in (
        lambda **more: save_mask(ragged(1), path, **more),
        lambda **more: save_cutout(image, ragged(1), path, **more),
        lambda **more: save_coco([Segment(ragged(1), "a")], (60, 90), path, **more),
    ):
        with pytest.raises(FileExistsError, match="exists already: choose another name"):
            save()
        assert path.read_text() == "mine"
    save_mask(ragged(1), path, overwrite=True)
    assert path.read_bytes()[1:4] == b"PNG"
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="choose another folder"):
        save_segments([Segment(ragged(1), "a")], image, folder)
    save_segments([Segment(ragged(1), "a")], image, folder, overwrite=True)
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

    monkeypatch.setattr(export.Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        save_segments([Segment(ragged(seed), f"object {seed}") for seed in range(3)], image, tmp_path / "out")
    with pytest.raises(OSError, match="No space left"):
        save_mask(ragged(1), tmp_path / "mask.png")
    assert not list(tmp_path.iterdir())


def test_mistakes_are_told_before_anything_is_written(image, tmp_path):
    with pytest.raises(ValueError, match="nothing to save"):
        save_segments([], image, tmp_path / "out")
    with pytest.raises(ValueError, match="the mask"):
        save_segments([Segment(np.zeros((5, 5), bool), "a")], image, tmp_path / "out")
    with pytest.raises(ValueError, match="the picture has"):
        save_cutout(image, np.zeros((5, 5), bool), tmp_path / "a.png")
    with pytest.raises(ValueError, match="expected one mask"):
        save_mask(image, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
