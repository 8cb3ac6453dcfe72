"""U-Net learns the classes it is trained on, and predicts no others."""

import numpy as np
import pytest
import torch

from sam_nb.learning.unet import UNet, train_unet
from sam_nb.masks import iou


def labelled(seed, size=(48, 72)):
    """Return a noisy image and its class map: a reddish disc (1) and a bluish square (2), at random places."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    classes = np.zeros(size, int)
    left, middle = rng.uniform(12, size[1] / 2 - 12), rng.uniform(12, size[0] - 12)
    classes[np.hypot(x - left, y - middle) < 9] = 1
    right, middle = rng.uniform(size[1] / 2 + 10, size[1] - 10), rng.uniform(10, size[0] - 10)
    classes[np.maximum(abs(x - right), abs(y - middle)) < 8] = 2
    colors = np.array([(120, 120, 120), (170, 100, 100), (100, 100, 170)])
    return (colors[classes] + rng.normal(0, 20, (*size, 3))).clip(0, 255).astype(np.uint8), classes


PAIRS = [labelled(seed) for seed in range(6)]


@pytest.fixture(scope="module")
def trained():
    return train_unet(PAIRS, 2, steps=90, batch_size=3, width=8, seed=1)


def test_it_learns_its_classes(trained):
    for number in (1, 2):
        values = []
        for seed in range(100, 106):
            image, classes = labelled(seed)
            values.append(iou(trained.predict(image) == number, classes == number))
        assert np.mean(values) > 0.8, number


def test_it_predicts_a_class_for_each_pixel_of_an_image_of_any_size(trained):
    predicted = trained.predict(labelled(0, (61, 83))[0])
    assert predicted.shape == (61, 83)
    assert set(np.unique(predicted)) <= {0, 1, 2}
    assert UNet(3, width=4)(torch.zeros(2, 3, 17, 35)).shape == (2, 4, 17, 35)


def test_a_seed_is_a_network(trained):
    again, other = (train_unet(PAIRS, 2, steps=2, batch_size=2, width=4, seed=seed).state_dict() for seed in (1, 2))
    once_more = train_unet(PAIRS, 2, steps=2, batch_size=2, width=4, seed=1).state_dict()
    assert all(torch.equal(again[name], once_more[name]) for name in again)
    assert not all(torch.equal(again[name], other[name]) for name in again)


def test_each_step_can_be_looked_at_without_changing_what_is_learned():
    looks = []

    def look(step, loss, unet):
        looks.append((step, loss, unet.training, unet.predict(PAIRS[0][0])))

    watched = train_unet(PAIRS, 2, steps=4, batch_size=2, width=4, seed=1, on_step=look)
    alone = train_unet(PAIRS, 2, steps=4, batch_size=2, width=4, seed=1).state_dict()
    assert [step for step, *_ in looks] == [1, 2, 3, 4]
    assert all(loss > 0 and not training for _, loss, training, _ in looks)
    assert np.array_equal(looks[-1][3], watched.predict(PAIRS[0][0]))
    assert all(torch.equal(value, alone[name]) for name, value in watched.state_dict().items())


def test_its_shape_is_the_paper_s():
    """Four halvings, channels that double, two 3x3 convolutions a level, and as many skip connections as halvings."""
    unet = UNet(classes=1, width=64)
    convolutions = [module for module in unet.modules() if isinstance(module, torch.nn.Conv2d)]
    assert [c.out_channels for c in convolutions if c.kernel_size == (3, 3)] == [
        *(64, 64, 128, 128, 256, 256, 512, 512, 1024, 1024),
        *(512, 512, 256, 256, 128, 128, 64, 64),
    ]
    up = [module for module in unet.modules() if isinstance(module, torch.nn.ConvTranspose2d)]
    assert [(u.in_channels, u.out_channels) for u in up] == [(1024, 512), (512, 256), (256, 128), (128, 64)]


def test_skip_connections_carry_what_the_bottom_lost():
    """With nothing coming up from below, fine detail still reaches the output."""
    torch.manual_seed(0)
    unet = UNet(classes=1, width=4).eval()
    for upscale in unet.upsampling:
        torch.nn.init.zeros_(upscale.weight)
        torch.nn.init.zeros_(upscale.bias)
    x = torch.rand(1, 3, 32, 48)
    changed = x.clone()
    changed[..., 9, 31] += 1
    rows, columns = torch.nonzero((unet(changed) - unet(x)).abs().sum(1)[0], as_tuple=True)
    assert len(rows)
    assert (rows - 9).abs().max() <= 4  # two convolutions on the way down, two on the way up
    assert (columns - 31).abs().max() <= 4


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([], "no pairs"),
        ([(PAIRS[0][0], PAIRS[0][1].T)], r"pair 0: the image is \(48, 72\) and its class map \(72, 48\)"),
        ([PAIRS[0], labelled(1, (40, 72))], r"pair 1: the image is \(40, 72\).* \(48, 72\) \(height, width\)"),
        ([(PAIRS[0][0], PAIRS[0][1] + 1)], r"pair 0: expected classes 0 to 2, got \[1, 2, 3\]"),
    ],
)
def test_mistakes_are_refused(pairs, words):
    with pytest.raises(ValueError, match=words):
        train_unet(pairs, 2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "steps: expected an integer, 1 or more, got 0"),
        ({"batch_size": 1.5}, "batch_size: expected an integer"),
        ({"width": 0}, "width: expected an integer"),
        ({"seed": -1}, "seed: expected an integer, 0 or more"),
        ({"lr": float("nan")}, "lr: expected a finite number, above 0"),
        ({"lr": 1e30, "steps": 4}, r"the training diverged: the loss is (nan|inf); try a lower lr than 1e\+30"),
    ],
)
def test_odd_arguments_are_refused_by_name(options, words):
    with pytest.raises(ValueError, match=words):
        train_unet(PAIRS[:1], 2, **{"width": 2} | options)


def test_ten_steps_are_as_good_a_number_as_any():
    for steps in (1, 10):
        train_unet(PAIRS[:1], 2, steps=steps, batch_size=1, width=2)
