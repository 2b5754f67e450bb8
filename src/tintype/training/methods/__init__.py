"""The ways of training, by name: one row and one file each, imported when first asked for."""

from importlib import import_module

from tintype.errors import ConfigError
from tintype.training.methods.method import Method

METHODS = {
    "dreambooth": "tintype.training.methods.dreambooth:DreamBooth",
    "lora": "tintype.training.methods.lora:Lora",
    "textual-inversion": "tintype.training.methods.textual_inversion:TextualInversion",
    "pivotal": "tintype.training.methods.pivotal:Pivotal",
    "custom-diffusion": "tintype.training.methods.custom_diffusion:CustomDiffusion",
}


def method(name: str) -> Method:
    """The method of that name; raises ConfigError with the names there are."""
    if name not in METHODS:
        raise ConfigError("no such method", field="method", value=name, choices=METHODS)
    module, attribute = METHODS[name].split(":")
    found: Method = getattr(import_module(module), attribute)()
    return found
