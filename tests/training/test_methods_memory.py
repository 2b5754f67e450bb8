"""What trades time for memory changes nothing else: checkpointing, a narrow base, no VAE."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.helpers import make_config, make_task, run_fit
from tintype.errors import ConfigError
from tintype.models.load import load
from tintype.runtime.quantize import FORMATS, NarrowConv2d, NarrowLinear, quantize
from tintype.training.task import Task
from tintype.types import Note

WORD = {"identifier": "<rex>", "prior": {"weight": 0}, "class_dir": None}
# How far a narrow weight may be from the true one, over the length of that.
ERRORS = {"fp8": 0.03, "int8": 0.01, "nf4": 0.11}


def gradients(task: Task) -> dict[str, torch.Tensor]:
    task.step(task.where(0))["loss"].backward()
    return {
        name: parameter.grad
        for name, parameter in task.trained.parameters.items()
        if parameter.grad is not None
    }


@pytest.mark.parametrize(
    "values",
    [
        {"method": "dreambooth", "train_text_encoder": True},
        {"method": "lora", "adapter": {"rank": 4}, "train_text_encoder": True},
        {"method": "lora", "adapter": {"rank": 4}},
        {"method": "textual-inversion", **WORD},
    ],
)
def test_checkpointing_keeps_the_gradients(
    values: dict[str, Any], sd_folder: Path, tmp_path: Path
) -> None:
    plain = gradients(make_task(tmp_path, load(sd_folder, device="cpu"), **values))
    assert plain
    assert any(gradient.any() for gradient in plain.values())
    task = make_task(
        tmp_path,
        load(sd_folder, device="cpu"),
        memory={"gradient_checkpointing": True},
        **values,
    )
    assert task.model.unet.is_gradient_checkpointing
    found = gradients(task)
    assert found.keys() == plain.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, plain[name], msg=name)


@pytest.mark.parametrize("kind", FORMATS)
def test_narrow_layers_are_the_wide_ones_nearly(kind: str) -> None:
    torch.manual_seed(0)
    wide = torch.nn.Sequential(
        torch.nn.Conv2d(8, 12, 3, stride=2, padding=1),
        torch.nn.Flatten(2),
        torch.nn.Linear(25, 70),
    )
    narrow = torch.nn.Sequential(*wide)
    quantize(narrow, kind)
    conv, _, linear = narrow
    assert isinstance(conv, NarrowConv2d)
    assert isinstance(linear, NarrowLinear)
    assert isinstance(linear, torch.nn.Linear), "peft must take it for one"
    for layer, own in zip(narrow, (wide[0], wide[1], wide[2]), strict=True):
        if hasattr(layer, "codes"):
            true = own.weight
            assert (layer.weight - true).norm() < ERRORS[kind] * true.norm()
            assert layer.codes.nbytes <= true.nbytes / (8 if kind == "nf4" else 4) + 64
    picture = torch.randn(2, 8, 9, 9, requires_grad=True)
    found = narrow(picture)
    widened = torch.nn.Sequential(
        *(torch.nn.Conv2d(8, 12, 3, 2, 1), torch.nn.Flatten(2), torch.nn.Linear(25, 70))
    )
    with torch.no_grad():
        for layer, own in ((widened[0], conv), (widened[2], linear)):
            layer.weight.copy_(own.weight)
            layer.bias.copy_(own.bias)
    expected = widened(picture)
    torch.testing.assert_close(found, expected)
    [mine] = torch.autograd.grad(found.square().sum(), picture)
    [theirs] = torch.autograd.grad(expected.square().sum(), picture)
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(
    ("precision", "kind"),
    [("bf16", "lora"), ("16", "lora"), ("fp8", "lora"), ("int8", "dora"), ("nf4", "lora")],
)
def test_a_lora_trains_in_float32_on_a_narrow_base(
    precision: str, kind: str, sd_folder: Path, tmp_path: Path
) -> None:
    values = {"method": "lora", "adapter": {"rank": 4, "kind": kind, "targets": "all"}}
    wide = make_task(tmp_path, load(sd_folder, device="cpu"), **values)
    narrow = make_task(
        tmp_path, load(sd_folder, device="cpu"), memory={"base_precision": precision}, **values
    )
    assert {p.dtype for p in narrow.trained.parameters.values()} == {torch.float32}
    assert base_bytes(narrow) < 0.6 * base_bytes(wide)
    losses = [float(task.step(task.where(0))["loss"].detach()) for task in (wide, narrow)]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert losses[1] != losses[0]
    found = gradients(narrow)
    assert len(found) == len(narrow.trained.parameters)
    optimizer = torch.optim.AdamW(narrow.trained.parameters.values(), lr=1e-2)
    for _ in range(8):
        optimizer.zero_grad()
        loss = narrow.step(narrow.where(0))["loss"]
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.98 * losses[1], "it learns"


@pytest.mark.parametrize("precision", ["bf16", "nf4"])
def test_samples_are_drawn_on_a_narrow_base(
    precision: str, sdxl_folder: Path, tmp_path: Path
) -> None:
    config = make_config(
        tmp_path,
        sdxl_folder,
        method="pivotal",
        identifier="<rex>",
        adapter={"rank": 4},
        memory={"base_precision": precision},
        steps=2,
        sample_every=1,
        prior={"steps": 2},
    )
    _, events = run_fit(tmp_path, config)
    assert len(list((tmp_path / "run" / "samples").glob("step-1/*.png"))) == 2
    assert not [e for e in events if isinstance(e, Note) and "Sample at" in e.message]


def base_bytes(task: Task) -> int:
    """What the UNet takes, without what was added to it."""
    unet = task.model.unet
    own = {id(p) for p in task.trained.parameters.values()}
    tensors = [*unet.parameters(), *unet.buffers()]
    return sum(tensor.nbytes for tensor in tensors if id(tensor) not in own)


@pytest.mark.parametrize("method", ["dreambooth", "custom-diffusion"])
def test_a_base_that_trains_is_not_narrow(method: str, sd_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"memory\.base_precision 'nf4'.*method lora"):
        make_task(
            tmp_path,
            load(sd_folder, device="cpu"),
            method=method,
            memory={"base_precision": "nf4"},
        )


@pytest.mark.parametrize("method", ["dreambooth", "lora"])
def test_the_task_holds_no_vae(method: str, sd_folder: Path, tmp_path: Path) -> None:
    task = make_task(tmp_path, load(sd_folder, device="cpu"), method=method)
    held = {id(tensor) for tensor in (*task.parameters(), *task.buffers())}
    vae = task.model.vae
    assert not held & {id(tensor) for tensor in (*vae.parameters(), *vae.buffers())}
    assert not any(parameter.requires_grad for parameter in vae.parameters())
    task.step(task.where(0))["loss"].backward()
    assert all(parameter.grad is None for parameter in vae.parameters())
