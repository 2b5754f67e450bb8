"""Threads on a machine that others use."""

import os
import sys

import pytest
import torch

from tintype import cli
from tintype.runtime.threads import busy_cores, idle_cores
from tintype.training.keeping.machine import take_up_threads


@pytest.mark.parametrize(
    ("busy", "idle"),
    [([0.0, 0.0], 2), ([0.2, 0.2], 2), ([1.0, 0.1], 1), ([1.0, 1.0], 1), ([0.9, 1.0, 0, 0], 2)],
)
def test_threads_are_as_many_as_cores_are_idle(busy: list[float], idle: int) -> None:
    assert idle_cores(busy) == idle


def test_only_cores_of_this_process_are_looked_at() -> None:
    busy = busy_cores()
    assert len(busy) == len(os.sched_getaffinity(0))
    assert all(0 <= share <= 1 for share in busy)


@pytest.mark.parametrize(("given", "expected"), [(None, "1"), ("7", "7")])
def test_a_person_who_says_how_many_is_heeded(
    given: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "busy_cores", lambda: [1.0, 0.3])
    monkeypatch.setattr("sys.argv", ["tintype", "schedulers"])
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    if given is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    cli._leave_cores_to_others()
    assert os.environ["OMP_NUM_THREADS"] == expected
    monkeypatch.delenv("OMP_NUM_THREADS")


def test_a_resumed_run_takes_up_its_threads() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        take_up_threads({"threads": 1, "devices": 2}, devices=1)
        assert torch.get_num_threads() == 2
        take_up_threads({"threads": 1, "devices": 1}, devices=1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
