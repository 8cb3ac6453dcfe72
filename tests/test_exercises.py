"""The exercises can be solved with `lite`, by the solutions that the notebooks fold away."""

import json

import numpy as np
import pytest
from PIL import Image

from sam_nb import (
    Prompt,
    bounding_box,
    click_curve,
    innermost,
    iou,
    load_ground_truth,
    load_image,
    next_click,
    segment_folder,
    synthetic_cells,
)
from sam_nb.article import ARTICLE_PROMPTS
from sam_nb.clicks import with_click

FRONT_WHEEL = Prompt(box=(250, 370, 410, 510))
_, REAR_WHEEL = ARTICLE_PROMPTS["second of three boxes"]

# (notebook and exercise, prompt, what it is compared with, the IoU that the notebook asks for)
SOLUTIONS = [
    ("01.1", Prompt(points=[(334, 438)]), "hub", 0.7),
    ("01.2", Prompt(points=[(516, 326)]), "car", 0.7),
    (
        "02.1",
        Prompt(points=[(500, 375), (428, 233), (329, 430), (896, 388), (848, 220), (558, 218), (104, 371)]),
        "car",
        0.9,
    ),
    ("02.2", Prompt(points=[(352, 481), (300, 400), (380, 340)], labels=[1, 1, 0]), "front_wheel", 0.88),
    ("03.1", REAR_WHEEL, "rear_wheel", 0.85),
    ("04.1", Prompt(box=(301, 401, 378, 482)), "hub", 0.8),
]


@pytest.mark.parametrize(("prompt", "name", "aim"), [s[1:] for s in SOLUTIONS], ids=[s[0] for s in SOLUTIONS])
def test_a_solution_reaches_its_aim(lite, prompt, name, aim):
    embedding = lite.encode(load_image("street"))
    assert iou(lite.decode(embedding, prompt).best, load_ground_truth("street")[name]) >= aim


def test_better_than_the_simulated_user(lite):
    """Exercise 1 of notebook 09: three clicks without logits."""
    embedding, person = lite.encode(load_image("astronaut")), load_ground_truth("astronaut")["person"]
    mine = Prompt(points=[(187, 79), (166, 401), (290, 300)])
    value = iou(lite.decode(embedding, mine).best, person)
    assert value >= 0.85
    assert value > click_curve(lite, embedding, person, rounds=3, feedback=False)[-1]


def test_every_wheel(lite):
    embedding = lite.encode(load_image("street"))
    ground_truth = load_ground_truth("street")
    rear, front = lite.decode_batch(embedding, [REAR_WHEEL, FRONT_WHEEL])
    assert iou(rear.best | front.best, ground_truth["front_wheel"] | ground_truth["rear_wheel"]) > 0.8


def test_a_crop_of_your_own(lite):
    """Exercise 1 of notebook 12: the hub amid nine streets, its mask put back into the large picture."""
    street = load_image("street")
    height, width = street.shape[:2]
    large = np.tile(street, (3, 3, 1))
    hub = np.array((301, 401, 378, 482)) + np.array((width, height, width, height))
    left, top, right, bottom = width + 200, height + 300, width + 480, height + 580
    near = lite.decode(lite.encode(large[top:bottom, left:right]), Prompt(box=hub - [left, top, left, top]))
    whole = np.zeros(large.shape[:2], bool)
    whole[top:bottom, left:right] = near.best
    assert iou(whole[height : 2 * height, width : 2 * width], load_ground_truth("street")["hub"]) >= 0.8


def test_a_prompt_file_in_which_nothing_fails(lite, tmp_path):
    """Exercise 2 of notebook 12."""
    (tmp_path / "images").mkdir()
    for name in ("street", "cat", "coffee"):
        Image.fromarray(load_image(name)).save(tmp_path / "images" / f"{name}.jpg")
    (tmp_path / "images" / "broken.jpg").write_bytes((tmp_path / "images" / "coffee.jpg").read_bytes()[:9000])
    mine = {"*": [{"name": "small window", "box": [720, 209, 772, 258]}]}
    solution = {"coffee.jpg": [{"name": "cup", "box": [172, 18, 409, 309]}], "cat.jpg": [], "broken.jpg": []}
    for prompts, expected in ((mine, ["failed"] * 3 + ["done"]), (mine | solution, ["no prompts"] * 2 + ["done"] * 2)):
        (tmp_path / "mine.json").write_text(json.dumps(prompts), encoding="utf-8")
        table = segment_folder(lite, tmp_path / "images", tmp_path / "mine.json", tmp_path / "mine", overwrite=True)
        assert [row["status"].replace("unchanged", "done") for row in table] == expected


def test_the_cell_that_a_click_does_worst_on(lite):
    """Exercise 1 of notebook 10: the box around it, and a click on what is missing then."""
    cells = synthetic_cells(0, count=8)
    embedding = lite.encode(cells.image)
    clicked = lite.decode_batch(embedding, [Prompt([innermost(mask)]) for mask in cells.masks], multimask_output=True)
    worst = cells.masks[np.argmin([iou(each.best, mask) for each, mask in zip(clicked, cells.masks, strict=True)])]
    box = Prompt(box=bounding_box(worst))
    click = next_click(lite.decode(embedding, box).best, worst)
    assert iou(lite.decode(embedding, with_click(box, click)).best, worst) >= 0.85
