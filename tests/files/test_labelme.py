"""Two hundred masks with holes and several components as LabelMe JSON, read back by us and by another program."""

import json

import numpy as np
import pytest
import supervision
from PIL import Image
from random_masks import COUNT, images_of_segments

from sam_nb import Segment, iou, load_labelme, save_labelme


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with 20 files of ten masks each and their images."""
    made = tmp_path_factory.mktemp("labelme")
    for name, segments in images_of_segments():
        size = segments[0].mask.shape
        for kind in ("images", "labels"):
            (made / kind).mkdir(exist_ok=True)
        Image.new("RGB", size[::-1]).save(made / "images" / f"{name}.png")
        save_labelme(segments, size, made / "labels" / f"{name}.json", file_name=f"{name}.png")
    return made


def test_what_we_write_we_read(folder):
    agreement = []
    for name, segments in images_of_segments():
        found = load_labelme(folder / "labels" / f"{name}.json")
        assert [segment.category for segment in found] == [segment.category for segment in segments]
        assert [segment.name for segment in found] == [segment.name for segment in segments]
        agreement += [iou(one.mask, other.mask) for one, other in zip(found, segments, strict=True)]
    assert len(agreement) == COUNT
    assert set(agreement) == {1.0}


def test_supervision_reads_the_same_masks(folder):
    labelme = supervision.DetectionDataset.from_labelme(str(folder / "images"), str(folder / "labels"), True)
    for name, segments in images_of_segments():
        masks = [segment.mask for segment in segments]
        assert np.array_equal(labelme.annotations[str(folder / "images" / f"{name}.png")].mask, masks)


def test_the_file_names_its_image(folder):
    assert json.loads((folder / "labels" / "00.json").read_bytes())["imagePath"] == "00.png"


def test_nothing_is_overwritten_by_default(blob, tmp_path):
    path = tmp_path / "a.json"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="exists already: choose another name"):
        save_labelme([Segment(blob, "a")], blob.shape, path)
    assert path.read_text() == "mine"


def test_invalid_segments_and_files_are_refused(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(ValueError, match="nothing: an empty mask has no outline"):
        save_labelme([Segment(np.zeros((9, 9), bool), "nothing")], (9, 9), path)
    assert not path.exists()
    circle = {"imageHeight": 9, "imageWidth": 9, "shapes": [{"shape_type": "circle", "label": "a", "points": []}]}
    for content, message in (
        (b"[]", "not LabelMe JSON: expected an object with shapes, imageHeight, imageWidth, got list"),
        (b'{"shapes": []}', "it lacks imageHeight, imageWidth"),
        (json.dumps(circle).encode(), "shape 0: expected a polygon, got a circle"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            load_labelme(path)
