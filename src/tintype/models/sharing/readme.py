"""A model's card, README.md: read here, and written for people and for the hub."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from tintype.pocket import weights_dir
from tintype.text.grammar import IDENTIFIER, fill_template
from tintype.version import __version__

README = "README.md"
PICTURES = "pictures"
HERE = "path/to/this/folder"  # what a hub id takes the place of
SIDE, QUALITY = 512, 90
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
LICENCE_ID = re.compile(r"[a-z0-9][a-z0-9.+-]*")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A picture that the model drew of a prompt."""

    prompt: str
    path: Path


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a card tells of a model, or of what training adds to one.

    `family` is a family's title. `adapter` and `embeddings` are the names of files in the folder,
    for what isn't a whole model; `adds` says in a line what they are. `trained` are settings by
    name, `pictures` the number of training pictures, `merged_from` the sources of a merge.
    """

    title: str
    family: str | None
    base_model: str | None = None
    licence: str | None = None
    identifier: str | None = None
    class_noun: str | None = None
    prompt: str | None = None
    method: str | None = None
    adds: str | None = None
    adapter: str | None = None
    embeddings: tuple[str, ...] = ()
    trained: Mapping[str, Any] = field(default_factory=dict)
    pictures: int | None = None
    samples: tuple[Sample, ...] = ()
    merged_from: tuple[str, ...] = ()


def facts_of(
    card: Mapping[str, Any], *, title: str, family: str | None, licence: str | None
) -> Facts:
    """What the values of a model's `tintype.json` tell of it."""

    def text(key: str) -> str | None:
        return str(card[key]) if card.get(key) else None

    identifier, class_noun, prompt = text("identifier"), text("class_noun"), text("instance_prompt")
    if prompt and identifier:
        prompt = fill_template(prompt, class_noun or "").replace(IDENTIFIER, identifier)
    return Facts(
        title=title,
        family=family,
        base_model=text("base_model"),
        licence=licence,
        identifier=identifier,
        class_noun=class_noun,
        prompt=prompt if identifier else None,
        merged_from=tuple(str(name) for name in card.get("merged_from") or ()),
    )


def write_readme(folder: Path, facts: Facts) -> None:
    """Write the card into a folder, with small copies of its samples; raises OSError."""
    copies = []
    for number, sample in enumerate(facts.samples):
        place = folder / PICTURES / f"{number:02d}.jpg"
        place.parent.mkdir(exist_ok=True)
        with Image.open(sample.path) as opened:
            small = opened.convert("RGB")
            small.thumbnail((SIDE, SIDE))
            small.save(place, quality=QUALITY)
        copies.append((sample.prompt, place.relative_to(folder).as_posix()))
    (folder / README).write_text(readme(facts, copies), encoding="utf-8")


