"""A mask, a cut-out and a label map as PNG files: what is written reads back exactly, by us and by Pillow."""

import numpy as np
import pytest
from PIL import Image
from random_masks import images_of_segments, ragged_mask

from sam_nb import Segment, load_image, load_label_map, load_mask, save_cutout, save_label_map, save_mask


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(1, 255, (60, 90, 3), np.uint8)


@pytest.mark.parametrize("seed", range(10))
def test_pillow_reads_the_same_pixels(image, tmp_path, seed):
    mask = ragged_mask(seed)
    save_mask(mask, tmp_path / "mask.png")
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "mask.png")), mask * np.uint8(255))
    save_cutout(image, mask, tmp_path / "cutout.png")
    cutout = np.array(Image.open(tmp_path / "cutout.png"))
    np.testing.assert_array_equal(cutout[..., 3] > 0, mask)
    np.testing.assert_array_equal(cutout[mask][:, :3], image[mask])
    assert not cutout[~mask].any()


def test_pngs_give_the_masks_back(tmp_path):
    for number, (name, segments) in enumerate(images_of_segments()):
        size = segments[0].mask.shape
        image = np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)
        save_label_map(segments, size, tmp_path / f"{name}.png")
        expected = np.zeros(size, int)
        for label, segment in enumerate(segments, start=1):
            expected[segment.mask] = label
            save_mask(segment.mask, tmp_path / "mask.png", overwrite=True)
            assert np.array_equal(load_mask(tmp_path / "mask.png"), segment.mask)
            save_cutout(image, segment.mask, tmp_path / "cutout.png", overwrite=True)
            assert np.array_equal(load_mask(tmp_path / "cutout.png"), segment.mask)
        assert np.array_equal(load_label_map(tmp_path / f"{name}.png"), expected)
        assert np.array_equal(np.array(Image.open(tmp_path / f"{name}.png")), expected)
        assert len(np.unique(Image.open(tmp_path / f"{name}.png").convert("RGB"), axis=None)) > 3  # it has colours


def test_a_cutout_takes_the_image_in_every_form(image, tmp_path):
    mask = ragged_mask(1)
    Image.fromarray(image).save(tmp_path / "image.png")
    forms = image, Image.fromarray(image), tmp_path / "image.png", (tmp_path / "image.png").read_bytes()
    for number, form in enumerate(forms):
        save_cutout(form, mask, tmp_path / f"{number}.png")
    assert len({(tmp_path / f"{number}.png").read_bytes() for number in range(len(forms))}) == 1


@pytest.fixture
def ground_truth():
    mask = np.zeros((60, 80), bool)
    mask[20:40, 30:60] = True
    return mask


