"""`tintype sweep`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tintype import console
from tintype.cli.flags import ClassNounFlag, DeviceFlag, MethodFlag, ModelFlag, PicturesArgument
from tintype.errors import ConfigError
from tintype.service import Service
from tintype.settings import load_settings
from tintype.types import SweepConfig
from tintype.types.base import merged


def sweep(
    pictures: PicturesArgument = None,
    class_noun: ClassNounFlag = None,
    model: ModelFlag = None,
    method: MethodFlag = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=V1,V2…", help="Values of a key; all combinations are tried."),
    ] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=LOW:HIGH[:log|:STEP]",
            help="A range (or V1,V2…) of a key, for Optuna to search.",
        ),
    ] = None,
    trials: Annotated[int | None, typer.Option(help="How many a search tries.")] = None,
    metric: Annotated[
        str | None, typer.Option(help="score, likeness, class_preservation or prompt_fidelity.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the search.")] = None,
    out: Annotated[Path | None, typer.Option(help="The folder; default runs/sweep.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any key of a config, for all trials."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A YAML file with train, grid or search; flags win.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(help="Trials at the same time.")] = None,
    on: Annotated[str | None, typer.Option(help="local or ray.")] = None,
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster.")] = None,
    gpus: Annotated[float | None, typer.Option(help="Of the Ray cluster, for each trial.")] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with the sweep in this folder.")
    ] = None,
    device: DeviceFlag = None,
) -> None:
    """Train with many settings, measure each, and rank them."""
    from tintype.training.config import apply_overrides, read_config

    service = Service(load_settings(device=device))
    where = _given(jobs=jobs, on=on, address=address, gpus=gpus)
    if resume is not None:
        request = service.read_sweep(resume).replace(**where)
    else:
        train = _given(pictures=pictures, class_noun=class_noun, model=model, method=method)
        flags = _given(trials=trials, metric=metric, seed=seed, out=out) | where
        if grid:
            flags["grid"] = dict(_values(pair, "--grid") for pair in grid)
        if search:
            flags["search"] = dict(_space(pair) for pair in search)
        values = merged(read_config(config) if config else {}, flags)
        values["train"] = merged(apply_overrides(values.get("train") or {}, set_ or []), train)
        request = SweepConfig(**values)
    with console.ProgressView() as view:
        result = service.sweep(request, emit=view)
    console.show_sweep(result)


def _given(**flags: Any) -> dict[str, Any]:
    return {name: value for name, value in flags.items() if value is not None}


def _values(pair: str, flag: str) -> tuple[str, tuple[Any, ...]]:
    """KEY=V1,V2…; the values are read as YAML."""
    import yaml

    key, equals, text = pair.partition("=")
    if not equals or not text:
        raise ConfigError("is not KEY=V1,V2…", field=flag, value=pair)
    try:
        values = yaml.safe_load(f"[{text}]")
    except yaml.YAMLError as error:
        raise ConfigError(f"is not YAML: {error}", field=flag, value=pair) from None
    return key.strip().replace("-", "_"), tuple(_number(value) for value in values)


def _space(pair: str) -> tuple[str, Any]:
    """KEY=LOW:HIGH, KEY=LOW:HIGH:log, KEY=LOW:HIGH:STEP or KEY=V1,V2…."""
    key, equals, text = pair.partition("=")
    parts = text.split(":")
    if not equals or len(parts) not in (2, 3):
        return _values(pair, "--search")
    try:
        space: dict[str, Any] = {"low": float(parts[0]), "high": float(parts[1])}
        if parts[2:] == ["log"]:
            space["log"] = True
        elif parts[2:]:
            space["step"] = float(parts[2])
    except ValueError:
        raise ConfigError(
            "is not KEY=LOW:HIGH, KEY=LOW:HIGH:log or KEY=LOW:HIGH:STEP",
            field="--search",
            value=pair,
        ) from None
    return key.strip().replace("-", "_"), space


def _number(value: Any) -> Any:
    """YAML takes 1e-4 for text."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
