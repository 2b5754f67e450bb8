"""The families by name, imported when first asked for."""

from importlib import import_module

from tintype.errors import ModelError
from tintype.models.families.family import Family

FAMILIES = {
    "sd1": "tintype.models.families.sd:SD1",
    "sd2": "tintype.models.families.sd2:SD2",
    "sdxl": "tintype.models.families.sdxl:SDXL",
    "sdxl_refiner": "tintype.models.families.refiner:REFINER",
}


def family(name: str) -> Family:
    """The family of that name; raises ModelError with the names there are."""
    if name not in FAMILIES:
        raise ModelError("no such family", field="family", value=name, choices=FAMILIES)
    module, attribute = FAMILIES[name].split(":")
    found: Family = getattr(import_module(module), attribute)
    return found
