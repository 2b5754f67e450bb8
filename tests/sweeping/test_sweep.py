"""Sweeps: every trial once, ranked, and nothing done twice."""

import csv
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.training.helpers import make_pictures
from tintype.errors import ConfigError, RunError
from tintype.sweeping.ranking import ranked
from tintype.sweeping.run import read_sweep, sweep
from tintype.types import Event, Note, Progress, SweepConfig


class StopError(Exception):
    """What the test's own `on_event` raises to end a sweep."""


def make_sweep(root: Path, model: Path, **values: Any) -> SweepConfig:
    """Trainings of two steps without class pictures."""
    train = {
        "pictures": make_pictures(root / "pictures"),
        "class_noun": "dog",
        "model": str(model),
        "steps": 2,
        "batch_size": 1,
        "sample_every": 0,
        "prior": {"weight": 0},
    }
    return SweepConfig(**{"train": train, "out": root / "sweep", **values})


def run(config: SweepConfig) -> tuple[Any, list[Event]]:
    events: list[Event] = []
    cache = config.out.parent / "cache"
    return sweep(config, cache_dir=cache, device="cpu", on_event=events.append), events


def test_a_grid_is_tried_ranked_and_not_tried_again(sd_folder: Path, tmp_path: Path) -> None:
    grid = {"learning_rate": [1e-6, 1e-2], "method": ["dreambooth", "no-such-method"]}
    config = make_sweep(tmp_path, sd_folder, grid=grid)
    result, events = run(config)
    table = list(csv.DictReader(result.table.open()))
    assert [(row["method"], bool(row["error"])) for row in table] == [
        ("dreambooth", False),
        ("dreambooth", False),
        ("no-such-method", True),
        ("no-such-method", True),
    ]
    scores = [float(row["score"]) for row in table[:2]]
    assert scores == sorted(scores, reverse=True)
    kept = {row["learning_rate"]: float(row["class_preservation"]) for row in table[:2]}
    assert kept["1e-06"] > kept["0.01"], "a hundred thousand times the rate moves the class more"
    assert "method 'no-such-method'" in table[2]["error"]
    assert result.best is result.outcomes[0]
    assert Image.open(result.sheet).height > 2 * 192
    told = [e.step for e in events if isinstance(e, Progress) and e.phase == "trials"]
    assert told == [0, 1, 2, 3, 4]
    again, events = run(config.replace(jobs=2))
    assert not [event for event in events if isinstance(event, Note)]
    assert [o.trial.number for o in again.outcomes] == [o.trial.number for o in result.outcomes]
    by_class = ranked(result.outcomes, "class_preservation")
    assert by_class[0].trial.values["learning_rate"] == 1e-6


def test_a_sweep_goes_on_where_it_was_stopped(sd_folder: Path, tmp_path: Path) -> None:
    search = {"learning_rate": {"low": 1e-6, "high": 1e-2, "log": True}, "seed": [1, 2]}
    whole, _ = run(make_sweep(tmp_path / "whole", sd_folder, search=search, trials=3))
    assert len({o.trial.values["learning_rate"] for o in whole.outcomes}) == 3
    config = make_sweep(tmp_path, sd_folder, search=search, trials=3)

    def stop(event: Event) -> None:
        second = (config.out / "trial-001").exists()
        if second and isinstance(event, Progress) and event.phase == "measuring":
            raise StopError

    with pytest.raises(StopError):
        sweep(config, cache_dir=tmp_path / "cache", device="cpu", on_event=stop)
    first = config.out / "trial-000" / "metrics.json"
    trained = config.out / "trial-001" / "model" / "tintype.json"
    stamps = first.stat().st_mtime_ns, trained.stat().st_mtime_ns
    result, _ = run(read_sweep(config.out))
    assert (first.stat().st_mtime_ns, trained.stat().st_mtime_ns) == stamps
    assert [o.trial.values for o in result.outcomes] == [o.trial.values for o in whole.outcomes]
    assert [o.value("score") for o in result.outcomes] == [o.value("score") for o in whole.outcomes]


@pytest.mark.slow
def test_trials_at_the_same_time_and_on_ray_are_the_same_trials(
    sd_folder: Path, tmp_path: Path
) -> None:
    grid = {"learning_rate": [1e-6, 1e-3]}
    here, _ = run(make_sweep(tmp_path / "here", sd_folder, grid=grid))
    for name, values in {"two": {"jobs": 2}, "ray": {"on": "ray", "jobs": 2}}.items():
        result, events = run(make_sweep(tmp_path / name, sd_folder, grid=grid, **values))
        found = [(o.trial.number, o.value("score"), o.error) for o in result.outcomes]
        assert found == [(o.trial.number, o.value("score"), None) for o in here.outcomes]
        assert len([event for event in events if isinstance(event, Note)]) == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "give either a grid or a search"),
        ({"grid": {"seed": [1]}, "search": {"seed": [1]}}, "give either a grid or a search"),
        ({"grid": {"seed": []}}, "no values for seed"),
        ({"grid": {"learning_rate": [1e-4, -1]}}, "learning_rate -1.*greater than 0"),
        ({"grid": {"learning_rat": [1e-4]}}, "learning_rat'.*Did you mean learning_rate"),
        ({"search": {"adapter.rank": {"low": 0, "high": 8, "step": 4}}}, "adapter.rank 0"),
        ({"search": {"steps": {"low": 9, "high": 3}}}, "low isn't below high"),
        ({"search": {"steps": {"low": 0, "high": 3, "log": True}}}, "log wants numbers above 0"),
        ({"grid": {"seed": [1]}, "metric": "beauty"}, "metric 'beauty'.*Choices: score"),
        ({"grid": {"seed": [1]}, "on": "moon"}, "on 'moon'.*Choices: local, ray"),
        ({"grid": {"seed": [1]}, "on": "ray", "address": "127.0.0.1:1"}, "no Ray cluster answers"),
    ],
)
def test_what_cannot_be_swept_is_refused_before_it_starts(
    values: dict[str, Any], message: str, sd_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(make_sweep(tmp_path, sd_folder, **values))
    assert not list(tmp_path.glob("sweep/trial-*"))


def test_another_folder_is_left_alone(sd_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no sweep"):
        read_sweep(tmp_path)
    config = make_sweep(tmp_path, sd_folder, grid={"method": ["no-such-method"]})
    run(config)
    with pytest.raises(RunError, match=r"holds another sweep.*--resume"):
        run(config.replace(seed=5))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    with pytest.raises(RunError, match="holds something else"):
        run(config.replace(out=tmp_path / "other"))
