"""The attention layers of `segment_anything`, computed faster: the same numbers but for rounding.

Only the order of the work changes, not the network: weights, state dict and the modules' interfaces stay as they are,
and so does everything that is written for `segment_anything`. With gradients enabled, its own code runs.

Upstream's encoder keeps every score of 4096 x 4096 cells for all heads at once, in three copies: 2.4 GB with vit_b,
and spends most of its time waiting for memory. Here a few rows of scores are computed, used and overwritten.
"""

import torch
import torch.nn.functional as F
from torch import nn

from sam_nb.networks.upstream import image_encoder

BY_ROWS = {"cpu"}  # kinds of device on which attention goes by rows; others have fused kernels
MAX_SCORES = 2**21  # attention scores computed at a time: 4 or 8 MB, about what a processor's cache holds
MAX_TOKENS = 2048  # that go through an MLP at a time, half of all: with more, every call would fetch fresh memory


class EncoderBlock(image_encoder.Block):
    """A block of the image encoder's transformer."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what `segment_anything.modeling.image_encoder.Block` returns, BxHxWxC, from BxHxWxC."""
        if torch.is_grad_enabled():
            return super().forward(x)
        # The sums stay in float32 whatever the layers compute in.
        precision = self.mlp.lin1.weight.dtype
        x = x + self.attn(self.norm1(x).to(precision), self.window_size)
        tokens = self.norm2(x).to(precision).flatten(0, 2)
        changed = torch.empty_like(tokens)
        for start in range(0, len(tokens), MAX_TOKENS):
            part = slice(start, start + MAX_TOKENS)
            changed[part] = linear(self.mlp.lin2, self.mlp.act(linear(self.mlp.lin1, tokens[part])))
        return x + changed.view(x.shape)


