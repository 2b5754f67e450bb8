"""Teach a text-to-image diffusion model a subject from 3-5 pictures, then draw it anywhere.

The public names are imported when first used, so that `import tintype` is instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tintype.version import __version__

if TYPE_CHECKING:
    from tintype.errors import TintypeError
    from tintype.models.load import load
    from tintype.python import generate, sweep, train, watch
    from tintype.types import (
        GeneratedImage,
        GenerateRequest,
        SweepConfig,
        TrainConfig,
        TrainResult,
    )

_PUBLIC = {
    "GenerateRequest": "tintype.types",
    "GeneratedImage": "tintype.types",
    "SweepConfig": "tintype.types",
    "TintypeError": "tintype.errors",
    "TrainConfig": "tintype.types",
    "TrainResult": "tintype.types",
    "generate": "tintype.python",
    "load": "tintype.models.load",
    "sweep": "tintype.python",
    "train": "tintype.python",
    "watch": "tintype.python",
}

__all__ = [
    "GenerateRequest",
    "GeneratedImage",
    "SweepConfig",
    "TintypeError",
    "TrainConfig",
    "TrainResult",
    "__version__",
    "generate",
    "load",
    "sweep",
    "train",
    "watch",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'tintype' has no attribute {name!r}")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
