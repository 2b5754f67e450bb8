"""What all requests share: frozen, strict, and errors in our words."""

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tintype.errors import ConfigError

SEED_MAX = 2**32 - 1
Seed = Annotated[int, Field(ge=0, le=SEED_MAX)]

_inside: ContextVar[bool] = ContextVar("_inside", default=False)


class Request(BaseModel):
    """A frozen request whose unknown keys and bad values are errors that name them."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    def __init__(self, /, **values: Any) -> None:
        if _inside.get():  # a group of a request: the request itself tells the whole path
            super().__init__(**values)
            return
        token = _inside.set(True)
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise config_error(type(self), error) from None
        finally:
            _inside.reset(token)

    def replace(self, **changes: Any) -> Self:
        """This request with some fields changed, checked again; what wasn't given stays so.

        A mapping for a group (`loss={"min_snr_gamma": 5}`) changes those fields of it alone.
        """
        return type(self)(**merged(self.model_dump(exclude_unset=True), changes))


def merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`values` with `changes` laid over them, group by group."""
    result = dict(values)
    for name, change in changes.items():
        both = isinstance(change, dict) and isinstance(result.get(name), dict)
        result[name] = merged(result[name], change) if both else change
    return result


def config_error(model: type[BaseModel], error: Any) -> ConfigError:
    """The first problem of a pydantic ValidationError, in our words."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return ConfigError(
            "no such key",
            field="config key",
            value=field,
            choices=_siblings(model, first["loc"]),
        )
    if first["type"] == "missing":
        return ConfigError(f"is missing: give {flag(field)}", field=field)
    if first["type"] == "literal_error":
        annotated = first.get("ctx", {}).get("expected", "")
        choices: Sequence[str] = [c.strip(" '") for c in annotated.replace(" or ", ",").split(",")]
        return ConfigError(
            "not one of the choices", field=field, value=first["input"], choices=choices
        )
    message = first["msg"].removeprefix("Value error, ")
    return ConfigError(message[0].lower() + message[1:], field=field, value=first["input"])


def _siblings(model: type[BaseModel], place: tuple[str | int, ...]) -> list[str]:
    """The keys that could stand at `place`, written as `--set` takes them."""
    group, prefix = model, ""
    for part in place[:-1]:
        found = group.model_fields[part].annotation if isinstance(part, str) else None
        if not (isinstance(found, type) and issubclass(found, BaseModel)):
            break
        group, prefix = found, f"{prefix}{part}."
    return [prefix + name for name in group.model_fields]


def flag(field: str) -> str:
    """The command-line flag of a field: "class_noun" -> "--class-noun"."""
    return "--" + field.replace("_", "-")
