"""Two hundred masks with holes and in several pieces, read back by us and by the programs they are written for."""

import cv2
import numpy as np
import pytest
import supervision
from PIL import Image
from pycocotools.coco import COCO

from sam_nb import (
    iou,
    load_coco,
    load_label_map,
    load_labelme,
    load_mask,
    load_yolo,
    save_coco,
    save_cutout,
    save_label_map,
    save_labelme,
    save_mask,
    save_yolo,
)
from sam_nb.files.coco import encode_yolo, yolo_segments
from sam_nb.files.polygons import polygons
from sam_nb.masks import Segment
from sam_nb.rasterize import rasterize

CATEGORIES = ["car", "wheel"]
COUNT = 200
EACH = 10  # in a picture


def random_mask(seed):
    """Return a mask with holes and in several pieces, 67x101 bool, some of it at the border and one pixel wide."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.random((9, 14)).astype(np.float32), (101, 67), interpolation=cv2.INTER_CUBIC)
    return coarse + 0.1 * rng.random((67, 101)) > rng.uniform(0.4, 0.8)


def pictures():
    """Yield lists of segments, `COUNT` in all."""
    for start in range(0, COUNT, EACH):
        seeds = range(start, start + EACH)
        yield [Segment(random_mask(seed), f"no. {seed}", CATEGORIES[seed % 2], 0.5) for seed in seeds]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with 20 pictures of ten masks each in every format, and pictures beside them."""
    made = tmp_path_factory.mktemp("formats")
    for number, segments in enumerate(pictures()):
        size = segments[0].mask.shape
        for kind in ("images", "yolo", "labelme"):
            (made / kind).mkdir(exist_ok=True)
        Image.new("RGB", size[::-1]).save(made / "images" / f"{number:02d}.png")
        name = f"{number:02d}.png"
        save_coco(segments, size, made / f"{number:02d}-runs.json", picture=name, model="lite")
        save_coco(segments, size, made / f"{number:02d}-polygons.json", picture=name, as_polygons=True)
        save_yolo(segments, size, made / "yolo" / f"{number:02d}.txt", categories=CATEGORIES)
        save_labelme(segments, size, made / "labelme" / f"{number:02d}.json", picture=name)
    (made / "data.yaml").write_text(f"names: {CATEGORIES}\n", encoding="utf-8")
    return made


def test_the_masks_are_worth_the_test():
    pieces, holes, thin = 0, 0, 0
    for segments in pictures():
        for segment in segments:
            _, relations = cv2.findContours(segment.mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
            pieces += (relations[0, :, 3] < 0).sum() > 1
            holes += (relations[0, :, 3] >= 0).any()
            thin += not segment.mask.all() and segment.mask[0].any()
    assert min(pieces, holes, thin) > COUNT / 2


@pytest.mark.parametrize(
    ("read", "exact"),
    [
        (lambda folder, name, _: load_coco(folder / f"{name}-runs.json"), True),
        (lambda folder, name, _: load_coco(folder / f"{name}-polygons.json"), True),
        (lambda folder, name, _: load_labelme(folder / "labelme" / f"{name}.json"), True),
        (lambda folder, name, size: load_yolo(folder / "yolo" / f"{name}.txt", size, CATEGORIES), False),
    ],
    ids=["COCO runs", "COCO polygons", "LabelMe", "YOLO"],
)
def test_what_we_write_we_read(folder, read, exact):
    agreement = []
    for number, segments in enumerate(pictures()):
        found = read(folder, f"{number:02d}", segments[0].mask.shape)
        assert [segment.category for segment in found] == [segment.category for segment in segments]
        if exact:
            assert [segment.name for segment in found] == [segment.name for segment in segments]
        agreement += [iou(one.mask, other.mask) for one, other in zip(found, segments, strict=True)]
    assert len(agreement) == COUNT
    if exact:
        assert set(agreement) == {1.0}
    else:  # pieces are joined by lines, and these have many
        assert np.mean(agreement) > 0.95


def test_a_mask_in_one_piece_is_exact_in_yolo():
    for segments in pictures():
        for segment in segments:
            whole = polygons(segment.mask)[:1]
            mask = rasterize(whole, segment.mask.shape)
            line = encode_yolo([Segment(mask, "one")], mask.shape)
            assert np.array_equal(yolo_segments(line, mask.shape, ["object"])[0].mask, mask)


def test_pycocotools_reads_the_same_masks(folder):
    for number, segments in enumerate(pictures()):
        for kind in ("runs", "polygons"):
            coco = COCO(folder / f"{number:02d}-{kind}.json")
            for annotation, segment in zip(coco.loadAnns(coco.getAnnIds()), segments, strict=True):
                assert np.array_equal(coco.annToMask(annotation), segment.mask)
                assert annotation["area"] == segment.mask.sum()


def test_supervision_reads_the_same_masks(folder):
    images = str(folder / "images")
    yolo = supervision.DetectionDataset.from_yolo(images, str(folder / "yolo"), str(folder / "data.yaml"), True)
    labelme = supervision.DetectionDataset.from_labelme(images, str(folder / "labelme"), True)
    for number, segments in enumerate(pictures()):
        coco = supervision.DetectionDataset.from_coco(images, str(folder / f"{number:02d}-runs.json"), True)
        path = str(folder / "images" / f"{number:02d}.png")
        masks = [segment.mask for segment in segments]
        assert np.array_equal(coco.annotations[path].mask, masks)
        lines = yolo.annotations[path]
        own = load_yolo(folder / "yolo" / f"{number:02d}.txt", masks[0].shape, CATEGORIES)
        assert np.array_equal(lines.mask, [segment.mask for segment in own])
        assert [yolo.classes[index] for index in lines.class_id] == [segment.category for segment in segments]
        assert np.array_equal(labelme.annotations[path].mask, masks)


def test_pngs_give_the_masks_back(tmp_path):
    for number, segments in enumerate(pictures()):
        size = segments[0].mask.shape
        image = np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)
        save_label_map(segments, size, tmp_path / f"{number}.png")
        expected = np.zeros(size, int)
        for place, segment in enumerate(segments, start=1):
            expected[segment.mask] = place
            save_mask(segment.mask, tmp_path / "mask.png", overwrite=True)
            assert np.array_equal(load_mask(tmp_path / "mask.png"), segment.mask)
            save_cutout(image, segment.mask, tmp_path / "cutout.png", overwrite=True)
            assert np.array_equal(load_mask(tmp_path / "cutout.png"), segment.mask)
        assert np.array_equal(load_label_map(tmp_path / f"{number}.png"), expected)
        assert np.array_equal(np.array(Image.open(tmp_path / f"{number}.png")), expected)
        assert len(np.unique(Image.open(tmp_path / f"{number}.png").convert("RGB"), axis=None)) > 3  # it has colours


