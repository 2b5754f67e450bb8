"""What a person sets once for their machine: defaults < file < environment < flags.

Only fronts read settings; they pass what is needed down as arguments.
"""

import os
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tintype.errors import ConfigError
from tintype.types import config_error

PREFIX = "TINTYPE_"


def _home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tintype"


class Settings(BaseModel):
    """Where things are kept and which device is used."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cache_dir: Path = Field(default_factory=_home)
    runs_dir: Path = Path("runs")
    out_dir: Path = Path("outputs")
    adapters_dir: Path | None = None
    embeddings_dir: Path | None = None
    upscalers_dir: Path | None = None
    wildcards_dir: Path | None = None
    styles_file: Path | None = None
    device: str = "auto"
    allow_pickle: bool = False
    offline: bool = False


def settings_file() -> Path:
    """`$TINTYPE_CONFIG`, or `~/.config/tintype/settings.toml`."""
    default = Path(os.environ.get("XDG_CONFIG_HOME", Path.home() / ".config"))
    return Path(os.environ.get(PREFIX + "CONFIG", default / "tintype" / "settings.toml"))


def load_settings(**flags: Any) -> Settings:
    """Read the settings once; a flag that is None was not given.

    Raises ConfigError for a file that doesn't parse, an unknown key or a bad value.
    """
    values: dict[str, Any] = {}
    path = settings_file()
    if path.is_file():
        try:
            values |= tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"is not TOML: {error}", field="settings", value=str(path)) from None
    for name in Settings.model_fields:
        variable = os.environ.get(PREFIX + name.upper())
        if variable is not None:
            values[name] = variable
    values |= {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**values)
    except ValidationError as error:
        raise config_error(Settings, error) from None
