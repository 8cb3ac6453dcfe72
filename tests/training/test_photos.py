"""Scenes from annotated photographs: every target is annotated, and what is held out stays out."""

import json
import zipfile
from collections import Counter

import cv2
import numpy as np
import pytest

from sam_nb import iou
from training import photos, pseudo_parts
from training.photos import Mixed, PhotoComposer, PhotoPack, region_mask, split
from training.scenes import KINDS, Scene, Target

BLUE, GREEN = (40, 80, 200), (30, 160, 60)


def write_pack(path, photographs):
    """Write photographs, a dict of name to (image RGB, labels, objects), as a pack."""
    with zipfile.ZipFile(path, "w") as pack:
        for name, (image, labels, _) in photographs.items():
            pack.writestr(name + ".jpg", cv2.imencode(".jpg", image[..., ::-1])[1].tobytes())
            pack.writestr(name + ".png", cv2.imencode(".png", labels)[1].tobytes())
        manifest = [{"name": name, "objects": objects} for name, (_, _, objects) in photographs.items()]
        pack.writestr("manifest.json", json.dumps(manifest))
    return path


def photograph(seed=0, size=(300, 400)):
    """Return a blue disc with a green part beside a red square that touches it, off centre, with labels and objects."""
    rng = np.random.default_rng(seed)
    image = rng.integers(90, 160, (*size, 3), np.uint8)
    labels = np.zeros(size, np.uint8)
    cv2.circle(labels, (130, 120), 70, 1, -1)
    cv2.circle(labels, (130, 120), 30, 2, -1)
    labels[80:170, 201:290] = 3
    for number, colour in ((1, BLUE), (2, GREEN), (3, (200, 40, 40))):
        image[labels == number] = colour
    return image, labels, [{"regions": [1, 2], "parts": [[2]]}, {"regions": [3], "parts": []}]


@pytest.fixture
def pack(tmp_path, monkeypatch):
    (tmp_path / "held_out.txt").write_text("a/2\n")
    monkeypatch.setattr(photos, "HELD_OUT", tmp_path / "held_out.txt")
    return write_pack(tmp_path / "pack.zip", {f"a/{number}": photograph(number) for number in range(4)})


def test_what_is_held_out_is_not_trained_on(pack):
    names = {name: [each.name for each in PhotoPack([pack], name).photographs] for name in ("train", "held_out")}
    assert names == {"train": ["a/0", "a/1", "a/3"], "held_out": ["a/2"]}


def test_a_photograph_is_read_as_it_was_written(pack):
    for decoded in (False, True):
        photographs = PhotoPack([pack], "held_out")
        if decoded:
            photographs.decode_all(2)
        image, labels = photographs.read(0)
        np.testing.assert_array_equal(labels, photograph()[1])
        assert np.abs(image[labels == 1].mean(0) - BLUE).max() < 8  # RGB, not BGR


def test_a_pack_is_read_once_so_that_forked_workers_share_no_open_file(pack):
    photographs = PhotoPack([pack], "held_out")
    pack.write_bytes(b"")
    np.testing.assert_array_equal(photographs.read(0)[1], photograph()[1])


def test_scenes_have_objects_parts_rests_and_groups_as_targets(pack):
    composer = PhotoComposer(PhotoPack([pack], "train"), 256)
    kinds = Counter()
    for seed in range(60):
        scene = composer.compose(np.random.default_rng(seed))
        assert max(scene.image.shape[:2]) <= 256
        for target in scene.targets:
            assert target.mask.shape == scene.image.shape[:2]
            assert not (target.mask & ~target.region).any()
            if target.kind == "rest":
                assert not (target.mask & target.excluded).any()
                np.testing.assert_array_equal(target.mask | target.excluded, target.region)
            kinds[target.kind] += 1
    assert set(kinds) == set(KINDS)


