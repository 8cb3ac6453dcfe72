import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from sam_nb.article import ARTICLE_PROMPTS
from sam_nb.figures import score, show, show_box, show_everything, show_mask, show_points, show_row, titled
from sam_nb.images import load_image
from sam_nb.palette import NEGATIVE, POSITIVE
from sam_nb.prompts import Prompt


@pytest.fixture(autouse=True)
def keep_figures(monkeypatch):
    """Keep figures open for the test, and close them after it."""
    monkeypatch.setattr(plt, "show", lambda: None)
    yield
    plt.close("all")


@pytest.fixture
def image(blob):
    return np.full((*blob.shape, 3), 100, np.uint8)


@pytest.fixture
def masks(blob, known_masks):
    bits = np.stack([~blob, blob, blob])
    return known_masks(bits, [0.1, 0.934, 0.5])


def test_every_figure_names_its_model(image, masks, blob):
    show(image, masks)
    assert plt.gca().get_title("left") == "predicted IoU 0.93 · lite"
    show(image, masks, ground_truth=blob, title="1 click")
    assert plt.gca().get_title("left") == "1 click · IoU 1.00 · lite"
    show(image, [masks, masks])
    assert plt.gca().get_title("left") == "lite"
    show(image)
    assert plt.gca().get_title("left") == ""
    score(masks, blob, image)
    assert plt.gca().get_title("left") == "IoU 1.00 · lite"
    score(blob, blob, title="by hand")
    assert plt.gca().get_title("left") == "by hand · IoU 1.00"


def test_show_draws_the_best_mask_and_the_prompt(image, masks, blob):
    show(image, masks, Prompt(points=[(25, 40), (80, 5)], labels=[1, 0], box=(8, 30, 42, 50)))
    axes = plt.gca()
    drawn = axes.images[0].get_array()
    assert (drawn[5, 80] == 100).all()
    assert (drawn[40, 25] != 100).any()
    positive, negative = axes.collections
    assert positive.get_offsets().tolist() == [[25, 40]]
    assert negative.get_offsets().tolist() == [[80, 5]]
    assert np.allclose(positive.get_facecolor()[0, :3] * 255, POSITIVE)
    assert np.allclose(negative.get_facecolor()[0, :3] * 255, NEGATIVE)
    # They differ in shape too, for colour-blind readers.
    assert len(positive.get_paths()[0]) != len(negative.get_paths()[0]) or not np.allclose(
        positive.get_paths()[0].vertices, negative.get_paths()[0].vertices
    )
    assert {patch.get_bbox().bounds for patch in axes.patches} == {(8, 30, 34, 20)}


def test_show_into_axes_of_the_reader(image, masks):
    _, axes = plt.subplots()
    show(image, masks, ax=axes)
    assert len(axes.images) == 1
    assert plt.get_fignums() == [1]


def test_show_draws_a_part(image, masks):
    show(image, masks, around=np.array([10, 20, 50, 45]))
    assert plt.gca().get_xlim() == (10, 50)
    assert plt.gca().get_ylim() == (45, 20)
    show_row(image, masks, around=np.array([10, 20, 50, 45]))
    assert all(axes.get_xlim() == (10, 50) for axes in plt.gcf().axes)
    show(image)
    assert plt.gca().get_xlim() == (-0.5, 89.5)
    assert plt.gca().get_ylim() == (59.5, -0.5)


def test_show_refuses_a_mask_of_another_size(image, blob):
    with pytest.raises(ValueError, match=r"mask and image differ in size: \(60, 89\) and \(60, 90\)"):
        show(image, blob[:, 1:])


def test_show_row_has_a_panel_for_each_mask(image, masks):
    show_row(image, masks, Prompt(points=[(25, 40)]))
    titles = [axes.get_title("left") for axes in plt.gcf().axes]
    assert titles == ["predicted IoU 0.10 · lite", "predicted IoU 0.93 · lite", "predicted IoU 0.50 · lite"]
    show_row(image, [masks, masks], titles=["a", "b"])
    assert [axes.get_title("left")[0] for axes in plt.gcf().axes] == ["a", "b"]
    with pytest.raises(ValueError, match="3 panels, but 3 prompts and 1 titles"):
        show_row(image, masks, titles=["one"])
    with pytest.raises(ValueError, match="0 panels"):
        show_row(image, [])


def test_score_counts_what_is_missing_and_too_much(blob):
    mask = np.roll(blob, 6, axis=1)
    value = score(mask, blob)
    assert value == round(np.count_nonzero(mask & blob) / np.count_nonzero(mask | blob), 2)
    words = [text.get_text() for text in plt.gca().get_legend().get_texts()]
    assert words == [
        f"correct, {np.count_nonzero(blob & mask)} pixels",
        f"missing, {np.count_nonzero(blob & ~mask)} pixels",
        f"too much, {np.count_nonzero(mask & ~blob)} pixels",
    ]


