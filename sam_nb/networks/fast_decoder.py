"""`segment_anything`'s mask decoder, computed faster: the same numbers but for rounding.

A prompt is a handful of tokens, the image thousands of cells. Upstream projects every cell four times in each layer
before it attends to the tokens; here the tokens take the projections on themselves, which takes less than half of the
multiplications and hardly any memory. What several prompts for one image have in common is computed once.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from sam_nb.networks.internals import SteppedDecoder, for_each_prompt
from sam_nb.networks.lite import CHANNELS, FINE_CHANNELS, LiteDecoder
from sam_nb.networks.upstream import transformer


class DecoderAttention(transformer.Attention):
    """Attention between a handful of prompt tokens and the thousands of cells of the image embedding.

    A score is (Wq x + b) . Wk y. This equals (Wq x + b) Wk . y: so whichever of x and y are the tokens can take the
    other's projection on itself. The same holds for the values: a sum of projections is the projection of the sum. With
    so many tokens that they, times the heads, are more than the channels inside, nothing is gained.
    """

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Return what `segment_anything.modeling.transformer.Attention` returns.

        Parameters
        ----------
        q : PxNxC torch.Tensor of float32
        k, v : PxMxC torch.Tensor of float32
            Where P is 1 in some of them, they are the same for all prompts.

        Returns
        -------
        PxNxC torch.Tensor of float32
        """
        tokens, cells = sorted((q.shape[1], k.shape[1]))
        if tokens == cells or tokens * self.num_heads > self.internal_dim:
            return super().forward(q, k, v)
        return self._token_to_image(q, k, v) if q.shape[1] == tokens else self._image_to_token(q, k, v)

    def _token_to_image(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        channels = self.internal_dim // self.num_heads
        queries = (channels**-0.5 * self.q_proj(q)).unflatten(-1, (self.num_heads, channels))
        # The keys' bias adds the same to all scores of a token, which a softmax ignores.
        queries = torch.einsum("pnhd,hdc->phnc", queries, self._by_head(self.k_proj.weight)).flatten(1, 2)
        weights = (queries @ k.transpose(1, 2)).softmax(dim=-1)
        mixed = (weights @ v).unflatten(1, (self.num_heads, -1))
        mixed = torch.einsum("phnc,hdc->pnhd", mixed, self._by_head(self.v_proj.weight)).flatten(2)
        return self.out_proj(mixed + self.v_proj.bias)

    def _image_to_token(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        channels = self.internal_dim // self.num_heads
        keys = (channels**-0.5 * self.k_proj(k)).unflatten(-1, (self.num_heads, channels))
        bias = torch.einsum("pnhd,hd->phn", keys, self._by_head(self.q_proj.bias)).flatten(1)
        keys = torch.einsum("pnhd,hdc->phnc", keys, self._by_head(self.q_proj.weight)).flatten(1, 2)
        scores = (keys @ q.transpose(1, 2)).add_(bias[..., None]).unflatten(1, (self.num_heads, -1))
        # One pass over rows of cells takes all softmaxes at once, where upstream has thousands of a handful of numbers.
        weights = scores.softmax(dim=2).flatten(1, 2)
        values = self.v_proj(v).unflatten(-1, (self.num_heads, channels))
        values = torch.einsum("pnhd,hdc->phnc", values, self._by_head(self.out_proj.weight.T))
        # The weights of a head sum to 1, so its values can bring the bias along.
        return weights.transpose(1, 2) @ (values + self.out_proj.bias / self.num_heads).flatten(1, 2)

    def _by_head(self, parameter: torch.Tensor) -> torch.Tensor:
        return parameter.unflatten(0, (self.num_heads, -1))


class DecoderBlock(transformer.TwoWayAttentionBlock):
    """A layer of the decoder's transformer: tokens attend to each other and to the cells, then the cells to them."""

    def forward(
        self, queries: torch.Tensor, keys: torch.Tensor, query_pe: torch.Tensor, key_pe: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what `segment_anything.modeling.transformer.TwoWayAttentionBlock` returns.

        Parameters
        ----------
        queries, query_pe : PxNxC torch.Tensor of float32
            The tokens.
        keys, key_pe : PxMxC or 1xMxC torch.Tensor of float32
            The cells; 1xMxC where they are the same for all prompts.

        Returns
        -------
        (PxNxC torch.Tensor, PxMxC torch.Tensor)
        """
        if self.skip_first_layer_pe:
            queries = self.self_attn(q=queries, k=queries, v=queries)
        else:
            placed = queries + query_pe
            queries = queries + self.self_attn(q=placed, k=placed, v=queries)
        queries = self.norm1(queries)
        cells = keys + key_pe
        queries = queries + self.cross_attn_token_to_image(q=queries + query_pe, k=cells, v=keys)
        queries = self.norm2(queries)
        queries = self.norm3(queries + self.mlp(queries))
        keys = keys + self.cross_attn_image_to_token(q=cells, k=queries + query_pe, v=queries)
        return queries, self.norm4(keys)


class FastDecoder(SteppedDecoder):
    """Meta's mask decoder: its transposed convolutions are matrix products."""

    def mask_logits(self, cells: torch.Tensor, image_embeddings: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
        """Return logits PxMx4Hx4W: cells PxCxHxW upscaled by `output_upscaling`, times kernels PxMxD.

        A transposed convolution of 2 x 2 pixels with stride 2 makes four pixels of each by four matrices. Everything
        after it treats each pixel by itself, so only the logits need to be put where they belong.
        """
        first, norm, act, second, last_act = self.output_upscaling
        height, width = cells.shape[-2:]
        pixels = _conv_transpose_2x2(first, cells.flatten(2).transpose(1, 2))
        pixels = act(F.layer_norm(pixels, pixels.shape[-1:], norm.weight, norm.bias, norm.eps))
        pixels = last_act(_conv_transpose_2x2(second, pixels))
        logits = (pixels.flatten(1, -2) @ kernels.transpose(1, 2)).transpose(1, 2)
        # Rows and columns of cells, in each cell of 2 x 2 pixels, in each of these of 2 x 2.
        logits = logits.unflatten(2, (height, width, 2, 2, 2, 2)).permute(0, 1, 2, 4, 6, 3, 5, 7)
        return logits.reshape(len(cells), -1, 4 * height, 4 * width)


class FastLiteDecoder(LiteDecoder):
    """`lite`'s mask decoder: the pixels of a block stay adjacent in memory as long as possible."""

    def mask_logits(self, cells: torch.Tensor, image_embeddings: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
        """Return logits PxMx4Hx4W, as `LiteDecoder.mask_logits`.

        Where a layer treats each pixel by itself, transposed convolutions are matrix products, to which the fine
        features are added as the products are summed up. Only the convolution in between needs rows and columns.
        """
        first, norm, act, second, last_act = self.output_upscaling
        to_4, to_2 = cast("list[nn.Conv2d]", list(self.fine))
        _, fine_4, fine_2 = image_embeddings.split([CHANNELS, FINE_CHANNELS[4] * 4, FINE_CHANNELS[2] * 16], dim=1)
        height, width = cells.shape[-2:]
        # Cells; rows, columns and channels of the 2 x 2 pixels of stride 4 in each.
        fine_4 = fine_4.unflatten(1, (-1, 2, 2)).permute(0, 4, 5, 2, 3, 1)
        pixels = _conv_transpose_2x2_plus(first, cells.permute(0, 2, 3, 1), to_4, fine_4)
        pixels = act(F.layer_norm(pixels, pixels.shape[-1:], norm.weight, norm.bias, norm.eps))
        pixels = pixels.unflatten(1, (height, width, 2, 2)).permute(0, 1, 3, 2, 4, 5)
        pixels = pixels.reshape(len(pixels), 2 * height, 2 * width, -1)
        pixels = self.sharpen(pixels.permute(0, 3, 1, 2))
        # Pixels of stride 4; rows, columns and channels of the 2 x 2 pixels of stride 2 in each.
        fine_2 = fine_2.unflatten(1, (-1, 2, 2, 2, 2)).permute(0, 6, 2, 7, 4, 3, 5, 1).flatten(1, 2).flatten(2, 3)
        pixels = last_act(_conv_transpose_2x2_plus(second, pixels.permute(0, 2, 3, 1), to_2, fine_2))
        logits = (pixels @ kernels.transpose(1, 2)).unflatten(1, (2 * height, 2 * width, 2, 2))
        return logits.permute(0, 5, 1, 3, 2, 4).reshape(len(cells), -1, 4 * height, 4 * width)


def _conv_transpose_2x2_plus(
    layer: nn.ConvTranspose2d, x: torch.Tensor, fine_layer: nn.Conv2d, fine: torch.Tensor
) -> torch.Tensor:
    """Return the transposed convolution of pixels, plus fine features: Px(HW2x2)xD.

    Parameters
    ----------
    layer : torch.nn.ConvTranspose2d
        Of 2 x 2 pixels and stride 2, C channels to D.
    x : PxHxWxC torch.Tensor
    fine_layer : torch.nn.Conv2d
        Of one pixel, E channels to D.
    fine : BxHxWx2x2xE torch.Tensor
        Of each image; P/B prompts each.
    """
    fine = F.linear(fine, fine_layer.weight[..., 0, 0], _bias(fine_layer) + _bias(layer)).flatten(3).flatten(1, 2)
    x = x.flatten(1, 2)
    made = torch.baddbmm(for_each_prompt(fine, len(x)), x, _as_matrix(layer).expand(len(x), -1, -1))
    return made.unflatten(-1, (4, -1)).flatten(1, 2)


def _conv_transpose_2x2(layer: nn.ConvTranspose2d, x: torch.Tensor) -> torch.Tensor:
    """Return the transposed convolution of 2 x 2 pixels and stride 2 of pixels ...xC: ...x2x2xD."""
    return F.linear(x, _as_matrix(layer).T, _bias(layer).repeat(4)).unflatten(-1, (2, 2, -1))


def _as_matrix(layer: nn.ConvTranspose2d) -> torch.Tensor:
    """Return the weights of a transposed convolution of 2 x 2 pixels and stride 2 as one matrix, Cx(2x2xD)."""
    return layer.weight.permute(0, 2, 3, 1).flatten(1)


def _bias(layer: nn.Conv2d | nn.ConvTranspose2d) -> torch.Tensor:
    """Return the bias of a layer that has one."""
    return cast("torch.Tensor", layer.bias)
