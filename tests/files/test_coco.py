"""Two hundred masks with holes and several components as COCO JSON, read back by us and by other programs."""

import json
import warnings

import numpy as np
import pycocotools.mask
import pytest
import supervision
from PIL import Image
from pycocotools.coco import COCO
from random_masks import COUNT, images_of_segments, ragged_mask

from sam_nb import Segment, iou, load_coco, save_coco
from sam_nb.files.coco import decode_coco, encode_coco

# The oracle's own decoding, `annToMask` and `pycocotools.mask.decode`, warns under NumPy 2 for each mask; ours does not
# call it (see the test of warnings below).
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with 20 files of ten masks each, as RLE and as polygons, and the images beside them."""
    made = tmp_path_factory.mktemp("coco")
    (made / "images").mkdir()
    for name, segments in images_of_segments():
        size = segments[0].mask.shape
        Image.new("RGB", size[::-1]).save(made / "images" / f"{name}.png")
        save_coco(segments, size, made / f"{name}-rle.json", file_name=f"{name}.png", model="lite")
        save_coco(segments, size, made / f"{name}-polygons.json", file_name=f"{name}.png", as_polygons=True)
    return made


@pytest.mark.parametrize("kind", ["rle", "polygons"])
def test_what_we_write_we_read(folder, kind):
    agreement = []
    for name, segments in images_of_segments():
        found = load_coco(folder / f"{name}-{kind}.json")
        assert [segment.category for segment in found] == [segment.category for segment in segments]
        assert [segment.name for segment in found] == [segment.name for segment in segments]
        assert [segment.score for segment in found] == [segment.score for segment in segments]
        agreement += [iou(one.mask, other.mask) for one, other in zip(found, segments, strict=True)]
    assert len(agreement) == COUNT
    assert set(agreement) == {1.0}


def test_pycocotools_reads_the_same_masks(folder):
    for name, segments in images_of_segments():
        for kind in ("rle", "polygons"):
            coco = COCO(folder / f"{name}-{kind}.json")
            for annotation, segment in zip(coco.loadAnns(coco.getAnnIds()), segments, strict=True):
                assert np.array_equal(coco.annToMask(annotation), segment.mask)
                assert annotation["area"] == segment.mask.sum()


def test_supervision_reads_the_same_masks(folder):
    images = str(folder / "images")
    for name, segments in images_of_segments():
        coco = supervision.DetectionDataset.from_coco(images, str(folder / f"{name}-rle.json"), True)
        masks = [segment.mask for segment in segments]
        assert np.array_equal(coco.annotations[str(folder / "images" / f"{name}.png")].mask, masks)


@pytest.mark.parametrize("seed", range(10))
def test_annotations_hold_what_pycocotools_computes(tmp_path, seed):
    mask = ragged_mask(seed)
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


@pytest.mark.parametrize("size", [(1, 1), (7, 1), (1, 7), (60, 90), (300, 2000)])
def test_run_lengths_of_all_sizes_are_read(size):
    rng = np.random.default_rng(sum(size))
    masks = [np.zeros(size, bool), np.ones(size, bool), rng.random(size) > 0.5, rng.random(size) > 0.999]
    for mask in masks:
        content = encode_coco([Segment(mask, "a")], size)
        assert np.array_equal(decode_coco(content)[0].mask, mask)
        # The third form, of other programs: a list of numbers.
        record = json.loads(content)
        flat = mask.ravel(order="F")
        edges = np.flatnonzero(np.diff(flat, prepend=False))
        record["annotations"][0]["segmentation"]["counts"] = np.diff([0, *edges, flat.size]).tolist()
        del record["annotations"][0]["name"]
        (found,) = decode_coco(json.dumps(record).encode())
        assert np.array_equal(found.mask, mask)
        assert found.name == "object 1"


def test_reading_does_not_warn(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load_coco(folder / "00-rle.json")) == len(load_coco(folder / "00-polygons.json")) == 10


def test_damaged_run_lengths_are_refused(blob):
    record = json.loads(encode_coco([Segment(blob, "a")], blob.shape))
    form = record["annotations"][0]["segmentation"]
    for counts in ([], [5, 7], [-1, 5401], "0", form["counts"][:-2]):
        form["counts"] = counts
        with pytest.raises(ValueError, match=r"damaged run-length encoding: expected 5400 pixels \(90x60\)"):
            decode_coco(json.dumps(record).encode())


def test_a_single_pixel_has_an_outline(tmp_path):
    mask = np.zeros((20, 30), bool)
    mask[7, 11] = True
    save_coco([Segment(mask, "dot")], mask.shape, tmp_path / "a.json", as_polygons=True)
    assert np.array_equal(load_coco(tmp_path / "a.json")[0].mask, mask)


def test_nothing_is_overwritten_by_default(tmp_path):
    path = tmp_path / "coco.json"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="exists already: choose another name"):
        save_coco([Segment(ragged_mask(1), "a")], (60, 90), path)
    assert path.read_text() == "mine"
    save_coco([Segment(ragged_mask(1), "a")], (60, 90), path, overwrite=True)
    assert len(load_coco(path)) == 1


def test_invalid_segments_and_files_are_refused(tmp_path):
    path = tmp_path / "coco.json"
    with pytest.raises(ValueError, match="nothing: an empty mask has no outline"):
        save_coco([Segment(np.zeros((9, 9), bool), "nothing")], (9, 9), path, as_polygons=True)
    with pytest.raises(ValueError, match="all: image and mask differ in size"):
        save_coco([Segment(np.ones((9, 9), bool), "all")], (9, 8), path)
    assert not path.exists()
    with pytest.raises(FileNotFoundError):
        load_coco(path)
    for content, message in (
        (b"x", "not COCO JSON"),
        (b"[]", "not COCO JSON: expected an object with images, .* got list"),
        (b'{"shapes": []}', "it lacks images, annotations, categories"),
        (b'{"images": [1, 2], "annotations": [], "categories": []}', "of one image, got one of 2 images"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            load_coco(path)
