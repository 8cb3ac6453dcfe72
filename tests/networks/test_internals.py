"""The decoder in steps against the decoder in one call, and attention weights against the attention's output."""

import copy

import numpy as np
import pytest
import torch
from segment_anything.modeling import MaskDecoder, transformer

from sam_nb import Prompt
from sam_nb.model.embeddings import Embedding
from sam_nb.model.loading import use_fast_layers
from sam_nb.model.sam import Sam
from sam_nb.networks.internals import attention_weights, fuse_dense_prompt, predicted_iou, token_attention, upscale

CHANNELS = 32


@pytest.fixture(scope="module", params=["lite", "vit_b", "vit_b as segment_anything has it"])
def sam(request, lite, random_vit_b):
    if request.param == "lite":
        return lite
    theirs = random_vit_b.eval()
    model = type(theirs)(theirs.image_encoder, theirs.prompt_encoder, copy.deepcopy(theirs.mask_decoder)).eval()
    if request.param == "vit_b":
        use_fast_layers(model.mask_decoder)
    return Sam(model, "vit_b", "random")


@pytest.fixture(scope="module")
def embedding(sam):
    """Return random features, as of an image of 300 x 451: no encoder is needed here."""
    torch.manual_seed(0)
    side = sam.model.image_encoder.img_size
    return Embedding(
        torch.randn(1, 256, 64, 64), (300, 451), (round(300 * side / 451), side), sam.name, sam.weights, ""
    )


def steps(sam, embedding, prompt):
    """Return logits 4x256x256 and scores 4, by the steps of the notebook."""
    encoder, decoder = sam.model.prompt_encoder, sam.model.mask_decoder
    scale = embedding.input_size[1] / embedding.original_size[1], embedding.input_size[0] / embedding.original_size[0]
    points = torch.tensor(prompt.points[None] * scale, dtype=torch.float32)
    boxes = None if prompt.box is None else torch.tensor(prompt.box[None] * np.tile(scale, 2), dtype=torch.float32)
    with torch.no_grad():
        sparse, dense = encoder(points=(points, torch.tensor(prompt.labels[None])), boxes=boxes, masks=None)
        output_tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])[None]
        cells = fuse_dense_prompt(decoder, embedding.features, dense)
        tokens, mixed = decoder.transformer(cells, encoder.get_dense_pe(), torch.cat([output_tokens, sparse], dim=1))
        mixed = mixed.transpose(1, 2).reshape(cells.shape)
        pixels = upscale(decoder, mixed, embedding.features)
        mlps = decoder.output_hypernetworks_mlps
        kernels = torch.cat([mlp(token) for mlp, token in zip(mlps, tokens[0, 1:5, None], strict=True)])
        logits = torch.einsum("mc,chw->mhw", kernels, pixels[0])
        return logits.numpy(), predicted_iou(decoder, tokens, logits[None], mixed)[0].numpy()


@pytest.mark.parametrize(
    "prompt",
    [Prompt(points=[(330, 57)]), Prompt(points=[(330, 57), (20, 250)], labels=[1, 0], box=(200, 20, 440, 111))],
    ids=["click", "clicks and box"],
)
def test_the_steps_make_what_decode_makes(sam, embedding, prompt):
    logits, scores = steps(sam, embedding, prompt)
    for multimask_output, chosen in ((True, slice(1, None)), (False, slice(0, 1))):
        masks = sam.decode(embedding, prompt, multimask_output)
        spread = masks.logits.std()
        assert spread > 0
        np.testing.assert_allclose(logits[chosen], masks.logits, atol=1e-4 * spread, rtol=1e-3)
        np.testing.assert_allclose(scores[chosen], masks.scores, atol=1e-5, rtol=1e-4)


def test_attention_weights_are_those_that_mix_the_values():
    torch.manual_seed(0)
    attention = transformer.Attention(embedding_dim=CHANNELS, num_heads=4, downsample_rate=2)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    queries, keys, values = torch.randn(2, 3, CHANNELS), torch.randn(2, 50, CHANNELS), torch.randn(2, 50, CHANNELS)
    weights = attention_weights(attention, queries, keys)
    assert weights.shape == (2, 4, 3, 50)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 3))
    assert weights.std() > 0.01  # sharp enough to tell rows from columns
    mixed = weights @ attention.v_proj(values).unflatten(-1, (4, -1)).transpose(1, 2)
    torch.testing.assert_close(attention.out_proj(mixed.transpose(1, 2).flatten(2)), attention(queries, keys, values))


@pytest.mark.parametrize("fast", [False, True])
def test_token_attention(fast):
    """Three times 8 heads, on a grid that is not square; with the values they give each attention's output."""
    torch.manual_seed(0)
    network = transformer.TwoWayTransformer(depth=2, embedding_dim=CHANNELS, num_heads=8, mlp_dim=40)
    decoder = MaskDecoder(transformer_dim=CHANNELS, transformer=network).eval()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    if fast:
        use_fast_layers(decoder)
    cells, position = torch.randn(2, 1, CHANNELS, 5, 7)
    calls = {}

    def record(name, given, made):
        calls[name] = given, made

    for name, module in decoder.transformer.named_modules():
        if isinstance(module, transformer.Attention):
            module.register_forward_hook(lambda _, args, *more, name=name: record(name, *more), with_kwargs=True)
    with torch.no_grad():
        found = token_attention(decoder, cells, position, torch.randn(1, 6, CHANNELS))
    assert found.shape == (3, 8, 6, 5, 7)
    np.testing.assert_allclose(found.sum(axis=(3, 4)), 1, rtol=1e-5)
    places = ["layers.0.cross_attn_token_to_image", "layers.1.cross_attn_token_to_image", "final_attn_token_to_image"]
    for weights, place in zip(found, places, strict=True):
        module = decoder.transformer.get_submodule(place)
        given, made = calls[place]
        values = module.v_proj(given["v"])[0].unflatten(-1, (8, -1)).transpose(0, 1)
        mixed = (torch.tensor(weights).flatten(2) @ values).transpose(0, 1).flatten(1)
        torch.testing.assert_close(module.out_proj(mixed)[None], made, atol=1e-4, rtol=1e-4)
    assert not any(module._forward_pre_hooks for module in decoder.modules())  # no hook is left
