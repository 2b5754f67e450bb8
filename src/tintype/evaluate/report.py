"""`evaluate_run`: measure a finished run, and leave the figures and a contact sheet in it."""

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from PIL.Image import Image

from tintype.errors import RunError
from tintype.evaluate.figures import Figures, measure
from tintype.evaluate.protocol import Drawings, Protocol, draw_all
from tintype.files import storage_errors, write_text
from tintype.models.clip import SubjectMetrics
from tintype.models.load import load
from tintype.models.model import Model
from tintype.pictures import read_picture
from tintype.sheet import Row, contact_sheet
from tintype.text.grammar import fill_template
from tintype.training.config import read_config
from tintype.training.data.folder import find_pictures
from tintype.training.keeping.evaluated import DRAWN, METRICS, SHEET, steps_of
from tintype.training.run import fit, resume
from tintype.training.watch.clock import PhaseClock
from tintype.training.watch.report import REPORT, write_report
from tintype.types import Event, Progress, SubjectConfig, TrainConfig

MEASURING = "measuring"

Listener = Callable[[Event], None]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A measured run: what was found, and the seconds of each phase."""

    run: Path
    figures: Figures
    seconds: dict[str, float]

    @property
    def sheet(self) -> Path:
        """The contact sheet."""
        return self.run / SHEET

    @property
    def metrics(self) -> Path:
        """The file with all figures."""
        return self.run / METRICS

    def summary(self) -> str:
        """What was found and where it is, for the person who asked."""
        files = [
            f"Contact sheet:   {self.sheet}",
            f"All figures:     {self.metrics}",
            f"Report:          {self.run / REPORT}",
        ]
        return "\n".join([*self.figures.lines(), "", *files])


def silent(event: Event) -> None:
    """The listener of a caller who only wants the result."""


def evaluate_run(
    run: Path,
    *,
    protocol: Mapping[str, Any] | None = None,
    title: str | None = None,
    spent: Mapping[str, float] | None = None,
    clip: Path | None = None,
    device: str = "auto",
    allow_pickle: bool = False,
    offline: bool = False,
    on_event: Listener = silent,
) -> Evaluation:
    """Draw and measure a run before and after training, on its own instance pictures.

    Writes `metrics.json` and `contact-sheet.png` into the run, and its `report.html` anew.
    `protocol` changes fields of the Protocol, whose own defaults are the base model's; `clip` is
    another folder to measure with than the pocket-clip; `spent` are the seconds of earlier phases.
    Raises RunError for a folder that holds no finished run, InputError for what is wrong with the
    rest, StorageError.
    """
    config = run_config(run)
    clock = PhaseClock(on_event, spent)
    subject = config.all_subjects[0]
    instances = [read_picture(path) for path in find_pictures(subject.pictures)]
    options: dict[str, Any] = {"device": device, "on_event": clock}
    base = load(config.model, allow_pickle=allow_pickle, offline=offline, **options)
    plan = plan_for(subject, base, protocol or {})
    before = _finish(draw_all(base, plan, phase="drawing before"), clock)
    del base  # two models of full size may not fit together
    after = _finish(draw_all(load(run, **options), plan, phase="drawing after"), clock)
    clock(Progress(phase=MEASURING, step=0, total=1))
    metrics = SubjectMetrics.load(clip)
    figures = measure(metrics, plan, instances=instances, before=before, after=after)
    title = title or f"“[V] {subject.class_noun}”, taught to {Path(config.model).name}"
    sheet = _sheet(title, plan, instances, before, after, figures)
    with storage_errors(run / SHEET):
        _keep(after, run / DRAWN)
        sheet.save(run / SHEET)
    clock(Progress(phase=MEASURING, step=1, total=1))
    evaluation = Evaluation(run=run, figures=figures, seconds=clock.rounded())
    save_metrics(evaluation, plan)
    write_report(run, figures=figures.lines(), sheet=evaluation.sheet)
    return evaluation


def train_and_evaluate(
    config: TrainConfig,
    *,
    cache_dir: Path,
    protocol: Mapping[str, Any] | None = None,
    title: str | None = None,
    device: str = "auto",
    on_event: Listener = silent,
) -> Evaluation:
    """A run in `config.out` from wherever it stands to its evaluation; raises as `fit`, `resume`
    and `evaluate_run`."""
    run = config.out
    assert run is not None, "a run with a folder"
    found = load_evaluation(run)
    if found is not None:
        return found
    clock = PhaseClock(on_event)
    if not (run / "config.yaml").is_file():
        fit(config, cache_dir=cache_dir, device=device, on_event=clock)
    elif not is_finished(run):
        resume(run, cache_dir=cache_dir, device=device, on_event=clock)
    return evaluate_run(
        run,
        protocol=protocol,
        title=title,
        spent=clock.seconds,
        device=device,
        on_event=on_event,
    )


def drawn_pictures(run: Path) -> dict[str, Image]:
    """The first picture of each prompt that the evaluated run drew after training, and one of the
    class, by the prompt as a person writes it."""
    values = json.loads((run / METRICS).read_text(encoding="utf-8"))["protocol"]
    files = {f"{index:02d}": prompt for index, prompt in enumerate(values["prompts"])}
    return {
        fill_template(prompt, values["class_noun"]): read_picture(run / DRAWN / f"{name}-0.png")
        for name, prompt in {**files, "class": values["class_prompt"]}.items()
    }


def run_config(run: Path) -> TrainConfig:
    """The config of a finished run; raises RunError for any other folder."""
    if not (run / "config.yaml").is_file():
        raise RunError("holds no run (no config.yaml)", field="run", value=str(run))
    if not is_finished(run):
        raise RunError(
            f"has no trained model yet; finish it with: tintype train --resume {run}",
            field="run",
            value=str(run),
        )
    return TrainConfig(**read_config(run / "config.yaml"))


def is_finished(run: Path) -> bool:
    """Whether the run has its trained model."""
    return any((run / "model" / name).is_file() for name in ("tintype.json", "model_index.json"))


def plan_for(subject: SubjectConfig, base: Model, changes: Mapping[str, Any]) -> Protocol:
    """The protocol of a run on `subject`: the base model's drawing defaults, then `changes`."""
    own = base.card.defaults.get("generate", {})
    named = {name: own[name] for name in own.keys() & {one.name for one in fields(Protocol)}}
    return Protocol(
        **{
            "class_noun": subject.class_noun,
            "identifier": subject.identifier,
            "class_prompt": subject.class_prompt,
            "others": {name: own[name] for name in own if name not in named},
            **named,
            **changes,
        }
    )


