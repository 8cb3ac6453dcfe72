"""Our attention against upstream's, on the same weights."""

import copy

import pytest
import torch
from segment_anything.modeling import transformer

from sam_nb.attention import DecoderAttention, speed_up
from sam_nb.lite import build_lite


@pytest.mark.parametrize(("queries", "keys"), [(9, 500), (500, 9), (7, 7)])
def test_decoder_attention_equals_upstream_s(queries, keys):
    torch.manual_seed(0)
    theirs = transformer.Attention(embedding_dim=32, num_heads=4, downsample_rate=2)
    ours = copy.deepcopy(theirs)
    ours.__class__ = DecoderAttention
    # Large values: where the softmax is sharp, a wrong scale or a wrong axis shows.
    q, k, v = (5 * torch.randn(2, count, 32) for count in (queries, keys, keys))
    expected = theirs(q, k, v)
    assert expected.std() > 0.1
    torch.testing.assert_close(ours(q, k, v), expected, rtol=1e-5, atol=1e-5)


def test_a_model_that_was_sped_up_has_the_same_weights():
    model = build_lite()
    before = list(model.state_dict())
    assert speed_up(model) is model
    assert list(model.state_dict()) == before
    kinds = {type(module) for module in model.modules()}
    assert DecoderAttention in kinds
    assert transformer.Attention not in kinds
