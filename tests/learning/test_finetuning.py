"""Fine-tuning moves the mask decoder alone, keeps the best weights whatever happens, and refuses wrong data."""

import copy
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from sam_nb import Prompt, finetune, iou, iou_by_prompt, load_dataset, load_sam, save_weights
from sam_nb.learning import finetuning
from sam_nb.learning.decoder_step import corrected, one_cycle, train_step
from sam_nb.learning.examples import encode_examples, low_res_targets
from sam_nb.learning.losses import prompt_loss
from sam_nb.learning.synthetic import synthetic_cells
from sam_nb.model.loading import use_fast_layers
from sam_nb.model.sam import Sam
from sam_nb.networks.lite import build_lite


def cells(*seeds):
    """Return pairs, a stained image and its map of cells, each a corner of synthetic cells."""
    whole = [synthetic_cells(seed, look="stain", count=8) for seed in seeds]
    return [(each.image[:96, :144], each.labels[:96, :144]) for each in whole]


@pytest.fixture(scope="module")
def small(lite):
    """Return `lite` with a square of 128 pixels: the same weights, a sixteenth of the work."""
    model = build_lite(128)
    model.load_state_dict(lite.model.state_dict())
    return Sam(use_fast_layers(model), "lite", "of lite at 128 pixels")


@pytest.fixture(scope="module")
def run(small, tmp_path_factory):
    """Return a run of 30 steps, and the given model's weights before it."""
    before = copy.deepcopy(small.model.state_dict())
    made = finetune(small, cells(*range(10, 16)), cells(0, 1), steps=30, validate_every=10, lr=1e-3, seed=0)
    return made, before


def moved(before, after):
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def test_the_loss_falls_and_so_do_the_errors_on_other_images(run, small):
    made, _ = run
    assert len(made.losses) == 30
    assert np.mean(made.losses[-8:]) < 0.85 * np.mean(made.losses[:8])
    assert [each["step"] for each in made.validation] == [0, 10, 20, 30]
    test = cells(2, 3)
    before, after = iou_by_prompt(small, test), iou_by_prompt(made.sam, test)
    assert after["point"].mean() + after["box"].mean() > before["point"].mean() + before["box"].mean() + 0.05


def test_only_the_decoder_moves_and_the_given_model_not_at_all(run, small):
    made, before = run
    changed = moved(before, made.sam.model.state_dict())
    assert changed
    assert all(name.startswith("mask_decoder.") for name in changed)
    assert not moved(before, small.model.state_dict())
    assert all(parameter.grad is None for parameter in [*made.sam.model.parameters(), *small.model.parameters()])
    assert not any(module.training for module in made.sam.model.modules())


