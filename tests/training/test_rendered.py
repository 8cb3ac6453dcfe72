"""Rendered scenes as a pack: what each pixel shows becomes regions, objects and parts; the catalogue of the models."""

import json
import zipfile

import cv2
import numpy as np
import pytest

from training.photos import RENDERED, PhotoComposer, PhotoPack, region_mask
from training.rendered_pack import MIN_PART, annotate, pack
from training.sweet_home import catalogue


def numbers():
    """Return a wall, object 3 with a window (material 5) and specks (6), object 1 of one material, HxWx2."""
    drawn = np.zeros((120, 200, 2), int)
    drawn[..., 1] = 2
    drawn[20:100, 30:120] = 3, 1
    drawn[30:60, 40:70] = 3, 5
    drawn[90:92, 40:50] = 3, 6
    drawn[50:118, 100:190] = 1, 1
    return drawn


def test_objects_are_regions_by_material_and_parts_are_neither_specks_nor_nearly_all():
    drawn = numbers()
    labels, objects = annotate(drawn)
    assert labels.dtype == np.uint16
    assert (labels == 0).sum() == (drawn[..., 0] == 0).sum()
    assert len(objects) == 2
    for number, each in zip((1, 3), objects, strict=True):
        np.testing.assert_array_equal(region_mask(labels, each["regions"]), drawn[..., 0] == number)
    assert objects[0]["parts"] == []
    assert len(objects[1]["regions"]) == 3
    (part,) = objects[1]["parts"]
    np.testing.assert_array_equal(region_mask(labels, part), (drawn == (3, 5)).all(2))
    assert ((drawn == (3, 6)).all(2)).sum() < MIN_PART


def test_a_scene_without_ground_or_sky_has_no_region_0():
    drawn = numbers()[60:90, 110:120]
    assert (drawn[..., 0] > 0).all()
    labels, objects = annotate(drawn)
    assert labels.min() == 1
    assert [each["regions"] for each in objects] == [[1]]


def write_scene(folder, name, drawn):
    labels, objects = annotate(drawn)
    image = np.full((*labels.shape, 3), 40, np.uint8)
    image[drawn[..., 0] == 1] = (200, 30, 30)
    image[drawn[..., 0] == 3] = (30, 30, 200)
    cv2.imwrite(str(folder / f"{name}.jpg"), image)
    cv2.imwrite(str(folder / f"{name}.png"), labels)
    (folder / f"{name}.json").write_text(json.dumps(objects))
    return labels


def test_a_pack_of_scenes_is_one_of_photographs(tmp_path):
    labels = write_scene(tmp_path, "0000", numbers())
    write_scene(tmp_path, "0001", np.zeros((60, 80, 2), int))  # nothing is in it
    (tmp_path / "0002.jpg").write_bytes(b"interrupted before its labels")
    pack(tmp_path)
    photographs = PhotoPack([tmp_path / "rendered.zip"], "train")
    assert [each.name for each in photographs.photographs] == ["rendered/0000"]
    np.testing.assert_array_equal(photographs.read(0)[1], labels)
    scene = PhotoComposer(photographs, 128).compose(np.random.default_rng(0))
    assert scene.targets


def test_rendered_scenes_come_beside_the_photographs(tmp_path):
    write_scene(tmp_path, "0000", numbers())
    pack(tmp_path)
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(tmp_path / "rendered.zip") as source, zipfile.ZipFile(other, "w") as made:
        for name in ("coco/1", "ccp/1", "jenga/1"):
            for suffix in (".jpg", ".png"):
                made.writestr(name + suffix, source.read("rendered/0000" + suffix))
        objects = json.loads(source.read("manifest.json"))[0]["objects"]
        made.writestr(
            "manifest.json", json.dumps([{"name": n, "objects": objects} for n in ("coco/1", "ccp/1", "jenga/1")])
        )
    drawn = {}
    for paths in ([other], [other, tmp_path / "rendered.zip"]):
        composer = PhotoComposer(PhotoPack(paths, "train"), 128)
        drawn[len(paths)] = dict(zip(composer._names, composer._probabilities, strict=True))
    assert sum(drawn[2].values()) == pytest.approx(1)
    assert drawn[2].pop("rendered") == pytest.approx(RENDERED / (1 + RENDERED))
    assert {name: share * (1 + RENDERED) for name, share in drawn[2].items()} == pytest.approx(drawn[1])


def test_the_catalogue_has_sizes_in_metres_and_leaves_out_what_lies_on_its_side(tmp_path):
    path = tmp_path / "Furniture.sh3f"
    entries = {
        1: {"name": "Chair", "category": "Office", "model": "/a/chair/chair.obj"},
        2: {"name": "Pencil", "category": "Office", "model": "/a/pencil.obj", "modelRotation": "1 0 0 0 0 1 0 -1 0"},
        3: {"name": "Old chair", "category": "Office", "model": "/a/old.3ds"},
    }
    size = {"width": "50", "depth": "61.5", "height": "100.0"}
    lines = [f"{key}#{number}={value}" for number, entry in entries.items() for key, value in (entry | size).items()]
    with zipfile.ZipFile(path, "w") as library:
        library.writestr("PluginFurnitureCatalog.properties", "\n".join(lines))
    (chair,) = catalogue(path)
    assert (chair.library, str(chair.path)) == ("Furniture", "a/chair/chair.obj")
    assert (chair.name, chair.category, chair.size) == ("Chair", "Office", (0.5, 0.615, 1.0))
