"""`lite`, the embedded model: SAM's prompt encoder and mask decoder behind a small convolutional image encoder.

It is a `segment_anything.modeling.Sam`, so everything made for SAM (`SamPredictor`, `SamAutomaticMaskGenerator`) takes
it as it is. What differs from Meta's vit_b: an EfficientNet-Lite2 in place of the vision transformer, 512 pixels in
place of 1024, 128 channels in place of 256; and four things that help a small network that has seen few images:

- prompts are also drawn as maps onto the embedding (Sofiiuk et al., "Reviving iterative training with mask guidance
  for interactive segmentation", 2021), where SAM gives them to the decoder as tokens only;
- a few convolutions let what was drawn spread to its neighbours before the transformer sees it;
- the decoder also gets the fine features of strides 2 and 4, as in SAM 2 (Ravi et al., 2024), for sharp borders;
- the predicted IoU of a mask also depends on the features that the mask covers, and on those around it (after mask
  scoring, Huang et al., "Mask Scoring R-CNN", 2019), where SAM computes it from one token that has seen no mask.

The embedding is 256x64x64, like SAM's, and the low-res logits are 256x256.
"""

from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from sam_nb.networks.efficientnet import EfficientNetLite2
from sam_nb.networks.internals import SteppedDecoder, for_each_prompt
from sam_nb.networks.upstream import PromptEncoder, Sam, TwoWayTransformer

WEIGHTS = Path(__file__).parent.parent / "data" / "lite.safetensors"

IMAGE_SIZE = 512  # pixels of the padded square that the encoder sees
STRIDE = 8  # pixels per cell of the embedding
LOW_RES_STRIDE = STRIDE / 4  # pixels per low-res logit
CHANNELS = 128  # of the coarse features, the prompt tokens and the transformer
FINE_CHANNELS = {4: 16, 2: 4}  # of the fine features, by stride
CONTEXT_CHANNELS = 256  # of the encoder's attention at stride 32

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


