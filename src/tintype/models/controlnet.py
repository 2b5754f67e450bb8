"""ControlNets: folders in diffusers' layout, checked against the model that they are to lead."""

from pathlib import Path

from diffusers import ControlNetModel

from tintype.errors import ModelError, WeightsError
from tintype.models.card import read_json
from tintype.models.model import Model
from tintype.models.quiet import quiet

CLASS = "ControlNetModel"


def load_controlnet(name: str, model: Model) -> ControlNetModel:
    """The ControlNet in the folder `name`, on the model's device and in its precision.

    Raises ModelError for a name that is no folder of one, and for one of another family;
    WeightsError for damaged weights.
    """
    folder = Path(name).expanduser()
    config = read_json(folder / "config.json") or {}
    if config.get("_class_name") != CLASS:
        raise ModelError(
            f"is no ControlNet: expected a diffusers folder whose config.json names {CLASS}",
            field="control.model",
            value=name,
        )
    _check_family(config, model, name)
    try:
        with quiet():
            net = ControlNetModel.from_pretrained(
                folder, use_safetensors=True, local_files_only=True, torch_dtype=model.dtype
            )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(f"can't be read: {reason}", field="control.model", value=name) from None
    return net.to(model.device).eval().requires_grad_(False)


def _check_family(config: dict[str, object], model: Model, name: str) -> None:
    """Raises ModelError unless it takes the same prompts and gives the same residuals."""
    ours = model.unet.config
    for key in ("cross_attention_dim", "block_out_channels", "addition_embed_type"):
        theirs, wanted = config.get(key), ours.get(key)
        if _plain(theirs) != _plain(wanted):
            raise ModelError(
                f"is for another family than {model.family.title}: its {key} is {theirs}, "
                f"and {model.card.id!r} has {wanted}",
                field="control.model",
                value=name,
            )


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
