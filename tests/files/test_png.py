"""A mask, a cut-out and a label map as PNG files: what is written reads back exactly, by us and by Pillow."""

import numpy as np
import pytest
from PIL import Image
from random_masks import images_of_segments, ragged_mask

from sam_nb import Segment, load_label_map, load_mask, save_cutout, save_label_map, save_mask


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
