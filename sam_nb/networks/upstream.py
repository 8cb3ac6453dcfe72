"""`segment_anything`'s networks, imported without its predictors: half of the time to the first mask.

The package's `__init__` imports its predictors, these import torchvision to resize images, and torchvision imports
PyTorch's compiler: 5 of the 10 seconds to a first mask, for nothing that a mask needs. So its `__init__` runs when one
of its names is first looked up, and not when its submodules are imported. ``from segment_anything import SamPredictor``
works as ever and takes these seconds then.
"""

import importlib.util
import sys
import threading
from typing import Any


def _defer(name: str) -> None:
    """Register a package whose `__init__` runs when a name is looked up that only it can supply."""
    if name in sys.modules:
        return
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        return  # the import that follows says what is missing
    loader, package = spec.loader, importlib.util.module_from_spec(spec)
    running = threading.RLock()

    def run_and_get(attribute: str) -> Any:
        with running:
            if package.__dict__.pop("__getattr__", None) is not None:
                try:
                    loader.exec_module(package)
                except BaseException:
                    package.__dict__["__getattr__"] = run_and_get  # torchvision missing or broken: fail again next time
                    raise
        try:
            return package.__dict__[attribute]
        except KeyError:
            raise AttributeError(f"module {name!r} has no attribute {attribute!r}") from None

    package.__dict__["__getattr__"] = run_and_get
    sys.modules[name] = package


_defer("segment_anything")

from segment_anything.build_sam import sam_model_registry  # noqa: E402
from segment_anything.modeling import (  # noqa: E402
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
    image_encoder,
    transformer,
)
from segment_anything.modeling.common import LayerNorm2d  # noqa: E402
from segment_anything.utils import amg  # noqa: E402

__all__ = [
    "LayerNorm2d",
    "MaskDecoder",
    "PromptEncoder",
    "Sam",
    "TwoWayTransformer",
    "amg",
    "image_encoder",
    "sam_model_registry",
    "transformer",
]
