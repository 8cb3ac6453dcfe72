"""The evaluation of `lite`: its cases and measures, the comparison of two weights, and the contact sheet."""

import json
import sys
import zipfile
from collections import Counter

import cv2
import numpy as np
import pytest
import safetensors.torch
import torch

from sam_nb import Prompt, iou, load_image, load_sam
from sam_nb.article import ARTICLE_PROMPTS
from sam_nb.networks.lite import build_lite
from training import compare, evaluate, photos, sheet, street
from training.cases import Case, CaseSet, annotated_photographs, candidates, choose, tight_box
from training.measures import SimulatedUser, mean_over_groups, perimeter, raggedness, summarise

Y, X = np.mgrid[:200, :200]


@pytest.fixture(autouse=True)
def same_threads():
    """The command sets how many threads compute, and with that the last bit of what other tests compare."""
    threads = torch.get_num_threads(), cv2.getNumThreads()
    yield
    torch.set_num_threads(threads[0])
    cv2.setNumThreads(threads[1])


def disc(radius, x=100, y=100):
    return np.hypot(X - x, Y - y) < radius


def square(degrees, half=50):
    turn = np.deg2rad(degrees)
    u, v = (
        (X - 100.3) * np.cos(turn) + (Y - 100.2) * np.sin(turn),
        (Y - 100.2) * np.cos(turn) - (X - 100.3) * np.sin(turn),
    )
    return (abs(u) < half) & (abs(v) < half)


def jagged(mask):
    """Add every second pixel, at random, that touches a mask."""
    around = (cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0) & ~mask
    return mask | (around & (np.random.default_rng(0).random(mask.shape) < 0.5))


def test_a_smooth_border_is_not_ragged():
    assert raggedness(disc(60), disc(60)) == 1
    assert raggedness(disc(60, 101, 100.5), disc(60)) == pytest.approx(1, abs=0.02)
    assert raggedness(disc(61), disc(60)) == pytest.approx(61 / 60, abs=0.02)


@pytest.mark.parametrize("mask", [disc(60), disc(12), square(0), square(22.5), square(45)])
def test_a_jagged_border_is_ragged_in_every_direction(mask):
    assert raggedness(jagged(mask), mask) > 1.18
    assert raggedness(mask, jagged(mask)) < 1 / 1.18


def test_the_perimeter_hardly_depends_on_the_direction():
    assert [perimeter(square(degrees)) for degrees in (0, 10, 22.5, 30, 45)] == pytest.approx([400] * 5, rel=0.06)
    assert perimeter(disc(60)) == pytest.approx(2 * np.pi * 60, rel=0.02)


def test_holes_have_a_border_and_so_has_a_full_image():
    assert perimeter(disc(60) & ~disc(20)) == pytest.approx(perimeter(disc(60)) + perimeter(disc(20)), rel=0.01)
    assert perimeter(np.ones((100, 100), bool)) == pytest.approx(400, rel=0.06)
    assert perimeter(np.zeros((100, 100), bool)) == 0


