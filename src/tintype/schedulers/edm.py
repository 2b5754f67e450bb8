"""Which schedulers draw with a model in EDM's parametrisation (arXiv:2206.00364)."""

from collections.abc import Mapping
from typing import Any

from tintype.errors import InputError
from tintype.schedulers.table import ROWS, EdmClass, Row

EDM = "EDM"


def is_edm(model_scheduler_config: Mapping[str, Any]) -> bool:
    """Whether a model's own scheduler is one of diffusers' EDM schedulers."""
    return str(model_scheduler_config.get("_class_name", "")).startswith(EDM)


def own_scheduler(model_scheduler_config: Mapping[str, Any]) -> str | None:
    """The scheduler that an EDM model came with; None for other models, which can take any."""
    if not is_edm(model_scheduler_config):
        return None
    own = model_scheduler_config["_class_name"]
    return next((row.name for row in ROWS if row.edm and row.edm.class_name == own), "euler")


def edm_class(entry: Row) -> EdmClass:
    """A row's class for EDM models; raises InputError if it has none."""
    if entry.edm is None:
        raise InputError(
            f"{entry.title} can't draw with a model in EDM's parametrisation",
            field="scheduler",
            value=entry.name,
            choices=[row.name for row in ROWS if row.edm],
        )
    return entry.edm
