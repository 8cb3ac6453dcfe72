"""The same network, its layers computed as they train fastest on a CPU.

PyTorch's own kernels are made for other shapes: a 1x1 convolution of channels-last images is a matrix product, in
bfloat16 three times as fast as its convolution in float32; BatchNorm with fixed statistics belongs into the weights
of the convolution before it; and of a depthwise convolution's backward pass the images' part is another convolution.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from sam_nb.networks.efficientnet import InvertedBlock, SeparableBlock

if TYPE_CHECKING:
    from segment_anything.modeling import Sam


def speed_up_training(model: Sam) -> None:
    """Make `lite` compute that way, in place; parameters and state dict stay as they are."""
    for module in model.modules():
        if isinstance(module, InvertedBlock):
            module.forward = partial(_inverted, module)
        elif isinstance(module, SeparableBlock):
            module.forward = partial(_separable, module)
    backbone = model.image_encoder.backbone
    own = {id(layer) for layer in backbone.modules()}
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and id(layer) not in own:
            if layer.kernel_size == (1, 1):
                layer.forward = partial(_product, layer)
            elif layer.groups > 1:
                layer.forward = partial(_depthwise, layer)


def _product(layer: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """Return a 1x1 convolution of BxCxHxW."""
    return F.linear(x.permute(0, 2, 3, 1), layer.weight[..., 0, 0], layer.bias).permute(0, 3, 1, 2)


def _depthwise(layer: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """Return a depthwise convolution of BxCxHxW of the same size."""
    return Depthwise.apply(x, layer.weight.contiguous(), layer.bias)


def _inverted(block: InvertedBlock, x: torch.Tensor) -> torch.Tensor:
    """Return `InvertedBlock.forward`."""
    inner = F.relu6(_with_norm(block.conv_pw, block.bn1, x), inplace=True)
    inner = F.relu6(_with_norm(block.conv_dw, block.bn2, inner), inplace=True)
    made = _with_norm(block.conv_pwl, block.bn3, inner)
    return x + made if block.adds else made


def _separable(block: SeparableBlock, x: torch.Tensor) -> torch.Tensor:
    """Return `SeparableBlock.forward`."""
    inner = F.relu6(_with_norm(block.conv_dw, block.bn1, x), inplace=True)
    return _with_norm(block.conv_pw, block.bn2, inner)


def _with_norm(layer: nn.Conv2d, norm: nn.BatchNorm2d, x: torch.Tensor) -> torch.Tensor:
    """Return a convolution and the BatchNorm after it, which keeps its statistics, as one convolution."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    # For depthwise weights that claim to be channels-last, oneDNN picks a slow kernel.
    weight, bias = layer.weight.contiguous() * scale[:, None, None, None], norm.bias - norm.running_mean * scale
    if layer.kernel_size == (1, 1):
        return F.linear(x.permute(0, 2, 3, 1), weight[..., 0, 0], bias).permute(0, 3, 1, 2)
    if layer.stride == (1, 1):
        return Depthwise.apply(x, weight, bias)
    with torch.autocast("cpu", enabled=False):
        return layer.convolve(x.float(), weight, bias)


class Depthwise(torch.autograd.Function):
    """A depthwise convolution of stride 1 and odd kernel, in bfloat16; its gradients in forms that oneDNN is fast at.

    The images' gradient is the convolution with the flipped weights.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Return BxCxHxW bfloat16 from BxCxHxW, Cx1xKxK and C."""
        x = x.to(torch.bfloat16, memory_format=torch.channels_last)
        ctx.save_for_backward(x, weight)
        return _convolve(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of images, weights and bias."""
        x, weight = ctx.saved_tensors
        gradient = gradient.to(torch.bfloat16, memory_format=torch.channels_last)
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = _convolve(gradient, weight.flip(2, 3), None)
        if ctx.needs_input_grad[1]:
            of_weight = _weights_gradient(x, gradient, weight.shape[-1])
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3), dtype=torch.float32)
        return of_x, of_weight, of_bias


def _convolve(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    bias = None if bias is None else bias.to(x.dtype)
    with torch.autocast("cpu", enabled=False):
        return F.conv2d(x, weight.to(x.dtype), bias, padding=weight.shape[-1] // 2, groups=len(weight))


def _weights_gradient(x: torch.Tensor, gradient: torch.Tensor, side: int) -> torch.Tensor:
    """Return the gradient of the weights of a depthwise convolution, Cx1xKxK float32.

    In blocks of 3 x 3, for which oneDNN has a kernel of its own, up to ten times as fast as the one for all others.

    Parameters
    ----------
    x, gradient : BxCxHxW torch.Tensor of bfloat16
        Of the images, channels last.
    side : int
        K.
    """
    _, channels, height, width = x.shape
    margin = side // 2
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, margin, margin, margin, margin))
    found = torch.empty(channels, 1, side, side)
    block = x.new_empty(channels, 1, 3, 3)
    starts = sorted({min(start, side - 3) for start in range(0, side, 3)})
    for top in starts:
        for left in starts:
            shifted = padded[:, top : top + height + 2, left : left + width + 2].permute(0, 3, 1, 2)
            _, of_block, _ = torch.ops.aten.convolution_backward(
                gradient,
                shifted.contiguous(memory_format=torch.channels_last),
                block,
                bias_sizes=None,
                stride=[1, 1],
                padding=[0, 0],
                dilation=[1, 1],
                transposed=False,
                output_padding=[0, 0],
                groups=channels,
                output_mask=[False, True, False],
            )
            found[:, :, top : top + 3, left : left + 3] = of_block
    return found
