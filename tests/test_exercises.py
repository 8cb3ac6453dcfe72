"""The exercises can be solved with `lite`, by the solutions that the notebooks fold away."""

import pytest

from sam_nb import Prompt, iou, load_image, load_truth

WHEEL = (250, 370, 410, 510)

# (notebook and exercise, prompt, what it is compared with, the IoU that the notebook asks for)
SOLUTIONS = [
    ("01.1", Prompt(points=[(352, 481)]), "front_wheel", 0.7),
    ("01.2", Prompt(points=[(516, 326)]), "car", 0.6),
    (
        "02.1",
        Prompt(points=[(500, 375), (880, 298), (319, 371), (99, 401), (405, 238), (891, 388)]),
        "car",
        0.75,
    ),
    ("02.2", Prompt(points=[(352, 481), (300, 400), (200, 400)], labels=[1, 1, 0]), "front_wheel", 0.8),
    ("03.1", Prompt(box=(830, 338, 966, 458)), "rear_wheel", 0.8),
    ("04.1", Prompt(box=(301, 401, 378, 482)), "hub", 0.8),
]


@pytest.mark.parametrize(("prompt", "name", "aim"), [s[1:] for s in SOLUTIONS], ids=[s[0] for s in SOLUTIONS])
def test_a_solution_reaches_its_aim(lite, prompt, name, aim):
    embedding = lite.encode(load_image("street"))
    assert iou(lite.decode(embedding, prompt).best, load_truth("street")[name]) >= aim


def test_every_wheel(lite):
    embedding = lite.encode(load_image("street"))
    truth = load_truth("street")
    rear, front = lite.decode_many(embedding, [Prompt(box=(830, 338, 966, 458)), Prompt(box=WHEEL)])
    assert iou(rear.best | front.best, truth["front_wheel"] | truth["rear_wheel"]) > 0.8
