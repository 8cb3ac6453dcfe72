"""EfficientNet-Lite2, the backbone of `lite`: 4.4 million parameters without its classifier, trained on ImageNet.

An EfficientNet without what small devices compute badly: no squeeze-and-excitation, ReLU6 in place of SiLU (Tan and Le,
"EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", 2019; "Lite": TensorFlow, 2020). The
parameters are named as in timm's `tf_efficientnet_lite2`, and the features are equal to its
(tests/model/test_lite.py). It is written out here because importing timm takes longer than encoding ten images.
"""

import torch
import torch.nn.functional as F
from torch import nn

STEM = 32  # channels
STAGES = (  # blocks, kernel, stride of the first block, expansion, channels
    (1, 3, 1, 1, 16),
    (3, 3, 2, 6, 24),
    (3, 5, 2, 6, 48),
    (4, 3, 2, 6, 88),
    (4, 5, 1, 6, 120),
    (5, 5, 2, 6, 208),
    (1, 3, 1, 6, 352),
)
COARSE = 4  # first of the stages that may compute in bfloat16: their features (strides 16, 32) do not shape outlines
OUTPUTS = {0: 2, 1: 4, 2: 8, 4: 16, 6: 32}  # stage whose output is a feature -> its stride


class EfficientNetLite2(nn.Module):
    """The network without its classifier.

    Attributes
    ----------
    channels : tuple of int
        Of the features, strides 2 to 32.
    """

    channels = tuple(STAGES[stage][-1] for stage in OUTPUTS)

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = SameConv2d(3, STEM, 3, stride=2)
        self.bn1 = _norm(STEM)
        stages, before = [], STEM
        for count, kernel, stride, expansion, channels in STAGES:
            blocks = []
            for number in range(count):
                blocks.append(_block(before, channels, kernel, 1 if number else stride, expansion))
                before = channels
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the features of normalised images Bx3xHxW at strides 2, 4, 8, 16 and 32, a list of BxCxhxw."""
        x = F.relu6(self.bn1(self.conv_stem(x)))
        features = []
        for number, stage in enumerate(self.blocks):
            x = stage(x)
            if number in OUTPUTS:
                features.append(x)
        return features


class SameConv2d(nn.Conv2d):
    """A convolution padded as in TensorFlow: at stride 2 on even sides one line more at the right and the bottom."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return BxDxh'xw' from BxCxhxw, where h' and w' are h and w through the stride, rounded up."""
        return self.convolve(x, self.weight)

    def convolve(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """Return the same with other weights, and a bias."""
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        # PyTorch's tracer, with which export_onnx works, has tensors for lengths; old versions refuse such a padding.
        lengths = (int(length) for length in x.shape[-2:])
        missing = [max(0, (-(-length // stride) - 1) * stride + kernel - length) for length in lengths]
        if missing[0] == missing[1] and missing[0] % 2 == 0:
            return F.conv2d(x, weight, bias, self.stride, missing[0] // 2, groups=self.groups)
        (above, below), (left, right) = ((lines // 2, lines - lines // 2) for lines in missing)
        return F.conv2d(F.pad(x, (left, right, above, below)), weight, bias, self.stride, groups=self.groups)


def _block(inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> nn.Module:
    if expansion == 1:
        return SeparableBlock(inputs, outputs, kernel)
    return InvertedBlock(inputs, outputs, kernel, stride, expansion)


class SeparableBlock(nn.Module):
    """A depthwise convolution, and one across the channels."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv_dw = SameConv2d(inputs, inputs, kernel, groups=inputs)
        self.bn1 = _norm(inputs)
        self.conv_pw = SameConv2d(inputs, outputs, 1)
        self.bn2 = _norm(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return BxDxhxw from BxCxhxw."""
        return self.bn2(self.conv_pw(F.relu6(self.bn1(self.conv_dw(x)))))


class InvertedBlock(nn.Module):
    """Expand the channels, convolve each by itself, bring them back; add the input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.conv_pw = SameConv2d(inputs, inner, 1)
        self.bn1 = _norm(inner)
        self.conv_dw = SameConv2d(inner, inner, kernel, stride, groups=inner)
        self.bn2 = _norm(inner)
        self.conv_pwl = SameConv2d(inner, outputs, 1)
        self.bn3 = _norm(outputs)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return BxDxh'xw' from BxCxhxw, of the same type; inside it computes in the type of its weights."""
        inner = F.relu6(self.bn1(self.conv_pw(x.to(self.conv_pw.weight.dtype))))
        inner = F.relu6(self.bn2(self.conv_dw(inner)))
        made = self.bn3(self.conv_pwl(inner)).to(x.dtype)
        return x + made if self.adds else made


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)
