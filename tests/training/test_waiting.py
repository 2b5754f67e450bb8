"""No step waits for its device: nothing is read from it, and what goes there takes its turn.

The meta device stands for a GPU: it computes nothing, refuses to be read, and lies elsewhere than
the CPU, so that every copy to it can be seen.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.tiny import save_sd, save_sd2, save_sdxl
from tests.training.helpers import make_task
from tintype.models.load import load
from tintype.training.task import Task

ELSEWHERE = torch.device("meta")
COPIES = ("aten::_to_copy", "aten::copy_")
BUILDS = (torch.tensor, torch.as_tensor)  # which copy what they are given and wait for it


class Built(TorchFunctionMode):
    """Lists what would be built on a GPU out of numbers."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in BUILDS and out.is_meta and not isinstance(args[0], Tensor):
            self.found.append(func.__name__)
        return out


class Copied(TorchDispatchMode):
    """Lists the operators that would wait for a GPU."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        named = kwargs or {}
        out = func(*args, **named)
        given = _devices([args, named])
        crosses = len(given | _devices(out)) > 1
        name = func.name().split(".")[0]
        if name in COPIES:
            waits = crosses and not (named.get("non_blocking") or args[2:] == (True,))
        else:
            waits = len(given) > 1
        if waits:
            self.found.append(func.name())
        return out


@contextmanager
def waits() -> Iterator[list[str]]:
    """What would wait in there."""
    found: list[str] = []
    with Built(found), Copied(found):
        yield found


def _devices(values: Any) -> set[torch.device]:
    """Those of the tensors in there, but for single numbers, which are handed over as numbers."""
    tensors = [value for value in tree_leaves(values) if isinstance(value, Tensor)]
    return {tensor.device for tensor in tensors if tensor.ndim or tensor.is_meta}


def waits_of(task: Task) -> list[str]:
    """What would wait in two steps."""
    for part in task.model.parts.values():
        part.to(ELSEWHERE)
    task.to(ELSEWHERE)
    task.data = task.data.to(ELSEWHERE)
    parameters = [each for each in task.parts.parameters() if each.requires_grad]
    with waits() as found:
        for step in (0, 1):
            told = task.training_step(step, step)
            told["loss"].backward()
            task.configure_gradient_clipping(torch.optim.SGD(parameters, lr=1.0), 1.0)
            if task.trained.after_step is not None:
                task.trained.after_step()
    assert told["parts"].is_meta
    assert any(parameter.grad is not None for parameter in parameters)
    return found


LOSS = {"kind": "huber", "huber_schedule": "exponential", "noise_offset": 0.1, "pyramid_noise": 0}
CASES: dict[str, tuple[Callable[..., Path], dict[str, Any]]] = {
    "everything in the loss": (
        save_sd,
        {
            "method": "lora",
            "loss": {**LOSS, "min_snr_gamma": 5.0, "input_perturbation": 0.1},
            "data": {"caption_dropout": 0.5},
            "memory": {"gradient_checkpointing": True},
        },
    ),
    "text encoders train": (save_sdxl, {"train_text_encoder": True}),
    "four bits, by snr": (
        save_sd2,
        {
            "method": "lora",
            "memory": {"base_precision": "nf4"},
            "loss": {"kind": "smooth-l1", "huber_schedule": "snr"},
        },
    ),
    "the base is asked": (save_sd, {"method": "lora", "prior": {"source": "model"}}),
    "the base was asked": (save_sd, {"prior": {"distill": True}}),
    "the base is asked of class pictures": (
        save_sd,
        {"method": "lora", "prior": {"distill": True}},
    ),
    "a new word": (
        save_sd,
        {"method": "textual-inversion", "identifier": "<rex>", "prior": {"weight": 0}},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_no_step_waits_for_its_device(case: str, tmp_path: Path) -> None:
    save, values = CASES[case]
    task = make_task(tmp_path, load(str(save(tmp_path / "model"))), **values)
    assert waits_of(task) == []


def test_what_would_wait_is_found() -> None:
    there = torch.ones(3, device=ELSEWHERE)
    with waits() as found:
        there + torch.ones(3).to(ELSEWHERE, non_blocking=True)
    assert found == []
    for wait in (
        lambda: torch.ones(3).to(ELSEWHERE),
        lambda: torch.tensor([1.0], device=ELSEWHERE),
        lambda: there[torch.tensor([0, 1])],
    ):
        with waits() as found:
            wait()
        assert len(found) == 1
    with waits(), pytest.raises(RuntimeError, match="meta"):
        there.sum().item()
