"""Class pictures: what the base model draws for the class noun, to be remembered in training."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from tintype.files import storage_errors, sync
from tintype.generation.engine import draw_many
from tintype.models.hashing import model_key
from tintype.models.model import Model
from tintype.runtime.quantize import narrow_kinds
from tintype.text.grammar import fill_template
from tintype.training.ranks import ALONE, Crew
from tintype.types import (
    Event,
    GeneratedImage,
    GenerateRequest,
    Note,
    Progress,
    TrainConfig,
)

PHASE = "class pictures"
EMPTY = ""  # the prompt that stands for none


def counts(config: TrainConfig) -> dict[str, int]:
    """How many class pictures there are to be, by prompt: half of `config.prior.pictures` are of
    the further prompts, as evenly as can be, the others of the class prompt."""
    found: dict[str, int] = {}
    wanted, further = config.prior.pictures or 0, config.prior.prompts
    for subject in config.all_subjects:
        theirs = wanted // 2 if further else 0
        found[fill_template(subject.class_prompt, subject.class_noun)] = wanted - theirs
        for number, template in enumerate(further):
            share = (theirs + len(further) - 1 - number) // len(further)
            if share:
                found.setdefault(fill_template(template, subject.class_noun), share)
    return found


def class_pictures(
    model: Model,
    config: TrainConfig,
    prompt: str,
    own: Sequence[Path],
    *,
    count: int,
    cache_dir: Path,
    crew: Crew = ALONE,
) -> Iterator[Event | list[Path]]:
    """The paths of `count` pictures, as the last thing yielded, after events.

    They are the person's `own`, then those that the base model has drawn before for the same
    weights, prompt and settings, then new ones, drawn with seeds 0, 1, 2, …
    Raises StorageError for a full disk.
    """
    if own and len(own) != count:
        yield Note(message=_how_many(own, count))
    own = own[:count]
    request = _request(model, config, prompt, config.prior.guidance_scale)
    paths = _paths(model, request, count - len(own), cache_dir)
    yield from draw_missing(model, request, paths, crew)
    yield [*own, *paths]


def unconditional_pictures(
    model: Model, config: TrainConfig, count: int, *, cache_dir: Path, crew: Crew = ALONE
) -> Iterator[Event | list[Path]]:
    """The paths of `count` pictures of the empty prompt, as the last thing yielded, after events.

    They are drawn without guidance: samples of what guidance is away from (classifier-free
    guidance, https://arxiv.org/abs/2207.12598, equation 6).
    Raises StorageError for a full disk.
    """
    request = _request(model, config, EMPTY, 1.0)
    paths = _paths(model, request, count, cache_dir)
    yield from draw_missing(model, request, paths, crew)
    yield paths


def _request(
    model: Model, config: TrainConfig, prompt: str, guidance_scale: float
) -> GenerateRequest:
    return GenerateRequest(
        prompt=prompt,
        model=model.card.id,
        steps=config.prior.steps,
        guidance_scale=guidance_scale,
        width=config.resolution,
        height=config.resolution,
    )


def _paths(model: Model, request: GenerateRequest, count: int, cache_dir: Path) -> list[Path]:
    """Where the pictures of seeds 0, 1, 2, … are kept."""
    folder = cache_dir / "class-pictures" / prior_key(model, request)
    return [folder / f"{seed:05d}.png" for seed in range(count)]


def _how_many(own: Sequence[Path], count: int) -> str:
    """What is made of more or fewer pictures than asked for."""
    folder = own[0].parent
    if len(own) > count:
        return (
            f"Using the first {count} of {len(own)} class pictures in {folder}; "
            "prior.pictures says how many"
        )
    return (
        f"{folder} holds {len(own)} of {count} class pictures: the base model draws the other "
        f"{count - len(own)}"
    )


def prior_key(model: Model, request: GenerateRequest) -> str:
    """What decides how a class picture looks, but its seed, in 16 hex digits."""
    settings = request.model_dump(mode="json", exclude={"model", "seed", "num_images"})
    if kinds := narrow_kinds(model.unet):
        settings["stored"] = kinds
    text = json.dumps({**settings, "model": model_key(model)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def draw_missing(
    model: Model, request: GenerateRequest, paths: list[Path], crew: Crew = ALONE
) -> Iterator[Event]:
    """Draw those of `paths` that aren't there, picture i from seed i.

    Each process of a run draws its share; where machines have no storage in common, the first
    process of each draws what the others have kept to themselves.
    """
    missing = crew.firsts(_missing(paths))
    mine = missing[crew.ranks.rank :: crew.ranks.ranks]
    yield from _drawn(model, request, paths, mine, done=len(paths) - len(missing))
    crew.barrier()
    if crew.ranks.nodes > 1:
        left = _missing(paths) if crew.ranks.local_rank == 0 else []
        yield from _drawn(model, request, paths, left, done=len(paths) - len(left))
        crew.barrier()


def _missing(paths: list[Path]) -> list[int]:
    return [seed for seed, path in enumerate(paths) if not path.is_file()]


def _drawn(
    model: Model, request: GenerateRequest, paths: list[Path], seeds: list[int], *, done: int
) -> Iterator[Event]:
    """Draw the pictures of these seeds; `done` are there already."""
    if not seeds:
        return
    folder = paths[0].parent
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    each = (len(paths) - done) / len(seeds)  # as many as are drawn meanwhile, over all processes
    yield Progress(phase=PHASE, step=done, total=len(paths))
    requests = [request.replace(seed=seed) for seed in seeds]
    drawn = 0
    for event in draw_many(model, requests):
        if isinstance(event, GeneratedImage):
            save_whole(event.image, paths[seeds[event.index]])
            drawn += 1
            yield Progress(phase=PHASE, step=done + int(each * drawn), total=len(paths))


def save_whole(image: Image.Image, path: Path) -> None:
    """Write a PNG that is whole or not there; raises StorageError."""
    temporary = path.with_name(f".{path.stem}.part.png")
    with storage_errors(path):
        try:
            image.save(temporary)
            sync(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
