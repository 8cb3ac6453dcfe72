"""The trainer: one decoder call that matches the library's, clicks where masks are wrong, runs that can be resumed."""

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn

from sam_nb.networks.lite import LOW_RES_STRIDE, STRIDE, build_lite
from training import trainer
from training.corrections import depths, next_clicks
from training.decoding import decode, first_prompts
from training.on_cpu import Depthwise, speed_up_training
from training.train import initial_model
from training.trainer import Config, Trainer, config_of, means

SIDE = 128  # of the network's input: everything as at 512, in a sixteenth of the time
CELLS, LOW_RES = SIDE // STRIDE, int(SIDE / LOW_RES_STRIDE)
TINY = Config(side=SIDE, images=2, prompts=2, rounds=(0, 1), warmup=1, lr=1e-3)


def tiny_batch(seed=0):
    """Return samples of two images with two prompts each, one of every kind: a click, a box, two clicks, both."""
    rng = np.random.default_rng(seed)
    ground_truth = np.zeros((2, 2, 3, LOW_RES, LOW_RES), np.uint8)
    ground_truth[:, :, 0, 10:40, 8:30] = 1
    ground_truth[1, 1, 0, 20:30, 40:60] = 1
    ground_truth[0, 0, 1, 20:30, 10:20] = 1  # the first click could mean a part as well
    points, labels, boxes = np.zeros((2, 2, 3, 2)), np.full((2, 2, 3), -1), np.zeros((2, 2, 4))
    points[0, 0, 0], labels[0, 0, 0] = (30, 50), 1
    boxes[0, 1] = (15, 19, 61, 82)
    points[1, 0, :2], labels[1, 0, :2] = ((30, 50), (90, 100)), (1, 0)
    points[1, 1, 0], labels[1, 1, 0], boxes[1, 1] = (100, 50), 0, (10, 15, 120, 90)
    arrays = {
        "image": rng.integers(0, 255, (2, 3, SIDE, SIDE), np.uint8),
        "size": np.array([[SIDE, 100], [96, SIDE]]),
        "ground_truth": ground_truth,
        "points": points.astype(np.float32),
        "labels": labels.astype(np.float32),
        "boxes": boxes.astype(np.float32),
    }
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def random_model(seed=0):
    """Return `lite` with random weights everywhere, also where it begins with zeros."""
    torch.manual_seed(seed)
    model = build_lite(SIDE)
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    return model


def test_low_res_pixels_lie_where_the_networks_input_has_them():
    run, batch = Trainer(TINY, random_model()), tiny_batch()
    _, valid = run._encode(batch)
    for mask, (height, width) in zip(valid, batch["size"].tolist(), strict=True):
        rows, columns = torch.nonzero(mask, as_tuple=True)
        assert rows.max() * LOW_RES_STRIDE < height <= (rows.max() + 1) * LOW_RES_STRIDE
        assert columns.max() * LOW_RES_STRIDE < width <= (columns.max() + 1) * LOW_RES_STRIDE
        assert mask.sum() == (rows.max() + 1) * (columns.max() + 1)
    ground_truths = torch.zeros(4, LOW_RES, LOW_RES, dtype=torch.bool)
    ground_truths[:, 12, 40] = True
    nothing = torch.full(ground_truths.shape, -1.0)
    prompts = run._correct(
        first_prompts(batch, spare=1),
        nothing,
        slot=3,
        ground_truths=ground_truths,
        valid=torch.ones_like(ground_truths),
        generator=torch.Generator().manual_seed(0),
    )
    # A point is a pixel's index: the centre of pixel 0 is at 0.
    centre = torch.tensor([40.5, 12.5]) * LOW_RES_STRIDE - 0.5
    torch.testing.assert_close(prompts.points[:, 3], centre.expand(4, 2))