class LiteEncoder(nn.Module):
    """EfficientNet-Lite2 with a feature pyramid that ends at stride 8, and fine features beside it.

    Features at strides 4 to 32 are brought to `CHANNELS` by 1x1 convolutions and summed from coarse to fine (Lin et
    al., "Feature Pyramid Networks", 2017), the coarsest after attention among them; then smoothed by two
    depthwise-separable convolutions (Howard et al., "MobileNets", 2017).

    Predictors keep one tensor per image, so the fine features travel in the same tensor, each block of pixels
    folded into the channels of one cell.
    """

    img_size = IMAGE_SIZE  # the name that segment_anything looks for

    def __init__(self) -> None:
        super().__init__()
        self.backbone = EfficientNetLite2()
        stride_2, *strides_4_to_32 = self.backbone.channels
        self.context = Context(strides_4_to_32[-1])
        self.lateral = nn.ModuleList(nn.Conv2d(channels, CHANNELS, 1) for channels in strides_4_to_32)
        self.smooth = nn.Sequential(
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS),
            nn.Conv2d(CHANNELS, CHANNELS, 1),
            nn.GELU(),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS),
            nn.Conv2d(CHANNELS, CHANNELS, 1),
        )
        self.fine = nn.ModuleList(
            nn.Conv2d(channels, FINE_CHANNELS[stride], 1)
            for stride, channels in ((4, strides_4_to_32[0]), (2, stride_2))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the embedding of normalised images Bx3xHxW: Bx256xH/8xW/8, float.

        Its channels are 128 coarse ones, then 16 of stride 4 folded to 64, then 4 of stride 2 folded to 64.
        """
        # The fastest layout for convolutions on a CPU.
        fine_2, *features = self.backbone(x.contiguous(memory_format=torch.channels_last))
        stride_4, stride_8, stride_16, stride_32 = (
            lateral(feature) for lateral, feature in zip(self.lateral, features, strict=True)
        )
        pyramid = stride_32 + self.context(features[-1])
        for finer in (stride_16, stride_8):
            pyramid = F.interpolate(pyramid, size=finer.shape[-2:], mode="bilinear", align_corners=False) + finer
        coarse = self.smooth(pyramid + F.avg_pool2d(stride_4, 2))
        to_4, to_2 = self.fine
        return torch.cat([coarse, F.pixel_unshuffle(to_4(features[0]), 2), F.pixel_unshuffle(to_2(fine_2), 4)], 1)


class Context(nn.Module):
    """Attention among all cells of stride 32: what belongs together may lie far apart.

    Pre-norm transformer blocks (Vaswani et al., "Attention is all you need", 2017). Where a cell lies, a depthwise
    convolution tells (Chu et al., "Conditional positional encodings for vision transformers", 2021), so that any image
    size will do. Adds nothing before training.
    """

    def __init__(self, inputs: int, blocks: int = 3) -> None:
        super().__init__()
        self.enter = nn.Conv2d(inputs, CONTEXT_CHANNELS, 1)
        self.place = nn.Conv2d(CONTEXT_CHANNELS, CONTEXT_CHANNELS, 5, padding=2, groups=CONTEXT_CHANNELS)
        self.blocks = nn.ModuleList(ContextBlock(CONTEXT_CHANNELS) for _ in range(blocks))
        self.norm = nn.LayerNorm(CONTEXT_CHANNELS)
        self.leave = _zero_init(nn.Linear(CONTEXT_CHANNELS, CHANNELS))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return BxDxhxw from BxCxhxw."""
        x = self.enter(x)
        x = x + self.place(x)
        tokens = x.flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        return self.leave(self.norm(tokens)).transpose(1, 2).unflatten(2, x.shape[-2:])


class ContextBlock(nn.Module):
    """Attention with 8 heads, then an MLP, each added to its input."""

    def __init__(self, channels: int, heads: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.qkv, self.proj = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return BxNxC like x."""
        queries, keys, values = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(queries, keys, values)
        x = x + self.proj(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class LitePromptEncoder(PromptEncoder):
    """SAM's prompt encoder, which also draws the prompts onto the dense embedding."""

    def __init__(self, *, embed_dim: int, **others: Any) -> None:
        super().__init__(embed_dim=embed_dim, **others)
        self.drawn = nn.Conv2d(3, embed_dim, 1, bias=False)

    def forward(
        self,
        points: tuple[torch.Tensor, torch.Tensor] | None,
        boxes: torch.Tensor | None,
        masks: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return SAM's sparse embeddings BxNxC, and the dense ones BxCxHxW with the drawn prompts added.

        Parameters
        ----------
        points : (BxNx2 torch.Tensor, BxN torch.Tensor), or None
            Coordinates in pixels of the padded square, and labels.
        boxes : Bx4 torch.Tensor, or None
        masks : Bx1x4Hx4W torch.Tensor, or None
            Low-res logits.
        """
        sparse, dense = super().forward(points, boxes, masks)
        return sparse, self.add_drawn(dense, points, boxes)

    def add_drawn(
        self, dense: torch.Tensor, points: tuple[torch.Tensor, torch.Tensor] | None, boxes: torch.Tensor | None
    ) -> torch.Tensor:
        """Return dense embeddings BxCxHxW with the prompts drawn onto them; the other parameters as in `forward`."""
        drawn = self.draw(points, boxes, dense.shape[0]).contiguous(memory_format=torch.channels_last)
        return self.drawn(drawn) + dense

    def draw(
        self, points: tuple[torch.Tensor, torch.Tensor] | None, boxes: torch.Tensor | None, count: int
    ) -> torch.Tensor:
        """Return the prompts drawn as maps, count x 3 x H x W float in [0, 1].

        Channel 0 has a spot at every foreground point and channel 1 at every background point, one cell wide (the
        standard deviation of a Gaussian); channel 2 is the share of a cell that the box covers.
        """
        height, width = self.image_embedding_size
        device = self.no_mask_embed.weight.device
        cell = torch.tensor([self.input_image_size[1] / width, self.input_image_size[0] / height], device=device)
        x, y = torch.arange(width, device=device), torch.arange(height, device=device)
        maps = [torch.zeros(count, height, width, device=device)] * 3
        if points is not None:
            coordinates, labels = points
            # A point is the index of a pixel: its centre is half a pixel further, as in PromptEncoder.
            at = (coordinates + 0.5) / cell
            near_x = torch.exp(-0.5 * (x + 0.5 - at[..., :1]) ** 2)
            near_y = torch.exp(-0.5 * (y + 0.5 - at[..., 1:]) ** 2)
            for channel, label in enumerate((1, 0)):
                chosen = near_x * (labels == label)[..., None]
                maps[channel] = (near_y[..., :, None] * chosen[..., None, :]).amax(1)
        if boxes is not None:
            first, last = (boxes.reshape(-1, 2, 2) / cell).unbind(1)
            across = (torch.minimum(x + 1, last[:, :1]) - torch.maximum(x, first[:, :1])).clamp(0, 1)
            down = (torch.minimum(y + 1, last[:, 1:]) - torch.maximum(y, first[:, 1:])).clamp(0, 1)
            maps[2] = down[:, :, None] * across[:, None, :]
        # `SamAutomaticMaskGenerator` gives its points in float64.
        return torch.stack(maps, dim=1).to(self.no_mask_embed.weight.dtype)


class Residual(nn.Module):
    """A depthwise-separable convolution that adds to its input, nothing before training."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.near = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.mix = _zero_init(nn.Conv2d(channels, channels, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return BxCxHxW like x."""
        return x + self.mix(F.gelu(self.near(x)))


class Spread(nn.Module):
    """Convolutions at strides 8, 16 and 32 over the embedding with the prompts drawn on it.

    SAM's decoder has none: its cells attend to the prompt in the transformer only, each by itself. The coarsest ones
    reach across most of the image, as far as an object may that was clicked at one of its ends.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.before = Residual(channels, 7)
        self.coarse = nn.Sequential(*(Residual(channels, 7) for _ in range(3)))
        self.coarsest = nn.Sequential(*(Residual(channels, 7) for _ in range(2)))
        self.back_to_16 = _zero_init(nn.Conv2d(channels, channels, 1))
        self.back = _zero_init(nn.Conv2d(channels, channels, 1))
        self.after = Residual(channels, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return BxCxHxW like x."""
        x = self.before(x)
        coarse = self.coarse(F.avg_pool2d(x, 2))
        coarse = coarse + _upsample_2x(self.back_to_16(self.coarsest(F.avg_pool2d(coarse, 2))))
        return self.after(x + _upsample_2x(self.back(coarse)))


def _zero_init(layer: Layer) -> Layer:
    """Return a layer with weights and bias of zero: its output is zero until it is trained."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _upsample_2x(x: torch.Tensor) -> torch.Tensor:
    """Return BxCxHxW at twice the size."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class MaskScore(nn.Module):
    """A mask's predicted IoU from the features inside and around it, to be added to that of SAM's IoU head.

    What a good mask covers is of one kind, and what lies around it of another (mask scoring, Huang et al., 2019).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(3 * channels + 3, channels), nn.GELU(), _zero_init(nn.Linear(channels, 1)))

    def forward(self, tokens: torch.Tensor, logits: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
        """Return PxM.

        Parameters
        ----------
        tokens : PxMxC torch.Tensor
            The mask tokens after the transformer.
        logits : PxMx4Hx4W torch.Tensor
        cells : PxCxHxW torch.Tensor
            After the transformer.
        """
        # No gradient to the masks: they are scored here, not trained.
        inside = F.avg_pool2d(logits.detach().sigmoid(), 4)
        around = F.max_pool2d(inside, 5, stride=1, padding=2) - inside
        unsure = (inside * (1 - inside)).mean((2, 3))
        seen = [tokens]
        for weight in (inside, around):
            total = weight.sum((2, 3))[..., None]
            seen.append(torch.einsum("pmhw,pchw->pmc", weight, cells) / (total + 1))
        areas = [each.mean((2, 3)) for each in (inside, around)]
        numbers = torch.stack([area.clamp(min=1e-4).log() for area in areas] + [unsure / (areas[0] + 1e-3)], dim=-1)
        return self.mlp(torch.cat([*seen, numbers], dim=-1))[..., 0]


class LiteDecoder(SteppedDecoder):
    """SAM's mask decoder, with convolutions before the transformer and the fine features after it."""

    def __init__(self, *, transformer_dim: int, **others: Any) -> None:
        super().__init__(transformer_dim=transformer_dim, **others)
        self.spread = Spread(transformer_dim)
        self.sharpen = Residual(transformer_dim // 4, 3)
        self.mask_score = MaskScore(transformer_dim)
        self.fine = nn.ModuleList(
            nn.Conv2d(FINE_CHANNELS[stride], transformer_dim // divisor, 1) for stride, divisor in ((4, 4), (2, 8))
        )

    def fuse_dense_prompt(self, image_embeddings: torch.Tensor, dense_prompt_embeddings: torch.Tensor) -> torch.Tensor:
        """Return the cells for the transformer, PxCxHxW: coarse features and drawn prompts, spread by convolutions."""
        # Channels last: the fastest layout for convolutions on a CPU.
        coarse = image_embeddings[:, :CHANNELS].contiguous(memory_format=torch.channels_last)
        cells = for_each_prompt(coarse, dense_prompt_embeddings.shape[0]) + dense_prompt_embeddings
        return self.spread(cells.contiguous(memory_format=torch.channels_last))

    def upscale(self, cells: torch.Tensor, image_embeddings: torch.Tensor) -> torch.Tensor:
        """Return the transformer's cells PxCxHxW upscaled and sharpened by the fine features, Px(C/8)x4Hx4W."""
        _, fine_4, fine_2 = image_embeddings.split([CHANNELS, FINE_CHANNELS[4] * 4, FINE_CHANNELS[2] * 16], dim=1)
        to_4, to_2 = self.fine
        upscale_to_4, norm, act, upscale_to_2, _ = self.output_upscaling
        fine_4 = for_each_prompt(to_4(F.pixel_shuffle(fine_4, 2)), cells.shape[0])
        fine_2 = for_each_prompt(to_2(F.pixel_shuffle(fine_2, 4)), cells.shape[0])
        pixels = self.sharpen(act(norm(upscale_to_4(cells) + fine_4)))
        return act(upscale_to_2(pixels) + fine_2)

    def predicted_iou(self, tokens: torch.Tensor, logits: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
        """Return PxM, as `SteppedDecoder.predicted_iou`, with `MaskScore` added."""
        of_masks = tokens[:, 1 : 1 + self.num_mask_tokens]
        return super().predicted_iou(tokens, logits, cells) + self.mask_score(of_masks, logits, cells)


def build_lite(image_size: int = IMAGE_SIZE) -> Sam:
    """Return the architecture with random weights, a `segment_anything.modeling.Sam` in evaluation mode.

    Parameters
    ----------
    image_size : int
        Pixels of the padded square, a multiple of 32. The weights fit any; the package's were trained at the default.
    """
    cells = image_size // STRIDE
    encoder = LiteEncoder()
    encoder.img_size = image_size
    model = Sam(
        image_encoder=encoder,
        prompt_encoder=LitePromptEncoder(
            embed_dim=CHANNELS,
            image_embedding_size=(cells, cells),
            input_image_size=(image_size, image_size),
            mask_in_chans=16,
        ),
        mask_decoder=LiteDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=2, embedding_dim=CHANNELS, mlp_dim=4 * CHANNELS, num_heads=8),
            transformer_dim=CHANNELS,
            iou_head_depth=3,
            iou_head_hidden_dim=CHANNELS,
        ),
    )
    return model.eval()
