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
    for mask in (np.ones(size, bool), rng.random(size) > 0.5, rng.random(size) > 0.999):
        mask.flat[rng.integers(mask.size)] = True
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
    for counts in (
        [],
        [5, 7],
        [-1, 5401],
        [5400.0],
        [None, 5400],
        "0",
        "\x7f",
        "é",
        "o" * 100_000,
        form["counts"][:-2],
    ):
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


@pytest.mark.parametrize("as_polygons", [False, True])
def test_invalid_segments_are_refused(tmp_path, as_polygons):
    path, full = tmp_path / "coco.json", np.ones((9, 9), bool)
    with pytest.raises(ValueError, match="nothing: the mask is empty, so there is no object to save"):
        save_coco([Segment(~full, "nothing")], (9, 9), path, as_polygons=as_polygons)
    with pytest.raises(ValueError, match="all: image and mask differ in size"):
        save_coco([Segment(full, "all")], (9, 8), path, as_polygons=as_polygons)
    with pytest.raises(ValueError, match="all: score: expected a finite number, got nan"):
        save_coco([Segment(full, "all", score=float("nan"))], (9, 9), path, as_polygons=as_polygons)
    with pytest.raises(ValueError, match=r"street\.jpg': expected a name that ends in \.json"):
        save_coco([Segment(full, "all")], (9, 9), tmp_path / "street.jpg", as_polygons=as_polygons, overwrite=True)
    assert not list(tmp_path.iterdir())


def test_a_file_name_that_is_not_utf8_comes_back(tmp_path):
    save_coco([Segment(np.ones((9, 9), bool), "轮\udcff")], (9, 9), tmp_path / "a.json", file_name="\udcff.jpg")
    assert load_coco(tmp_path / "a.json")[0].name == "轮\udcff"
    assert json.loads((tmp_path / "a.json").read_bytes())["images"][0]["file_name"] == "\udcff.jpg"


SQUARE = [10, 10, 40, 10, 40, 30, 10, 30]


def read(tmp_path, *annotations, **fields):
    """Return what `load_coco` makes of annotations that are a square but for the fields given."""
    square = {"image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": [SQUARE]}
    record = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 100, "width": 120}],
        "categories": [{"id": 1, "name": "car"}],
        "annotations": [{"id": number} | square | one for number, one in enumerate(annotations, start=1)],
    }
    (tmp_path / "a.json").write_text(json.dumps(record | fields), encoding="utf-8")
    return load_coco(tmp_path / "a.json")


def test_annotations_of_another_image_are_left_aside(tmp_path):
    found = read(tmp_path, {}, {"image_id": 7, "segmentation": [[0, 0, 99, 0, 99, 99, 0, 99]]}, {"name": "left"})
    assert [(segment.name, int(segment.mask.sum())) for segment in found] == [("object 1", 600), ("left", 600)]
    with pytest.raises(
        ValueError, match=r"a\.json': expected annotations of the image with id 1, got those of image_id '1'"
    ):
        read(tmp_path, {"image_id": "1"})


