"""Scores of a model on a data set: held against the single calls, and resumed without computing anything twice."""

import json

import numpy as np
import pytest
from PIL import Image

from sam_nb import (
    Prompt,
    Segment,
    bounding_box,
    click_curve,
    compare_scores,
    evaluate,
    iou,
    load_dataset,
    load_ground_truth,
    load_image,
    save_coco,
    show_worst,
)
from sam_nb.datasets.evaluation import Evaluation, ObjectScore


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with two of the samples, one of them upscaled, and their ground truth as COCO."""
    made, records = tmp_path_factory.mktemp("labelled"), []
    for number, (name, keys) in enumerate({"cat": ["nose", "cat"], "street": ["hub", "front_wheel"]}.items()):
        image, ground_truth = load_image(name), load_ground_truth(name)
        Image.fromarray(image).save(made / f"{name}.png")
        segments = [Segment(ground_truth[key], key) for key in keys]
        save_coco(segments, image.shape[:2], made / f"{name}.json", file_name=f"{name}.png")
        record = json.loads((made / f"{name}.json").read_text(encoding="utf-8"))
        (made / f"{name}.json").unlink()
        for key in ("images", "annotations", "categories"):
            for item in record[key]:
                for field in {"id", "image_id", "category_id"} & set(item):
                    item[field] += 100 * number
        records.append(record)
    merged = {key: [*records[0][key], *records[1][key]] for key in records[0] if key != "info"}
    (made / "coco.json").write_text(json.dumps(merged), encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def scored(lite, folder):
    return evaluate(lite, load_dataset(folder))


@pytest.fixture
def counted(lite, monkeypatch):
    """Return the model, and a list that grows with each image that it encodes."""
    encoded, encode = [], type(lite).encode
    monkeypatch.setattr(type(lite), "encode", lambda self, *given: encoded.append(1) or encode(self, *given))
    return lite, encoded


def test_the_scores_are_those_of_the_single_calls(lite, folder, scored):
    dataset, found = load_dataset(folder), scored
    assert found.model == "lite"
    assert len(found.objects) == 4
    for one in dataset.images:
        image, segments, _ = one.read()
        embedding = lite.encode(image)
        scores = [each for each in found.objects if each.image == one.name]
        for score, segment in zip(scores, segments, strict=True):
            assert (score.name, score.area) == (segment.name, np.count_nonzero(segment.mask))
            boxed = lite.decode(embedding, Prompt(box=bounding_box(segment.mask)))
            assert score.box == pytest.approx(iou(boxed.best, segment.mask), abs=1e-4)
            curve = click_curve(lite, embedding, segment.mask, rounds=10)
            assert score.clicks == pytest.approx(curve[: len(score.clicks)], abs=1e-4)
            assert len(score.clicks) == 10 or score.clicks[-1] >= 0.9


def test_an_interrupted_evaluation_resumes(counted, folder, tmp_path):
    lite, encoded = counted
    dataset, out = load_dataset(folder), tmp_path / "scores" / "lite.jsonl"
    first = evaluate(lite, dataset[:1], out=out, max_clicks=5)
    assert len(encoded) == 1
    with out.open("ab") as file:
        file.write(b'{"key": "unfinis')  # killed while it wrote
    both = evaluate(lite, dataset, out=out, max_clicks=5)
    assert len(encoded) == 2
    assert both.objects[: len(first.objects)] == first.objects
    assert evaluate(lite, dataset, out=out, max_clicks=5).objects == both.objects
    assert len(encoded) == 2
    assert [json.loads(line)["key"][:8] for line in out.read_text().splitlines()[1:]]


def test_what_changed_is_computed_again(counted, folder, tmp_path):
    lite, encoded = counted
    dataset, out = load_dataset(folder)[:1], tmp_path / "lite.jsonl"
    evaluate(lite, dataset, out=out, max_clicks=5)
    (one,) = dataset.images
    other = type(one)(one.name, one.path, lambda size: (each for each in [*one.objects(size)][:1]))
    assert len(evaluate(lite, type(dataset)((other,)), out=out, max_clicks=5).objects) == 1
    assert len(encoded) == 2


def test_a_file_of_other_scores_is_left_alone(lite, folder, tmp_path):
    dataset, out = load_dataset(folder)[:1], tmp_path / "lite.jsonl"
    evaluate(lite, dataset, out=out, max_clicks=5)
    before = out.read_bytes()
    with pytest.raises(FileExistsError, match="holds scores of another model, or with other clicks"):
        evaluate(lite, dataset, out=out, max_clicks=6)
    assert out.read_bytes() == before
    for content in (b"text\n", b'{"key": 3}\n', before.replace(b'"objects"', b'"things"')):
        out.write_bytes(content)
        with pytest.raises(FileExistsError, match=r"does not hold scores, or is damaged|of another model"):
            evaluate(lite, dataset, out=out, max_clicks=5)
        assert out.read_bytes() == content


def test_what_cannot_be_read_is_skipped(lite, folder, tmp_path):
    dataset = load_dataset(folder)
    gone = type(dataset[0])("gone.png", tmp_path / "gone.png", dataset[0].objects)
    found = evaluate(lite, type(dataset)((gone, *dataset.images[:1])), max_clicks=5)
    assert [name for name, _ in found.skipped] == ["gone.png"]
    with pytest.raises(ValueError, match=r"no image of Dataset\(1 images\) could be read"):
        evaluate(lite, type(dataset)((gone,)))
    with pytest.raises(ValueError, match="max_clicks: expected an integer, 5 or more"):
        evaluate(lite, dataset, max_clicks=3)


def score(name, box, *clicks):
    return ObjectScore("a.png", name, "thing", 50, box, clicks)


FIRST = (score("one", 0.9, 0.95, 0.95, 0.95, 0.95, 0.95), score("two", 0.5, 0.2, 0.4, 0.6, 0.7, 0.8, 0.86))
SECOND = (score("one", 0.7, 0.5, 0.6, 0.7, 0.7, 0.7, 0.7), score("two", 0.3, 0.1, 0.1, 0.2, 0.2, 0.2, 0.2))


def test_the_table():
    lite, vit_b = Evaluation("lite", FIRST, (), 6), Evaluation("vit_b", SECOND, (), 6)
    assert lite.summary() == pytest.approx(
        {"objects": 2, "box": 0.7, "1 click": 0.575, "3 clicks": 0.775, "5 clicks": 0.875}
        | {"NoC@85": 3.5, "failed@85": 0, "NoC@90": 3.5, "failed@90": 0.5}
    )
    assert vit_b.summary()["NoC@85"] == 6
    assert [one.name for one in lite.worst(1)] == ["two"]
    lines = repr(compare_scores(lite, vit_b)).splitlines()
    assert [line.split()[0] for line in lines] == ["model", "lite", "vit_b"]
    assert lines[1].split()[1:3] == ["2", "0.70"]
    assert compare_scores(lite, vit_b)._repr_html_().count("<td>") == 20
    assert repr(lite).splitlines() == repr(compare_scores(lite)).splitlines()
    other = Evaluation("vit_b", SECOND[:1], (), 6)
    with pytest.raises(ValueError, match="expected evaluations of the same objects"):
        compare_scores(lite, other)


def test_the_worst_are_drawn(lite, folder, scored, monkeypatch):
    import matplotlib.pyplot as plt

    monkeypatch.setattr(plt, "show", lambda: None)
    show_worst(lite, load_dataset(folder), scored, count=2)
    titles = [plt.figure(number).axes[0].get_title(loc="left") for number in plt.get_fignums()][-2:]
    assert titles == [f"{one.image}: {one.name} · IoU {one.box:.2f} · lite" for one in scored.worst(2)]
    plt.close("all")
