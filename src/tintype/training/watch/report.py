"""report.html: a finished run on one page that needs no other file."""

import base64
import io
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from tintype.files import whole_file, write_text
from tintype.models.personal.card import PersonalCard, personal_card
from tintype.pictures import read_picture
from tintype.text.grammar import IDENTIFIER, fill_template
from tintype.training.config import read_config
from tintype.training.data.folder import find_pictures
from tintype.training.watch.curves import curves, sample_sheet, sample_steps
from tintype.training.watch.record import Record
from tintype.training.watch.rows import Row, read_rows
from tintype.types import TrainConfig
from tintype.version import __version__

REPORT, CURVES, SAMPLES = "report.html", "curves.png", "samples.png"
TEMPLATE = "report.html.jinja"
SIDE = 256  # px of a picture on the page
WIDE = 1200  # px of a sheet on the page
MOST_PICTURES = 24  # instance pictures on the page

ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def write_report(run: Path, *, figures: Sequence[str] = (), sheet: Path | None = None) -> None:
    """Write curves.png, samples.png and report.html of a run from what lies in its folder.

    `figures` and the contact sheet `sheet` are those of an evaluation. Raises StorageError,
    and PictureError if the instance pictures can't be read any more.
    """
    config = TrainConfig(**read_config(run / "config.yaml"))
    rows, record = read_rows(run), Record.read(run)
    prompts = [_shown(prompt, config) for prompt in config.sample_prompts]
    if rows:
        _save(curves(rows, record), run / CURVES)
    samples = sample_sheet(run, f"Samples of {run.name}", prompts)
    if samples is not None:
        _save(samples, run / SAMPLES)
    subject = config.all_subjects[0]
    card = personal_card(run / "model")
    page = ENVIRONMENT.get_template(TEMPLATE).render(
        title=f"{IDENTIFIER} {subject.class_noun}",
        name=run.name,
        base=Path(config.model).name,
        config=config,
        version=__version__,
        tiles=_tiles(config, rows, record),
        record=record,
        instances=_instances(config),
        curves=_inlined_file(run / CURVES) if rows else None,
        steps=sample_steps(run),
        samples=_samples(run, prompts),
        figures=figures,
        sheet=None if sheet is None else _inlined(_reduced(Image.open(sheet), WIDE), "JPEG"),
        trains=_read(run / "trains.txt"),
        changed=changed_settings(config),
        settings=flattened(config.model_dump(mode="json")),
        uses=_uses(run, config, card),
    )
    write_text(run / REPORT, page)


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A figure at the top of the page."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Use:
    """A way to use the model: its title and what to type."""

    title: str
    code: str


def changed_settings(config: TrainConfig) -> dict[str, Any]:
    """The settings that aren't the defaults of every run, by their full names."""
    plain = flattened(TrainConfig().model_dump(mode="json"))
    found = flattened(config.model_dump(mode="json"))
    return {name: value for name, value in found.items() if value != plain.get(name)}


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Groups of settings as "group.name"."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= flattened(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _tiles(config: TrainConfig, rows: Sequence[Row], record: Record) -> list[Tile]:
    """The figures that say most; what wasn't measured is left out."""
    tiles = [Tile(name="steps", value=str(config.steps), note=config.method)]
    last = record.measured[max(record.measured)] if record.measured else {}
    if "likeness" in last:
        level = record.instances
        note = "" if level is None else f"instances among themselves {level:.2f}"
        tiles.append(Tile(name="likeness of samples", value=f"{last['likeness']:.2f}", note=note))
    if "class_similarity" in last:
        value = f"{last['class_similarity']:.2f}"
        tiles.append(Tile(name="class kept", value=value, note="1 is unchanged"))
    seconds = sum(record.seconds.values())
    tiles.append(Tile(name="time", value=duration(seconds), note=record.device))
    if record.per_second:
        pace = record.per_second
        value = f"{pace:.1f} steps/s" if pace >= 1 else f"{1 / pace:.1f} s/step"
        tiles.append(Tile(name="speed", value=value))
    if record.memory:
        tiles.append(Tile(name="peak memory", value=f"{record.memory / 1e9:.2f} GB"))
    return tiles


def duration(seconds: float) -> str:
    """Seconds for people."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.0f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _instances(config: TrainConfig) -> list[Markup]:
    paths = [path for subject in config.all_subjects for path in find_pictures(subject.pictures)]
    return [_inlined(_reduced(read_picture(p), SIDE), "JPEG") for p in paths[:MOST_PICTURES]]


def _samples(run: Path, prompts: Sequence[str]) -> list[tuple[str, list[Markup | None]]]:
    """Each prompt with its pictures over the steps; None where one is missing."""
    lines = []
    for index, prompt in enumerate(prompts):
        paths = [run / f"samples/step-{step}/{index:02d}.png" for step in sample_steps(run)]
        pictures = [
            _inlined(_reduced(read_picture(path), SIDE), "JPEG") if path.is_file() else None
            for path in paths
        ]
        lines.append((prompt, pictures))
    return lines


def _uses(run: Path, config: TrainConfig, card: PersonalCard | None) -> list[Use]:
    """How to draw with the model, in tintype and elsewhere."""
    prompt = _shown(config.instance_prompt, config)
    where = shlex.quote(str(run))
    uses = [
        Use(title="In a shell", code=f'tintype generate "{prompt} on a beach" --model {where}'),
        Use(
            title="In Python",
            code="import tintype\n\n"
            f'for picture in tintype.generate("{prompt} on a beach", model={str(run)!r}):\n'
            '    picture.image.save("picture.png")',
        ),
    ]
    name = f"{run.name}.safetensors"
    if card is None:
        code = f"tintype convert {where} {shlex.quote(name)} --to single-file"
        uses.append(Use(title="For A1111, Forge and ComfyUI", code=code))
    elif card.adapter is not None:
        code = f"tintype convert {where} {shlex.quote(name)} --to kohya"
        uses.append(Use(title="As a LoRA for A1111, Forge and ComfyUI", code=code))
    for file in card.embeddings if card else ():
        code = f"tintype convert {shlex.quote(str(file))} {shlex.quote(file.name)} --to a1111"
        uses.append(Use(title="As an embedding for A1111, Forge and ComfyUI", code=code))
    return uses


def _shown(prompt: str, config: TrainConfig) -> str:
    """A prompt as a person writes it."""
    return fill_template(prompt, config.all_subjects[0].class_noun)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _save(image: Image.Image, path: Path) -> None:
    """A whole PNG or none; raises StorageError."""
    with whole_file(path) as temporary:
        image.save(temporary, "PNG")


def _reduced(image: Image.Image, side: int) -> Image.Image:
    """At most `side` px wide and high."""
    small = image.convert("RGB")
    small.thumbnail((side, side if side == SIDE else 4 * side), Image.Resampling.LANCZOS)
    return small


def _inlined(image: Image.Image, kind: str) -> Markup:
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=88)
    return _data_uri(buffer.getvalue(), kind.lower())


def _inlined_file(path: Path) -> Markup:
    return _data_uri(path.read_bytes(), "png")


def _data_uri(data: bytes, kind: str) -> Markup:
    return Markup(f"data:image/{kind};base64,{base64.b64encode(data).decode()}")
