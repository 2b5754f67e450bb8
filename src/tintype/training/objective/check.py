"""Settings of the loss that contradict each other, or the model."""

from typing import Any

from tintype.errors import ConfigError
from tintype.types import LossConfig

# Two settings that can't both be on, and why.
PAIRS = (
    ("min_snr_gamma", "debiased", "both weigh the timesteps"),
    ("noise_offset", "pyramid_noise", "both colour the noise"),
)
# Settings that some predictions can't have: which ones can, and why.
NEEDS = (
    ("min_snr_gamma", ("epsilon", "v_prediction", "sample"), "EDM has its own weighting"),
    ("debiased", ("epsilon", "v_prediction", "sample"), "EDM has its own weighting"),
    (
        "zero_terminal_snr",
        ("v_prediction",),
        "at the last timestep there is then no signal, from which only v can be predicted",
    ),
)
TIMESTEPS = 1000


def check_loss(config: LossConfig, prediction: str | None = None) -> None:
    """Raises ConfigError, naming both fields, for settings that contradict each other or (where it
    is known) the model's prediction type."""
    for first, second, why in PAIRS:
        if getattr(config, first) and getattr(config, second):
            raise contradiction(config, first, f"loss.{second}", why)
    if config.timestep_range is not None:
        low, high = config.timestep_range
        if not 0 <= low < high <= TIMESTEPS:
            raise ConfigError(
                f"not a range within 0..{TIMESTEPS}, low before high",
                field="loss.timestep_range",
                value=config.timestep_range,
            )
    moments = config.timestep_mean is not None or config.timestep_std is not None
    if moments and config.timesteps in ("uniform", "cubic"):
        field = "timestep_mean" if config.timestep_mean is not None else "timestep_std"
        raise contradiction(
            config, field, f"loss.timesteps {config.timesteps}", "it has no such parameter"
        )
    if config.huber_schedule != "constant" and config.kind == "l2":
        raise contradiction(config, "huber_schedule", "loss.kind l2", "it has no threshold")
    if prediction is not None:
        _check_prediction(config, prediction)


def _check_prediction(config: LossConfig, prediction: str) -> None:
    model = f"a model of prediction_type {prediction}"
    for field, able, why in NEEDS:
        if getattr(config, field) and prediction not in able:
            raise contradiction(config, field, model, why)
    if config.timesteps == "log-normal" and prediction != "edm":
        raise contradiction(config, "timesteps", model, "it has timesteps, not standard deviations")
    if config.huber_schedule != "constant" and prediction == "edm":
        raise contradiction(config, "huber_schedule", model, "it is made for timesteps")


def contradiction(config: Any, field: str, other: str, why: str) -> ConfigError:
    """What to say of a field of the loss that can't go with `other`."""
    return ConfigError(
        f"contradicts {other}: {why}", field=f"loss.{field}", value=getattr(config, field)
    )
