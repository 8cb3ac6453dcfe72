"""The mask decoder in steps, to look at what happens between an embedding and a mask.

`Sam.decode` does all of it in one call. Here are the steps that take more than a line of PyTorch, for Meta's models
and for `lite`, whose decoder has a few convolutions more.
"""

import torch

from sam_nb.model.lite import LiteDecoder


def fuse_dense_prompt(decoder, features, dense):
    """Return what the decoder's transformer gets of the picture: the image embedding, with the dense prompt added.

    Parameters
    ----------
    decoder : segment_anything.modeling.MaskDecoder
        `Sam.model.mask_decoder`.
    features : 1x256x64x64 torch.Tensor
        `Embedding.features`.
    dense : PxCx64x64 torch.Tensor
        From the prompt encoder.

    Returns
    -------
    PxCx64x64 torch.Tensor
        C is 256 in Meta's models. `lite` has 128 (the rest of its embedding are fine features for `upscale`), and lets
        the prompt spread to its neighbours by convolutions.
    """
    if isinstance(decoder, LiteDecoder):
        return decoder.fuse_dense_prompt(features, dense)
    return features + dense


def upscale(decoder, cells, features):
    """Return the picture as pixels of the low-res mask, from which the masks are read.

    Parameters
    ----------
    decoder : segment_anything.modeling.MaskDecoder
    cells : PxCx64x64 torch.Tensor
        From the transformer, in the picture's order again.
    features : 1x256x64x64 torch.Tensor
        `Embedding.features`: of use to `lite` only, for sharp borders.

    Returns
    -------
    Px(C/8)x256x256 torch.Tensor
        By two transposed convolutions, each of which doubles the sides.
    """
    if isinstance(decoder, LiteDecoder):
        return decoder.upscale(cells, features)
    return decoder.output_upscaling(cells)


def predicted_iou(decoder, tokens, logits, cells):
    """Return the scores of one prompt's masks.

    Parameters
    ----------
    decoder : segment_anything.modeling.MaskDecoder
    tokens : 1xNxC torch.Tensor
        From the transformer; the first is the one that tells the scores, the next four those of the masks.
    logits : 1x4x256x256 torch.Tensor
        Of the masks.
    cells : 1xCx64x64 torch.Tensor
        From the transformer, in the image's order again.

    Returns
    -------
    1x4 torch.Tensor
        An MLP makes them of the first token. `lite` adds what another one thinks of each mask, having seen what it
        covers and what lies around it.
    """
    scores = decoder.iou_prediction_head(tokens[:, 0])
    if isinstance(decoder, LiteDecoder):
        scores = scores + decoder.mask_score(tokens[:, 1:5], logits, cells)
    return scores


def token_attention(decoder, cells, position, tokens):
    """Return where in the picture each token of one prompt looks.

    Parameters
    ----------
    decoder : segment_anything.modeling.MaskDecoder
    cells : 1xCxHxW torch.Tensor
        From `fuse_dense_prompt`.
    position : 1xCxHxW torch.Tensor
        From ``prompt_encoder.get_dense_pe()``.
    tokens : 1xNxC torch.Tensor

    Returns
    -------
    3x8xNxHxW numpy.ndarray of float32
        The transformer looks three times (in its first layer, in its second, and once more at the end), each time with
        8 heads. What a head of a token gives to all cells sums to 1.
    """
    transformer = decoder.transformer
    looks = [layer.cross_attn_token_to_image for layer in transformer.layers]
    looks.append(transformer.final_attn_token_to_image)
    seen = []

    def see(module, _, given):
        seen.append(attention_weights(module, given["q"], given["k"])[0])

    hooks = [module.register_forward_pre_hook(see, with_kwargs=True) for module in looks]
    try:
        transformer(cells, position, tokens)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(seen).unflatten(-1, cells.shape[-2:]).detach().cpu().numpy()


def attention_weights(attention, queries, keys):
    """Return the weights with which attention mixes its values: the softmax of the scaled products of queries and keys.

    Parameters
    ----------
    attention : segment_anything.modeling.transformer.Attention
    queries : PxNxC torch.Tensor
    keys : PxMxC torch.Tensor

    Returns
    -------
    PxHxNxM torch.Tensor
        For H heads; each row of M sums to 1 (Vaswani et al., "Attention is all you need", 2017, equation 1).
    """
    queries, keys = attention.q_proj(queries), attention.k_proj(keys)
    queries, keys = (each.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for each in (queries, keys))
    return (queries @ keys.transpose(2, 3) / queries.shape[-1] ** 0.5).softmax(dim=-1)