@pytest.mark.parametrize(("aim", "said"), [(0.5, "not yet"), (0.43, "not yet"), (0.42, "reached"), (0.4, "reached")])
def test_score_says_whether_the_aim_is_reached(blob, capsys, aim, said):
    value = score(np.roll(blob, 10, axis=1), blob, aim=aim)
    assert value == 0.42
    assert capsys.readouterr().out == f"{said}: IoU 0.42, aim {aim:.2f}\n"


def test_score_around_a_part_measures_the_whole_mask(blob, capsys):
    mask = np.roll(blob, 6, axis=1)
    mask[0, 80:] = True  # out of sight
    value = score(mask, blob, around=(5, 25, 45, 55))
    assert value == round(np.count_nonzero(mask & blob) / np.count_nonzero(mask | blob), 2)
    assert plt.gca().get_xlim() == (5, 45)
    assert plt.gca().get_ylim() == (55, 25)
    assert capsys.readouterr().out == ""


def test_only_who_reads_pixels_sees_ticks(image, masks):
    show(image)
    assert len(plt.gca().get_xticks()) == 0
    show(image, ticks=True)
    assert len(plt.gca().get_xticks()) > 2


def test_a_title_above_an_image(image):
    plain, other = titled(image, "left"), titled(image, "a longer title")
    height, width = image.shape[:2]
    assert plain.shape == other.shape == (height + 28, width, 3)
    assert np.array_equal(plain[28:], image)
    assert (other[:28] < 128).sum() > (plain[:28] < 128).sum() > 0


def test_score_takes_ground_truth_of_zeros_and_ones(blob):
    mask = np.roll(blob, 6, axis=1)
    score(mask, blob)
    drawn = plt.gca().images[0].get_array()
    score(mask, blob.astype(np.uint8))
    assert np.array_equal(plt.gca().images[0].get_array(), drawn)


def test_the_article_s_helpers_take_what_the_article_passes(blob):
    import torch

    _, axes = plt.subplots()
    show_mask(blob, axes)
    show_mask(blob[None], axes, random_color=True)
    show_mask(torch.from_numpy(blob)[None].numpy(), axes)
    points, box = ARTICLE_PROMPTS["two points"][1].points, ARTICLE_PROMPTS["box"][1].box
    show_points(points, np.array([1, 0]), axes)
    show_box(box, axes)
    show_box(torch.from_numpy(ARTICLE_PROMPTS["first of three boxes"][1].box.copy()), axes)
    blue = axes.images[0].get_array()
    assert np.allclose(blue[40, 25], [30 / 255, 144 / 255, 1, 0.6])
    assert blue[0, 0, 3] == 0
    assert [scatter.get_offsets().tolist() for scatter in axes.collections] == points[:, None].tolist()
    x0, y0, x1, y1 = box
    assert axes.patches[0].get_bbox().bounds == (x0, y0, x1 - x0, y1 - y0)


@pytest.fixture
def forms(tmp_path):
    """Return an image in the forms that `load_image` takes, by name, all of the size of "cat"."""
    image = load_image("cat")
    Image.fromarray(image).save(tmp_path / "cat.png")
    return {
        "a sample": "cat",
        "a path": tmp_path / "cat.png",
        "bytes": (tmp_path / "cat.png").read_bytes(),
        "PIL": Image.fromarray(image),
        "grey": image[..., 0],
        "float": image / 255,
        "RGBA": np.dstack([image, np.full(image.shape[:2], 255, np.uint8)]),
    }


@pytest.mark.parametrize("form", ["a sample", "a path", "bytes", "PIL", "grey", "float", "RGBA"])
def test_every_function_takes_what_load_image_takes(forms, form):
    given, image = forms[form], load_image(forms[form])
    mask = np.zeros(image.shape[:2], bool)
    mask[50:200, 100:300] = True
    records = [{"segmentation": mask, "area": 30000, "point_coords": [[150.0, 90.0]]}]
    draw = {
        "show": show,
        "show with a mask": lambda image: show(image, mask),
        "show_row": lambda image: show_row(image, [mask, mask]),
        "show_everything": lambda image: show_everything(image, records, "lite"),
        "score": lambda image: score(mask, mask, image),
    }
    for name, function in draw.items():
        drawn = []
        for one in (given, image):
            function(one)
            drawn.append(plt.gcf().axes[0].images[0].get_array())
        assert np.array_equal(*drawn), name


def test_the_reader_s_image_is_not_drawn_on(image, blob):
    before = image.copy()
    show(image, blob)
    score(blob, blob, image)
    assert np.array_equal(image, before)


def test_show_everything_counts_the_masks(image, blob):
    show_everything(image, [], "lite")
    assert plt.gca().get_title("left") == "masks: 0 · lite"
    record = {"segmentation": blob, "area": int(blob.sum()), "point_coords": [[25.0, 40.0]]}
    show_everything(image, [record], "lite", title="a grid")
    assert plt.gca().get_title("left") == "a grid · masks: 1 · lite"


def test_score_refuses_an_image_of_another_size(image, blob):
    with pytest.raises(ValueError, match=r"mask and image differ in size: \(60, 90\) and \(60, 89\)"):
        score(blob, blob, image[:, 1:])
    assert not plt.get_fignums()
