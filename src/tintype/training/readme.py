"""What the card of a run's result tells: its settings, its pictures, what it draws."""

from pathlib import Path
from typing import Any

from tintype.models.model import Model
from tintype.models.personal.card import personal_card
from tintype.models.sharing.readme import Facts, Sample, licence_of, write_readme
from tintype.text.grammar import fill_identifier, fill_template
from tintype.training.data.folder import find_pictures
from tintype.types import TrainConfig

SAMPLES = 4  # at most, of the last ones


def describe_run(folder: Path, model: Model, config: TrainConfig, run: Path) -> None:
    """Write the card of what `run` has trained into `folder`, which holds it; raises OSError."""
    write_readme(folder, facts_of_run(folder, model, config, run))


def facts_of_run(folder: Path, model: Model, config: TrainConfig, run: Path) -> Facts:
    subject = config.all_subjects[0]
    own = personal_card(folder)
    preset = model.card.preset
    prompt = fill_template(subject.instance_prompt, subject.class_noun)
    return Facts(
        title=run.name,
        family=model.family.title,
        base_model=config.model,
        licence=licence_of(model.card.path) or (preset.licence if preset else None),
        identifier=subject.identifier,
        class_noun=subject.class_noun,
        prompt=_filled(prompt, config),
        method=config.method,
        adds=own.adds if own else None,
        adapter=own.adapter.name if own and own.adapter else None,
        embeddings=tuple(file.name for file in own.embeddings) if own else (),
        trained=_settings(config),
        pictures=sum(len(find_pictures(one.pictures)) for one in config.all_subjects),
        samples=tuple(_samples(config, run)),
    )


def _settings(config: TrainConfig) -> dict[str, Any]:
    """The settings that decide most, by the names that people know them by."""
    prior = config.prior
    distilled = prior.pictures and prior.distill
    return {
        "steps": config.steps,
        "batch size": config.batch_size,
        "learning rate": config.learning_rate,
        "optimiser": config.optimizer.name,
        "schedule": config.optimizer.schedule,
        "resolution": config.resolution and f"{config.resolution}x{config.resolution}",
        "precision": config.precision,
        "text encoder trained": "yes" if config.train_text_encoder else "no",
        "class pictures": prior.pictures,
        "class pictures a step, at most": prior.batch_size if prior.pictures else None,
        "pictures of the empty prompt for each": (prior.pictures and prior.unconditional) or None,
        "class pictures judged by": "what the base makes of them" if distilled else None,
        "prior weight": prior.weight if prior.pictures else None,
        "seed": config.seed,
    }


def _samples(config: TrainConfig, run: Path) -> list[Sample]:
    """The pictures that were drawn last."""
    steps = [
        (int(number), place)
        for place in run.glob("samples/step-*")
        if (number := place.name.removeprefix("step-")).isdigit()
    ]
    if not steps:
        return []
    _, last = max(steps)
    found = [
        Sample(prompt=_filled(_noun(prompt, config), config), path=path)
        for index, prompt in enumerate(config.sample_prompts)
        if (path := last / f"{index:02d}.png").is_file()
    ]
    return found[:SAMPLES]


def _noun(prompt: str, config: TrainConfig) -> str:
    return fill_template(prompt, config.all_subjects[0].class_noun)


def _filled(prompt: str, config: TrainConfig) -> str:
    names = {subject.called: subject.identifier for subject in config.all_subjects}
    own = config.all_subjects[0].identifier
    return fill_identifier(prompt, own, model=config.model, names=names)
