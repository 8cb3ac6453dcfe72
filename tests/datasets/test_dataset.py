"""Labelled folders in every layout: what is read, what is skipped, and the same masks as other programs read."""

import json
from pathlib import Path

import numpy as np
import pytest
import supervision
from PIL import Image
from pycocotools.coco import COCO

from sam_nb import Dataset, Segment, load_dataset, save_coco, save_label_map, save_labelme, save_mask, save_yolo
from sam_nb.datasets.dataset import label_maps

SIZES = {"a": (40, 70), "b": (90, 50), "c": (64, 64)}


def ellipse(size, x, y, across, down):
    rows, columns = np.mgrid[: size[0], : size[1]]
    return ((columns - x) / across) ** 2 + ((rows - y) / down) ** 2 < 1


def segments_of(name):
    height, width = SIZES[name]
    ring = ellipse(SIZES[name], 0.3 * width, 0.4 * height, 11, 9) & ~ellipse(
        SIZES[name], 0.3 * width, 0.4 * height, 4, 3
    )
    disc = ellipse(SIZES[name], 0.75 * width, 0.7 * height, 8, 10)
    return [Segment(ring, "ring", "tyre"), Segment(disc, "disc", "hub")]


def write_image(path, size):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(sum(size)).integers(0, 255, (*size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def write_images(folder):
    for name, size in SIZES.items():
        write_image(folder / f"{name}.png", size)


def merged_coco(folder, names=SIZES):
    """Return one COCO record of several images, whose ids are not in the order of the list."""
    images, annotations, categories = [], [], []
    for number, name in enumerate(names):
        save_coco(segments_of(name), SIZES[name], folder / "one.json", file_name=f"{name}.png", overwrite=True)
        record = json.loads((folder / "one.json").read_text())
        images += [image | {"id": 90 - number} for image in record["images"]]
        annotations += [one | {"image_id": 90 - number, "id": 10 * number + one["id"]} for one in record["annotations"]]
        categories = record["categories"]
    (folder / "one.json").unlink()
    return {"images": images, "annotations": annotations, "categories": categories}


def coco(folder):
    write_images(folder)
    (folder / "coco.json").write_text(json.dumps(merged_coco(folder)), encoding="utf-8")


def coco_apart(folder):
    write_images(folder / "images")
    (folder / "annotations").mkdir()
    record = merged_coco(folder)
    for image in record["images"]:
        image["file_name"] = f"C:\\data\\train\\images\\{image['file_name']}"  # of another computer
    (folder / "annotations" / "instances.json").write_text(json.dumps(record), encoding="utf-8")


def yolo(folder):
    for name, size in SIZES.items():
        part = "val" if name == "c" else "train"
        write_image(folder / "images" / part / f"{name}.png", size)
        (folder / "labels" / part).mkdir(parents=True, exist_ok=True)
        label = folder / "labels" / part / f"{name}.txt"
        save_yolo(segments_of(name), size, label, categories=["hub", "tyre"])
        (label.parent / "classes.txt").unlink(missing_ok=True)
    (folder / "data.yaml").write_text("path: .\nnames:\n  0: hub\n  1: tyre\n", encoding="utf-8")


def yolo_side_by_side(folder):
    write_images(folder)
    for name, size in SIZES.items():
        save_yolo(segments_of(name), size, folder / f"{name}.txt", categories=["hub", "tyre"])


def labelme(folder):
    write_images(folder)
    for name, size in SIZES.items():
        save_labelme(segments_of(name), size, folder / f"{name}.json", file_name=f"{name}.png")


def label_map_folder(folder):
    write_images(folder / "JPEGImages")
    (folder / "SegmentationObject").mkdir()
    for name, size in SIZES.items():
        save_label_map(segments_of(name), size, folder / "SegmentationObject" / f"{name}.png")


def masks_side_by_side(folder):
    write_images(folder)
    for name, size in SIZES.items():
        save_label_map(segments_of(name), size, folder / f"{name}_mask.png")


def mask_for_each_object(folder):
    write_images(folder / "images")
    for name in SIZES:
        for segment in segments_of(name):
            place = folder / "masks" / name / f"{segment.name}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            save_mask(segment.mask, place)


NAMED = [coco, coco_apart, yolo, yolo_side_by_side, labelme]
PLAIN = [label_map_folder, masks_side_by_side, mask_for_each_object]


@pytest.mark.parametrize("write", [*NAMED, *PLAIN])
def test_every_layout_gives_the_same_masks(write, tmp_path):
    write(tmp_path)
    dataset = load_dataset(tmp_path)
    assert [Path(one.name).stem for one in dataset.images] == [*SIZES]
    assert not dataset.skipped
    for one in dataset.images:
        image, segments, skipped = one.read()
        assert not skipped
        assert image.shape == (*SIZES[one.path.stem], 3)
        expected = {segment.mask.tobytes(): segment for segment in segments_of(one.path.stem)}
        assert {segment.mask.tobytes() for segment in segments} == {*expected}
        if write in NAMED:
            assert all(expected[each.mask.tobytes()].category == each.category for each in segments)


def test_it_reads_nothing_until_it_is_looked_at(tmp_path):
    labelme(tmp_path)
    (tmp_path / "b.png").write_bytes(b"no image")
    dataset = load_dataset(tmp_path)
    with pytest.warns(UserWarning, match=r"b\.png is skipped: .*b\.png. is not an image"):
        pairs = [*dataset]
    assert [labels.shape for _, labels in pairs] == [SIZES["a"], SIZES["c"]]
    assert [sorted(np.unique(labels)) for _, labels in pairs] == [[0, 1, 2]] * 2
    checked = dataset.checked()
    assert [one.name for one in checked.images] == ["a.png", "c.png"]
    assert checked.skipped[0].name == "b.png"
    assert repr(checked).startswith("Dataset(2 images, 1 skipped (b.png: ")


def test_objects_that_overlap_are_masks_of_their_own():
    left, right, apart = np.zeros((3, 8, 20), bool)
    left[2:6, 2:9], right[3:7, 6:14], apart[1:7, 16:19] = True, True, True
    first, second = label_maps([left, right, apart])
    assert np.array_equal(first == 1, left)
    assert np.array_equal(first == 2, apart)
    assert np.array_equal(second == 1, right)
    assert label_maps([left, apart])[0].max() == 2


def test_objects_without_a_mask_are_named_and_the_others_stay(tmp_path):
    coco(tmp_path)
    record = json.loads((tmp_path / "coco.json").read_text())
    by_image = {image["file_name"]: image["id"] for image in record["images"]}
    record["annotations"] += [
        {"id": 70, "image_id": by_image["a.png"], "category_id": 1, "segmentation": [], "bbox": [1, 2, 3, 4]},
    ]
    record["images"] += [
        {"id": 1, "file_name": "gone.png", "height": 5, "width": 5},
        {"id": 2, "file_name": "wrong.png", "height": -5, "width": 5},
    ]
    (tmp_path / "coco.json").write_text(json.dumps(record), encoding="utf-8")
    dataset = load_dataset(tmp_path / "coco.json").checked()
    assert [len(one.read().segments) for one in dataset.images] == [2, 2, 2]
    reasons = dict(dataset.skipped)
    assert "annotation 70: expected an outline in segmentation" in reasons["a.png"]
    assert "no such image beside coco.json" in reasons["gone.png"]
    assert "images, number 4: expected the image's (height, width)" in reasons["coco.json"]


def test_labels_of_another_size_are_refused(tmp_path):
    labelme(tmp_path)
    write_image(tmp_path / "a.png", SIZES["a"][::-1])
    write_image(tmp_path / "c.png", (32, 32))
    reasons = dict(load_dataset(tmp_path).checked().skipped)
    assert "the labels are for 70x40, the image is 40x70: the labels were made on the image before" in reasons["a.png"]
    assert "the labels are for 64x64, the image is 32x32: use the image that was labelled" in reasons["c.png"]


def test_a_border_to_ignore_is_no_object(tmp_path):
    write_image(tmp_path / "images" / "a.png", (20, 30))
    labels = np.zeros((20, 30), np.uint8)
    labels[3:9, 4:20], labels[12:18, 4:20], labels[2, 4:20] = 1, 2, 255
    (tmp_path / "masks").mkdir()
    Image.fromarray(labels).save(tmp_path / "masks" / "a.png")
    (found,) = load_dataset(tmp_path).images
    assert [segment.name for segment in found.read().segments] == ["object 1", "object 2"]


def test_a_split_is_by_image_and_the_same_again(tmp_path):
    for number in range(20):
        write_image(tmp_path / f"{number:02}.png", (10, 14))
        save_mask(np.ones((10, 14), bool), tmp_path / f"{number:02}_mask.png")
    dataset = load_dataset(tmp_path)
    twice = Dataset((*dataset.images, *dataset.images[:10]))  # ten images are listed twice
    train, validation, test = twice.split(0.6, 0.2, 0.2, seed=3)
    names = [{one.name for one in part.images} for part in (train, validation, test)]
    assert [len(part) for part in names] == [12, 4, 4]
    assert len(set.union(*names)) == 20
    assert [one.name for one in twice.split(0.6, 0.4, seed=3)[0].images] == [one.name for one in train.images]
    assert [one.name for one in twice.split(0.6, 0.4, seed=4)[0].images] != [one.name for one in train.images]
    for shares in ((0.5, 0.4), (), (1.5, -0.5)):
        with pytest.raises(ValueError, match="shares: expected"):
            dataset.split(*shares)
    with pytest.raises(ValueError, match="2 images are too few for the shares"):
        dataset[:2].split(0.9, 0.1)
    assert dataset[3].name == "03.png"


def test_what_is_no_data_set(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        load_dataset(tmp_path / "gone")
    with pytest.raises(ValueError, match="it looks like none of the layouts; say which it is, layout= one of coco"):
        load_dataset(tmp_path)
    with pytest.raises(ValueError, match="no layout 'voc': expected one of coco, yolo, labelme, masks"):
        load_dataset(tmp_path, layout="voc")
    write_images(tmp_path)
    with pytest.raises(ValueError, match=r"no image with labels in the layout 'masks'; Dataset\(0 images, 3 skipped"):
        load_dataset(tmp_path, layout="masks")
    labelme(tmp_path)
    masks_side_by_side(tmp_path)
    with pytest.raises(ValueError, match="it looks like labelme and masks; say which it is"):
        load_dataset(tmp_path)
    assert len(load_dataset(tmp_path, layout="labelme")) == 3
    (tmp_path / "data.yaml").write_text("names: 3", encoding="utf-8")
    with pytest.raises(ValueError, match=r"data\.yaml': expected names, a list of classes, got int"):
        load_dataset(tmp_path / "data.yaml")


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.11
def test_pycocotools_and_supervision_read_the_same_of_a_file_by_another_program(tmp_path):
    """The file is supervision's: polygons that it simplified, ids that begin at 1, no names."""
    write_images(tmp_path)
    annotations = {}
    for name in SIZES:
        masks = np.array([segment.mask for segment in segments_of(name)])
        boxes = supervision.mask_to_xyxy(masks)
        annotations[str(tmp_path / f"{name}.png")] = supervision.Detections(
            boxes, mask=masks, class_id=np.array([1, 0])
        )
    theirs = supervision.DetectionDataset(["hub", "tyre"], [*annotations], annotations)
    theirs.as_coco(str(tmp_path / "images"), str(tmp_path / "theirs.json"), approximation_percentage=0.2)
    oracle = COCO(str(tmp_path / "theirs.json"))
    dataset = load_dataset(tmp_path / "theirs.json")
    assert len(dataset) == 3
    for one in dataset.images:
        (image_id,) = [key for key, image in oracle.imgs.items() if image["file_name"] == one.path.name]
        expected = oracle.loadAnns(oracle.getAnnIds(image_id))
        segments = one.read().segments
        assert len(segments) == len(expected) == 2
        for segment, annotation in zip(segments, expected, strict=True):
            assert np.array_equal(segment.mask, oracle.annToMask(annotation) > 0)
            assert segment.category == oracle.cats[annotation["category_id"]]["name"]
