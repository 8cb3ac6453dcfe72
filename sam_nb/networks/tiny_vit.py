"""TinyViT-5M, the image encoder of MobileSAM: convolutions first, then attention within windows.

Wu et al., "TinyViT: Fast pretraining distillation for small vision transformers", 2022 (arXiv 2207.10666), with what
MobileSAM changed (Zhang et al., "Faster Segment Anything", 2023, arXiv 2306.14289): 1024 pixels, no stride before the
last stage, and SAM's neck in place of the classifier. Parameters are named as in MobileSAM's file, and features are
equal to its (tests/model/test_tiny_vit.py).

Every tensor here is BxCxHxW with channels last in memory: convolutions want it so, and the cells BxHxWxC that attention
wants are a view.
"""

import torch
import torch.nn.functional as F
from torch import nn

from sam_nb.networks.fast_encoder import BY_ROWS, MAX_TOKENS, linear
from sam_nb.networks.upstream import LayerNorm2d, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

IMAGE_SIZE = 1024  # pixels of the padded square that the encoder sees
STRIDE = 16  # pixels per cell of the embedding
CHANNELS = 256  # of the embedding
STAGES = (  # channels, blocks, heads, side of a window in cells; the first stage has convolutions only
    (64, 2, 0, 0),
    (128, 2, 4, 7),
    (160, 6, 5, 14),
    (320, 2, 10, 7),
)
MERGES = (2, 2, 1)  # stride between two stages; TinyViT has 2 for the last
EXPANSION = 4  # of the channels inside a block
CLASSES = 1000  # ImageNet's
STRIP = 16  # rows that go through a block of convolutions at a time


class TinyViT(nn.Module):
    """The image encoder.

    Attributes
    ----------
    img_size : int
        Pixels of the padded square, under the name that `segment_anything` looks for.
    """

    img_size = IMAGE_SIZE

    def __init__(self) -> None:
        super().__init__()
        first, last = STAGES[0][0], STAGES[-1][0]
        self.patch_embed = PatchEmbed(first)
        after = [channels for channels, *_ in STAGES[1:]]
        merges = [*zip(after, MERGES, strict=True), None]
        self.layers = nn.ModuleList(Stage(*stage, merge) for stage, merge in zip(STAGES, merges, strict=True))
        # TinyViT's classifier: it is in the file, and not used.
        self.norm_head, self.head = nn.LayerNorm(last), nn.Linear(last, CLASSES)
        self.neck = nn.Sequential(
            nn.Conv2d(last, CHANNELS, 1, bias=False),
            LayerNorm2d(CHANNELS),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False),
            LayerNorm2d(CHANNELS),
        )

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks of all stages, in their order; ``Sam.encode`` reports its progress after each."""
        return [block for stage in self.layers if isinstance(stage, Stage) for block in stage.blocks]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the embedding of normalised images Bx3xHxW: Bx256xH/16xW/16, float."""
        x = self.patch_embed(x.contiguous(memory_format=torch.channels_last))
        for stage in self.layers:
            x = stage(x)
        return self.neck(x).contiguous()