def test_padded_prompts_decode_as_each_alone():
    model, batch = random_model(), tiny_batch()
    prompts = first_prompts(batch, spare=2)
    masks = torch.randn(4, 1, LOW_RES, LOW_RES)
    for feedback in (False, True):
        if feedback:
            has_mask = torch.tensor([True, False, True, True])
            prompts = prompts.corrected(3, torch.full((4, 2), 70.0), torch.tensor([1.0, 0, -1, 1]), masks, has_mask)
        embeddings = torch.randn(2, 256, CELLS, CELLS)
        with torch.no_grad():
            logits, predicted = decode(model, embeddings, prompts, torch.float32)
            rounded, _ = decode(model, embeddings, prompts)
            position = model.prompt_encoder.get_dense_pe()
            for row in range(4):
                given = prompts.labels[row] >= 0
                points = (prompts.points[row : row + 1, given], prompts.labels[row : row + 1, given])
                box = prompts.boxes[row : row + 1] if prompts.has_box[row] else None
                mask = masks[row : row + 1] if prompts.has_mask[row] else None
                sparse, dense = model.prompt_encoder(points if given.any() else None, box, mask)
                owner = int(prompts.owner[row])
                expected = model.mask_decoder.predict_masks(embeddings[owner : owner + 1], position, sparse, dense)
                torch.testing.assert_close(logits[row : row + 1], expected[0], atol=1e-4, rtol=1e-4)
                torch.testing.assert_close(predicted[row : row + 1], expected[1], atol=1e-4, rtol=1e-4)
        assert (rounded - logits).norm() < 0.05 * logits.norm()


def test_one_point_or_one_box_is_ambiguous():
    prompts = first_prompts(tiny_batch())
    assert prompts.is_ambiguous.tolist() == [True, True, False, False]
    assert prompts.has_box.tolist() == [False, True, False, True]


def test_depths_are_distances_to_the_border():
    region = np.zeros((40, 50), bool)
    region[5:36, 0:21] = True
    region[15:18, 30:50] = True
    found = depths(torch.from_numpy(region)[None])[0].numpy()
    ys, xs = np.nonzero(region)
    outside = np.argwhere(~np.pad(region, 1)) - 1
    for y, x in zip(ys[::7], xs[::7], strict=True):
        assert found[y, x] == np.abs(outside - (y, x)).max(1).min()
    assert not found[~region].any()


def test_clicks_go_to_what_is_wrong():
    ground_truth = torch.zeros(3, 64, 96, dtype=torch.bool)
    ground_truth[:, 20:50, 10:40] = True
    masks = ground_truth.clone()
    masks[0, 5:15, 60:90] = True  # too much
    masks[1, 20:50, 25:40] = False  # too little, and more of it than of what is too much
    masks[1, 55:60, 80:85] = True
    for seed in range(20):
        points, labels = next_clicks(masks, ground_truth, torch.Generator().manual_seed(seed))
        (x0, y0), (x1, y1), (x2, y2) = points.tolist()
        assert labels.tolist()[::2] == [0, 1]
        assert 60 <= x0 < 90
        assert 5 <= y0 < 15
        assert masks[1, int(y1), int(x1)] != ground_truth[1, int(y1), int(x1)] == bool(labels[1])
        assert ground_truth[2, int(y2), int(x2)]  # nothing is wrong: one more click inside


def test_centred_clicks_go_to_the_deepest_error():
    ground_truth = torch.zeros(1, 64, 96, dtype=torch.bool)
    ground_truth[:, 20:50, 10:40] = True
    points, labels = next_clicks(
        torch.zeros_like(ground_truth), ground_truth, torch.Generator().manual_seed(0), centred=1
    )
    assert labels.tolist() == [1]
    assert (points[0] - torch.tensor([24.5, 34.5])).abs().max() <= 2


def test_no_click_where_there_is_nothing_to_click_on():
    empty = torch.zeros(1, 16, 16, dtype=torch.bool)
    assert next_clicks(empty, empty, torch.Generator().manual_seed(0))[1].tolist() == [-1]


@pytest.mark.parametrize("side", [3, 5, 7])
def test_depthwise_convolutions_are_pytorchs_but_for_rounding(side):
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 16, 20, 13), torch.randn(16, 1, side, side), torch.randn(16)
    gradient = torch.randn(2, 16, 20, 13)
    found, expected = ([tensor.clone().requires_grad_() for tensor in (x, weight, bias)] for _ in range(2))
    made = Depthwise.apply(*found)
    made.backward(gradient.bfloat16())
    wanted = F.conv2d(*expected, padding=side // 2, groups=16)
    wanted.backward(gradient)
    for mine, other in [(made, wanted), *((one.grad, two.grad) for one, two in zip(found, expected, strict=True))]:
        assert (mine - other).norm() < 0.005 * other.norm()


def test_layers_sped_up_compute_the_same():
    pixels = torch.randn(1, 3, 96, SIDE)
    results = []
    for fast in (False, True):
        encoder = random_model().train()
        for module in encoder.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
                torch.manual_seed(module.num_features)
                module.running_var.uniform_(0.5, 1.5)
                module.running_mean.uniform_(-0.5, 0.5)
                nn.init.uniform_(module.weight, 0.5, 1.5)
        if fast:
            speed_up_training(encoder)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=fast):
            made = encoder.image_encoder(pixels)
        made.float().square().mean().backward()
        block = encoder.image_encoder.backbone.blocks[5][1]
        results.append([made, block.conv_dw.weight.grad, block.bn2.weight.grad, block.conv_pw.weight.grad])
    for expected, found in zip(*results, strict=True):
        similarity = F.cosine_similarity(expected.flatten().float(), found.flatten().float(), dim=0)
        assert similarity > 0.995
        assert float(found.norm()) == pytest.approx(float(expected.norm()), rel=0.03)