def test_masks_of_other_programs(ground_truth, tmp_path):
    white = ground_truth * np.uint8(255)
    grey = Image.fromarray(white)
    palette = Image.fromarray(np.where(ground_truth, np.uint8(0), np.uint8(1)))  # white comes first
    palette.putpalette([255, 255, 255, 0, 0, 0])
    opaque = Image.fromarray(np.dstack([white] * 3 + [np.full_like(white, 255)]))
    grey.save(tmp_path / "grey.png")
    grey.save(tmp_path / "mask.jpg", quality=75)
    grey.save(tmp_path / "poor.webp", quality=40)
    grey.convert("RGB").save(tmp_path / "colours.jpg")
    grey.convert("1").save(tmp_path / "bits.png")
    grey.save(tmp_path / "hidden.png", transparency=0)
    opaque.save(tmp_path / "opaque.png")
    Image.merge("LA", (grey, grey)).save(tmp_path / "alpha.png")
    palette.save(tmp_path / "palette.png")
    Image.fromarray(ground_truth.astype(np.uint8)).save(tmp_path / "ones.png")
    Image.fromarray(ground_truth * np.uint16(65535)).save(tmp_path / "deep.png")
    Image.fromarray(np.where(ground_truth, 0.9, 0).astype(np.float32)).save(tmp_path / "probability.tif")
    Image.fromarray(np.dstack([white // 2, white * 0, white * 0])).save(tmp_path / "red.png")
    found = {path.name: load_mask(path) for path in tmp_path.iterdir()}
    assert len(found) == 13
    for name, mask in found.items():
        np.testing.assert_array_equal(mask, ground_truth, err_msg=name)


def test_a_dark_jpeg_is_refused_as_a_mask(ground_truth, tmp_path):
    Image.fromarray(ground_truth.astype(np.uint8)).save(tmp_path / "ones.jpg")
    Image.fromarray(np.zeros((16, 24), np.uint8)).save(tmp_path / "poor.jpg", quality=40)  # all of it becomes 1
    Image.fromarray(np.zeros((16, 24), np.uint8)).save(tmp_path / "black.jpg")
    for name in ("ones.jpg", "poor.jpg"):
        with pytest.raises(ValueError, match=rf"{name}': a JPEG that is dark all over: export the mask as PNG"):
            load_mask(tmp_path / name)
    assert not load_mask(tmp_path / "black.jpg").any()


def test_a_file_of_several_objects_is_refused_as_a_mask(tmp_path):
    labels = np.repeat(np.array([0, 1, 15, 255], np.uint8), 50).reshape(10, 20)
    voc = Image.fromarray(labels)
    voc.save(tmp_path / "grey.png")
    voc.putpalette([0, 0, 0, 128, 0, 0, *[0] * 39, 192, 128, 128, *[0] * 717, 224, 224, 192])
    voc.save(tmp_path / "palette.png")
    with pytest.raises(
        ValueError, match=r"grey.png'?: expected True and False, got 4 values, 0, 1, 15, 255; .*borders"
    ):
        load_mask(tmp_path / "grey.png")
    with pytest.raises(ValueError, match=r"palette.png'?: expected one mask.* an image in several colours"):
        load_mask(tmp_path / "palette.png")
    np.testing.assert_array_equal(load_label_map(tmp_path / "palette.png"), labels)


@pytest.mark.parametrize("colour", [0, 255, 90])
def test_a_cutout_of_everything_or_nothing_gives_the_mask_back(tmp_path, colour):
    for mask in (np.ones((5, 6), bool), np.zeros((5, 6), bool)):
        save_cutout(np.full((5, 6, 3), colour, np.uint8), mask, tmp_path / "cutout.png", overwrite=True)
        assert np.array_equal(load_mask(tmp_path / "cutout.png"), mask)


def test_a_cutout_is_of_the_image_as_it_is_shown(image, ground_truth, tmp_path):
    mask = np.zeros((60, 90), bool)
    mask[20:40, 30:60] = True
    forms = {
        "grey": image[..., 0],
        "RGBA": np.dstack([image, image[..., :1]]),
        "float": image / 255,
        "wide": image.astype(np.int64),
    }
    for name, form in forms.items():
        save_cutout(form, mask, tmp_path / f"{name}.png")
        saved = np.asarray(Image.open(tmp_path / f"{name}.png"))
        assert np.array_equal(saved[mask][:, :3], load_image(form)[mask])


def test_a_label_map_that_lost_its_numbers_is_refused(tmp_path):
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(tmp_path / "labels.jpg")
    with pytest.raises(ValueError, match=r"labels.jpg': JPEG changes the numbers of a label map: export it as PNG"):
        load_label_map(tmp_path / "labels.jpg")


def test_nothing_is_overwritten_by_default(image, tmp_path):
    path = tmp_path / "mask.png"
    path.write_text("mine")
    for save in (
        lambda **more: save_mask(ragged_mask(1), path, **more),
        lambda **more: save_cutout(image, ragged_mask(1), path, **more),
        lambda **more: save_label_map([Segment(ragged_mask(1), "a")], (60, 90), path, **more),
    ):
        with pytest.raises(FileExistsError, match="exists already: choose another name"):
            save()
        assert path.read_text() == "mine"
    save_mask(ragged_mask(1), path, overwrite=True)
    assert path.read_bytes()[1:4] == b"PNG"


def test_invalid_masks_are_refused_before_anything_is_written(image, tmp_path):
    path = tmp_path / "a.png"
    with pytest.raises(ValueError, match="image and mask differ in size"):
        save_cutout(image, np.zeros((5, 5), bool), path)
    with pytest.raises(ValueError, match="expected one mask"):
        save_mask(image, path)
    full = Segment(np.ones((9, 9), bool), "all", "sky")
    with pytest.raises(ValueError, match=r"all: image and mask differ in size: \(9, 8\)"):
        save_label_map([full], (9, 8), path)
    with pytest.raises(ValueError, match="at most 255 objects, got 256"):
        save_label_map([full] * 256, (9, 9), path)
    with pytest.raises(ValueError, match="nothing: the mask is empty"):
        save_label_map([full, Segment(np.zeros((9, 9), bool), "nothing")], (9, 9), path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["street.jpg", "street", "street.png.tif"])
def test_png_is_written_under_no_other_name(image, tmp_path, name):
    path = tmp_path / name
    path.write_text("mine")
    for save in (
        lambda: save_mask(ragged_mask(1), path, overwrite=True),
        lambda: save_cutout(image, ragged_mask(1), path, overwrite=True),
        lambda: save_label_map([Segment(ragged_mask(1), "a")], (60, 90), path, overwrite=True),
    ):
        with pytest.raises(ValueError, match=r"expected a name that ends in \.png, such as 'street.*\.png'"):
            save()
    assert path.read_text() == "mine"
    save_mask(ragged_mask(1), tmp_path / "A.PNG")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder '.*new': create it first"):
        save_mask(ragged_mask(1), tmp_path / "new" / "a.png")


def test_what_is_not_such_a_png_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_mask(tmp_path / "none.png")
    (tmp_path / "x.png").write_bytes(b"x")
    with pytest.raises(ValueError, match="not an image that Pillow can read"):
        load_mask(tmp_path / "x.png")
    Image.new("RGB", (5, 5)).save(tmp_path / "colours.png")
    with pytest.raises(ValueError, match=r"expected a label map .* got an image of mode RGB"):
        load_label_map(tmp_path / "colours.png")