class ConvNorm(nn.Sequential):
    """A convolution with batch normalisation, which is one convolution in evaluation mode."""

    c: nn.Conv2d
    bn: nn.BatchNorm2d

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.c = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return BxDxhxw from BxCxHxW."""
        mean, variance = self.bn.running_mean, self.bn.running_var
        if self.training or mean is None or variance is None:
            return super().forward(x)
        # Folded anew each time: it takes no time, and the weights stay those of the file.
        scale = self.bn.weight * torch.rsqrt(variance + self.bn.eps)
        weight, bias = self.c.weight * scale[:, None, None, None], self.bn.bias - mean * scale
        return F.conv2d(x, weight, bias, self.c.stride, self.c.padding, groups=self.c.groups)


class PatchEmbed(nn.Module):
    """Two convolutions that take an image to stride 4."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(
            ConvNorm(3, channels // 2, 3, stride=2), nn.GELU(), ConvNorm(channels // 2, channels, 3, stride=2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return BxCxH/4xW/4 from Bx3xHxW."""
        return self.seq(x)


class Stage(nn.Module):
    """Blocks, and what takes their features to the next stage.

    Parameters
    ----------
    channels, blocks, heads, window : int
        A row of `STAGES`.
    merge : (int, int), or None
        Channels of the next stage and the stride to it.
    """

    def __init__(self, channels: int, blocks: int, heads: int, window: int, merge: tuple[int, int] | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            AttentionBlock(channels, heads, window) if heads else ConvBlock(channels) for _ in range(blocks)
        )
        self.downsample = None if merge is None else Merge(channels, *merge)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return BxDxhxw from BxCxHxW."""
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class ConvBlock(nn.Module):
    """Expand the channels, convolve each by itself, bring them back, and add the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = EXPANSION * channels
        self.conv1 = ConvNorm(channels, inner)
        self.conv2 = ConvNorm(inner, inner, 3, groups=inner)
        self.conv3 = ConvNorm(inner, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return BxCxHxW like x."""
        if torch.is_grad_enabled() or x.device.type not in BY_ROWS:
            return self._strip(x, slice(None))
        # A strip's inner features stay in the processor's cache, which takes half of the time.
        made = torch.empty_like(x)
        for top in range(0, x.shape[2], STRIP):
            above = min(top, 1)  # a line more at each side, for the convolution
            made[:, :, top : top + STRIP] = self._strip(
                x[:, :, top - above : top + STRIP + 1], slice(above, above + STRIP)
            )
        return made

    def _strip(self, x: torch.Tensor, rows: slice) -> torch.Tensor:
        """Return some rows of the output for x, BxCxhxW."""
        inner = self.conv2(F.gelu(self.conv1(x)))
        return F.gelu(x[:, :, rows] + self.conv3(F.gelu(inner[:, :, rows])))


class Merge(nn.Module):
    """Take features to the channels and the stride of the next stage."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, outputs)
        self.conv2 = ConvNorm(outputs, outputs, 3, stride, groups=outputs)
        self.conv3 = ConvNorm(outputs, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return BxDxhxw from BxCxHxW."""
        return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))


class AttentionBlock(nn.Module):
    """Attention within windows, a convolution that lets them exchange, and an MLP."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.attn = WindowAttention(channels, heads, window)
        self.local_conv = ConvNorm(channels, channels, 3, groups=channels)
        self.mlp = Mlp(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return BxCxHxW like x."""
        cells = x.permute(0, 2, 3, 1)
        cells = cells + self.attn(cells)
        cells = self.local_conv(cells.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return (cells + self.mlp(cells)).permute(0, 3, 1, 2)


class WindowAttention(nn.Module):
    """Attention among the cells of each window, with a learned bias for every distance between two of them."""

    pairs: torch.Tensor

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.norm = nn.LayerNorm(channels)
        self.qkv, self.proj = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        at = torch.arange(window)
        apart = (at[:, None] - at).abs()
        # Cells that are y rows and x columns apart have the bias y * window + x.
        pairs = window * apart[:, None, :, None] + apart[None, :, None, :]
        self.register_buffer("pairs", pairs.reshape(window**2, window**2), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return BxHxWxC like x."""
        images, height, width, channels = x.shape
        # Not -(-height // window): an exported graph divides towards zero.
        down, across = ((side + self.window - 1) // self.window for side in (height, width))
        qkv = self._padded(_linear(self.qkv, self.norm(x)), down * self.window, across * self.window)
        windows = qkv.view(images, down, self.window, across, self.window, self.heads, 3, -1)
        queries, keys, values = windows.permute(6, 0, 1, 3, 5, 2, 4, 7).reshape(
            3, -1, self.heads, self.window**2, channels // self.heads
        )
        bias = self.attention_biases[:, self.pairs][None]  # PyTorch fuses attention with a bias of four dimensions only
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)
        cells = mixed.view(images, down, across, self.heads, self.window, self.window, -1).permute(0, 1, 4, 2, 5, 3, 6)
        cells = cells.reshape(images, down * self.window, across * self.window, channels)
        return _linear(self.proj, cells[:, :height, :width])

    def _padded(self, qkv: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """Return queries, keys and values BxhxwxC with those of padding at the right and the bottom, BxHxWxC.

        Padding are cells of zeros, and other cells attend to them. Normalisation makes its bias of zeros.
        """
        images, rows, columns, _ = qkv.shape
        if (rows, columns) == (height, width):
            return qkv
        padded = _linear(self.qkv, self.norm.bias).repeat(images, height, width, 1)
        padded[:, :rows, :columns] = qkv
        return padded


class Mlp(nn.Module):
    """Normalisation and two linear layers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.fc1, self.fc2 = nn.Linear(channels, EXPANSION * channels), nn.Linear(EXPANSION * channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return BxHxWxC like x."""
        if torch.is_grad_enabled() or x.device.type not in BY_ROWS:
            return self._part(x)
        tokens = x.flatten(0, 2)
        made = torch.empty_like(tokens)
        for start in range(0, len(tokens), MAX_TOKENS):
            made[start : start + MAX_TOKENS] = self._part(tokens[start : start + MAX_TOKENS])
        return made.view(x.shape)

    def _part(self, x: torch.Tensor) -> torch.Tensor:
        return _linear(self.fc2, F.gelu(_linear(self.fc1, self.norm(x))))


def _linear(layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    """Return ``layer(x)``, of the type of x; inside it computes in the type of its weights."""
    return linear(layer, x.to(layer.weight.dtype)).to(x.dtype)


def build_vit_t() -> Sam:
    """Return the architecture with random weights, a `segment_anything.modeling.Sam` in evaluation mode."""
    cells = IMAGE_SIZE // STRIDE
    model = Sam(
        image_encoder=TinyViT(),
        prompt_encoder=PromptEncoder(
            embed_dim=CHANNELS,
            image_embedding_size=(cells, cells),
            input_image_size=(IMAGE_SIZE, IMAGE_SIZE),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=2, embedding_dim=CHANNELS, mlp_dim=2048, num_heads=8),
            transformer_dim=CHANNELS,
            iou_head_depth=3,
            iou_head_hidden_dim=CHANNELS,
        ),
    )
    return model.eval()
