"""What recorded work takes, told from its operators, is what it takes."""

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from tintype.runtime.ledger import Ledger, Work
from tintype.runtime.stopwatch import seconds_of

CPU = torch.device("cpu")
RATES = {"convolutions": 1e11, "products": 1e11, "moved": 1e10}


def counted(run: Callable[[], object]) -> Work:
    """The work of something on fake tensors."""
    with FakeTensorMode(), Ledger() as ledger:
        run()
    return ledger.work


def attend() -> Tensor:
    heads = torch.ones(1, 4, 256, 16, requires_grad=True)
    return functional.scaled_dot_product_attention(heads, heads, heads)


def step() -> None:
    """Layers of several kinds, forward and backward."""
    x = torch.ones(2, 32, 24, 24)
    body = nn.Sequential(
        nn.Conv2d(32, 64, 3, padding=1), nn.SiLU(), nn.Conv2d(64, 32, 3, padding=1), nn.Flatten(2)
    )
    hidden = nn.Linear(576, 576)(body(x))
    (hidden.square().sum() + attend().sum()).backward()


def seconds(run: Callable[[], None]) -> float:
    """CPU seconds of the fastest of a few, as others may use the machine."""
    found = []
    for _ in range(7):
        began = time.process_time()
        run()
        found.append(time.process_time() - began)
    return min(found)


def test_the_whole_is_the_sum_of_its_operators() -> None:
    work = counted(step)
    whole = seconds_of(work, RATES, CPU, patience=20)
    assert seconds(step) / 3 < whole < 3 * seconds(step)


def test_a_rate_that_is_wrong_is_found_out() -> None:
    """Calls are made, and their time is what counts."""
    work = counted(step)
    wrong = {kind: rate * 1e4 for kind, rate in RATES.items()}
    whole = seconds_of(work, RATES, CPU, patience=20)
    assert whole / 4 < seconds_of(work, wrong, CPU, patience=20) < 4 * whole


def test_without_patience_the_rates_are_believed() -> None:
    work = counted(step)
    told = seconds_of(work, RATES, CPU, patience=-1)
    by_rates = (work.convolutions + work.products) / 1e11 + work.moved / 1e10
    assert by_rates < told < by_rates + 1e-3 * work.dispatched


def test_attention_counts_as_a_product() -> None:
    """Two products of [256, 16] and [16, 256], and of [256, 256] and [256, 16], for four heads."""
    assert counted(attend).products == 2 * 2 * 4 * 256 * 256 * 16
