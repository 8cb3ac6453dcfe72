"""`segment_anything`'s networks without its predictors, which wait for torchvision: half of the time to the first mask.

The package's `__init__` imports its predictors, these import torchvision to resize pictures, and torchvision imports
PyTorch's compiler: 5 of the 10 seconds that a first mask took, for nothing that a mask needs. So its `__init__` runs
when something of it is first asked for, and not already when its submodules are imported. Whoever writes ``from
segment_anything import SamPredictor`` notices nothing but the wait.
"""

import importlib.util
import sys
import threading


def _defer(name):
    """Register a package whose `__init__` runs at the first look for anything that only running it can supply."""
    if name in sys.modules:
        return
    spec = importlib.util.find_spec(name)
    if spec is None:
        return  # the import that follows says what is missing
    package = importlib.util.module_from_spec(spec)
    running = threading.RLock()

    def run_and_get(attribute):
        with running:
            if package.__dict__.pop("__getattr__", None) is not None:
                try:
                    spec.loader.exec_module(package)
                except BaseException:
                    package.__getattr__ = run_and_get  # torchvision missing or broken: the next one is told so, too
                    raise
        try:
            return package.__dict__[attribute]
        except KeyError:
            raise AttributeError(f"module {name!r} has no attribute {attribute!r}") from None

    package.__getattr__ = run_and_get
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
from segment_anything.utils import amg  # noqa: E402

__all__ = [
    "MaskDecoder",
    "PromptEncoder",
    "Sam",
    "TwoWayTransformer",
    "amg",
    "image_encoder",
    "sam_model_registry",
    "transformer",
]