class EncoderAttention(image_encoder.Attention):
    """Attention among the cells of an image, or of each window of it, with decomposed relative positions."""

    def forward(self, x: torch.Tensor, window: int = 0) -> torch.Tensor:
        """Return what `segment_anything.modeling.image_encoder.Attention` returns.

        Parameters
        ----------
        x : BxHxWxC torch.Tensor
        window : int
            Side of the windows, cells; 0 for one window, the whole. Upstream cuts the windows before it computes
            queries, keys and values, and so computes those of the padding, too, a fifth of all cells in windows that
            reach over the edge. For padding, zeros, a linear layer returns its bias.

        Returns
        -------
        BxHxWxC torch.Tensor
        """
        if torch.is_grad_enabled():
            return super().forward(x)
        if x.device.type not in BY_ROWS:
            if not window:
                return self._fused(x)
            windows, padded = image_encoder.window_partition(x, window)
            return image_encoder.window_unpartition(self._fused(windows), window, padded, x.shape[1:3])
        images, height, width, channels = x.shape
        sides = (window, window) if window else (height, width)
        qkv = linear(self.qkv, x).unflatten(-1, (3, self.num_heads, -1))
        mixed = x.new_empty(images, height, width, self.num_heads, channels // self.num_heads)
        for image in range(images):
            for top in range(0, height, sides[0]):
                for left in range(0, width, sides[1]):
                    here = (image, slice(top, top + sides[0]), slice(left, left + sides[1]))
                    self._attend(qkv[here], sides, mixed[here])
        return linear(self.proj, mixed.flatten(-2))

    def _fused(self, x: torch.Tensor) -> torch.Tensor:
        """Return the same for BxHxWxC windows by PyTorch's fused attention, for graphics cards."""
        count, height, width, _ = x.shape
        qkv = self.qkv(x).view(count, height, width, 3, self.num_heads, -1)
        queries, keys, values = qkv.permute(3, 0, 4, 1, 2, 5)
        rows, columns = self._rel_pos_bias(queries, (height, width))
        rel_pos_bias = (rows[..., None] + columns[..., None, :]).flatten(2, 3).flatten(3, 4)
        queries, keys, values = (each.flatten(2, 3) for each in (queries, keys, values))
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=rel_pos_bias)
        return self.proj(mixed.transpose(1, 2).reshape(x.shape))

    def _rel_pos_bias(self, queries: torch.Tensor, sides: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the bias of each query, ...xHxWxC, for each row and each column of its window, two ...xHxWxside."""
        height, width = queries.shape[-3:-1]
        apart_y = image_encoder.get_rel_pos(sides[0], sides[0], self.rel_pos_h)[:height].to(queries.dtype)
        apart_x = image_encoder.get_rel_pos(sides[1], sides[1], self.rel_pos_w)[:width].to(queries.dtype)
        rows = torch.einsum("...hwc,hkc->...hwk", queries, apart_y)
        return rows, torch.einsum("...hwc,wkc->...hwk", queries, apart_x)

    def _attend(self, qkv: torch.Tensor, sides: tuple[int, int], mixed: torch.Tensor) -> None:
        """Compute attention within one window.

        Parameters
        ----------
        qkv : HxWx3xNxC torch.Tensor
            Queries, keys and values of its cells, for N heads.
        sides : (int, int)
            Height and width of the window; more than HxW where it reaches over the edge.
        mixed : HxWxNxC torch.Tensor
            Receives the output.
        """
        height, width, _, heads, channels = qkv.shape
        whole = qkv
        if (height, width) != sides:
            whole = self.qkv.bias.view(3, heads, channels).repeat(*sides, 1, 1, 1)
            whole[:height, :width] = qkv
        size = sides[0] * sides[1]
        # Converting small products to bfloat16 and back takes longer than computing them in float32.
        core = qkv.dtype if heads * size**2 > MAX_SCORES else torch.float32
        queries = qkv[:, :, 0].permute(2, 0, 1, 3).to(core)
        keys, values = whole[:, :, 1:].permute(2, 3, 0, 1, 4).flatten(2, 3).to(core)
        keys = (self.scale * keys).transpose(1, 2)
        rows, columns = self._rel_pos_bias(queries, sides)
        some_heads = min(heads, max(1, MAX_SCORES // (height * width * size)))
        some_rows = min(height, max(1, MAX_SCORES // (some_heads * width * size)))
        memory = queries.new_empty(some_heads * some_rows * width * size)
        for first in range(0, heads, some_heads):
            for top in range(0, height, some_rows):
                here = (slice(first, first + some_heads), slice(top, top + some_rows))
                some = queries[here]
                scores = memory[: some.shape[:3].numel() * size].view(*some.shape[:3], *sides)
                torch.add(rows[here][..., None], columns[here][..., None, :], out=scores)
                scores = scores.view(len(some), -1, size)
                if len(scores) == 1:  # a single matrix is multiplied in place, a batch of bfloat16 is copied for it
                    scores[0].addmm_(some[0].flatten(0, 1), keys[first])
                else:
                    scores.baddbmm_(some.flatten(1, 2), keys[here[0]])
                torch.softmax(scores, dim=-1, out=scores)
                mixed[here[1], :, here[0]] = (scores @ values[here[0]]).view(some.shape).permute(1, 2, 0, 3)


def linear(layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    """Return ``layer(x)``, on x86 processors by the library for convolutions, which is up to 1.5 times as fast.

    PyTorch multiplies matrices by MKL, which is slow on AMD's processors, and convolves by oneDNN, which is not.

    Parameters
    ----------
    layer : torch.nn.Linear
    x : ...xC torch.Tensor

    Returns
    -------
    ...xD torch.Tensor
    """
    # An exported graph runs elsewhere, and can keep matrices in int8.
    is_traced = torch.jit.is_tracing()  # type: ignore[attr-defined]
    if x.device.type != "cpu" or not CONVOLVES or is_traced:
        return layer(x)
    # Tokens as the rows of an image that is one pixel wide, channels last.
    pixels = x.reshape(1, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)
    made = F.conv2d(pixels, layer.weight[:, :, None, None], layer.bias)
    return made.permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)


CONVOLVES = torch.backends.mkldnn.is_available() and "AVX" in torch.backends.cpu.get_cpu_capability()
