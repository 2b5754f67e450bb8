"""What a single file says of itself, in ModelSpec's words.

https://github.com/Stability-AI/ModelSpec, version 1.0.1: all values are strings.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from tintype.models.adapters.standards import standard
from tintype.models.model import Model

if TYPE_CHECKING:
    from tintype.models.convert.stored import StoredModel

IMPLEMENTATION = "https://github.com/Stability-AI/generative-models"
# what a tool wrote of the file that this one was made from, and isn't so any more
STALE = ("modelspec.hash_", "sshs_")


def model_spec(source: "StoredModel") -> dict[str, str]:
    """The metadata of a whole model; what the source says of itself stands, where it's still so."""
    model = source.model
    carried = {k: v for k, v in source.metadata.items() if not k.startswith(STALE)}
    side = model.native_size
    velocity = model.scheduler_config.get("prediction_type") == "v_prediction"
    spec = {
        "sai_model_spec": "1.0.1",
        "architecture": architecture(model),
        "implementation": IMPLEMENTATION,
        "resolution": f"{side}x{side}",
        "prediction_type": "v" if velocity else "epsilon",
    }
    fallbacks = {"title": title_of(model), "license": source.licence}
    if model.card.identifier:
        fallbacks["trigger_phrase"] = " ".join(
            word for word in (model.card.identifier, model.card.class_noun) if word
        )
    said = {f"modelspec.{key}": value for key, value in fallbacks.items() if value}
    return {**said, **carried, **{f"modelspec.{key}": value for key, value in spec.items()}}


def architecture(model: Model) -> str:
    """ModelSpec's name for the family, with a mark for inpainting."""
    row = standard(model.family)
    name = row.architecture
    if model.prediction_type == "v_prediction" and row.architecture_v:
        name = row.architecture_v
    return f"{name}/inpaint" if model.extra_channels else name


def title_of(model: Model) -> str:
    """A name for people: a hub id, or the name of the file, or of the run that a folder is of."""
    path = Path(model.card.id)
    if path.name == "model" and path.parent.name:
        path = path.parent
    return path.stem if path.suffix else (model.card.id if not path.exists() else path.name)
