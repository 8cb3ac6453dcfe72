import matplotlib.pyplot as plt
import numpy as np
import pytest

from sam_nb.figures import score, show, show_box, show_mask, show_points, show_row
from sam_nb.palette import NEGATIVE, POSITIVE
from sam_nb.prompts import Prompt


@pytest.fixture(autouse=True)
def keep_figures(monkeypatch):
    """Figures stay open to be looked at, and are closed after the test."""
    monkeypatch.setattr(plt, "show", lambda: None)
    yield
    plt.close("all")


@pytest.fixture
def image(blob):
    return np.full((*blob.shape, 3), 100, np.uint8)


@pytest.fixture
def answer(blob, known_masks):
    bits = np.stack([~blob, blob, blob])
    return known_masks(bits, [0.1, 0.934, 0.5])


def test_every_picture_names_its_model(image, answer, blob):
    show(image, answer)
    assert plt.gca().get_title("left") == "predicted IoU 0.93 · lite"
    show(image, answer, ground_truth=blob, title="1 click")
    assert plt.gca().get_title("left") == "1 click · IoU 1.00 · lite"
    show(image, [answer, answer])
    assert plt.gca().get_title("left") == "lite"
    show(image)
    assert plt.gca().get_title("left") == ""
    score(answer, blob, image)
    assert plt.gca().get_title("left") == "IoU 1.00 · lite"
    score(blob, blob, title="by hand")
    assert plt.gca().get_title("left") == "by hand · IoU 1.00"


def test_show_draws_the_best_mask_and_the_prompt(image, answer, blob):
    show(image, answer, Prompt(points=[(25, 40), (80, 5)], labels=[1, 0], box=(8, 30, 42, 50)))
    axes = plt.gca()
    drawn = axes.images[0].get_array()
    assert (drawn[5, 80] == 100).all()
    assert (drawn[40, 25] != 100).any()
    positive, negative = axes.collections
    assert positive.get_offsets().tolist() == [[25, 40]]
    assert negative.get_offsets().tolist() == [[80, 5]]
    assert np.allclose(positive.get_facecolor()[0, :3] * 255, POSITIVE)
    assert np.allclose(negative.get_facecolor()[0, :3] * 255, NEGATIVE)
    # They differ in shape too, for readers who do not see the colours.
    assert len(positive.get_paths()[0]) != len(negative.get_paths()[0]) or not np.allclose(
        positive.get_paths()[0].vertices, negative.get_paths()[0].vertices
    )
    assert {patch.get_bbox().bounds for patch in axes.patches} == {(8, 30, 34, 20)}


def test_show_into_axes_of_the_reader(image, answer):
    _, axes = plt.subplots()
    show(image, answer, ax=axes)
    assert len(axes.images) == 1
    assert plt.get_fignums() == [1]


def test_show_can_come_closer(image, answer):
    show(image, answer, around=(10, 20, 50, 45))
    assert plt.gca().get_xlim() == (10, 50)
    assert plt.gca().get_ylim() == (45, 20)
    show_row(image, answer, around=(10, 20, 50, 45))
    assert all(axes.get_xlim() == (10, 50) for axes in plt.gcf().axes)
    show(image)
    assert plt.gca().get_xlim() == (-0.5, 89.5)
    assert plt.gca().get_ylim() == (59.5, -0.5)


def test_show_refuses_a_mask_of_another_size(image, blob):
    with pytest.raises(ValueError, match=r"differ in size: \(60, 89\) and \(60, 90\)"):
        show(image, blob[:, 1:])


def test_show_row_has_a_panel_for_each_mask(image, answer):
    show_row(image, answer, Prompt(points=[(25, 40)]))
    titles = [axes.get_title("left") for axes in plt.gcf().axes]
    assert titles == ["predicted IoU 0.10 · lite", "predicted IoU 0.93 · lite", "predicted IoU 0.50 · lite"]
    show_row(image, [answer, answer], titles=["a", "b"])
    assert [axes.get_title("left")[0] for axes in plt.gcf().axes] == ["a", "b"]
    with pytest.raises(ValueError, match="3 panels, but 3 prompts and 1 titles"):
        show_row(image, answer, titles=["one"])


def test_score_counts_what_is_missing_and_too_much(blob):
    mask = np.roll(blob, 6, axis=1)
    value = score(mask, blob)
    assert value == round(np.count_nonzero(mask & blob) / np.count_nonzero(mask | blob), 2)
    words = [text.get_text() for text in plt.gca().get_legend().get_texts()]
    assert words == [
        f"missing, {np.count_nonzero(blob & ~mask)} pixels",
        f"too much, {np.count_nonzero(mask & ~blob)} pixels",
    ]


def test_score_takes_truth_of_zeros_and_ones(blob):
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
    show_points(np.array([[500, 375], [184, 359]]), np.array([1, 0]), axes)
    show_box(np.array([44, 160, 1011, 504]), axes)
    show_box(torch.tensor([24, 170, 998, 472]), axes)
    blue = axes.images[0].get_array()
    assert np.allclose(blue[40, 25], [30 / 255, 144 / 255, 1, 0.6])
    assert blue[0, 0, 3] == 0
    assert [scatter.get_offsets().tolist() for scatter in axes.collections] == [[[500, 375]], [[184, 359]]]
    assert axes.patches[0].get_bbox().bounds == (44, 160, 967, 344)