def losses(run, steps):
    """Take steps, each with a batch of its own, and return their metrics."""
    return [means([run.train_step(tiny_batch(run.step))]) for _ in range(steps)]


def test_a_resumed_run_takes_the_same_steps(tmp_path):
    whole = Trainer(TINY, random_model())
    expected = losses(whole, 4)
    first = Trainer(TINY, random_model())
    found = losses(first, 2)
    torch.save(first.state(), tmp_path / "checkpoint.pt")
    second = Trainer(TINY, random_model(seed=9))
    second.restore(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    assert second.step == 2
    found += losses(second, 2)
    assert found == expected
    for name, value in whole.average.items():
        assert torch.equal(value, second.average[name]), name
    assert expected[0]["loss"] != expected[1]["loss"]


@pytest.mark.parametrize("decaying", [False, True])
def test_a_checkpoint_with_the_earlier_names_of_fields_is_resumed(decaying):
    """Runs that began before the learning rates were called `lr` and `backbone_lr` are not lost."""
    run = Trainer(TINY, random_model())
    losses(run, 1)
    if decaying:
        run.finish(30)
    state = run.state()
    for name, earlier in (("lr", "rate"), ("backbone_lr", "backbone_lr")):
        state["config"][earlier] = state["config"].pop(name)
    resumed = Trainer(TINY, random_model(seed=9))
    resumed.restore(state)
    assert resumed.step == 1
    assert resumed.config == run.config
    assert losses(resumed, 1) == losses(run, 1)


def test_learning_rates_are_constant_until_the_decay_begins_and_end_at_zero():
    run = Trainer(Config(side=SIDE, warmup=10), random_model())
    factors = []
    for step in range(1000):
        run.step = step
        if step == 900:
            run.finish(100)
            run.finish(500)  # it has begun: the same --finish on a resumed run changes nothing
        factors.append(run.lr_factor())
    assert factors[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert set(factors[10:900]) == {1}
    np.testing.assert_allclose(factors[900:], 1 - np.arange(100) / 100)
    resumed = Trainer(Config(side=SIDE, warmup=10), random_model())
    resumed.restore(run.state())
    assert resumed.config.steps == 1000
    assert resumed.lr_factor() == factors[-1]


def test_a_step_learns_and_frozen_stages_stay():
    model = random_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run = Trainer(trainer.replace(TINY, frozen=2), model)
    metrics = losses(run, 1)[0]
    assert {"loss", "point", "box", "several", "click_1", "point_oracle", "iou_error"} == set(metrics)
    assert np.isfinite(list(metrics.values())).all()
    after = model.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    frozen = {name for name in after if ".backbone.conv_stem" in name or ".backbone.blocks.1." in name}
    assert frozen
    assert not changed & frozen
    assert {"image_encoder.context.blocks.0.qkv.weight", "mask_decoder.mask_score.mlp.2.weight"} <= changed
    assert not {name for name in changed if "running" in name}


def test_an_earlier_architectures_weights_are_taken_where_they_fit(tmp_path):
    earlier = build_lite(SIDE).state_dict()
    del earlier["mask_decoder.mask_score.mlp.0.weight"]
    earlier["image_encoder.backbone.conv_stem.weight"] = torch.zeros(16, 3, 3, 3)
    earlier["mask_decoder.iou_token.weight"] = torch.full_like(earlier["mask_decoder.iou_token.weight"], 0.5)
    safetensors.torch.save_file(earlier, tmp_path / "earlier.safetensors")
    torch.manual_seed(1)
    model = initial_model(tmp_path / "earlier.safetensors", None, SIDE, "cpu").state_dict()
    assert (model["mask_decoder.iou_token.weight"] == 0.5).all()
    name = "image_encoder.backbone.blocks.1.0.conv_pw.weight"
    assert not torch.equal(model[name], earlier[name]), "a backbone is taken whole or not at all"


def test_a_command_line_makes_the_config():
    config = config_of({**vars(Config()), "rounds": [0.5, 0.5], "out": "runs"})
    assert config == trainer.replace(Config(), rounds=(0.5, 0.5))
