"""What makes steps faster: the same losses, the same names, and nothing left behind."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.tiny import save_sd
from tests.training.helpers import losses_of, make_config, make_task, run_fit
from tests.training.stopping import fit_until, run_resume
from tintype.errors import ConfigError
from tintype.models.load import load
from tintype.runtime.compile import why_not
from tintype.runtime.graph import Graphed
from tintype.training.checkpoint import load_checkpoint
from tintype.training.speed import PAYS_BACK, Speed, choose
from tintype.training.task import Task
from tintype.types import Event, Note

CPU, GPU = torch.device("cpu"), torch.device("cuda")
BACKEND = "aot_eager"  # all of torch.compile but its C++


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sd(tmp_path_factory.mktemp("models") / "sd")


def ignore(event: Event) -> None:
    """For those who don't want to hear."""


def is_plain(task: Task) -> bool:
    """Whether the UNet is as diffusers made it."""
    unet = task.model.unet
    patched = any("forward" in part.__dict__ for part in unet.modules())
    return not patched and all(each.is_contiguous() for each in unet.parameters())


def trained(task: Task, speed: Speed) -> tuple[list[float], dict[str, Tensor]]:
    """The losses of three steps, and the weights after them."""
    task.speed = speed
    losses = []
    with task.speed:
        task.configure_optimizers()
        assert task.updates is not None
        for step in range(3):
            told = task.training_step(step, step)
            told["loss"].backward()
            task.updates.optimizer.step()
            task.updates.after_step(step + 1)
            task.updates.optimizer.zero_grad()
            losses.append(told["loss"].item())
            with task.as_used():
                assert not any("forward" in part.__dict__ for part in task.model.unet.modules())
    return losses, {name: value.detach() for name, value in task.trained.parameters.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [
        {
            "method": "lora",
            "adapter": {"dropout": 0.2},
            "memory": {"gradient_checkpointing": True, "base_precision": "int8"},
            "optimizer": {"ema_decay": 0.9},
            "speed": {"compile": True},
        },
        {"method": "dreambooth", "speed": {"compile": True, "channels_last": True}},
    ],
    ids=["lora", "dreambooth"],
)
def test_compiled_steps_are_the_same_steps(
    values: dict[str, Any], base: Path, tmp_path: Path
) -> None:
    expected = trained(make_task(tmp_path, load(str(base)), **values), Speed())
    task = make_task(tmp_path, load(str(base)), **values)
    names = list(task.model.unet.state_dict())
    speed = choose(task.config, task.model.unet, CPU, calls=3, tell=ignore, backend=BACKEND)
    losses, weights = trained(task, speed)
    assert "compiled regions" in speed.names
    assert losses == pytest.approx(expected[0], rel=1e-4)
    for name, value in expected[1].items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=2e-3)  # of a rate of 1e-3
    assert is_plain(task)
    assert list(task.model.unet.state_dict()) == names


def test_a_layout_is_resumed_exactly_and_leaves_the_export_as_it_is(
    base: Path, tmp_path: Path
) -> None:
    values = {"speed": {"channels_last": True}, "checkpoint_every": 2}
    whole, _ = run_fit(tmp_path / "a", make_config(tmp_path / "a", base, **values))
    config = make_config(tmp_path / "b", base, **values)
    result, _ = run_resume(tmp_path / "b", fit_until(2, tmp_path / "b", config))
    assert losses_of(result.out) == losses_of(whole.out)
    assert result.weights_sha256 == whole.weights_sha256
    saved = load_checkpoint(whole.out / "checkpoints" / "step-4")
    assert saved.machine["speed"] == "channels_last"


def chosen(base: Path, tmp_path: Path, *, calls: int = 4, **values: Any) -> tuple[str, list[str]]:
    """The levers of a run on a GPU, and what was told of them."""
    task = make_task(tmp_path, load(str(base)), **values)
    told: list[Event] = []
    speed = choose(task.config, task.model.unet, GPU, calls=calls, tell=told.append)
    return speed.names, [event.message for event in told if isinstance(event, Note)]


def test_a_gpu_has_its_layout_and_a_cpu_nothing_by_default(base: Path, tmp_path: Path) -> None:
    assert chosen(base, tmp_path / "a") == ("channels_last", [])
    task = make_task(tmp_path / "b", load(str(base)))
    assert choose(task.config, task.model.unet, CPU, calls=PAYS_BACK, tell=ignore).names == ""


def test_all_that_was_asked_for_is_taken_on_a_gpu(base: Path, tmp_path: Path) -> None:
    asked = {"channels_last": False, "tf32": True, "attention": "cudnn", "cuda_graph": True}
    assert chosen(base, tmp_path, speed=asked) == ("tf32, attention cudnn, CUDA graph", [])


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"accumulate": 2}, "accumulate"),
        ({"memory": {"gradient_checkpointing": True}}, "memory.gradient_checkpointing"),
        ({"method": "lora", "prior": {"source": "model"}}, "prior.source"),
        ({"prior": {"distill": True}}, "prior.distill"),
        ({"method": "lora", "adapter": {"dropout": 0.1}}, "adapter.dropout"),
        ({"train_text_encoder": True}, "encoded at each step"),
    ],
)
def test_a_step_that_cant_be_replayed_is_named(
    values: dict[str, Any], why: str, base: Path, tmp_path: Path
) -> None:
    names, told = chosen(base, tmp_path, speed={"cuda_graph": True}, **values)
    assert "graph" not in names
    assert len(told) == 1
    assert told[0].startswith("speed.cuda_graph True is left out")
    assert why in told[0]


def test_what_is_for_a_gpu_is_left_out_on_a_cpu(base: Path, tmp_path: Path) -> None:
    told: list[Event] = []
    task = make_task(tmp_path, load(str(base)), speed={"cuda_graph": True, "tf32": True})
    speed = choose(task.config, task.model.unet, CPU, calls=4, tell=told.append)
    assert speed.names == ""
    assert [type(event) for event in told] == [Note, Note]


def test_where_nothing_compiles_it_is_said(base: Path, tmp_path: Path) -> None:
    task = make_task(tmp_path, load(str(base)), speed={"compile": True})
    assert why_not(CPU, BACKEND) is None
    with pytest.raises(ConfigError, match=r"speed\.compile True: torch can't .*nosuch"):
        choose(task.config, task.model.unet, CPU, calls=4, tell=ignore, backend="nosuch")


def test_what_a_graph_isnt_of_runs_as_ever(base: Path) -> None:
    unet = load(str(base)).unet.eval()
    given = torch.randn(2, 4, 8, 8), torch.tensor([3, 5]), torch.randn(2, 24, 16)
    expected = unet(*given, return_dict=False)[0]
    graphed = Graphed(unet)
    graphed.put_in()
    assert torch.equal(unet(*given, return_dict=False)[0], expected)
    graphed.take_out()
    assert "forward" not in unet.__dict__
