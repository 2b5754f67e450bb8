"""The trials ranked: a table, and a sheet of what the best of them draw."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from tintype.evaluate.report import drawn_pictures
from tintype.files import storage_errors, write_text
from tintype.sheet import Line, picture_sheet
from tintype.sweeping.trial import METRICS, Outcome, shown
from tintype.types import SweepConfig

TABLE, SHEET = "ranking.csv", "sheet.png"
SHOWN = 12  # trials on the sheet


def ranked(outcomes: Sequence[Outcome], metric: str) -> list[Outcome]:
    """The best first; those that failed at the end, in their order."""
    figures = [(outcome.value(metric), outcome) for outcome in outcomes]
    measured = [(value, outcome) for value, outcome in figures if value is not None]
    measured.sort(key=lambda pair: (-pair[0], pair[1].trial.number))
    failed = [outcome for value, outcome in figures if value is None]
    return [outcome for _, outcome in measured] + failed


def rows(outcomes: Sequence[Outcome]) -> list[dict[str, str]]:
    """The table: rank, trial, the values, all figures, seconds and errors, as text."""
    table = []
    for rank, outcome in enumerate(outcomes, start=1):
        figures = {name: outcome.value(name) for name in METRICS}
        table.append(
            {
                "rank": str(rank) if outcome.figures else "",
                "trial": f"{outcome.trial.number:03d}",
                **{key: shown(value) for key, value in outcome.trial.values.items()},
                **{k: "" if v is None else f"{v:.4f}" for k, v in figures.items()},
                "seconds": f"{sum(outcome.seconds.values()):.0f}" if outcome.seconds else "",
                "error": outcome.error or "",
            }
        )
    return table


def write_table(config: SweepConfig, outcomes: Sequence[Outcome]) -> Path:
    """Write ranking.csv; raises StorageError."""
    table = rows(outcomes)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    write_text(config.out / TABLE, text.getvalue())
    return config.out / TABLE


def write_sheet(config: SweepConfig, outcomes: Sequence[Outcome]) -> Path | None:
    """Write sheet.png, a line of pictures for each of the best trials; None where all failed."""
    lines = []
    headings: list[str] = []
    for rank, outcome in enumerate(outcomes[:SHOWN], start=1):
        if outcome.figures is None:
            continue
        drawn = drawn_pictures(outcome.trial.folder(config.out))
        headings = [*drawn]
        value = outcome.value(config.metric)
        notes = [
            f"{config.metric.replace('_', ' ')} {value:.3f}",
            f"likeness {outcome.figures.subject_similarity.after:.2f}, "
            f"class {outcome.figures.class_preservation:.2f}",
        ]
        label = f"{rank}. trial {outcome.trial.number:03d}"
        lines.append(
            Line(label=label, notes=[outcome.trial.label, *notes], pictures=[*drawn.values()])
        )
    if not lines:
        return None
    sheet = picture_sheet(
        title=f"{len(outcomes)} trials by {config.metric.replace('_', ' ')}",
        lines=lines,
        headings=headings,
        footer="Each line: the same prompts and seeds.",
    )
    with storage_errors(config.out / SHEET):
        sheet.save(config.out / SHEET)
    return config.out / SHEET
