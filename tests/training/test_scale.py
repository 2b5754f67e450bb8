"""One run on several processes: it equals that of one to rounding, and ends for all at once."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.training.crews import MESSAGE, fail
from tests.training.helpers import losses_of, make_config, make_task, noise_picture
from tintype.errors import ConfigError, Interrupted, StorageError, TrainingError
from tintype.models.load import load
from tintype.runtime.device import has_bfloat16
from tintype.training.checkpoint import list_checkpoints
from tintype.training.config import dump_config
from tintype.training.lesson import Share
from tintype.training.place import Place
from tintype.training.ranks import Crew, Ranks, started_outside
from tintype.training.run import fit, resume
from tintype.types import Event, Note, Progress, TrainConfig

ROOT = Path(__file__).parents[2]
STEPS = 6
NO_PICTURES: dict[str, Any] = {"class_dir": None}
CASES: dict[str, dict[str, Any]] = {
    "drawn": {
        **NO_PICTURES,
        "prior": {"pictures": 5, "batch_size": 1, "steps": 2, "distill": True},
        "accumulate": 2,
    },
    "lora": {
        **NO_PICTURES,
        "method": "lora",
        "adapter": {"rank": 4},
        "train_text_encoder": True,
        "prior": {"source": "model"},
    },
    "notebook": {**NO_PICTURES, "prior": {"source": "model", "pictures": 4}},
    "shapes": {"batch_size": 4, "accumulate": 2, "data": {"buckets": True}},
    "shards": {
        "strategy": "fsdp",
        "train_text_encoder": True,
        "optimizer": {"ema_decay": 0.9, "schedule": "cosine"},
        "memory": {"gradient_checkpointing": True},
        "data": {"validation": 0.3},
        "sample_every": 3,
        "sample_prompts": ["a photo of [V] dog"],
        "prior": {"steps": 2},
    },
}
HALVES: dict[str, Any] = {"precision": "bf16-true"}


def shaped_pictures(folder: Path) -> Path:
    """Pictures for three buckets of 64 px."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, size in enumerate([(64, 64), (96, 48), (48, 96), (64, 64), (96, 48)]):
        noise_picture(number, size).save(folder / f"{number}.png")
    return folder