def test_a_tolerance_saves_points():
    mask = cv2.circle(np.zeros((300, 400), np.uint8), (200, 150), 100, 1, -1).astype(bool)
    mask &= ~cv2.circle(np.zeros((300, 400), np.uint8), (200, 150), 40, 1, -1).astype(bool)
    (exact,), (short,) = polygons(mask), polygons(mask, tolerance=1)
    assert np.array_equal(rasterize([exact], mask.shape), mask)
    assert len(short) < len(exact) / 3
    assert iou(rasterize([short], mask.shape), mask) > 0.97


def test_a_single_pixel_has_an_outline(tmp_path):
    mask = np.zeros((20, 30), bool)
    mask[7, 11] = True
    segment = Segment(mask, "dot")
    save_yolo([segment], mask.shape, tmp_path / "a.txt")
    save_coco([segment], mask.shape, tmp_path / "a.json", as_polygons=True)
    assert np.array_equal(load_yolo(tmp_path / "a.txt", mask.shape, ["object"])[0].mask, mask)
    assert np.array_equal(load_coco(tmp_path / "a.json")[0].mask, mask)


def test_mistakes_are_told(tmp_path):
    empty, full = Segment(np.zeros((9, 9), bool), "nothing"), Segment(np.ones((9, 9), bool), "all", "sky")
    path = tmp_path / "file"
    for save in (save_yolo, save_labelme, lambda *given: save_coco(*given, as_polygons=True)):
        with pytest.raises(ValueError, match="nothing: an empty mask has no outline"):
            save([empty], (9, 9), path)
    with pytest.raises(ValueError, match="all: the category 'sky' is none of car, wheel"):
        save_yolo([full], (9, 9), path, categories=CATEGORIES)
    with pytest.raises(ValueError, match=r"all: the picture has \(9, 8\)"):
        save_label_map([full], (9, 8), path)
    with pytest.raises(ValueError, match="8 bits tell 255 objects apart, and these are 256"):
        save_label_map([full] * 256, (9, 9), path)
    assert not path.exists()
    with pytest.raises(FileNotFoundError):
        load_mask(path)
    for content, load, message in (
        (b"x", load_mask, "no picture that can be read"),
        (b"x", load_coco, "no COCO JSON"),
        (b'{"shapes": []}', load_coco, "it has no images, annotations, categories"),
        (b'{"images": [1, 2], "annotations": [], "categories": []}', load_coco, "about one picture, got one about 2"),
        (b"[]", load_labelme, "it has no shapes, imageHeight, imageWidth"),
        (b"0 0.5 0.5", lambda path: load_yolo(path, (9, 9), CATEGORIES), "line 1: expected a class from 0 to 1"),
        (b"\n7 0 0 0 1 1 1", lambda path: load_yolo(path, (9, 9), CATEGORIES), "line 2"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            load(path)
    Image.new("RGB", (5, 5)).save(tmp_path / "colours.png")
    with pytest.raises(ValueError, match="a picture of numbers"):
        load_label_map(tmp_path / "colours.png")
