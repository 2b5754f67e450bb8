"""Requests, results and events: the words that every front and every layer share.

All are frozen. A request determines its result: nothing below a front reads settings.
"""

from tintype.types.base import SEED_MAX, Request, Seed, config_error, flag
from tintype.types.events import Event, GeneratedImage, Note, Progress, TrainResult
from tintype.types.generate import GenerateRequest
from tintype.types.train import (
    AdapterConfig,
    DataConfig,
    InversionConfig,
    LossConfig,
    MemoryConfig,
    OptimizerConfig,
    Precision,
    PriorConfig,
    SubjectConfig,
    TrainConfig,
)

__all__ = [
    "SEED_MAX",
    "AdapterConfig",
    "DataConfig",
    "Event",
    "GenerateRequest",
    "GeneratedImage",
    "InversionConfig",
    "LossConfig",
    "MemoryConfig",
    "Note",
    "OptimizerConfig",
    "Precision",
    "PriorConfig",
    "Progress",
    "Request",
    "Seed",
    "SubjectConfig",
    "TrainConfig",
    "TrainResult",
    "config_error",
    "flag",
]
