"""Our mask decoder against upstream's, on the same weights."""

import copy

import pytest
import torch
from segment_anything.modeling import MaskDecoder, transformer

from sam_nb.model.loading import use_fast_layers
from sam_nb.networks.fast_decoder import DecoderAttention, DecoderBlock, FastDecoder, FastLiteDecoder
from sam_nb.networks.lite import CHANNELS as LITE_CHANNELS
from sam_nb.networks.lite import LiteDecoder, build_lite

CHANNELS = 32


@pytest.fixture(scope="module")
def decoder():
    """Return upstream's decoder, small, with weights large enough for sharp softmaxes."""
    torch.manual_seed(0)
    made = MaskDecoder(
        transformer_dim=CHANNELS,
        transformer=transformer.TwoWayTransformer(depth=2, embedding_dim=CHANNELS, num_heads=2, mlp_dim=40),
    )
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made.eval()


def prompted(count, tokens, *, dense):
    """Return a decoder's inputs for an image of 5 x 7 cells."""
    torch.manual_seed(1)
    if dense == "shared":
        dense = torch.randn(1, CHANNELS, 1, 1).expand(count, -1, 5, 7)
    else:
        dense = torch.randn(count, CHANNELS, 5, 7)
    return torch.randn(1, CHANNELS, 5, 7), torch.randn(1, CHANNELS, 5, 7), torch.randn(count, tokens, CHANNELS), dense


# Few tokens, so many that they are no longer fewer than what they replace, and none.
@pytest.mark.parametrize("tokens", [2, 30, 0])
@pytest.mark.parametrize("dense", ["shared", "each its own"])
@pytest.mark.parametrize("count", [1, 3])
def test_the_decoder_equals_upstream_s(decoder, count, tokens, dense):
    given = prompted(count, tokens, dense=dense)
    ours = copy.deepcopy(decoder)
    model = use_fast_layers(torch.nn.ModuleList([ours]))
    assert {FastDecoder, DecoderBlock, DecoderAttention} < {type(module) for module in model.modules()}
    for multimask_output in (False, True):
        with torch.no_grad():
            expected = decoder(*given, multimask_output)
            found = ours(*given, multimask_output)
        assert expected[0].shape == (count, 3 if multimask_output else 1, 20, 28)
        assert expected[0].std() > 0.1
        for mine, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_gradients_are_upstream_s(decoder):
    given = prompted(3, 2, dense="shared")
    ours = use_fast_layers(torch.nn.ModuleList([copy.deepcopy(decoder)]))[0]
    for model in (decoder, ours):
        model.zero_grad()
        masks, scores = model(*given, True)
        (masks.square().mean() + scores.square().mean()).backward()
    for (name, mine), theirs in zip(ours.named_parameters(), decoder.parameters(), strict=True):
        if theirs.grad is None or name.endswith("k_proj.bias"):  # a softmax ignores it
            assert mine.grad is None or theirs.grad.abs().max() < 1e-4
        else:
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def lite_decoder():
    """Return `lite`'s decoder without fast layers, with weights of which each shows in the logits."""
    torch.manual_seed(0)
    made = build_lite().mask_decoder
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.5)
    return made


def lite_prompted(images, count):
    """Return the inputs of `lite`'s decoder for an image of 4 x 8 cells, or for one for each prompt."""
    torch.manual_seed(1)
    cells = (LITE_CHANNELS, 4, 8)
    features, dense = torch.randn(images, 256, 4, 8), torch.randn(count, *cells)
    return features, torch.randn(1, *cells), torch.randn(count, 2, LITE_CHANNELS), dense


@pytest.mark.parametrize(("images", "count"), [(1, 1), (1, 3), (3, 3)])
def test_lite_s_fast_decoder_equals_the_plain_one(lite_decoder, images, count):
    given = lite_prompted(images, count)
    ours = use_fast_layers(torch.nn.ModuleList([copy.deepcopy(lite_decoder)]))[0]
    assert type(ours) is FastLiteDecoder
    assert type(lite_decoder) is LiteDecoder
    with torch.no_grad():
        expected, found = lite_decoder.predict_masks(*given), ours.predict_masks(*given)
    assert expected[0].shape == (count, 4, 16, 32)
    assert expected[0].std() > 0.1
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_gradients_of_lite_s_fast_decoder_are_the_same(lite_decoder):
    given = lite_prompted(1, 2)
    ours = use_fast_layers(torch.nn.ModuleList([copy.deepcopy(lite_decoder)]))[0]
    for model in (lite_decoder, ours):
        model.zero_grad()
        masks, scores = model.predict_masks(*given)
        (masks.square().mean() + scores.square().mean()).backward()
    for (name, mine), theirs in zip(ours.named_parameters(), lite_decoder.parameters(), strict=True):
        if name.endswith("k_proj.bias"):  # a softmax ignores it
            continue
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("queries", "keys"), [(3, 500), (500, 3), (9, 500), (500, 9), (7, 7)])
def test_attention_equals_upstream_s(queries, keys):
    torch.manual_seed(0)
    theirs = transformer.Attention(embedding_dim=32, num_heads=4, downsample_rate=2)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ours = copy.deepcopy(theirs)
    ours.__class__ = DecoderAttention
    # Large values: where the softmax is sharp, a wrong scale or a wrong axis shows.
    q, k, v = (torch.randn(2, count, 32) for count in (queries, keys, keys))
    expected = theirs(q, k, v)
    assert expected.std() > 0.1
    torch.testing.assert_close(ours(q, k, v), expected, rtol=1e-4, atol=1e-5)


def test_what_all_prompts_share_is_computed_once(decoder, monkeypatch):
    ours = use_fast_layers(torch.nn.ModuleList([copy.deepcopy(decoder)]))[0]
    batches = []
    forward = DecoderBlock.forward

    def spy(self, queries, keys, query_pe, key_pe):
        batches.append((len(queries), len(keys), len(key_pe)))
        return forward(self, queries, keys, query_pe, key_pe)

    monkeypatch.setattr(DecoderBlock, "forward", spy)
    with torch.no_grad():
        ours(*prompted(3, 2, dense="shared"), False)
        ours(*prompted(3, 2, dense="each its own"), False)
    assert batches == [(3, 1, 1), (3, 3, 1), (3, 3, 1), (3, 3, 1)]


def test_a_model_with_fast_layers_has_the_same_weights():
    model = build_lite()
    before = list(model.state_dict())
    assert use_fast_layers(model) is model
    assert list(model.state_dict()) == before
    types = {type(module) for module in model.modules()}
    assert DecoderAttention in types
    assert transformer.Attention not in types