def test_masks_move_with_the_image(pack, monkeypatch):
    monkeypatch.setattr(photos, "recolour", lambda image, rng: image)
    monkeypatch.setattr(photos, "degrade", lambda image, rng: image.astype(np.uint8))
    composer = PhotoComposer(PhotoPack([pack], "train"), 256)
    parts = 0
    for seed in range(40):
        scene = composer.compose(np.random.default_rng(seed))
        for target in scene.targets:
            if target.kind == "part":
                inside = cv2.erode(target.mask.astype(np.uint8), np.ones((5, 5))) > 0
                assert np.abs(scene.image[inside].mean(0) - GREEN).max() < 12
                parts += 1
    assert parts > 10


def test_the_same_seed_gives_the_same_scene(pack):
    composer = PhotoComposer(PhotoPack([pack], "train"), 256)
    first, second = (composer.compose(np.random.default_rng([1, 2])) for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)
    for one, other in zip(first.targets, second.targets, strict=True):
        np.testing.assert_array_equal(one.mask, other.mask)


def test_no_source_dominates(tmp_path):
    """Of a hundred photographs of pipes and four of another source, the four are seen once in six."""
    names = [f"pipes/{number}" for number in range(100)] + [f"b/{number}" for number in range(4)]
    pack = PhotoPack([write_pack(tmp_path / "many.zip", dict.fromkeys(names, photograph()))], "train")
    seen, read = Counter(), pack.read

    def read_and_count(number):
        seen[pack.photographs[number].source] += 1
        return read(number)

    pack.read = read_and_count
    composer = PhotoComposer(pack, 64)
    for seed in range(300):
        composer.compose(np.random.default_rng(seed))
    assert seen["b"] / seen.total() == pytest.approx(1 / 6, abs=0.07)


class Named:
    """Composes scenes that are known by the size of their image."""

    def __init__(self, side):
        self.side = side

    def compose(self, rng):
        return Scene(np.zeros((self.side, 8, 3), np.uint8), ["a target"])

    def paste_onto(self, scene, rng):
        return Scene(scene.image + 1, scene.targets)


def test_a_mixture_draws_from_both_and_pastes_onto_some_photographs():
    mixed = Mixed(Named(1), Named(2), 0.75)
    rng = np.random.default_rng(0)
    scenes = [mixed.compose(rng) for _ in range(600)]
    drawn = Counter((len(scene.image), bool(scene.image.any())) for scene in scenes)
    assert drawn[1, False] / 600 == pytest.approx(0.75 * (1 - photos.PASTED), abs=0.06)
    assert drawn[1, True] / 600 == pytest.approx(0.75 * photos.PASTED, abs=0.06)
    assert drawn[2, False] / 600 == pytest.approx(0.25, abs=0.06)


