"""The mask decoder in steps: the base of our decoders, and what happens between an embedding and a mask.

`Sam.decode` takes all steps in one call. Notebook 8 takes them one by one, with the functions of this module, for any
mask decoder: ours, `lite`'s, and `segment_anything`'s as it builds them.
"""

import copy

import numpy as np
import numpy.typing as npt
import torch

from sam_nb.networks.upstream import MaskDecoder, transformer


class SteppedDecoder(MaskDecoder):
    """SAM's mask decoder, each step of `predict_masks` a method that a subclass can replace.

    Shapes: P prompts, B images (P is a multiple of B), N tokens, M = 4 masks, C channels, HxW cells of the embedding.
    P is read from ``shape``: `len` of a tensor would become a constant in an exported graph.
    """

    def predict_masks(
        self,
        image_embeddings: torch.Tensor,
        image_pe: torch.Tensor,
        sparse_prompt_embeddings: torch.Tensor,
        dense_prompt_embeddings: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits PxMx4Hx4W and predicted IoU PxM of all mask tokens, float.

        Parameters
        ----------
        image_embeddings : Bx256xHxW torch.Tensor
            Of one image for all prompts; or, in training, of several with P/B prompts each, one after the other.
        image_pe : 1xCxHxW torch.Tensor
        sparse_prompt_embeddings : PxNxC torch.Tensor
        dense_prompt_embeddings : PxCxHxW torch.Tensor
        """
        output_tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        output_tokens = output_tokens.expand(sparse_prompt_embeddings.shape[0], -1, -1)
        cells = self.fuse_dense_prompt(image_embeddings, dense_prompt_embeddings)
        # Channels last: the transformer makes tokens of the cells, and these are their rows.
        tokens, mixed = self.transformer(
            cells.contiguous(memory_format=torch.channels_last),
            image_pe.contiguous(memory_format=torch.channels_last),
            torch.cat([output_tokens, sparse_prompt_embeddings], dim=1),
        )
        return self.finish(tokens, mixed.transpose(1, 2).unflatten(2, cells.shape[-2:]), image_embeddings)

    def fuse_dense_prompt(self, image_embeddings: torch.Tensor, dense_prompt_embeddings: torch.Tensor) -> torch.Tensor:
        """Return the cells for the transformer, PxCxHxW; 1xCxHxW where they are the same for all prompts."""
        # Without a mask prompt all have the same dense embedding, expanded from one.
        if len(image_embeddings) == 1 and dense_prompt_embeddings.stride(0) == 0:
            return image_embeddings + dense_prompt_embeddings[:1]
        return for_each_prompt(image_embeddings, dense_prompt_embeddings.shape[0]) + dense_prompt_embeddings

    def finish(
        self, tokens: torch.Tensor, cells: torch.Tensor, image_embeddings: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits PxMx4Hx4W and predicted IoU PxM from the transformer's tokens PxNxC and cells PxCxHxW."""
        of_masks = tokens[:, 1 : 1 + self.num_mask_tokens].unbind(1)
        kernels = [mlp(token) for mlp, token in zip(self.output_hypernetworks_mlps, of_masks, strict=True)]
        logits = self.mask_logits(cells, image_embeddings, torch.stack(kernels, dim=1))
        return logits, self.predicted_iou(tokens, logits, cells)

    def mask_logits(self, cells: torch.Tensor, image_embeddings: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
        """Return logits PxMx4Hx4W: the upscaled cells times kernels PxMx(C/8)."""
        return torch.einsum("pmc,pchw->pmhw", kernels, self.upscale(cells, image_embeddings))

    def upscale(self, cells: torch.Tensor, image_embeddings: torch.Tensor) -> torch.Tensor:
        """Return the transformer's cells PxCxHxW as pixels of the low-res masks, Px(C/8)x4Hx4W."""
        return self.output_upscaling(cells)

    def predicted_iou(self, tokens: torch.Tensor, logits: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
        """Return PxM from the transformer's tokens PxNxC and cells PxCxHxW, and the logits PxMx4Hx4W."""
        return self.iou_prediction_head(tokens[:, 0])


def for_each_prompt(x: torch.Tensor, prompts: int) -> torch.Tensor:
    """Return values of B images, Bx..., for each of their prompts: Px..., P/B copies in a row; 1x... where B = 1."""
    return x.repeat_interleave(prompts // len(x), dim=0) if len(x) > 1 else x


def fuse_dense_prompt(decoder: MaskDecoder, features: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
    """Return the image as the decoder's transformer gets it: the image embedding, with the dense prompt added.

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
    return _stepped(decoder).fuse_dense_prompt(features, dense)


def upscale(decoder: MaskDecoder, cells: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Return the image as pixels of the low-res masks; a mask's logits are their products with its kernel.

    Parameters
    ----------
    decoder : segment_anything.modeling.MaskDecoder
    cells : PxCx64x64 torch.Tensor
        From the transformer, in rows and columns again.
    features : 1x256x64x64 torch.Tensor
        `Embedding.features`: used by `lite` only, for sharp borders.

    Returns
    -------
    Px(C/8)x256x256 torch.Tensor
        By two transposed convolutions, each of which doubles the sides.
    """
    return _stepped(decoder).upscale(cells, features)


def predicted_iou(
    decoder: MaskDecoder, tokens: torch.Tensor, logits: torch.Tensor, cells: torch.Tensor
) -> torch.Tensor:
    """Return the predicted IoU of one prompt's masks.

    Parameters
    ----------
    decoder : segment_anything.modeling.MaskDecoder
    tokens : 1xNxC torch.Tensor
        From the transformer: first the IoU token, then the four mask tokens.
    logits : 1x4x256x256 torch.Tensor
        Of the masks.
    cells : 1xCx64x64 torch.Tensor
        From the transformer, in rows and columns again.

    Returns
    -------
    1x4 torch.Tensor
        An MLP computes it from the IoU token. `lite` adds the output of another one for each mask, which gets the
        features that the mask covers and those around it.
    """
    return _stepped(decoder).predicted_iou(tokens, logits, cells)


def token_attention(
    decoder: MaskDecoder, cells: torch.Tensor, position: torch.Tensor, tokens: torch.Tensor
) -> npt.NDArray[np.float32]:
    """Return the attention of one prompt's tokens to the cells of the image.

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
        Of the transformer's three attentions from tokens to image (in its first layer, in its second, and once more at
        the end), each with 8 heads. The weights of a head and a token sum to 1.
    """
    two_way = decoder.transformer
    attentions = [layer.cross_attn_token_to_image for layer in two_way.layers]
    attentions.append(two_way.final_attn_token_to_image)
    weights: list[torch.Tensor] = []

    def on_forward(module: transformer.Attention, _: object, given: dict[str, torch.Tensor]) -> None:
        weights.append(attention_weights(module, given["q"], given["k"])[0])

    hooks = [module.register_forward_pre_hook(on_forward, with_kwargs=True) for module in attentions]
    try:
        two_way(cells, position, tokens)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(weights).unflatten(-1, cells.shape[-2:]).detach().cpu().numpy()


def attention_weights(attention: transformer.Attention, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
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


def _stepped(decoder: MaskDecoder) -> SteppedDecoder:
    """Return the decoder; for `segment_anything`'s own, one with the same layers and our methods."""
    if isinstance(decoder, SteppedDecoder):
        return decoder
    stepped = copy.copy(decoder)  # the layers are shared
    stepped.__class__ = SteppedDecoder
    return stepped
