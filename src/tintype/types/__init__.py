"""Requests, results and events: the words that every front and every layer share.

All are frozen. A request determines its result: nothing below a front reads settings.
"""

from tintype.types.base import SEED_MAX, Request, Seed, config_error, flag
from tintype.types.convert import ConvertRequest, MergeRequest, PushRequest
from tintype.types.events import Event, GeneratedImage, Note, Preview, Progress, TrainResult
from tintype.types.generate import GenerateRequest
from tintype.types.modes import (
    ControlOptions,
    GuidanceOptions,
    HiresOptions,
    MaskOptions,
    OutpaintOptions,
    VariationOptions,
)
from tintype.types.sweep import Range, SweepConfig
from tintype.types.train import (
    AdapterConfig,
    DataConfig,
    InversionConfig,
    LossConfig,
    MemoryConfig,
    OptimizerConfig,
    Precision,
    PriorConfig,
    SpeedConfig,
    SubjectConfig,
    TrainConfig,
    WatchConfig,
)
from tintype.types.upscale import UpscaleRequest

__all__ = [
    "SEED_MAX",
    "AdapterConfig",
    "ControlOptions",
    "ConvertRequest",
    "DataConfig",
    "Event",
    "GenerateRequest",
    "GeneratedImage",
    "GuidanceOptions",
    "HiresOptions",
    "InversionConfig",
    "LossConfig",
    "MaskOptions",
    "MemoryConfig",
    "MergeRequest",
    "Note",
    "OptimizerConfig",
    "OutpaintOptions",
    "Precision",
    "Preview",
    "PriorConfig",
    "Progress",
    "PushRequest",
    "Range",
    "Request",
    "Seed",
    "SpeedConfig",
    "SubjectConfig",
    "SweepConfig",
    "TrainConfig",
    "TrainResult",
    "UpscaleRequest",
    "VariationOptions",
    "WatchConfig",
    "config_error",
    "flag",
]