def photograph(columns, small=False):
    """Return an image, its labels and its objects: `columns` discs, each with a part; the last may be no target."""
    labels = np.zeros((120, 100 * columns), np.uint8)
    objects = []
    for number in range(columns):
        radius = 8 if small and number == columns - 1 else 40
        regions = [2 * number + 1, 2 * number + 2]
        cv2.circle(labels, (50 + 100 * number, 60), radius, regions[0], -1)
        cv2.circle(labels, (50 + 100 * number, 60), radius // 2, regions[1], -1)
        objects.append({"regions": regions, "parts": [regions[1:]]})
    image = np.full((*labels.shape, 3), 200, np.uint8)
    image[labels % 2 == 1] = (30, 60, 160)
    image[(labels > 0) & (labels % 2 == 0)] = (240, 240, 20)
    return image, labels, objects


def write_pack(path, photographs):
    with zipfile.ZipFile(path, "w") as pack:
        for name, (image, labels, _) in photographs.items():
            pack.writestr(f"{name}.jpg", cv2.imencode(".jpg", image[..., ::-1])[1].tobytes())
            pack.writestr(f"{name}.png", cv2.imencode(".png", labels)[1].tobytes())
        manifest = [{"name": name, "objects": objects} for name, (_, _, objects) in photographs.items()]
        pack.writestr("manifest.json", json.dumps(manifest))
    return path


@pytest.fixture
def held_out(tmp_path, monkeypatch):
    """Return a function that writes photographs, by name, into a pack, and opens it as the held-out split."""
    monkeypatch.setattr(photos, "HELD_OUT", tmp_path / "held_out.txt")

    def make(photographs):
        (tmp_path / "held_out.txt").write_text("\n".join(photographs))
        return photos.PhotoPack([write_pack(tmp_path / "photos.zip", photographs)], "held_out")

    return make


def test_every_photograph_has_a_case_before_any_has_a_second(held_out):
    shelves = {f"shelf/{number}": photograph(5) for number in range(8)}
    pack = held_out(shelves | {"lone/0": photograph(1)})
    for max_count, expected in ((8, {1: 8}), (12, {1: 4, 2: 4})):
        chosen = choose(pack, max_count, seed=0)
        shelf = [names for number, names in chosen.items() if pack.photographs[number].source == "shelf"]
        assert Counter(map(len, shelf)) == expected


def test_a_third_of_the_cases_are_parts(held_out):
    shelves = {f"shelf/{number}": photograph(5) for number in range(3)}
    pack = held_out(shelves | {"few/0": photograph(2), "some/0": photograph(5)})
    cases = annotated_photographs(pack, 12, seed=0)
    assert (cases.count, cases.by_source) == (5, True)
    kinds = Counter((case.source, case.kind) for _, of_image in cases.images for case in of_image)
    expected = {"shelf": (8, 4), "few": (2, 2), "some": (5, 4)}
    assert {source: (kinds[source, "object"], kinds[source, "part"]) for source in expected} == expected


def test_the_choice_is_of_the_seed_and_other_photographs_change_nothing(held_out):
    shelves = {f"shelf/{number}": photograph(5) for number in range(4)}
    names = [set.union(*choose(held_out(shelves), 6, seed).values()) for seed in (0, 0, 1)]
    assert names[0] == names[1] != names[2]
    assert set.union(*choose(held_out({"lone/0": photograph(1)} | shelves), 6, seed=0).values()) > names[0]


def test_cases_are_targets_and_their_ground_truth_is_the_annotation(held_out):
    image, labels, objects = photograph(3, small=True)
    pack = held_out({"shelf/0": (image, labels, objects)})
    read, cases = candidates(pack, 0, seed=0)
    assert read.shape == image.shape
    expected = {"shelf/0: object 0": labels > 0, "shelf/0: object 1": labels > 0}
    expected |= {f"{name}, part 0, component 0": labels % 2 == 0 for name in expected}
    assert {case.name for case in cases} == set(expected), "the smallest disc is no target"
    for case in cases:
        x = 100 * int(case.name.split("object ")[1][0])
        ground_truth = np.zeros_like(labels, bool)
        ground_truth[:, x : x + 100] = (expected[case.name] & (labels > 0))[:, x : x + 100]
        np.testing.assert_array_equal(case.ground_truth, ground_truth)
        np.testing.assert_array_equal(case.box, tight_box(ground_truth))


def test_a_pack_without_annotated_photographs_is_refused(held_out):
    pack = held_out({"shelf/0": photograph(1, small=True)})
    with pytest.raises(ValueError, match=r"no held-out photographs: expected .* held_out.txt names, got 1"):
        annotated_photographs(pack, 40, seed=0)


def test_training_photographs_are_a_set_of_their_own(held_out, tmp_path):
    held_out({"shelf/0": photograph(2)})
    path = write_pack(tmp_path / "both.zip", {"shelf/0": photograph(2), "shelf/1": photograph(1)})
    for split, title, name in (("train", "training", "shelf/1"), ("held_out", "held-out", "shelf/0")):
        cases = annotated_photographs(photos.PhotoPack([path], split), 1, seed=0)
        assert cases.title == f"{title} photographs"
        assert [case.name.split(":")[0] for _, of_image in cases.images for case in of_image] == [name]
    pack = photos.PhotoPack([tmp_path / "photos.zip"], "train")
    with pytest.raises(ValueError, match=r"no training photographs: expected .* held_out.txt does not name, got 0"):
        annotated_photographs(pack, 1, seed=0)


class FixedPredictor:
    """A `SamPredictor` with fixed masks: three for the first click, the last of them for all other prompts."""

    def __init__(self, masks, scores):
        self.masks, self.scores, self.prompts = np.array(masks), np.array(scores), []

    def set_image(self, image):
        self.size = image.shape[:2]

    def predict(self, multimask_output=True, **prompt):
        self.prompts.append(prompt)
        rows = slice(None) if multimask_output else slice(2, 3)
        logits = np.arange(3, dtype=np.float32)[rows, None, None] * np.ones((256, 256), np.float32)
        return self.masks[rows], self.scores[rows], logits


def test_measures_of_a_case():
    ground_truth = disc(60)
    predictor = FixedPredictor([disc(50), disc(20), ground_truth], [0.9, 0.2, 0.1])
    user = SimulatedUser(predictor)
    user.set_image(np.zeros((200, 200, 3), np.uint8))
    values, masks = user.measure(Case("disc", "object", "drawn", ground_truth, tight_box(ground_truth)))
    first = iou(disc(50), ground_truth)
    assert values == {
        "box": 1,
        "raggedness": 1,
        "1 click": first,
        "oracle of three": 1,
        "3 clicks": 1,
        "clicks needed": 2,
        "not reached": 0,
    }
    np.testing.assert_array_equal(masks["1 click"], disc(50))
    _, click, second = predictor.prompts
    assert "mask_input" not in click
    np.testing.assert_array_equal(second["mask_input"], np.zeros((1, 256, 256)), "logits of the highest-scoring mask")
    assert user.found == [1, first, iou(disc(20), ground_truth), 1, 1]


def test_a_wrong_mask_is_not_called_ragged():
    predictor = FixedPredictor([disc(20)] * 3, [0.9, 0.2, 0.1])
    values, _ = SimulatedUser(predictor).measure(Case("disc", "object", "drawn", disc(60), tight_box(disc(60))))
    assert "raggedness" not in values
    assert (values["clicks needed"], values["not reached"]) == (10, 1)
    assert len(predictor.prompts) == 11


def record(name, source, kind="object", pixels=1, **columns):
    return {"name": name, "kind": kind, "source": source, "pixels": pixels, "values": columns}


def test_a_source_with_many_cases_does_not_dominate():
    records = [record(f"a{number}", "a", "part", lite={"box": 0.5}) for number in range(9)]
    records.append(record("b", "b", lite={"box": 0.9, "raggedness": 1.2}))
    assert mean_over_groups([1, 1, 1, 0], ["a", "a", "a", "b"]) == 0.5
    expected = {"box": 0.7, "box, part": 0.5, "box, object": 0.9, "raggedness": 1.2}
    assert summarise(records, "lite", by_source=True) == pytest.approx(expected)
    assert summarise(records, "lite", by_source=False)["box"] == pytest.approx(0.54)
    assert "| a | 9 | 0.500 |" in evaluate.table_by_source(records, ["lite"])


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Return two files of random weights for the architecture as it is."""
    paths = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        paths.append(tmp_path_factory.mktemp("weights") / "lite.safetensors")
        state = {name: tensor.contiguous() for name, tensor in build_lite().state_dict().items()}
        safetensors.torch.save_file(state, paths[-1])
    return paths


def test_the_street_is_prompted_as_in_the_notebooks(weights):
    sam = load_sam("lite", checkpoint=weights[0], device="cpu")
    embedding = sam.encode(load_image("street"))
    predictor = sam.predictor(embedding)
    prompts = {name: prompt for name, (_, prompt) in ARTICLE_PROMPTS.items()}
    start, two_points = sam.decode(embedding, prompts["point"]), prompts["two points"]
    assert len(start) == 3
    with_logits = Prompt(two_points.points, two_points.labels, mask_input=start.logits[start.best_index])
    expected = {name: sam.decode(embedding, prompt).best for name, prompt in prompts.items()}
    without_logits = expected["two points"]
    expected |= {"point": start.best, "two points": sam.decode(embedding, with_logits).best}
    for name, mask in expected.items():
        np.testing.assert_array_equal(street.ask(predictor, prompts[name]), mask)
    assert (without_logits != expected["two points"]).any(), "the logits matter, so the test can tell"


def test_a_street_click_gives_the_highest_scoring_mask():
    predictor = FixedPredictor([disc(10), disc(20), disc(30)], [0.2, 0.9, 0.1])
    point, two_points = (ARTICLE_PROMPTS[name][1] for name in ("point", "two points"))
    np.testing.assert_array_equal(street.ask(predictor, point), disc(20))
    np.testing.assert_array_equal(street.ask(predictor, two_points), disc(30))
    np.testing.assert_array_equal(predictor.prompts[-1]["mask_input"], np.ones((1, 256, 256)))


def test_grabcut_gets_the_same_boxes():
    image = np.full((200, 200, 3), 30, np.uint8)
    image[disc(60)] = (200, 40, 40)
    case = Case("disc", "object", "drawn", disc(60), tight_box(disc(60)))
    apart = Case("rest", "rest", "drawn", disc(60), tight_box(disc(60)), (100.0, 100.0))
    results = evaluate.measure(CaseSet("discs", [(image, [case, apart])], 1), {}, True, None)
    assert results["cases"][0]["values"]["GrabCut"] == pytest.approx({"box": 1, "raggedness": 1}, abs=0.02)
    assert results["cases"][1]["values"] == {}, "GrabCut takes no negative click"
    assert results["measures"]["GrabCut"]["box, object"] == pytest.approx(1, abs=0.02)


def test_two_weights_are_evaluated_and_compared(held_out, weights, tmp_path, monkeypatch, capsys):
    held_out({"shelf/0": photograph(2), "lone/0": photograph(1)})
    for name, path in zip(("old", "new"), weights, strict=True):
        arguments = [f"{name}={path}", "--scenes", "0", "--photos", str(tmp_path / "photos.zip"), "--per-source", "1"]
        arguments += ["--no-grabcut", "--threads", "1", "--out", str(tmp_path / name)]
        monkeypatch.setattr(sys, "argv", ["evaluate", *arguments])
        evaluate.main()
    printed = capsys.readouterr().out
    assert "| held-out photographs | old |" in printed
    assert "| box / 1 click / oracle / 3 clicks | cases | old |" in printed
    assert "| street, IoU | new |" in printed
    paths = [f"{tmp_path / name / 'results.json'}:{name}" for name in ("old", "new")]
    monkeypatch.setattr(sys, "argv", ["compare", *paths, "--resamples", "100"])
    compare.main()
    printed = capsys.readouterr().out
    assert "| set | measure | old | new | difference | 95% interval |" in printed
    assert "| held-out photographs | oracle of three |" in printed
    assert "| street | point, IoU |" in printed
    assert "new against old: " in printed
    results = json.loads((tmp_path / "old" / "results.json").read_text())
    case = results["held-out photographs"]["cases"][0]
    assert (case["kind"], case["source"]) == ("object", "shelf")
    assert {"box", "1 click", "oracle of three", "3 clicks", "clicks needed"} <= set(case["values"]["old"])


def column(values, by_source=False, pixels=1):
    """Return a column of the four measures from (source, their values) by case; a single value is all four."""
    return compare.Column(
        by_source,
        dict.fromkeys(values, pixels),
        {name: source for name, (source, _) in values.items()},
        {
            name: dict(zip(compare.DECISIVE, np.broadcast_to(value, 4).tolist(), strict=True))
            for name, (_, value) in values.items()
        },
    )


def objects(value, count=20, noise=0.0, source="a"):
    spread = noise * np.linspace(-1, 1, count)[:, None]
    return {f"{source}{number}": (source, value + spread[number]) for number in range(count)}


def test_better_is_significantly_higher():
    old = {"photographs": column(objects(0.5))}
    for new, better, words in (
        (objects(0.51), True, None),
        (objects(0.51, noise=0.1), False, "not significantly higher"),
        (objects(0.5), False, "is not higher"),
        (objects(0.49), False, "is not higher"),
    ):
        comparison = compare.compare(old, {"photographs": column(new)}, resamples=500)
        assert (not comparison.objections) == better
        assert words is None or words in comparison.objections[0]


def test_no_box_falls_far_and_a_single_click_may():
    old = {"photographs": column(objects(0.5)), "compositions": column(objects(0.8))}
    high = column(objects(0.9))
    for values, objections in (
        ([0.78, 0.6, 0.78, 0.78], []),
        ([0.779, 0.8, 0.8, 0.8], ["compositions, box: lower by 0.021, more than 0.02"]),
        ([0.8, 0.8, 0.7, 0.8], ["compositions, oracle of three: lower by 0.100, more than 0.02"]),
        ([0.8, 0.8, 0.8, 0.7], ["compositions, 3 clicks: lower by 0.100, more than 0.02"]),
    ):
        new = {"photographs": high, "compositions": column(objects(np.array(values)))}
        assert compare.compare(old, new, resamples=50).objections == objections


def test_every_set_counts_the_same_and_so_does_every_source():
    cases = objects(0.0, 10, source="a") | objects(0.0, 2, source="b")
    better = objects(1.0, 10, source="a") | objects(-1.0, 2, source="b")
    old = {"photographs": column(cases, by_source=True), "compositions": column(objects(0.2, 3))}
    new = {"photographs": column(better, by_source=True), "compositions": column(objects(0.6, 3))}
    comparison = compare.compare(old, new, resamples=200)
    assert (comparison.overall.old, comparison.overall.new) == pytest.approx((0.1, 0.3))
    # Only if cases are drawn within their source do ten that rise and two that fall always cancel out.
    assert comparison.rows[0].interval == (0, 0)
    assert comparison.overall.interval == pytest.approx((0.2, 0.2))


def test_the_bootstrap_knows_the_standard_error():
    rng = np.random.default_rng(0)
    differences = rng.standard_normal((400, 1)) * [1, 3]
    draws = compare.bootstrap(differences, ["a"] * 400, 4000, rng)
    np.testing.assert_allclose(draws.mean(0), differences.mean(0), atol=0.02)
    np.testing.assert_allclose(draws.std(0), differences.std(0) / 20, rtol=0.1)
    np.testing.assert_allclose(draws[:, 1], 3 * draws[:, 0], err_msg="all measures of a case are drawn together")


def test_the_street_is_shown_and_does_not_count():
    prompts = [compare.Column(False, {"point": 1}, {"point": ""}, {"point": {"IoU": value}}) for value in (0.9, 0.1)]
    old, new = (
        {"photographs": column(objects(value)), "street": one} for value, one in zip((0.5, 0.6), prompts, strict=True)
    )
    comparison = compare.compare(old, new, resamples=50)
    assert not comparison.objections
    assert comparison.overall.difference == pytest.approx(0.1)
    assert "| street | point, IoU | 0.900 | 0.100 | -0.800 |  |" in compare.table(comparison, "v1", "v2")
    with pytest.raises(ValueError, match="nothing to decide on: expected a set with box"):
        compare.compare({"street": prompts[0]}, {"street": prompts[1]})


def test_other_cases_are_not_compared():
    old = {"photographs": column(objects(0.5, 3))}
    cure = "evaluate both with the same options, packs, seed"
    with pytest.raises(ValueError, match=f"sets: expected .* 'photographs', got 'others'; {cure}"):
        compare.compare(old, {"others": old["photographs"]})
    with pytest.raises(ValueError, match=f"the 3 cases .* got 4, without none and with 'a3' beside them; {cure}"):
        compare.compare(old, {"photographs": column(objects(0.5, 4))})
    with pytest.raises(ValueError, match=f"photographs, a0: expected .* of 1 pixels, .* got 2; {cure}"):
        compare.compare(old, {"photographs": column(objects(0.5, 3), pixels=2)})


def test_a_missing_column_is_refused(tmp_path):
    path = tmp_path / "results.json"
    with pytest.raises(FileNotFoundError, match=r"run training\.evaluate with --out"):
        compare.read_column(path, "lite")
    cases = [record("a", "b", lite={"box": 0.5})]
    path.write_text(json.dumps({"street": {"by_source": False, "measures": {"lite": {}}, "cases": cases}}))
    assert compare.read_column(path, "lite")["street"].values == {"a": {"box": 0.5}}
    with pytest.raises(ValueError, match="expected a column 'light', got lite; name one of these"):
        compare.read_column(path, "light")
    path.write_text(json.dumps({"street": {"measures": {"lite": {}}, "cases": {"a (box)": {"lite": 0.5}}}}))
    with pytest.raises(ValueError, match="older version; evaluate the weights again"):
        compare.read_column(path, "lite")


def test_the_sheet_shows_every_photograph_with_outlines(held_out, tmp_path, monkeypatch):
    image, labels, annotated = photograph(2)
    drawn = sheet.thumbnail(np.full_like(image, 128), labels, annotated)
    assert drawn.shape == (sheet.HEIGHT, round(200 * sheet.HEIGHT / 120), 3)
    red, green = (np.abs(drawn.astype(int) - colour).sum(2) < 150 for colour in sheet.COLOURS[:2])
    middle = drawn.shape[1] // 2
    assert min(np.count_nonzero(red[:, :middle]), np.count_nonzero(green[:, middle:])) > 200
    assert max(np.count_nonzero(red[:, middle:]), np.count_nonzero(green[:, :middle])) == 0

    pack = held_out({f"{source}/{number}": photograph(6) for source in ("shelf", "wall") for number in range(4)})
    whole = sheet.sheet(pack)
    assert whole.shape == (3 * (sheet.HEAD + sheet.HEIGHT + sheet.GAP), sheet.WIDTH, 3)
    monkeypatch.setattr(sys, "argv", ["sheet", str(tmp_path / "photos.zip"), "--out", str(tmp_path / "sheet.jpg")])
    sheet.main()
    assert cv2.imread(str(tmp_path / "sheet.jpg")).shape == whole.shape


def test_the_sheet_stays_small():
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
    sizes = [len(sheet.encode_jpeg(noise, max_count)) for max_count in (1_000_000, 60_000)]
    assert sizes[0] > sizes[1]
    assert sizes[1] < 60_000
    with pytest.raises(ValueError, match=r"expected a JPEG under 10000 bytes, got .*; name fewer packs"):
        sheet.encode_jpeg(noise, 10_000)
