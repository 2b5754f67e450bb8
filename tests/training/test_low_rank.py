"""LoRA layers in few operators give what peft gives, and are peft's again afterwards."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tintype.runtime.low_rank import LowRank, _Product


class Pair(nn.Module):
    """Two linear layers and a convolution, frozen; an adapter beside each."""

    def __init__(self, **adapter: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(24, 40, bias=False), nn.Linear(40, 24)
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.requires_grad_(False)
        given = {"r": 3, "lora_alpha": 6, "init_lora_weights": "gaussian", **adapter}
        config = LoraConfig(target_modules=["first", "second", "conv"], **given)
        inject_adapter_in_model(config, self)
        for parameter in self.parameters():
            if parameter.requires_grad:
                parameter.data.normal_(std=0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


def gradients(module: Pair, x: Tensor) -> list[Tensor]:
    """The output, and the gradients of the input and of all that trains."""
    module.zero_grad()
    asked = x.clone().requires_grad_(True)
    out = module(asked)
    out.float().pow(2).sum().backward()
    found = [p.grad for p in module.parameters() if p.grad is not None]
    assert asked.grad is not None
    return [out.detach(), asked.grad, *found]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each product in few operators."""
    made: list[int] = []
    apply = _Product.apply

    def counted(*given: Any) -> Any:
        made.append(1)
        return apply(*given)

    monkeypatch.setattr(_Product, "apply", counted)
    return made


@pytest.mark.parametrize("shape", [(2, 5, 24), (7, 24)])
@pytest.mark.parametrize("mixed", [False, True], ids=["float32", "autocast"])
def test_it_is_what_peft_makes_and_ends_as_it_was(
    shape: tuple[int, ...], mixed: bool, calls: list[int]
) -> None:
    module, x = Pair(), torch.randn(shape, generator=torch.Generator().manual_seed(1))
    context: AbstractContextManager[Any] = (
        torch.autocast("cpu", torch.bfloat16) if mixed else nullcontext()
    )
    lever = LowRank(module)
    with context:
        before = gradients(module, x)
        lever.put_in()
        during = gradients(module, x)
        lever.take_out()
        after = gradients(module, x)
    assert len(calls) == 2
    assert len(before) == 6
    near = {"rtol": 0.05, "atol": 0.05} if mixed else {"rtol": 1e-4, "atol": 1e-5}
    for mine, expected in zip(during, before, strict=True):
        assert mine.dtype == expected.dtype
        scale = expected.float().abs().max()
        torch.testing.assert_close(mine / scale, expected / scale, **near)
    assert all(torch.equal(one, other) for one, other in zip(after, before, strict=True))
    layers = [part for part in module.modules() if isinstance(part, Linear)]
    assert not any("forward" in part.__dict__ for part in layers)


def test_nothing_is_done_twice_where_activations_are(calls: list[int]) -> None:
    """With gradient checkpointing, and where the input has no gradient."""
    module, x = Pair(), torch.randn(4, 24)
    expected = gradients(module, x)
    LowRank(module).put_in()
    module.zero_grad()
    checkpoint(module, x, use_reentrant=False).pow(2).sum().backward()
    found = [p.grad for p in module.parameters() if p.grad is not None]
    for mine, other in zip(found, expected[2:], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)
    assert len(calls) == 4


@pytest.mark.parametrize(
    "adapter",
    [
        {"use_dora": True},
        {"lora_dropout": 0.5},
        {"lora_bias": True, "init_lora_weights": True},
    ],
    ids=str,
)
def test_others_are_left_to_peft(adapter: dict[str, Any]) -> None:
    assert LowRank(Pair(**adapter)).layers == []


def test_a_base_in_other_types_and_a_disabled_adapter_are_left_to_peft(calls: list[int]) -> None:
    module, x = Pair(), torch.randn(4, 24)
    lever = LowRank(module)
    assert [type(layer) for layer in lever.layers] == [Linear, Linear], "no convolution"
    lever.put_in()
    for layer in lever.layers:
        layer.enable_adapters(False)
    base = module.second.base_layer(torch.tanh(module.first.base_layer(x)))
    assert torch.equal(module(x), base)
    for layer in lever.layers:
        layer.enable_adapters(True)
        layer.base_layer.to(torch.bfloat16)
    assert module(x.bfloat16()).dtype == torch.bfloat16
    assert not calls
