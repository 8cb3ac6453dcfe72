"""Two hundred masks with holes and several components as YOLO's labels, read back by us and by another program."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import supervision
from PIL import Image
from random_masks import CATEGORIES, COUNT, images_of_segments

from sam_nb import Segment, iou, load_yolo, save_yolo
from sam_nb.files.polygons import joined_polygon
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
    assert set(agreement) == {1.0}


def test_supervision_reads_the_same_masks_with_bridges(folder):
    yolo = supervision.DetectionDataset.from_yolo(
        str(folder / "images"), str(folder / "labels"), str(folder / "data.yaml"), True
    )
    for name, segments in images_of_segments():
        lines = yolo.annotations[str(folder / "images" / f"{name}.png")]
        size = segments[0].mask.shape
        wide = [rasterize([joined_polygon(segment.mask)], size) for segment in segments]
        assert np.array_equal(lines.mask, wide)
        assert all(wider[segment.mask].all() for wider, segment in zip(wide, segments, strict=True))
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
    with pytest.raises(ValueError, match="nothing: the mask is empty"):
        save_yolo([Segment(np.zeros((9, 9), bool), "nothing")], (9, 9), path)
    with pytest.raises(ValueError, match="all: expected a category among car, wheel, got 'sky'"):
        save_yolo([Segment(np.ones((9, 9), bool), "all", "sky")], (9, 9), path, categories=CATEGORIES)
    with pytest.raises(ValueError, match=r"a\.json': expected a name that ends in \.txt, such as 'a\.txt'"):
        save_yolo([Segment(np.ones((9, 9), bool), "all")], (9, 9), tmp_path / "a.json")
    with pytest.raises(ValueError, match=r"expected the image's \(height, width\) in pixels.* got \(9, 9, 3\)"):
        save_yolo([Segment(np.ones((9, 9), bool), "all")], (9, 9, 3), path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"0 0.5 0.5", "line 1: expected a class from 0 to 1 and at least three points, got '0 0.5 0.5'"),
        (b"\n7 0 0 0 1 1 1", "line 2: expected a class from 0 to 1"),
        (b"-1 0 0 0 1 1 1", "line 1: expected a class"),
        (b"car 0 0 0 1 1 1", "line 1: expected a class"),
        (b"0 0 0 0 1 1 1 1", "line 1: expected a class from 0 to 1 and at least three points"),
        (b"0 0 0 0 1 1 x", "line 1: expected a class from 0 to 1 and at least three points"),
        (b"0 0.5 0.5 0.2 0.2", r"line 1: expected an outline, got a box.* Prompt\(box=...\)"),
        (b"0 0 0 0 1 1 nan", "line 1: expected finite numbers, got NaN or infinity"),
        (b"0 0 0 0 1 1 1e999", "line 1: expected finite numbers, got NaN or infinity"),
        (b"0 10 20 30 20 30 40", r"line 1: the point \(90, 180\) lies far outside the image, which is 9 wide"),
        (b"0 1.5 1.5 1.5 1.6 1.6 1.6", "line 1: it covers no pixel of the image"),
        (b"\xff", "expected text in UTF-8"),
    ],
)
def test_labels_from_which_no_mask_can_be_made_are_refused(tmp_path, content, message):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message) as refused:
        load_yolo(tmp_path / "a.txt", (9, 9), CATEGORIES)
    assert "a.txt" in str(refused.value)


def test_a_byte_order_mark_and_empty_lines_do_no_harm(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf1 0 0 0 0.9 0.9 0.9\r\n\r\n")
    (found,) = load_yolo(tmp_path / "a.txt", (9, 9), CATEGORIES)
    assert found.category == "wheel"


# The numbers of the classes -----------------------------------------------------------------------------------------


def save(path, *categories, **more):
    segments = [Segment(np.ones((9, 9), bool), f"no. {number}", name) for number, name in enumerate(categories)]
    save_yolo(segments, (9, 9), path, **more)
    return [int(line.split()[0]) for line in path.read_text().splitlines()]


def test_a_class_has_one_number_in_all_the_labels_of_a_folder(tmp_path):
    assert save(tmp_path / "one.txt", "car") == [0]
    assert save(tmp_path / "two.txt", "car", "bike", "自行车") == [0, 1, 2]
    assert save(tmp_path / "three.txt", "bike") == [1]
    assert (tmp_path / "classes.txt").read_text(encoding="utf-8") == "car\nbike\n自行车\n"
    found = load_yolo(tmp_path / "two.txt", (9, 9))
    assert [segment.category for segment in found] == ["car", "bike", "自行车"]


def test_the_classes_of_another_program_are_kept_to_the_byte(tmp_path):
    classes = tmp_path / "classes.txt"
    classes.write_bytes(b"\xef\xbb\xbftruck\r\ncar")
    assert save(tmp_path / "one.txt", "car") == [1]
    assert classes.read_bytes() == b"\xef\xbb\xbftruck\r\ncar"
    assert save(tmp_path / "two.txt", "bike", "car") == [2, 1]
    assert classes.read_bytes() == b"\xef\xbb\xbftruck\r\ncar\nbike\n"


def test_categories_override_the_classes_of_the_folder(tmp_path):
    assert save(tmp_path / "one.txt", "car", categories=["bike", "car"]) == [1]
    assert save(tmp_path / "two.txt", "tree") == [2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the same numbers, and a class more or fewer
        assert save(tmp_path / "three.txt", "car", categories=["bike", "car"]) == [1]
        assert save(tmp_path / "four.txt", "sky", categories=["bike", "car", "tree", "sky"]) == [3]
    with pytest.warns(UserWarning, match=r"numbers the classes by categories \(car, bike\).*otherwise \(bike, car"):
        assert save(tmp_path / "five.txt", "car", categories=["car", "bike"]) == [0]
    assert (tmp_path / "classes.txt").read_text() == "bike\ncar\ntree\nsky\n"
    assert load_yolo(tmp_path / "five.txt", (9, 9), ["car", "bike"])[0].category == "car"


def test_labels_whose_numbers_nobody_knows_are_not_added_to(tmp_path):
    (tmp_path / "old.txt").write_text("0 0.1 0.1 0.2 0.1 0.2 0.2\n")
    with pytest.raises(ValueError, match=r"holds labels, such as 'old\.txt', and no classes\.txt.* give categories"):
        save(tmp_path / "new.txt", "car")
    with pytest.raises(ValueError, match=r"old\.txt': there is no classes\.txt beside it.* give categories"):
        load_yolo(tmp_path / "old.txt", (9, 9))
    assert [path.name for path in tmp_path.iterdir()] == ["old.txt"]


def test_nothing_is_written_if_the_labels_exist(tmp_path):
    assert save(tmp_path / "one.txt", "car") == [0]
    with pytest.raises(FileExistsError):
        save(tmp_path / "one.txt", "bike")
    assert (tmp_path / "classes.txt").read_text() == "car\n"


@pytest.mark.parametrize("classes", ["car\n\nbike\n", "car\ncar\n"])
def test_classes_that_are_not_different_names_are_refused(tmp_path, classes):
    (tmp_path / "classes.txt").write_text(classes)
    for call in (lambda: save(tmp_path / "a.txt", "car"), lambda: load_yolo(tmp_path / "a.txt", (9, 9))):
        (tmp_path / "a.txt").unlink(missing_ok=True)
        (tmp_path / "a.txt").touch()
        with pytest.raises(ValueError, match=r"classes\.txt': categories: expected a list of different names"):
            call()


@pytest.mark.parametrize("categories", ["car", {0: "car"}, ["a\nb"], [" car"], ["car", "car"], [1]])
def test_categories_are_a_list_of_different_names(tmp_path, categories):
    with pytest.raises(ValueError, match="categories: expected a list of different names"):
        save(tmp_path / "a.txt", "car", categories=categories)
    with pytest.raises(ValueError, match="choose another name"):
        save(tmp_path / "classes.txt", "car")
    assert not list(tmp_path.iterdir())


WRITER = """
import random, sys, time
from pathlib import Path
import numpy as np
from sam_nb import Segment
from sam_nb.files.yolo import save_yolo

folder, seed = Path(sys.argv[1]), int(sys.argv[2])
order = random.Random(seed)
(folder / f"{seed}.ready").touch()
while len(list(folder.glob("*.ready"))) < 4:
    time.sleep(0.01)
for number in range(12):
    names = order.sample([f"class {n}" for n in range(40)], 3)
    segments = [Segment(np.ones((9, 9), bool), name) for name in names]
    save_yolo(segments, (9, 9), folder / "labels" / f"{seed}_{number}.txt")
    (folder / f"{seed}_{number}.names").write_text(",".join(names))
"""


def test_several_processes_number_the_classes_of_one_folder_alike(tmp_path):
    labels = tmp_path / "labels"
    labels.mkdir()
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, tmp_path, str(seed)]) for seed in range(4)]
    assert [writer.wait() for writer in writers] == [0] * 4
    classes = (labels / "classes.txt").read_text().splitlines()
    assert len(set(classes)) == len(classes)
    expected = {path.stem: path.read_text().split(",") for path in tmp_path.glob("*.names")}
    assert len(expected) == 4 * 12
    for name, names in expected.items():
        assert [segment.category for segment in load_yolo(labels / f"{name}.txt", (9, 9))] == names
    assert set(classes) == {name for names in expected.values() for name in names}