def config_of(root: Path, base: Path, name: str, **values: Any) -> TrainConfig:
    case: dict[str, Any] = {"steps": STEPS, "checkpoint_every": STEPS // 2}
    case |= {"watch": {"measure": False}, **CASES.get(name, {})}
    if name == "shapes":
        case["pictures"] = shaped_pictures(root / "shapes")
    return make_config(root, base, **{**case, **values})


def cut(run: Path, place: Path) -> Path:
    """A copy of a finished run as it was half way."""
    shutil.copytree(run, place)
    shutil.rmtree(place / "model")
    shutil.rmtree(place / "checkpoints" / f"step-{STEPS}")
    return place


@dataclass(frozen=True)
class Both:
    """Runs of the same configs by one process and by two, and what the two told."""

    root: Path
    base: Path
    told: str

    def one(self, name: str) -> Path:
        return self.root / "one" / name

    def two(self, name: str) -> Path:
        return self.root / "two" / name


@pytest.fixture(scope="module")
def both(sd_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Both:
    """All runs of one launch of torchrun, and those of this process beside them."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("scale")
    (root / "configs").mkdir()
    for name in [*CASES, "halves", "z-lost"]:
        more: dict[str, Any] = {"out": root / "two" / name}
        if name == "halves":
            more |= HALVES
        if name == "z-lost":
            more |= {"learning_rate": 1e30, "optimizer": {"clip_norm": 0}, "steps": 60}
        config = config_of(root, sd_folder, name, **more)
        (root / "configs" / f"{name}.yaml").write_text(dump_config(config))
    slurm = config_of(root, sd_folder, "", steps=2, nodes=2, out=root / "two" / "slurm")
    (root / "slurm.yaml").write_text(dump_config(slurm))
    for name in CASES:
        alone = config_of(root, sd_folder, name, out=root / "one" / name)
        fit(alone, cache_dir=root / "own-cache", device="cpu")
    halves = config_of(root, sd_folder, "", out=root / "one" / "halves", **HALVES)
    fit(halves, cache_dir=root / "own-cache", device="cpu")
    for name in ("drawn", "shards"):
        cut(root / "one" / name, root / "resumed" / name)
    command = ["torch.distributed.run", "--nproc-per-node", "2", "-m", "tests.training.two"]
    done = subprocess.run(
        [sys.executable, "-m", *command, str(root)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TINTYPE_CACHE_DIR": str(root / "cache")},
    )
    assert done.returncode == 0, done.stderr
    return Both(root, sd_folder, done.stdout)


def weights_of(model: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.relative_to(model)}/{name}": value
        for path in sorted(model.rglob("*.safetensors"))
        for name, value in load_file(path).items()
    }


def assert_same_weights(one: Path, two: Path, base: Path, most: float = 1e-3) -> None:
    """The exported weights differ far less than training moved them."""
    first, second = weights_of(one / "model"), weights_of(two / "model")
    start = weights_of(base)
    assert first.keys() == second.keys()
    apart = sum(float((first[k] - second[k]).abs().sum()) for k in first)
    moved = sum(float((v - start.get(k, 0 * v)).abs().sum()) for k, v in first.items())
    assert moved > 0
    assert apart < most * moved


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_as_one(both: Both, name: str) -> None:
    one, two = both.one(name), both.two(name)
    losses = losses_of(two)
    assert len(losses) == STEPS
    assert losses == pytest.approx(losses_of(one), rel=1e-4)
    assert_same_weights(one, two, both.base)


@pytest.mark.slow
def test_two_processes_round_by_the_same_chance(both: Both) -> None:
    one, two = both.one("halves"), both.two("halves")
    assert losses_of(two) == pytest.approx(losses_of(one), rel=0.01)
    assert_same_weights(one, two, both.base, most=0.02)


@pytest.mark.slow
def test_class_pictures_are_drawn_once(both: Both) -> None:
    [folder] = (both.root / "cache" / "class-pictures").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == [f"{i:05d}.png" for i in range(5)]
    [own] = (both.root / "own-cache" / "class-pictures").iterdir()
    for path in folder.iterdir():
        assert path.read_bytes() == (own / path.name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["drawn", "shards"])
def test_a_run_moves_between_numbers_of_processes(both: Both, name: str, tmp_path: Path) -> None:
    from_one = both.root / "resumed" / name
    from_two = cut(both.two(name), tmp_path / "run")
    notes: list[Event] = []
    resume(from_two, cache_dir=both.root / "cache", device="cpu", on_event=notes.append)
    assert any("devices 1, was 2" in note.message for note in notes if isinstance(note, Note))
    for run in (from_one, from_two):
        assert losses_of(run) == pytest.approx(losses_of(both.one(name)), rel=1e-4)
        assert_same_weights(both.one(name), run, both.base)


@pytest.mark.slow
def test_sharded_weights_draw_and_are_kept_whole(both: Both) -> None:
    one, two = both.one("shards"), both.two("shards")
    for name in ("step-0/00.png", "step-3/00.png", "step-6/00.png"):
        mine, theirs = (np.asarray(Image.open(run / "samples" / name)) for run in (one, two))
        assert np.abs(mine.astype(int) - theirs).max() <= 2
    for file in ("weights", "optimizer"):
        shapes = [
            {name: value.shape for name, value in load_file(path).items()}
            for path in (
                run / "checkpoints" / "step-3" / f"{file}.safetensors" for run in (one, two)
            )
        ]
        assert shapes[0] == shapes[1]
    for column in ("validation_loss", "gradient_norm"):
        found = [measured(run, column) for run in (one, two)]
        assert found[0]
        assert found[0] == pytest.approx(found[1], rel=1e-3)


def measured(run: Path, column: str) -> list[float]:
    """A column of metrics.csv where it isn't empty."""
    names, *rows = (line.split(",") for line in (run / "metrics.csv").read_text().splitlines())
    at = names.index(column)
    return [float(row[at]) for row in rows if row[at]]


@pytest.mark.slow
def test_what_ends_one_ends_both_and_is_told_once(both: Both) -> None:
    [line] = [line for line in both.told.splitlines() if "isn't finite" in line]
    assert line.startswith("z-lost: The loss at step ")


@pytest.mark.slow
def test_slurm_starts_two_machines(both: Both, tmp_path: Path) -> None:
    """Only the first process speaks."""
    config = config_of(tmp_path, both.base, "", steps=2)
    fit(config, cache_dir=tmp_path / "cache", device="cpu")
    assert losses_of(both.two("slurm")) == pytest.approx(losses_of(tmp_path / "run"), rel=1e-4)
    assert both.told.count("Trained 2 steps") == both.told.count("Draw with it") == 1


def at_step(step: int, act: Callable[[], object]) -> Callable[[Event], None]:
    """An `on_event` that does something after that step."""

    def on_event(event: Event) -> None:
        if isinstance(event, Progress) and event.phase == "training" and event.step == step:
            act()

    return on_event


def helpers_here() -> list[int]:
    """The processes that this one has started for other devices."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            status, command = (path / "stat").read_text(), (path / "cmdline").read_text()
        except OSError:
            continue
        parent = int(status.rpartition(") ")[2].split()[1])
        if "tintype.training.ranks" in command and parent == os.getpid():
            found.append(int(path.name))
    return found


@pytest.mark.slow
def test_ctrl_c_stops_all_devices_and_one_goes_on(sd_folder: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, sd_folder, "", checkpoint_every=100, devices=2)
    stop = at_step(2, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Interrupted, match="Stopped after step"):
        fit(config, cache_dir=tmp_path / "cache", device="cpu", on_event=stop)
    assert helpers_here() == []
    assert not torch.distributed.is_initialized()
    assert [path.name for path in list_checkpoints(tmp_path / "run")] in (["step-2"], ["step-3"])
    changes = {"devices": 1}
    resume(tmp_path / "run", changes=changes, cache_dir=tmp_path / "cache", device="cpu")
    alone = config.replace(devices=1, out=tmp_path / "alone")
    fit(alone, cache_dir=tmp_path / "cache", device="cpu")
    assert losses_of(tmp_path / "run") == pytest.approx(losses_of(tmp_path / "alone"), rel=1e-4)


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run(sd_folder: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, sd_folder, "", steps=1000, devices=2)
    kill = at_step(2, lambda: os.kill(helpers_here()[0], signal.SIGKILL))
    with pytest.raises(TrainingError, match=r"Process 2 of 2 .*exit code -9"):
        fit(config, cache_dir=tmp_path / "cache", device="cpu", on_event=kill)
    assert not torch.distributed.is_initialized()


def wait_for(call: Callable[..., object]) -> None:
    """Go on only when another process, which does `call`, does so too."""
    with Crew() as crew:
        crew.start(Ranks(ranks=2, devices=2), call)
        crew.connect(torch.device("cpu"))


@pytest.mark.slow
def test_an_error_elsewhere_is_raised_here() -> None:
    with pytest.raises(StorageError, match=MESSAGE):
        wait_for(fail)
    assert helpers_here() == []


@pytest.mark.parametrize("name", ["shapes", "lora", "notebook", "drawn"])
def test_shares_add_up_to_the_step(name: str, sd_folder: Path, tmp_path: Path) -> None:
    """Losses and gradients of a step are the means over those who share it."""
    values = {**CASES[name], "batch_size": 4}
    if name == "shapes":
        values["pictures"] = shaped_pictures(tmp_path / "shapes")
    task = make_task(tmp_path, load(sd_folder, device="cpu"), **values)
    parameters = list(task.trained.parameters.values())

    def step(share: Share) -> tuple[torch.Tensor, list[torch.Tensor]]:
        task.share = share
        if task.teacher is not None or task.distiller is not None:
            task.employ_teacher(lambda done, total: None)
        task.zero_grad()
        told = task.step(task.where(2))
        told["loss"].backward()
        gradients = [p.new_zeros(p.shape) if p.grad is None else p.grad for p in parameters]
        return told["parts"], [gradient.clone() for gradient in gradients]

    whole, gradients = step(Share())
    found = [step(Share(rank=rank, ranks=4)) for rank in range(4)]
    torch.testing.assert_close(torch.stack([parts for parts, _ in found]).mean(0), whole)
    assert len({tuple(parts.tolist()) for parts, _ in found}) == 4
    for number, expected in enumerate(gradients):
        mean = torch.stack([each[number] for _, each in found]).mean(0)
        torch.testing.assert_close(mean, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"devices": 0}, r"devices 0: neither a number of devices, from 1 on, nor auto"),
        ({"devices": 2, "batch_size": 3}, r"batch_size 3: .*multiple of 2.*--batch-size 4"),
        ({"nodes": 2}, r"nodes 2: .*torchrun --nnodes 2 --nproc-per-node 1"),
        ({"strategy": "deepspeed"}, r"strategy 'deepspeed': .*auto, ddp, fsdp"),
        ({"strategy": "fsdp", "method": "lora"}, r"strategy 'fsdp': .*only dreambooth.*lora"),
        ({"strategy": "fsdp", "optimizer": {"name": "lion"}}, r"optimizer.name 'lion'.*adamw"),
        ({"strategy": "fsdp", "precision": "16-mixed"}, r"precision '16-mixed'.*bf16-mixed"),
        ({"strategy": "fsdp", "precision": "bf16-true"}, r"precision 'bf16-true'.*bf16-mixed"),
    ],
)
def test_what_several_devices_refuse(
    values: dict[str, Any], message: str, sd_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(make_config(tmp_path, sd_folder, **values), cache_dir=tmp_path, device="cpu")
    assert not (tmp_path / "run").exists()


def test_who_started_the_processes_says_how_many(
    sd_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(tmp_path, sd_folder, devices=4)
    assert Place.of(config, "cpu").ranks == Ranks(ranks=4, devices=4)
    assert Place.of(config.replace(devices="auto"), "cpu").ranks == Ranks()
    for name, value in {"NTASKS": 6, "NNODES": 3, "PROCID": 3, "LOCALID": 1, "NODEID": 1}.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    monkeypatch.setenv("SLURM_JOB_ID", "1234567")
    with pytest.raises(ConfigError, match=r"devices: can't tell .*--ntasks-per-node"):
        started_outside()
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "2")
    monkeypatch.setenv("SLURM_NODELIST", "gpu[07-09]")
    found = Place.of(config, "cpu", started_outside())
    assert found.ranks == Ranks(
        rank=3, ranks=6, local_rank=1, devices=2, address="gpu07", port=19567, outside=True
    )
    assert (found.ranks.node, found.ranks.nodes) == (1, 3)
    assert "2 processes were started on each of 3 machines" in next(found.notes(config))
    assert not list(found.notes(config.replace(devices=2, nodes=3)))


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("precision", {"precision": "bf16-mixed"}),
        ("memory.base_precision", {"method": "lora", "memory": {"base_precision": "bf16"}}),
    ],
)
def test_a_cpu_that_is_slow_in_bfloat16_is_said_to_be(
    field: str, values: dict[str, object], sd_folder: Path, tmp_path: Path
) -> None:
    config = make_config(tmp_path, sd_folder, **values)
    found = Place.of(config, "cpu")
    slow = [note for note in found.notes(config) if field in note]
    assert len(slow) == (0 if has_bfloat16(found.device) else 1)
    assert not list(found.notes(make_config(tmp_path, sd_folder)))