def readme(facts: Facts, pictures: Sequence[tuple[str, str]] = ()) -> str:
    """The card's text; `pictures` are prompts and the places of their pictures in the folder."""
    front = yaml.safe_dump(_front(facts, pictures), sort_keys=False, allow_unicode=True)
    sections = [
        f"---\n{front}---\n\n# {facts.title}",
        _what(facts),
        *(f"![{prompt}]({place})\n\n*{prompt}*" for prompt, place in pictures),
        _use(facts),
        _training(facts),
        _limits(facts),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def read_readme(path: Path) -> tuple[str | None, str | None]:
    """The licence that a card states in its front matter, and the card's text; None if absent."""
    if not path.is_file():
        return None, None
    text = path.read_text(encoding="utf-8", errors="replace")
    front, body = "", text
    if text.startswith("---\n"):
        front, _, body = text[4:].partition("\n---")
    return _licence(front), body.strip() or None


def readme_of(path: Path) -> Path:
    """Where the card of a model that lies at `path` is, if it has one."""
    # pocket's card covers its image encoder too, so it lies above the weights
    if path == weights_dir():
        return path.parent / "MODEL_CARD.md"
    return (path.parent if path.is_file() else path) / README


def licence_of(path: Path) -> str | None:
    """The licence of the model that lies at `path`, as its card states it."""
    return read_readme(readme_of(path))[0]


def _licence(front: str) -> str | None:
    """The hub says `license: other` for those that it has no name for."""
    stated = {
        key: found[1].strip().strip("'\"")
        for key in ("license", "license_name")
        if (found := re.search(rf"^{key}:\s*(.+)$", front, flags=re.MULTILINE))
    }
    return stated.get("license_name") or stated.get("license")


def _front(facts: Facts, pictures: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The front matter that the hub reads."""
    xl = facts.family is not None and "XL" in facts.family
    tags = ["text-to-image", "diffusers", "stable-diffusion-xl" if xl else "stable-diffusion"]
    tags += ["tintype"]
    tags += ["lora"] if facts.adapter else []
    tags += ["textual_inversion"] if facts.embeddings else []
    tags += [facts.method] if facts.method and facts.method not in tags else []
    values: dict[str, Any] = {}
    if facts.licence and LICENCE_ID.fullmatch(facts.licence):
        values["license"] = facts.licence
    elif facts.licence:
        values |= {"license": "other", "license_name": facts.licence}
    if facts.base_model and HUB_ID.fullmatch(facts.base_model):
        values["base_model"] = facts.base_model
    values |= {"library_name": "diffusers", "pipeline_tag": "text-to-image", "tags": tags}
    if facts.prompt:
        values["instance_prompt"] = facts.prompt
    if pictures:
        values["widget"] = [{"text": text, "output": {"url": url}} for text, url in pictures]
    return values


def _base(facts: Facts) -> str | None:
    """The base model's name, without the folders that it lies in here."""
    if facts.base_model is None:
        return None
    hub = HUB_ID.fullmatch(facts.base_model)
    return facts.base_model if hub else Path(facts.base_model).name


def _what(facts: Facts) -> str:
    base = _base(facts)
    if facts.adds:
        told = f"An addition to {base or 'its base model'}: {facts.adds}."
    else:
        told = "A whole model" + (f", made from {base}." if base else ".")
    if facts.family is not None:
        told = f"{facts.family}. {told}"
    if facts.merged_from:
        told += f" Merged from {', '.join(facts.merged_from)}."
    if facts.identifier:
        words = " ".join(word for word in (facts.identifier, facts.class_noun) if word)
        told += (
            f"\n\nIt draws one particular {facts.class_noun or 'subject'}, which a prompt calls "
            f"`{words}`; tintype also takes `[V]` for `{facts.identifier}`."
        )
    return told


def _use(facts: Facts) -> str:
    prompt = facts.prompt or "a photo of a dog"
    own = prompt.replace(facts.identifier, IDENTIFIER, 1) if facts.identifier else prompt
    base = facts.base_model if facts.base_model and HUB_ID.fullmatch(facts.base_model) else None
    start = (base or "path/to/the/base/model") if facts.adds else HERE
    lines = [f'pipeline = DiffusionPipeline.from_pretrained("{start}")']
    if facts.adapter:
        lines.append(f'pipeline.load_lora_weights("{HERE}", weight_name="{facts.adapter}")')
    lines += [
        f'pipeline.load_textual_inversion("{HERE}", weight_name="{name}")'
        for name in facts.embeddings
    ]
    lines.append(f'pipeline("{prompt}").images[0].save("picture.png")')
    code = "\n".join(["from diffusers import DiffusionPipeline", "", *lines])
    return (
        f'## Use\n\n```bash\ntintype generate "{own}" --model {HERE}\n```\n\n'
        f"With diffusers:\n\n```python\n{code}\n```\n\n{_elsewhere(facts)}"
    )


def _elsewhere(facts: Facts) -> str:
    """What A1111 and ComfyUI users type, and where they put what comes of it."""
    name = re.sub(r"\W+", "-", facts.title).strip("-") or "model"
    rows = []
    if facts.adapter:
        source = f"{HERE}/{facts.adapter}"
        rows.append((source, f"{name}.safetensors --to kohya", "models/Lora", "models/loras"))
    for file in facts.embeddings:
        rows.append(
            (f"{HERE}/{file}", f"{name}.safetensors --to a1111", "embeddings", "models/embeddings")
        )
    if not facts.adds:
        rows.append((HERE, f"{name}.safetensors", "models/Stable-diffusion", "models/checkpoints"))
    told = [
        f"For `{a1111}` of A1111 and Forge, or `{comfy}` of ComfyUI:\n\n"
        f"```bash\ntintype convert {source} {out}\n```"
        for source, out, a1111, comfy in rows
    ]
    return "\n\n".join(told)


def _training(facts: Facts) -> str:
    rows = {
        "method": facts.method,
        "base model": _base(facts),
        "training pictures": facts.pictures,
        **facts.trained,
    }
    said = [f"| {key} | {value} |" for key, value in rows.items() if value not in (None, "")]
    if not facts.method:
        return ""
    version = f"Trained with tintype {__version__}."
    return "\n".join(["## Training\n", version, "", "| setting | value |", "|---|---|", *said])


def _limits(facts: Facts) -> str:
    licence = f" ({facts.licence})" if facts.licence else ""
    inherited = (
        f"What {_base(facts) or 'its base model'} can't do, it can't do either, and that model's "
        f"licence{licence} holds for it too."
    )
    if not facts.identifier:
        return f"## Limits\n\n{inherited}"
    count = f"{facts.pictures} pictures" if facts.pictures else "a few pictures"
    return (
        f"## Limits\n\nIt was taught one particular {facts.class_noun or 'subject'} from {count}. "
        "It draws that one where its name stands in a prompt, may let it show through where it "
        "doesn't, and may give back the training pictures themselves. Where it shows a person, "
        f"use it with their consent alone. {inherited}"
    )
