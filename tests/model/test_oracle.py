"""`encode` and `decode` against `segment_anything.SamPredictor` itself: the same, bit for bit."""

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor

from sam_nb import load_image
from sam_nb.model.sam import Sam
from sam_nb.prompts import Prompt


@pytest.fixture(scope="module", params=["lite", "vit_t", "vit_b"])
def pair(request, lite, random_vit_t, random_vit_b):
    """Return our model, an embedding, and upstream's predictor after `set_image`; the image is not square."""
    image = load_image("cat")
    models = {"vit_t": random_vit_t, "vit_b": random_vit_b.eval()}
    sam = lite if request.param == "lite" else Sam(models[request.param], request.param, f"random {request.param}")
    predictor = SamPredictor(sam.model)
    predictor.set_image(image)
    return sam, sam.encode(image), predictor


def previous(predictor):
    """Return the low-res logits of an earlier prompt, 1x256x256."""
    return predictor.predict(np.array([[200, 150]]), np.array([1]), multimask_output=False)[2]


PROMPTS = {
    "point": {"points": [(120, 200)]},
    "points": {"points": [(120, 200), (300.5, 90.25), (10, 10)], "labels": [1, 1, 0]},
    "box": {"box": (37, 21, 311, 250)},
    "point and box": {"points": [(120, 200)], "labels": [0], "box": (37, 21, 311, 250)},
    "mask_input": {"points": [(120, 200)], "mask_input": previous},
    "mask_input alone": {"mask_input": previous},
    "outside": {"points": [(-20, 200), (460, 310)], "labels": [0, 1]},
}


def test_encode_equals_set_image(pair):
    _, embedding, predictor = pair
    assert torch.equal(embedding.features, predictor.features)
    assert embedding.original_size == predictor.original_size
    assert embedding.input_size == predictor.input_size


@pytest.mark.parametrize("multimask_output", [False, True])
@pytest.mark.parametrize("shape", PROMPTS)
def test_decode_equals_predict(pair, shape, multimask_output):
    sam, embedding, predictor = pair
    fields = {name: value(predictor) if callable(value) else value for name, value in PROMPTS[shape].items()}
    prompt = Prompt(**fields)
    ours = sam.decode(embedding, prompt, multimask_output=multimask_output)
    masks, scores, logits = predictor.predict(
        point_coords=np.array(fields["points"]) if "points" in fields else None,
        point_labels=np.array(fields.get("labels", [1])) if "points" in fields else None,
        box=np.array(fields["box"]) if "box" in fields else None,
        mask_input=fields.get("mask_input"),
        multimask_output=multimask_output,
    )
    assert len(ours) == (3 if multimask_output else 1)
    assert ours.bits.dtype == bool
    assert np.array_equal(ours.bits, masks)
    assert np.array_equal(ours.scores, scores)
    assert np.array_equal(ours.logits, logits)
    assert ours.model == sam.name


@pytest.mark.parametrize("multimask_output", [False, True])
def test_decode_many_boxes_equals_predict_torch(pair, multimask_output):
    sam, embedding, predictor = pair
    boxes = [(24, 17, 298, 247), (183, 33, 266, 245), (72, 20, 177, 225)]
    decoded = sam.decode_batch(embedding, [Prompt(box=box) for box in boxes], multimask_output=multimask_output)
    transformed = torch.tensor(predictor.transform.apply_boxes(np.array(boxes), embedding.original_size)).float()
    masks, scores, logits = predictor.predict_torch(None, None, transformed, multimask_output=multimask_output)
    assert np.array_equal(np.stack([ours.bits for ours in decoded]), masks.numpy())
    assert np.array_equal(np.stack([ours.scores for ours in decoded]), scores.numpy())
    assert np.array_equal(np.stack([ours.logits for ours in decoded]), logits.numpy())


def test_decode_many_points_equals_predict_torch(pair):
    sam, embedding, predictor = pair
    points = np.array([[[120.0, 200.0], [30.5, 9.0]], [[200.0, 100.0], [440.0, 290.0]]])
    labels = np.array([[1, 0], [1, 1]])
    prompts = [Prompt(points=p, labels=q) for p, q in zip(points, labels, strict=True)]
    decoded = sam.decode_batch(embedding, prompts)
    transformed = torch.tensor(predictor.transform.apply_coords(points, embedding.original_size)).float()
    masks, _, logits = predictor.predict_torch(transformed, torch.tensor(labels), multimask_output=False)
    assert np.array_equal(np.stack([ours.bits for ours in decoded]), masks.numpy())
    assert np.array_equal(np.stack([ours.logits for ours in decoded]), logits.numpy())


def test_the_predictor_is_ready(pair):
    sam, embedding, predictor = pair
    ours = sam.predictor(embedding)
    point, label = np.array([[120, 200]]), np.array([1])
    for mine, theirs in zip(ours.predict(point, label), predictor.predict(point, label), strict=True):
        assert np.array_equal(mine, theirs)


def test_meta_s_own_numbers_run_unchanged_on_an_image_of_1800_by_1200(lite):
    """The prompts of Meta's predictor example, made for its truck.jpg, through `SamPredictor` on `lite`."""
    image = np.random.default_rng(0).integers(0, 256, (1200, 1800, 3), dtype=np.uint8)
    predictor = SamPredictor(lite.model)
    predictor.set_image(image)
    point, label = np.array([[500, 375]]), np.array([1])
    masks, scores, logits = predictor.predict(point, label, multimask_output=True)
    assert masks.shape == (3, 1200, 1800)
    points = np.array([[500, 375], [1125, 625]])
    for labels in (np.array([1, 1]), np.array([1, 0])):
        refined = predictor.predict(points, labels, mask_input=logits[[scores.argmax()]], multimask_output=False)[0]
        assert refined.shape == (1, 1200, 1800)
    box = np.array([425, 600, 700, 875])
    assert predictor.predict(box=box[None, :], multimask_output=False)[0].shape == (1, 1200, 1800)
    wheel = predictor.predict(np.array([[575, 750]]), np.array([0]), box=box, multimask_output=False)[0]
    assert wheel.shape == (1, 1200, 1800)
    boxes = torch.tensor([[75, 275, 1725, 850], [425, 600, 700, 875], [1375, 550, 1650, 800], [1240, 675, 1400, 750]])
    transformed = predictor.transform.apply_boxes_torch(boxes, image.shape[:2])
    assert predictor.predict_torch(None, None, transformed, multimask_output=False)[0].shape == (4, 1, 1200, 1800)


def test_the_automatic_mask_generator_takes_lite(lite):
    from segment_anything import SamAutomaticMaskGenerator

    records = SamAutomaticMaskGenerator(
        lite.model, points_per_side=4, pred_iou_thresh=0, stability_score_thresh=0
    ).generate(load_image("cat"))
    assert records
    assert records[0]["segmentation"].shape == (300, 451)
