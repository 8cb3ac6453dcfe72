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


def test_invalid_segments_are_refused(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(ValueError, match="nothing: the mask is empty"):
        save_labelme([Segment(np.zeros((9, 9), bool), "nothing")], (9, 9), path)
    with pytest.raises(ValueError, match=r"a\.png': expected a name that ends in \.json, such as 'a\.json'"):
        save_labelme([Segment(np.ones((9, 9), bool), "all")], (9, 9), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def read(tmp_path, *shapes, **fields):
    """Return what `load_labelme` makes of shapes that are a triangle but for the fields given."""
    triangle = {"label": "car", "points": [[10, 10], [40, 10], [40, 30]]}
    record = {"shapes": [triangle | shape for shape in shapes], "imageHeight": 100, "imageWidth": 120} | fields
    (tmp_path / "a.json").write_text(json.dumps(record), encoding="utf-8")
    return load_labelme(tmp_path / "a.json")


def test_a_group_is_an_object_for_each_label(tmp_path):
    square = [[60, 10], [90, 10], [90, 30], [60, 30]]
    one, other = {"group_id": 1}, {"group_id": 1, "points": square}
    found = read(tmp_path, one, other | {"label": "wheel"}, other, {"group_id": None}, {"group_id": None})
    assert [(segment.category, int(segment.mask.sum())) for segment in found] == [
        ("car", 341 + 651),
        ("wheel", 651),
        ("car", 341),
        ("car", 341),
    ]
    assert len({segment.name for segment in found}) == 4


def test_a_group_has_the_first_name_that_is_given(tmp_path):
    found = read(tmp_path, {"group_id": 1, "description": ""}, {"group_id": 1, "description": "left"})
    assert [segment.name for segment in found] == ["left"]


def test_shapes_of_other_programs_are_read(tmp_path):
    rectangle = {"shape_type": "rectangle", "points": [[40, 30], [10, 10]]}
    corners = {"shape_type": "rectangle", "points": [[10, 10], [40, 10], [40, 30], [10, 30]]}
    found = read(tmp_path, {}, {"shape_type": None}, rectangle, corners)
    assert [int(segment.mask.sum()) for segment in found] == [341, 341, 651, 651]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"shape_type": "circle"}, "expected a polygon or a rectangle, got 'circle': draw it as a polygon"),
        ({"points": []}, r"points: expected at least 3 points \(x, y\), got \[\]"),
        ({"points": [[1, 2], [3, 4]]}, "points: expected at least 3 points"),
        ({"points": [1, 2, 3, 4, 5, 6]}, "points: expected at least 3 points"),
        ({"points": [[1, 2, 3]] * 3}, "points: expected at least 3 points"),
        ({"points": None}, "points: expected a list of numbers, got None"),
        ({"points": [[1, 2], [3], [4, 5]]}, "points: expected a list of numbers"),
        ({"points": [["1", "2"]] * 3}, "points: expected a list of numbers"),
        ({"points": [[1, 2], [3, 4], [5, 10**400]]}, "points: expected a list of numbers"),
        ({"points": [[1, 2], [3, 4], [5, float("nan")]]}, "points: expected finite numbers"),
        ({"points": [[1, 2], [3, 4], [5, float("inf")]]}, "points: expected finite numbers"),
        ({"points": [[-1e10, -1e10], [1e10, -1e10], [1e10, 1e10]]}, r"points: the point .* lies far outside the image"),
        ({"points": [[-9, -9], [-8, -9], [-8, -8]]}, "it covers no pixel of the image; remove it"),
        ({"points": [[0, 0], [119, 99]] * 90_000}, "points: expected an outline of at most 20,000,000 pixels"),
        ({"label": None}, "label: expected text that is not empty, got None"),
        ({"label": " "}, "label: expected text that is not empty"),
        ({"group_id": [1]}, r"group_id: expected an integer, got \[1\]"),
    ],
)
def test_shapes_from_which_no_mask_can_be_made_are_refused(tmp_path, shape, message):
    with pytest.raises(ValueError, match=f"a.json': shape 1: {message}"):
        read(tmp_path, {}, shape)


@pytest.mark.parametrize("height", [None, 0, -5, 2.5, "100", 10**12])
def test_files_without_a_sensible_size_are_refused(tmp_path, height):
    with pytest.raises(ValueError, match=r"a\.json': imageHeight and imageWidth: expected (the image's|an image of)"):
        read(tmp_path, {}, imageHeight=height)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", "not LabelMe JSON: expected an object with shapes, imageHeight, imageWidth, got list"),
        (b'{"shapes": []}', "it lacks imageHeight, imageWidth"),
        (b'{"shapes": 5, "imageHeight": 9, "imageWidth": 9}', "shapes: expected a list of objects"),
        (b'{"shapes": [5], "imageHeight": 9, "imageWidth": 9}', "shapes: expected a list of objects"),
        (b"[" * 100_000, "not LabelMe JSON: not JSON that can be read: lists and objects in it lie too deep"),
        (b"\xff", "not LabelMe JSON"),
    ],
)
def test_what_is_not_labelme_json_is_refused(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=f"a.json': .*{message}"):
        load_labelme(tmp_path / "a.json")
