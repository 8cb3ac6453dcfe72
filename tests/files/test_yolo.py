"""Two hundred masks with holes and several components as YOLO's labels, read back by us and by another program."""

import numpy as np
import pytest
import supervision
from PIL import Image
from random_masks import CATEGORIES, COUNT, images_of_segments

from sam_nb import Segment, iou, load_yolo, save_yolo
from sam_nb.files.polygons import polygons
from sam_nb.files.yolo import decode_yolo, encode_yolo
from sam_nb.rasterize import rasterize


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with 20 label files of ten masks each, their images and the classes."""
    made = tmp_path_factory.mktemp("yolo")
    for name, segments in images_of_segments():
        size = segments[0].mask.shape
        for kind in ("images", "labels"):
            (made / kind).mkdir(exist_ok=True)
        Image.new("RGB", size[::-1]).save(made / "images" / f"{name}.png")
        save_yolo(segments, size, made / "labels" / f"{name}.txt", categories=CATEGORIES)
    (made / "data.yaml").write_text(f"names: {CATEGORIES}\n", encoding="utf-8")
    return made


def test_what_we_write_we_read(folder):
    agreement = []
    for name, segments in images_of_segments():
        found = load_yolo(folder / "labels" / f"{name}.txt", segments[0].mask.shape, CATEGORIES)
        assert [segment.category for segment in found] == [segment.category for segment in segments]
        agreement += [iou(one.mask, other.mask) for one, other in zip(found, segments, strict=True)]
    assert len(agreement) == COUNT
    assert np.mean(agreement) > 0.95  # components are joined by lines, and these masks have many


def test_a_mask_of_one_component_is_exact():
    for _, segments in images_of_segments():
        for segment in segments:
            whole = polygons(segment.mask)[:1]
            mask = rasterize(whole, segment.mask.shape)
            line = encode_yolo([Segment(mask, "one")], mask.shape)
            assert np.array_equal(decode_yolo(line, mask.shape, ["object"])[0].mask, mask)


def test_supervision_reads_the_same_masks(folder):
    yolo = supervision.DetectionDataset.from_yolo(
        str(folder / "images"), str(folder / "labels"), str(folder / "data.yaml"), True
    )
    for name, segments in images_of_segments():
        lines = yolo.annotations[str(folder / "images" / f"{name}.png")]
        own = load_yolo(folder / "labels" / f"{name}.txt", segments[0].mask.shape, CATEGORIES)
        assert np.array_equal(lines.mask, [segment.mask for segment in own])
        assert [yolo.classes[index] for index in lines.class_id] == [segment.category for segment in segments]


def test_a_single_pixel_has_an_outline(tmp_path):
    mask = np.zeros((20, 30), bool)
    mask[7, 11] = True
    save_yolo([Segment(mask, "dot")], mask.shape, tmp_path / "a.txt")
    assert np.array_equal(load_yolo(tmp_path / "a.txt", mask.shape, ["object"])[0].mask, mask)


def test_nothing_is_overwritten_by_default(blob, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="exists already: choose another name"):
        save_yolo([Segment(blob, "a")], blob.shape, path)
    assert path.read_text() == "mine"


def test_invalid_segments_and_files_are_refused(tmp_path):
    path = tmp_path / "a.txt"
    with pytest.raises(ValueError, match="nothing: an empty mask has no outline"):
        save_yolo([Segment(np.zeros((9, 9), bool), "nothing")], (9, 9), path)
    with pytest.raises(ValueError, match="all: expected a category among car, wheel, got 'sky'"):
        save_yolo([Segment(np.ones((9, 9), bool), "all", "sky")], (9, 9), path, categories=CATEGORIES)
    assert not path.exists()
    for content, message in (
        (b"0 0.5 0.5", "line 1: expected a class from 0 to 1"),
        (b"\n7 0 0 0 1 1 1", "line 2"),
        (b"0 0 0 0 1 1 1 1", "line 1: expected a class from 0 to 1 and at least three points"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            load_yolo(path, (9, 9), CATEGORIES)
