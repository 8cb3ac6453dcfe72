"""The data that `lite` is trained on: composed scenes, their sources, their prompts."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from sam_nb.ground_truth import OUTLINES, read_outlines
from sam_nb.networks.lite import IMAGE_SIZE
from training import prompts, sources
from training.average import average
from training.data import SceneDataset
from training.pasted_objects import with_hole
from training.scenes import Composer, Scene, Target
from training.sources import material_parts


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(30):
        cutout = np.zeros((80, 80, 4), np.uint8)
        cv2.circle(cutout, (40, 40), 30, (*rng.integers(0, 255, 3).tolist(), 255), -1)
        cv2.circle(cutout, (40, 40), 12, (*rng.integers(0, 255, 3).tolist(), 255), -1)
        cv2.imwrite(str(folder / f"cutout{chr(97 + number)}.png"), cutout)
        cv2.imwrite(str(folder / f"background{chr(97 + number)}.png"), rng.integers(0, 255, (240, 320, 3), np.uint8))
    cutouts = [("stamps", path) for path in sorted(folder.glob("cutout*"))]
    backgrounds = [("photographs", path) for path in sorted(folder.glob("background*"))]
    sources.write_pack(folder / "pack.zip", cutouts, backgrounds)
    return folder / "pack.zip"


@pytest.fixture(scope="module")
def dataset(pack):
    composer = Composer(sources.SourcePack(pack, "train"), IMAGE_SIZE)
    return SceneDataset(composer, IMAGE_SIZE, prompts=3, seed=0, length=8)


def test_splits_share_no_family(pack):
    train_pack, held_out = sources.SourcePack(pack, "train"), sources.SourcePack(pack, "held_out")
    families = {entry.family for entry in train_pack.cutouts + train_pack.backgrounds}
    assert not families & {entry.family for entry in held_out.cutouts + held_out.backgrounds}


def test_look_alikes_are_one_family():
    assert sources.family_of("tuxpaint-stamps-default", "lion1") == sources.family_of(
        "tuxpaint-stamps-default", "lion_2"
    )
    man, woman = "1f468-200d-1f680", "1f469-200d-1f680"
    assert sources.family_of("fluent-emoji-3d", man) == sources.family_of("fluent-emoji-3d", woman)


def test_views_of_one_model_are_one_family(tmp_path):
    views = [tmp_path / folder / "0.png" for folder in ("sedan-01", "sedan-02")]
    titles = [sources.title_of("sweethome3d-furniture", path) for path in views]
    assert titles == ["sedan-01", "sedan-02"]
    assert len({sources.family_of("sweethome3d-furniture", title) for title in titles}) == 1


def test_parts_of_a_render_are_its_materials():
    owner = np.full((60, 90), 1, np.uint8)
    owner[10:20, 10:30] = owner[30:50, 50:70] = 2  # two panes of one glass
    owner[5, 5] = 3  # too small
    parts = material_parts(owner)
    assert [np.count_nonzero(parts == number) for number in (1, 2, 3)] == [400, 200, 0]
    assert not parts[owner == 1].any(), "what is most of the object is no part of it"


def test_a_tyre_is_a_wheel_with_a_hole():
    y, x = np.mgrid[:60, :90]
    distance = np.hypot(x - 25, y - 35)
    tyre, scratched = (distance < 20) & (distance > 9), (distance < 20) & (distance > 1)
    wheel, hub = with_hole(tyre)
    np.testing.assert_array_equal(wheel, distance < 20)
    np.testing.assert_array_equal(hub, distance <= 9)
    assert with_hole(scratched)[1] is None


def test_known_parts_are_packed_as_they_are(tmp_path):
    cutout = np.zeros((80, 80, 4), np.uint8)
    cv2.circle(cutout, (40, 40), 30, (10, 200, 90, 255), -1)
    cutout = sources.trim_cutout(cutout)
    parts = np.zeros(cutout.shape[:2], np.uint8)
    parts[20:30, 10:25] = 1
    views = [tmp_path / "models" / f"chair {chr(97 + n)}" / "0.png" for n in range(8)]
    for path in views:
        path.parent.mkdir(parents=True)
        cv2.imwrite(str(path), cutout)
        cv2.imwrite(str(path.with_suffix(".parts.png")), parts)
        cv2.imwrite(str(tmp_path / f"{path.parent.name}.png"), np.full((240, 320, 3), 90, np.uint8))
    found = sources.find_cutouts(tmp_path / "none", tmp_path / "none", tmp_path / "models")
    backgrounds = [("photographs", path) for path in sorted(tmp_path.glob("*.png"))]
    entries = sources.write_pack(tmp_path / "pack.zip", found, backgrounds)
    assert sum(entry.kind == "cutout" for entry in entries) == 8
    (mask,) = sources.SourcePack(tmp_path / "pack.zip", "train").cutout(0)[1]
    np.testing.assert_array_equal(mask, parts == 1)
    cv2.imwrite(str(views[0].with_suffix(".parts.png")), parts[1:])
    found = sources.find_cutouts(tmp_path / "none", tmp_path / "none", tmp_path / "models")
    with pytest.raises(ValueError, match="render it again"):
        sources.write_pack(tmp_path / "pack.zip", found, backgrounds)


def test_the_same_seed_gives_the_same_scene(pack):
    composer = Composer(sources.SourcePack(pack, "train"), 256)
    first, second = (composer.compose(np.random.default_rng([1, 2])) for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)
    assert len(first.targets) == len(second.targets)


def test_targets_lie_inside_their_regions(pack):
    composer = Composer(sources.SourcePack(pack, "train"), 256)
    for seed in range(20):
        scene = composer.compose(np.random.default_rng(seed))
        for target in scene.targets:
            assert target.mask.shape == scene.image.shape[:2]
            assert not (target.mask & ~target.region).any()
            assert target.excluded is None or not (target.mask & target.excluded).any()


def test_objects_pasted_onto_a_photograph_hide_what_they_lie_on(pack):
    composer = Composer(sources.SourcePack(pack, "train"), 256)
    grey = np.full((200, 256, 3), 90, np.uint8)
    whole = np.zeros((200, 256), bool)
    whole[20:180, 30:230] = True
    pasted = 0
    for seed in range(15):
        scene = composer.paste_onto(Scene(grey, [Target("object", whole, whole)]), np.random.default_rng(seed))
        # A shadow may fall on the photograph; what an object covers has a colour of its own.
        colourful = np.ptp(scene.image.astype(int), axis=2) > 25
        for target in scene.targets:
            assert target.mask.any()
            assert not (target.mask & ~target.region).any()
        (left,) = [
            target
            for target in scene.targets
            if np.array_equal(target.mask & whole, target.mask) and target.mask.sum() > 0.5 * whole.sum()
        ]
        covered = whole & ~left.mask
        assert covered.sum() <= 0.4 * 3 * whole.sum()
        assert colourful[left.mask].mean() < 0.02
        pasted += covered.any()
    assert pasted > 5


def test_samples_are_padded_right_and_bottom(dataset):
    for index in range(4):
        sample = dataset[index]
        height, width = sample["size"].tolist()
        assert max(height, width) == IMAGE_SIZE
        assert not sample["image"][:, height:].any()
        assert not sample["image"][:, :, width:].any()


def test_next_click_corrects_the_largest_error():
    ground_truth = np.zeros((40, 40), bool)
    ground_truth[5:25, 5:25] = True
    (x, y), label = prompts.next_click(np.zeros_like(ground_truth), ground_truth, None, centre=True)
    assert label == 1
    assert 13 <= x <= 16
    assert 13 <= y <= 16
    too_much = ground_truth.copy()
    too_much[30:38, 30:38] = True
    (x, y), label = prompts.next_click(too_much, ground_truth, None, centre=True)
    assert label == 0
    assert not ground_truth[int(y), int(x)]
    assert prompts.next_click(ground_truth, ground_truth, None, centre=True) is None


def test_hand_drawn_ground_truth_lies_inside_its_photographs():
    apart = read_outlines(Path(sources.__file__).parent / "ground_truth" / "outlines.json")
    entries = read_outlines(OUTLINES) + apart
    scored = [entry["file"] for entry in entries if entry.get("sample") != "coins"]  # of coins, those set apart are
    assert len(set(scored)) == len(scored) >= 16
    for entry in entries:
        for outlined in entry["objects"]:
            corners = np.concatenate([np.array(polygon) for polygon in outlined["polygons"]])
            assert (corners >= 0).all()
            assert (corners <= (entry["width"] - 1, entry["height"] - 1)).all()


def test_average_of_weights():
    left, right = {"a": torch.tensor([1.0, 4.0]).half()}, {"a": torch.tensor([3.0, 0.0]).half()}
    mean = average([(left, 0.25), (right, 0.75)])
    assert mean["a"].dtype == torch.float16
    assert mean["a"].tolist() == [2.5, 1.0]
    with pytest.raises(ValueError, match="add up to 1"):
        average([(left, 0.5), (right, 0.6)])
    with pytest.raises(ValueError, match="one architecture"):
        average([(left, 0.5), ({"b": right["a"]}, 0.5)])
