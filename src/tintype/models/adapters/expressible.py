"""Whether peft, given a part's config, makes just the tensors that the part has."""

import warnings

from peft import get_peft_model_state_dict, inject_adapter_in_model
from torch import nn

from tintype.errors import InputError
from tintype.models.adapters.adapter import Part
from tintype.models.adapters.targets import WRAPPED, Shape, Targets

_META = "meta"


def check_peft(part: Part, targets: Targets) -> None:
    """Raises InputError, naming a tensor, for a part that peft can't hold.

    That is so for DoRA along the inputs, DoRA with LoHa or LoKr, and LoKr that was split into
    factors in a way that peft doesn't.
    """
    shapes = targets.layers[part.component]
    skeleton = _skeleton({layer: shapes[layer] for layer in part.layers})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inject_adapter_in_model(part.config, skeleton, low_cpu_mem_usage=True)
        expected = get_peft_model_state_dict(skeleton, save_embedding_layers=False)
    made = {_bare(name): tuple(tensor.shape) for name, tensor in expected.items()}
    held = {_bare(name): tuple(tensor.shape) for name, tensor in part.state.items()}
    for name in sorted(made.keys() | held.keys()):
        if made.get(name) != held.get(name):
            raise InputError(
                f"can't hold {part.component}.{name}: peft makes {made.get(name)} of it, "
                f"the adapter has {held.get(name)}; use kohya, comfyui or tintype",
                field="layout",
            )


def _skeleton(shapes: dict[str, Shape]) -> nn.Module:
    """A module with layers of these names and shapes, and no storage."""
    root = nn.Module()
    for name, shape in shapes.items():
        place = root
        *path, last = name.split(".")
        for word in path:
            if word not in place._modules:
                place.add_module(word, nn.Module())
            place = place.get_submodule(word)
        place.add_module(last, _layer(shape))
    return root


def _layer(shape: Shape) -> nn.Module:
    if len(shape) == 2:
        return nn.Linear(shape[1], shape[0], device=_META)
    return nn.Conv2d(shape[1], shape[0], (shape[2], shape[3]), device=_META)


def _bare(name: str) -> str:
    return name.removeprefix(WRAPPED)
