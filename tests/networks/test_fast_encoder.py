"""Our attention against upstream's, on the same weights."""

import copy

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT, image_encoder

from sam_nb.model.loading import set_precision, use_fast_layers
from sam_nb.networks import fast_encoder
from sam_nb.networks.fast_encoder import linear


@pytest.fixture(scope="module")
def encoder():
    """Return upstream's encoder, small, with windows that reach over the edge, and relative positions that matter."""
    torch.manual_seed(0)
    made = ImageEncoderViT(
        img_size=240, embed_dim=48, depth=3, num_heads=3, use_rel_pos=True, window_size=6, global_attn_indexes=(1,)
    )
    for name, parameter in made.named_parameters():
        if "rel_pos" in name or "pos_embed" in name or name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.5)
    return made.eval()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"MAX_SCORES": 6**4, "MAX_TOKENS": 100, "CONVOLVES": True},
        {"MAX_SCORES": 1, "CONVOLVES": False},
        {"BY_ROWS": set(), "CONVOLVES": False},  # as on a graphics card
    ],
    ids=["as it is", "a few rows", "row by row", "fused"],
)
def test_the_encoder_equals_upstream_s(encoder, settings, monkeypatch):
    for name, value in settings.items():
        monkeypatch.setattr(fast_encoder, name, value)
    images = torch.randn(2, 3, 240, 240)
    ours = use_fast_layers(copy.deepcopy(encoder))
    with torch.no_grad():
        expected = encoder(images)
        assert expected.std() > 0.1
        torch.testing.assert_close(ours(images), expected, rtol=1e-4, atol=1e-4)


def test_gradients_are_upstream_s(encoder):
    images = torch.randn(1, 3, 240, 240)
    ours = use_fast_layers(copy.deepcopy(encoder))
    for model in (encoder, ours):
        model.zero_grad()
        model(images).square().mean().backward()
    for mine, theirs in zip(ours.parameters(), encoder.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_vit_b_equals_upstream_s(random_vit_b):
    expected = copy.deepcopy(random_vit_b.image_encoder).eval()
    ours = use_fast_layers(copy.deepcopy(expected))
    types = {type(module) for module in ours.modules()}
    assert not types & {image_encoder.Attention, image_encoder.Block}
    image = torch.randn(1, 3, 1024, 1024)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), expected(image), rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(5, 8), (2, 3, 4, 8)])
def test_linear_equals_the_layer(shape, monkeypatch):
    layer, x = torch.nn.Linear(8, 6), torch.randn(shape)
    for convolves in (False, True):
        monkeypatch.setattr(fast_encoder, "CONVOLVES", convolves)
        torch.testing.assert_close(linear(layer, x), layer(x))


def test_in_bfloat16_the_encoder_is_near_and_its_sums_are_float32(encoder):
    exact = use_fast_layers(copy.deepcopy(encoder))
    model = torch.nn.Module()
    model.image_encoder = use_fast_layers(copy.deepcopy(encoder))
    set_precision(model, torch.bfloat16)
    types = {parameter.dtype for parameter in model.image_encoder.blocks.parameters()}
    assert types == {torch.float32, torch.bfloat16}
    images = torch.randn(1, 3, 240, 240)
    with torch.no_grad():
        expected, found = exact(images), model.image_encoder(images)
    assert found.dtype == torch.float32
    difference = (found - expected).abs().mean() / expected.abs().mean()
    assert 0 < difference < 0.05