def test_a_validation_measures_what_the_public_function_measures(run, small):
    made, _ = run
    for sam, found in ((small, made.validation[0]), (made.sam, made.validation[made.best_step // 10])):
        assert {kind: values.mean() for kind, values in iou_by_prompt(sam, cells(0, 1)).items()} == {
            kind: found[kind] for kind in ("point", "box")
        }


def test_a_look_at_each_validation_sees_the_model_of_that_step(small):
    image, box = cells(1)[0][0], Prompt(box=(20, 10, 70, 66))
    embedding, seen = small.encode(image), []

    def look(validation, model):
        seen.append((validation, model.decode(embedding, box).logits))

    settings = {"steps": 4, "batch_size": 1, "validate_every": 2, "lr": 1e-3}
    made = finetune(small, cells(10), cells(0), **settings, on_validation=look)
    assert [validation for validation, _ in seen] == made.validation
    np.testing.assert_array_equal(seen[0][1], small.decode(embedding, box).logits)
    assert not np.array_equal(seen[0][1], seen[1][1])
    best = seen[made.best_step // 2][1]
    np.testing.assert_array_equal(made.sam.decode(made.sam.encode(image), box).logits, best)
    assert finetune(small, cells(10), cells(0), **settings).losses == made.losses, "to look changes nothing"


def test_an_interruption_in_a_look_keeps_the_best_weights(small):
    def look(validation, _):
        if validation["step"]:
            raise KeyboardInterrupt

    made = finetune(small, cells(10), cells(0), steps=4, batch_size=1, validate_every=2, on_validation=look)
    assert (made.ended, len(made.losses)) == ("interrupted", 2)


def test_the_same_seed_gives_the_same_weights(small):
    runs = [finetune(small, cells(10), cells(0), steps=2, batch_size=2, seed=seed).losses for seed in (4, 4, 5)]
    assert runs[0] == runs[1] != runs[2]


def test_an_embedding_is_not_taken_from_one_model_to_the_other(run, small):
    made, _ = run
    image = cells(3)[0][0]
    with pytest.raises(ValueError, match="got one by other weights of lite"):
        made.sam.decode(small.encode(image), Prompt(points=[(50, 40)]))
    with pytest.raises(ValueError, match="got one by other weights of lite"):
        small.decode(made.sam.encode(image), Prompt(points=[(50, 40)]))


def test_a_saved_and_loaded_model_gives_the_same_masks(lite, tmp_path, capsys):
    made = finetune(lite, cells(10), cells(0), steps=1, batch_size=1, rounds=1)
    decoder = made.sam.model.mask_decoder
    with torch.no_grad():  # whatever was learnt in a step, this is another decoder
        decoder.iou_prediction_head.layers[-1].bias += 0.25
    path = tmp_path / "cells.safetensors"
    save_weights(made.sam, path)
    image, box = cells(1)[0][0], Prompt(box=(20, 10, 70, 66))
    for loaded in (load_sam("lite", checkpoint=path, device="cpu"), load_sam(checkpoint=path, device="cpu")):
        assert loaded.name == "lite"
        one, other = (sam.decode(sam.encode(image), box, multimask_output=True) for sam in (made.sam, loaded))
        np.testing.assert_array_equal(one.logits, other.logits)
        np.testing.assert_array_equal(one.bits, other.bits)
        np.testing.assert_array_equal(one.scores, other.scores)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        save_weights(made.sam, path)
    save_weights(lite, path, overwrite=True)
    with pytest.raises(ValueError, match=r"ends in .safetensors"):
        save_weights(lite, tmp_path / "cells.pth")


def test_a_file_has_the_fingerprint_that_its_model_had(lite, tmp_path):
    """So what a fine-tuned model has encoded is found again after it is loaded."""
    made = finetune(lite, cells(10), cells(0), steps=1, batch_size=1, rounds=1)
    save_weights(made.sam, tmp_path / "cells.safetensors")
    loaded = load_sam(checkpoint=tmp_path / "cells.safetensors", device="cpu")
    assert loaded.weights == made.sam.weights != lite.weights
    loaded.decode(made.sam.encode(cells(1)[0][0]), Prompt(points=[(30, 30)]))


@pytest.mark.parametrize("at", ["step", "validation"])
def test_an_interruption_keeps_the_best_weights(small, monkeypatch, at):
    steps, validations, best = [], [], {}
    qualities = iter([0.2, 0.6, 0.4, 0.3])

    def step(sam, *others, **options):
        if at == "step" and len(steps) == 5:
            for parameter in sam.model.mask_decoder.parameters():  # half of a step, and Ctrl-C
                parameter.data.fill_(torch.nan)
            raise KeyboardInterrupt
        steps.append(train_step(sam, *others, **options))
        return steps[-1]

    def measure(sam, examples):
        if at == "validation" and len(validations) == 3:
            raise KeyboardInterrupt
        validations.append(next(qualities))
        if validations[-1] == 0.6:
            best.update(copy.deepcopy(sam.model.state_dict()))
        return {"point": np.array([validations[-1]]), "box": np.array([validations[-1]])}

    monkeypatch.setattr(finetuning, "train_step", step)
    monkeypatch.setattr(finetuning, "measure_ious", measure)
    made = finetune(small, cells(10), cells(0), steps=50, batch_size=1, rounds=1, validate_every=2)
    assert (made.ended, made.best_step, len(made.losses)) == ("interrupted", 2, 5 if at == "step" else 6)
    assert not moved(best, made.sam.model.state_dict())


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 11, np.int64(3)])
def test_any_number_of_steps_is_taken_with_a_learning_rate(steps):
    """`OneCycleLR` divides by zero at ten steps, and a lone step would have a learning rate of nearly zero."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([weight])
    schedule = one_cycle(optimizer, 0.1, int(steps))
    lrs = []
    for _ in range(steps):
        lrs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert max(lrs) > 0.04
    assert max(lrs) <= 0.1
    assert len(lrs) == 1 or lrs[-1] < 0.01


def test_ten_steps(small):
    assert len(finetune(small, cells(10), cells(0), steps=10, batch_size=1, rounds=1).losses) == 10


def test_a_run_that_diverges_gives_its_best_weights_and_says_why(small):
    before = copy.deepcopy(small.model.state_dict())
    made = finetune(small, cells(10), cells(0), steps=30, batch_size=2, rounds=2, lr=1e9, validate_every=30)
    assert re.fullmatch(r"diverged in step \d+: the loss is (nan|inf); try a lower lr", made.ended)
    assert (made.best_step, [each["step"] for each in made.validation]) == (0, [0])
    assert np.isfinite(made.losses).all()
    assert not moved(before, made.sam.model.state_dict())
    assert made.ended in repr(made)


def test_weights_that_were_better_before_a_run_diverged_are_kept(small, monkeypatch):
    qualities, best = iter([0.2, 0.6, 0.4]), {}

    def step(sam, *others, **options):
        loss = train_step(sam, *others, **options)
        return loss if next(left) else float("inf")

    def measure(sam, examples):
        quality = next(qualities)
        if quality == 0.6:
            best.update(copy.deepcopy(sam.model.state_dict()))
        return {"point": np.array([quality]), "box": np.array([quality])}

    left = iter([1, 1, 1, 1, 0])
    monkeypatch.setattr(finetuning, "train_step", step)
    monkeypatch.setattr(finetuning, "measure_ious", measure)
    made = finetune(small, cells(10), cells(0), steps=50, batch_size=1, rounds=1, validate_every=2)
    assert (made.ended, made.best_step) == ("diverged in step 5: the loss is inf; try a lower lr", 2)
    assert len(made.losses) == 4
    assert not moved(best, made.sam.model.state_dict())


@pytest.mark.parametrize("name", ["steps", "batch_size", "rounds", "validate_every", "patience", "seed"])
@pytest.mark.parametrize("value", [-1, 2.5, "2", None, True])
def test_odd_numbers_are_refused_at_the_door(name, value):
    with pytest.raises(ValueError, match=f"{name}: expected an integer, [01] or more, got"):
        finetune(None, None, None, **{name: value})


@pytest.mark.parametrize("value", [0, -1e-3, np.nan, np.inf, "1e-3", None])
def test_an_odd_learning_rate_is_refused_at_the_door(value):
    with pytest.raises(ValueError, match="lr: expected a finite number, above 0, got"):
        finetune(None, None, None, lr=value)


def test_an_interruption_before_anything_is_known_is_an_interruption(small, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(finetuning, "measure_ious", interrupted)
    with pytest.raises(KeyboardInterrupt):
        finetune(small, cells(10), cells(0))


def test_it_stops_when_nothing_gets_better(small, monkeypatch):
    values = iter([0.5, 0.6, 0.6, 0.55, 0.59, 0.9])
    monkeypatch.setattr(
        finetuning, "measure_ious", lambda *_: dict.fromkeys(("point", "box"), np.array([next(values)]))
    )
    monkeypatch.setattr(finetuning, "train_step", lambda _, __, optimizer, **___: optimizer.step() or 1.0)
    made = finetune(small, cells(10), cells(0), steps=50, validate_every=3, patience=3)
    assert (made.best_step, len(made.losses), made.ended) == (3, 12, "no better in 3 validations")
    assert repr(made) == (
        "Finetuned(lite: point 0.50 -> 0.60, box 0.50 -> 0.60 on the validation images, step 3; "
        "no better in 3 validations)"
    )


@pytest.mark.parametrize("side", [128, 160])
def test_the_ground_truth_lies_on_the_grid_where_upstream_reads_its_logits(small, monkeypatch, side):
    """Upscaled as `Sam.postprocess_masks` upscales logits, the grid is the mask again; a cell's pixel lies in it.

    At 160 a cell is 2.5 pixels wide.
    """
    monkeypatch.setattr(small.model.image_encoder, "img_size", side)
    for pair in (*cells(4, 5), (cells(4)[0][0].swapaxes(0, 1).copy(), cells(4)[0][1].T)):
        (targets,) = low_res_targets(small, encode_examples(small, [pair], "train"), "train")
        assert targets.ground_truth.shape[1:] == small.model.prompt_encoder.mask_input_size
        example = targets.example
        logits = (2 * targets.ground_truth.float() - 1)[:, None]
        embedding = example.embedding
        again = small.model.postprocess_masks(logits, embedding.input_size, embedding.original_size)[:, 0] > 0
        values = [iou(one.numpy(), other) for one, other in zip(again, example.masks(), strict=True)]
        assert min(values) > 0.75  # slivers at the edge of the image among them
        assert np.median(values) > 0.9
        assert not targets.ground_truth[:, targets.shape[0] :].any()
        assert not targets.ground_truth[:, :, targets.shape[1] :].any()
        for grid, mask in zip(targets.ground_truth.numpy(), example.masks(), strict=True):
            rows, columns = np.nonzero(grid)
            pixels = np.rint([targets.pixel(cell) for cell in zip(columns, rows, strict=True)]).astype(int)
            assert pixels.min() >= 0
            inside = mask[pixels[:, 1].clip(max=mask.shape[0] - 1), pixels[:, 0].clip(max=mask.shape[1] - 1)]
            assert inside.mean() > 0.9


def test_a_corrective_click_lies_in_the_largest_error_of_the_image(small):
    (targets,) = low_res_targets(small, encode_examples(small, cells(4), "train"), "train")
    example = targets.example
    rng = np.random.default_rng(0)
    chosen = int(np.argmax([np.count_nonzero(mask) for mask in example.masks()]))
    ground_truth, mask = targets.ground_truth[chosen].numpy(), example.masks()[chosen]
    first = Prompt(box=(1, 2, 3, 4))
    for logits, label in (
        (np.full(ground_truth.shape, -3, np.float32), 1),
        (np.full(ground_truth.shape, 3, np.float32), 0),
    ):
        prompt = corrected(targets, first, logits, ground_truth, rng)
        column, row = np.rint(prompt.points[0]).astype(int)
        assert prompt.labels.tolist() == [label]
        assert mask[row, column] == bool(label)
        np.testing.assert_array_equal(prompt.mask_input[0], logits)
        np.testing.assert_array_equal(prompt.box, first.box)
    # Where nothing is wrong the user clicks once more inside.
    prompt = corrected(targets, first, np.where(ground_truth, 3, -3).astype(np.float32), ground_truth, rng)
    assert prompt.labels.tolist() == [1]


def test_the_faster_decoder_has_upstream_s_gradients(random_vit_b):
    torch.manual_seed(1)
    upstream = random_vit_b.mask_decoder
    ours = use_fast_layers(copy.deepcopy(upstream))
    features, position = torch.randn(1, 256, 64, 64), torch.randn(1, 256, 64, 64)
    sparse, dense = torch.randn(2, 3, 256), torch.randn(1, 256, 1, 1).expand(2, -1, 64, 64)
    ground_truth = torch.zeros(2, 256, 256)
    ground_truth[0, 40:90, 100:220] = ground_truth[1, 150:200, 10:60] = 1
    gradients = []
    for decoder in (upstream, ours):
        logits, predicted = decoder.predict_masks(features, position, sparse, dense)
        prompt_loss(logits, predicted, ground_truth, torch.ones_like(ground_truth), True)[0].mean().backward()
        gradients.append([parameter.grad for parameter in decoder.parameters()])
        decoder.zero_grad(set_to_none=True)
    largest = max(gradient.abs().max().item() for gradient in gradients[0] if gradient is not None)
    assert largest > 1e-3
    for one, other in zip(*gradients, strict=True):
        if other is None:  # a bias that adds the same to all scores of a softmax: nothing but rounding upstream, too
            assert one is None or one.abs().max() < 1e-6 * largest
        else:
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6 * largest)


def test_meta_s_vit_b_learns_just_the_same(random_vit_b):
    model = copy.deepcopy(random_vit_b)
    del model.image_encoder.blocks[1:]  # eleven of twelve, which would only take their time
    sam = Sam(use_fast_layers(model), "vit_b", "random")
    before = copy.deepcopy(model.state_dict())
    made = finetune(sam, cells(10), cells(0), steps=2, batch_size=2, lr=1e-3)
    changed = moved(before, made.sam.model.state_dict())
    assert not moved(before, model.state_dict())
    assert len(made.losses) == 2
    if made.best_step:
        assert changed
    assert all(name.startswith("mask_decoder.") for name in changed)


def test_pairs_of_one_image_share_its_embedding(small, monkeypatch):
    image, labels = cells(10)[0]
    numbers = np.unique(labels)[1:3]
    encoded = []
    encode = Sam.encode
    monkeypatch.setattr(Sam, "encode", lambda self, image: encoded.append(1) or encode(self, image))
    examples = encode_examples(small, [(image, labels == number) for number in numbers], "train")
    assert examples[0].embedding is examples[1].embedding
    together = iou_by_prompt(small, [(image, np.where(np.isin(labels, numbers), labels, 0))])
    alone = iou_by_prompt(small, [(image, labels == number) for number in numbers])
    np.testing.assert_allclose(together["box"], alone["box"], atol=1e-3)
    assert len(together["point"]) == 2


IMAGE, LABELS = cells(10)[0]


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([], "train is empty"),
        ([IMAGE], r"train\[0\]: expected a pair, \(image, mask\), got ndarray"),
        ([(IMAGE, LABELS), (IMAGE / 300.0 - 1, LABELS)], r"train\[1\]: .*\[0, 1\]"),
        ([(IMAGE, LABELS.T)], r"train\[0\]: the mask is \(144, 96\), the image \(96, 144\) .*: transpose it, mask.T"),
        ([(IMAGE, LABELS[:50])], r"the mask is \(50, 144\), .*: give it in the image's size"),
        (
            [(IMAGE, IMAGE)],
            r"train\[0\], mask: expected one mask, HxW, got the shape \(96, 144, 3\), .* several colours",
        ),
        ([(IMAGE, LABELS * 0)], r"train\[0\]: the mask is empty, .*; leave the pair out"),
        ([(IMAGE, LABELS / 9)], r"expected a mask of bool, or of integers .*, got float64; .*`> 0.5`"),
        (
            [(IMAGE, np.where(LABELS > 0, LABELS.astype(int), -1))],
            r"train\[0\], mask: .* got -1, .*such as -1, is background",
        ),
        ([(IMAGE, np.eye(96, 144, dtype=int) * (np.arange(144) == 5))], r"object 1 covers 1 pixels, too few"),
    ],
    ids=["none", "no pair", "no image", "transposed", "cut", "colours", "empty", "shares", "ignored", "tiny"],
)
def test_wrong_data_is_refused_before_training(small, pairs, words):
    with pytest.raises(ValueError, match=words):
        finetune(small, pairs, cells(0))


def test_objects_that_are_too_small_are_left_out_and_named(small):
    (image, labels), other = cells(10)[0], cells(11)[0]
    labels = labels.copy()
    labels[5, 7] = 200
    dots = np.zeros_like(labels)
    dots[8, 9] = dots[50, 90] = 1
    examples = encode_examples(small, [(image, labels), (image, dots), other], "train")
    with pytest.warns(
        UserWarning, match=r"2 objects are left out, the first being train\[0\]: object 200 covers 1 pix"
    ):
        targets = low_res_targets(small, examples, "train")
    assert [len(each.ground_truth) for each in targets] == [len(np.unique(labels)) - 2, len(examples[2].numbers)]
    assert 200 not in targets[0].example.numbers
    assert all(len(each.example.numbers) == len(each.ground_truth) for each in targets)


def test_a_data_set_is_read_from_its_files_and_not_kept(small, tmp_path):
    for number, (image, labels) in enumerate(cells(10, 11, 0)):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
        Image.fromarray(labels.astype(np.uint8)).save(tmp_path / f"{number}_mask.png")
    dataset = load_dataset(tmp_path)
    by_files = finetune(small, dataset[:2], dataset[2:], steps=2, rounds=1, seed=1)
    by_arrays = finetune(small, cells(10, 11), cells(0), steps=2, rounds=1, seed=1)
    assert by_files.losses == by_arrays.losses
    with pytest.raises(ValueError, match="validation is empty"):
        finetune(small, dataset[:2], dataset[3:])


@pytest.mark.parametrize("quality", [50, 75, 95])
def test_a_grey_image_of_a_mask_is_one_object(small, quality):
    mask = np.unique(LABELS)[1] == LABELS
    file = io.BytesIO()
    Image.fromarray(mask * np.uint8(255)).save(file, "JPEG", quality=quality)
    jpeg, (example,) = np.asarray(Image.open(file)), encode_examples(small, [(IMAGE, mask)], "pairs")
    (same,) = encode_examples(small, [(IMAGE, jpeg)], "pairs")
    assert same.numbers.tolist() == [True]
    np.testing.assert_array_equal(same.masks(), example.masks())
    assert iou_by_prompt(small, [(IMAGE, jpeg)])["box"].shape == (1,)


def test_a_border_to_ignore_is_not_learnt_without_a_word(small):
    labels = np.where(LABELS > 0, 1, 0)
    labels[:4] = 255
    with pytest.warns(UserWarning, match=r"pairs\[0\]: 255 counts as one of 2 objects.*VOC") as seen:
        iou_by_prompt(small, [(IMAGE, labels)])
    assert [warning.filename for warning in seen] == [__file__]


def test_a_missing_image_is_named(small):
    with pytest.raises(FileNotFoundError, match=r"validation\[0\]: .*nowhere.png"):
        finetune(small, cells(10), [("nowhere.png", LABELS)])


def test_an_image_may_not_be_in_both_sets(small):
    (image, labels), other = cells(10)[0], cells(0)[0]
    first, second = np.unique(labels)[1:3]
    with pytest.raises(ValueError, match=r"validation\[1\]: this image is in train, too"):
        finetune(small, [(image, labels == first)], [other, (image, labels == second)])