@pytest.mark.parametrize("annotation", [{"name": None}, {"name": ""}, {"name": 5}, {"score": None}])
def test_what_other_programs_leave_empty_gets_a_default(tmp_path, annotation):
    (found,) = read(tmp_path, annotation)
    assert (found.name, found.category, found.score) == ("object 1", "car", None)


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"segmentation": []}, r"expected an outline in segmentation.* got none; .*Prompt\(box=...\)"),
        ({"segmentation": None, "bbox": [1, 2, 3, 4]}, "expected an outline in segmentation, .* got none"),
        ({"segmentation": [[]]}, r"polygon 1 of 1: expected at least 3 points \(x, y\), got \[\]"),
        ({"segmentation": [SQUARE, [10, 10, 40, 30]]}, "polygon 2 of 2: expected at least 3 points"),
        ({"segmentation": SQUARE}, r"polygon 1 of 8: expected a list of numbers, \[x0, y0, .*, got 10"),
        ({"segmentation": [SQUARE[:-1]]}, "polygon 1 of 1: expected x and y in turn"),
        ({"segmentation": [[[10, 10], [40, 10], [40, 30]]]}, "polygon 1 of 1: expected x and y in turn"),
        ({"segmentation": [["a"] * 6]}, "polygon 1 of 1: expected a list of numbers, got"),
        ({"segmentation": [[None] * 6]}, "polygon 1 of 1: expected a list of numbers, got"),
        ({"segmentation": [[1, 1, float("nan"), 9, 9, 9]]}, "polygon 1 of 1: expected finite numbers, got NaN or inf"),
        ({"segmentation": [[1, 1, float("inf"), 9, 9, 9]]}, "polygon 1 of 1: expected finite numbers, got NaN or inf"),
        ({"segmentation": [[-164, -21, 2.08e8, 3.52e8, 225, 236]]}, "polygon 1 of 1: the point .* lies far outside"),
        ({"segmentation": [[0, 0, 119, 99] * 90_000]}, "polygon 1 of 1: expected an outline of at most 20,000,000"),
        ({"segmentation": [[1, 1, 9, 1, 5, 1]]}, "it covers no pixel of the image; remove it from the file"),
        ({"segmentation": [[-9, -9, -5, -9, -5, -5]]}, "it covers no pixel of the image"),
        ({"segmentation": "abc"}, r"expected polygons, .* got 'abc'"),
        ({"segmentation": {"size": [100, 120]}}, r"expected polygons, .* or size and counts, got"),
        (
            {"segmentation": {"size": [50, 60], "counts": [0, 3000]}},
            r"the image's size \[100, 120\].* got \[50, 60\]: is it",
        ),
        ({"segmentation": {"counts": [0, 12000]}}, r"the image's size \[100, 120\].* got None"),
        ({"segmentation": {"size": [100, 120], "counts": [12000]}}, "it covers no pixel of the image"),
        ({"segmentation": {"size": [100, 120], "counts": [0, 10**30]}}, "damaged run-length encoding"),
        ({"category_id": 5}, r"category_id: expected one of categories, \[1\], got 5"),
        ({"category_id": None}, "expected an id, an integer, got None"),
        ({"category_id": [1]}, r"expected an id, an integer, got \[1\]"),
        ({"score": "high"}, "score: expected a finite number, got 'high'"),
        ({"score": float("nan")}, "score: expected a finite number, got nan"),
        ({"score": [0.5, 0.6]}, "score: expected a finite number"),
        ({"category_id": "a" * 5000}, r"expected one of categories, \[1\], got 'a+\.\.\.a+'$"),
    ],
)
def test_annotations_from_which_no_mask_can_be_made_are_refused(tmp_path, annotation, message):
    with pytest.raises(ValueError, match=f"a.json': annotation 2: .*{message}"):
        read(tmp_path, {}, annotation)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"images": [1]}, "images: expected a list of objects"),
        ({"images": []}, "expected COCO JSON of one image, got one of 0 images"),
        ({"images": [{"id": 1}, {"id": 2}]}, "of one image, got one of 2 images: load_dataset reads them all"),
        ({"images": [{"id": 1, "width": 9}]}, r"images: expected the image's \(height, width\).* got \(None, 9\)"),
        (
            {"images": [{"id": 1, "width": 10**9, "height": 10**9}]},
            "images: expected an image of at most 1,000,000,000",
        ),
        ({"categories": [{"id": 1}]}, "categories, number 0: name: expected text that is not empty, got None"),
        ({"categories": [{"name": "car"}]}, "categories, number 0: expected an id, an integer, got None"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "number 1: expected one name for each id"),
        ({"annotations": {"1": 2}}, "annotations: expected a list of objects"),
        ({"annotations": [{"id": "a" * 5000}]}, r"annotation 'a{20,40}\.\.\.a{20,40}': expected an id"),
        ({"annotations": [{"id": [7] * 5000}]}, r"annotation \[7, 7, .{60,90}\.\.\.: expected an id"),
        ({"images": [{"id": [7] * 5000, "width": 9, "height": 9}]}, r"with id \[7, 7, .{60,90}\.\.\., got those of"),
    ],
)
def test_files_with_wrong_fields_are_refused(tmp_path, fields, message):
    with pytest.raises(ValueError, match=f"a.json': .*{message}"):
        read(tmp_path, {}, **fields)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"x", "not COCO JSON"),
        (b"[]", "not COCO JSON: expected an object with images, .* got list"),
        (b'{"shapes": []}', "it lacks images, annotations, categories"),
        (
            b'{"images": ' + b"9" * 5000 + b"}",
            "not COCO JSON: (not JSON that can be read: .* thousands of digits|it lacks)",
        ),
        (b"[" * 100_000, "not COCO JSON: not JSON that can be read: lists and objects in it lie too deep"),
    ],
)
def test_what_is_not_coco_json_is_refused(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=f"a.json': .*{message}"):
        load_coco(tmp_path / "a.json")
    with pytest.raises(FileNotFoundError):
        load_coco(tmp_path / "none.json")