def test_a_tenth_of_every_source_is_held_out_by_scenes(tmp_path):
    """Copies of one photograph, crops of one and neighbours in a series fall on the same side."""
    rng = np.random.default_rng(0)

    def unlike():
        image = cv2.resize(rng.integers(0, 255, (6, 8, 3), np.uint8), (400, 300), interpolation=cv2.INTER_NEAREST)
        return image, *photograph()[1:]

    twins = [unlike() for _ in range(30)]
    photographs = {f"coco/{number:03}{half}": twins[number] for number in range(30) for half in "ab"}
    photographs |= {f"facade/{number:03}_scaled_{half}_png_jpg": unlike() for number in range(40) for half in (0, 1)}
    photographs |= {f"street/{number:03}": unlike() for number in range(40)}
    held_out = split([write_pack(tmp_path / "pack.zip", photographs)])
    assert held_out == split([tmp_path / "pack.zip"])
    by_source = Counter(name.split("/")[0] for name in held_out)
    assert by_source == {"coco": 6, "facade": 8, "street": 4}
    stems = [name[:-1] if name.startswith("coco") else name[:10] for name in held_out if not name.startswith("street")]
    assert set(Counter(stems).values()) == {2}
    runs = {int(name[-3:]) // photos.RUN for name in held_out if name.startswith("street")}
    assert len(runs) == 1


def test_the_list_of_what_is_held_out_has_about_a_tenth():
    names = photos.HELD_OUT.read_text().split()
    assert names == sorted(set(names))
    assert 300 < len(names) < 340


def test_a_smaller_pack_holds_what_is_trained_on(pack, tmp_path):
    photos.shrink([pack], tmp_path / "small.zip", side=200, quality=80)
    small = PhotoPack([tmp_path / "small.zip"], "train")
    assert [each.name for each in small.photographs] == ["a/0", "a/1", "a/3"]
    image, labels = small.read(0)
    assert image.shape == (150, 200, 3)
    expected = cv2.resize(photograph()[1], (200, 150), interpolation=cv2.INTER_NEAREST)
    np.testing.assert_array_equal(labels, expected)
    assert np.abs(image[labels == 1].mean(0) - BLUE).max() < 12


def test_what_is_hidden_is_no_longer_a_target():
    whole = np.zeros((20, 30), bool)
    whole[4:16, 5:25] = True
    part = np.zeros_like(whole)
    part[6:10, 8:14] = True
    rest = Target("rest", whole & ~part, whole, part)
    hidden = np.zeros_like(whole)
    hidden[8:20, 0:30] = True
    left = rest.without(hidden)
    np.testing.assert_array_equal(left.region, whole & ~hidden)
    np.testing.assert_array_equal(left.mask | left.excluded, left.region)
    np.testing.assert_array_equal(left.excluded, part & ~hidden)
    assert rest.without(part).excluded is None
    np.testing.assert_array_equal(rest.without(part).region, rest.mask)


def test_more_regions_than_a_byte_counts_survive_the_smaller_pack(tmp_path):
    image, labels = np.zeros((90, 120, 3), np.uint8), np.full((90, 120), 1, np.uint16)
    labels[:, 60:] = 300
    pack = write_pack(tmp_path / "pack.zip", {"coco/1": (image, labels, [{"regions": [300], "parts": []}])})
    photos.shrink([pack], tmp_path / "small.zip", side=60, quality=80)
    _, small = PhotoPack([tmp_path / "small.zip"], "train").read(0)
    assert set(np.unique(small)) == {1, 300}


def test_parts_that_touch_are_a_part_together():
    whole = np.zeros((90, 60), bool)
    whole[5:85, 10:50] = True
    hair, face, shoe = np.zeros((3, 90, 60), bool)
    hair[5:20, 10:50], face[20:40, 10:50], shoe[70:85, 10:50] = True, True, True
    joined = photos._joined_parts([shoe, hair, face, hair | face], whole)
    assert [target.kind for target in joined] == ["part"]
    assert np.array_equal(joined[0].mask, hair | face)


def test_parts_that_a_model_finds_become_regions_of_their_own():
    labels = np.zeros((40, 60), np.uint8)
    labels[5:35, 5:30], labels[5:35, 30:55] = 1, 2
    objects = [{"regions": [1, 2], "parts": [[1]]}, {"regions": [2], "parts": []}]
    before = [region_mask(labels, regions) for one in objects for regions in (one["regions"], *one["parts"])]
    over_both, within = np.zeros((2, 40, 60), bool)
    over_both[10:15, 25:35], within[20:25, 40:45] = True, True
    new = pseudo_parts.add_parts(labels, objects, {0: [over_both], 1: [within, labels == 2]})
    wholes = [objects[0]["regions"], objects[0]["parts"][0], objects[1]["regions"]]
    assert all(np.array_equal(region_mask(new, regions), mask) for regions, mask in zip(wholes, before, strict=True))
    assert np.array_equal(region_mask(new, objects[0]["parts"][1]), over_both)
    assert np.array_equal(region_mask(new, objects[1]["parts"][0]), within)
    assert np.array_equal(region_mask(new, objects[1]["parts"][1]), labels == 2)


def test_what_stands_out_from_an_object_is_found(lite):
    image = np.full((200, 300, 3), (90, 150, 60), np.uint8)
    whole = np.zeros((200, 300), bool)
    whole[30:170, 40:260] = True
    image[whole] = (150, 110, 80)
    eye = np.zeros((200, 300), np.uint8)
    cv2.circle(eye, (190, 80), 14, 1, -1)
    image[eye > 0] = (20, 20, 25)
    parts = pseudo_parts.find_parts(lite, image, whole)
    assert max(iou(part, eye > 0) for part in parts) > 0.8
    assert pseudo_parts.find_parts(lite, image, whole & (np.arange(300) < 50)) == []