def save_metrics(evaluation: Evaluation, protocol: Protocol) -> None:
    """Write `metrics.json`: the figures, after how many steps of training, how they were drawn, and
    the seconds of each phase."""
    values = {
        "steps": steps_of(evaluation.run),
        "figures": evaluation.figures.as_dict(),
        "protocol": asdict(protocol),
        "seconds": evaluation.seconds,
    }
    write_text(evaluation.metrics, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def load_evaluation(run: Path) -> Evaluation | None:
    """What `evaluate_run` found in this run before, or None where it hasn't finished."""
    if not ((run / SHEET).is_file() and (run / METRICS).is_file()):
        return None
    values = json.loads((run / METRICS).read_text(encoding="utf-8"))
    return Evaluation(
        run=run,
        figures=Figures.from_dict(values["figures"]),
        seconds=values["seconds"],
    )


def _keep(drawings: Drawings, folder: Path) -> None:
    """Write the pictures as PROMPT-NUMBER.png, those of the class as class-NUMBER.png."""
    folder.mkdir(exist_ok=True)
    rows = {f"{index:02d}": row for index, row in enumerate(drawings.prompts)}
    for name, pictures in {**rows, "class": drawings.class_pictures}.items():
        for number, picture in enumerate(pictures):
            picture.save(folder / f"{name}-{number}.png")


def _finish(drawing: Generator[Event, None, Drawings], listener: Listener) -> Drawings:
    """Run a generator of events to its end."""
    while True:
        try:
            listener(next(drawing))
        except StopIteration as stop:
            drawings: Drawings = stop.value
            return drawings


def _sheet(
    title: str,
    protocol: Protocol,
    instances: Sequence[Image],
    before: Drawings,
    after: Drawings,
    figures: Figures,
) -> Image:
    rows = [
        Row(
            label=protocol.shown(prompt.prompt),
            notes=[
                f"likeness {prompt.subject_similarity.before:.2f}, "
                f"then {prompt.subject_similarity.after:.2f}"
            ],
            before=old,
            after=new,
        )
        for prompt, old, new in zip(figures.prompts, before.prompts, after.prompts, strict=True)
    ]
    rows.append(
        Row(
            label=protocol.shown(protocol.class_prompt),
            notes=["class pictures", f"{figures.class_preservation:.2f} alike"],
            before=before.class_pictures,
            after=after.class_pictures,
        )
    )
    return contact_sheet(
        title=title,
        figures=figures.lines(),
        instances=instances,
        rows=rows,
        footer=f"Each row: the same prompt and the same seeds (from {protocol.seed}) on both "
        f"sides; {protocol.settings}. Figures are cosines in pocket-clip's space.",
    )
