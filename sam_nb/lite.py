"""`lite`, the embedded model: SAM's prompt encoder and mask decoder behind a small convolutional image encoder.

It is a `segment_anything.modeling.Sam`, so everything made for SAM (`SamPredictor`, `SamAutomaticMaskGenerator`) takes
it as it is. What differs from Meta's vit_b: an EfficientNet-Lite0 in place of the vision transformer, 512 pixels in
place of 1024, 128 channels in place of 256. The embedding stays 64x64 and the low-res logits 256x256.
"""

from pathlib import Path

import timm
import torch.nn.functional as F
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import nn

WEIGHTS = Path(__file__).parent / "data" / "lite.safetensors"

IMAGE_SIZE = 512  # pixels of the padded square that the encoder sees
STRIDE = 8  # pixels per cell of the embedding
CHANNELS = 128  # of the embedding, the prompt tokens and the decoder


class LiteEncoder(nn.Module):
    """EfficientNet-Lite0 with a feature pyramid that ends at stride 8.

    Features at strides 4 to 32 are brought to `CHANNELS` by 1x1 convolutions and summed from coarse to fine (Lin et
    al., "Feature Pyramid Networks", 2017), then smoothed by two depthwise-separable convolutions (Howard et al.,
    "MobileNets", 2017). The backbone is timm's `tf_efficientnet_lite0` (Tan and Le, "EfficientNet", 2019).
    """

    img_size = IMAGE_SIZE  # the name that segment_anything looks for

    def __init__(self):
        super().__init__()
        self.backbone = timm.create_model("tf_efficientnet_lite0", pretrained=False, features_only=True)
        strides_4_to_32 = self.backbone.feature_info.channels()[1:]
        self.lateral = nn.ModuleList(nn.Conv2d(channels, CHANNELS, 1) for channels in strides_4_to_32)
        self.smooth = nn.Sequential(
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS),
            nn.Conv2d(CHANNELS, CHANNELS, 1),
            nn.GELU(),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS),
            nn.Conv2d(CHANNELS, CHANNELS, 1),
        )

    def forward(self, x):
        """Return the embedding Bx128xH/8xW/8 of normalised pictures Bx3xHxW, float."""
        features = self.backbone(x)[1:]
        stride_4, stride_8, stride_16, stride_32 = (
            lateral(feature) for lateral, feature in zip(self.lateral, features, strict=True)
        )
        pyramid = stride_32
        for finer in (stride_16, stride_8):
            pyramid = F.interpolate(pyramid, size=finer.shape[-2:], mode="bilinear", align_corners=False) + finer
        return self.smooth(pyramid + F.avg_pool2d(stride_4, 2))


def build_lite():
    """Return the architecture with random weights, a `segment_anything.modeling.Sam` in evaluation mode."""
    cells = IMAGE_SIZE // STRIDE
    model = Sam(
        image_encoder=LiteEncoder(),
        prompt_encoder=PromptEncoder(
            embed_dim=CHANNELS,
            image_embedding_size=(cells, cells),
            input_image_size=(IMAGE_SIZE, IMAGE_SIZE),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=2, embedding_dim=CHANNELS, mlp_dim=4 * CHANNELS, num_heads=8),
            transformer_dim=CHANNELS,
            iou_head_depth=3,
            iou_head_hidden_dim=CHANNELS,
        ),
    )
    return model.eval()
