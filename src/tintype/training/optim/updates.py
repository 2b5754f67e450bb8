"""All that changes the trained parameters: an optimiser, its learning rate, and their average."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch

from tintype.training.ema import Average
from tintype.training.methods.method import Trained
from tintype.training.optim.make import make_optimizer
from tintype.training.optim.schedules import make_schedule
from tintype.training.optim.table import optimizer_spec
from tintype.types import TrainConfig


class Updates:
    """Made when the parameters are where they will train; raises as `make_optimizer`."""

    def __init__(self, trained: Trained, config: TrainConfig) -> None:
        self.parameters = trained.parameters
        self.optimizer = make_optimizer(list(trained.groups), config)
        self.schedule = make_schedule(self.optimizer, config)
        self.settings = [
            {name: value for name, value in group.items() if name != "params"}
            for group in self.optimizer.param_groups
        ]
        decay = config.optimizer.ema_decay
        self.average = None if decay is None else Average(self.parameters, decay)
        self.optimizer_averages = optimizer_spec(config.optimizer.name).averages

    def after_step(self, step: int) -> None:
        """To be called after each step of the optimiser; `step` is how many there were."""
        if self.average is not None:
            self.average.update(self.parameters, step)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it beside the parameters."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "settings": self.settings,
            "schedule": self.schedule.state_dict(),
            "average": {} if self.average is None else self.average.values,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what `state` gave, with the settings of this config where they have changed."""
        self.optimizer.load_state_dict(state["optimizer"])
        self._lay_out()
        self.schedule.load_state_dict(state["schedule"])
        before = state.get("settings", self.settings)
        groups = self.optimizer.param_groups
        for group, now, then in zip(groups, self.settings, before, strict=True):
            group.update({k: v for k, v in now.items() if k not in then or then[k] != v})
        self.schedule.base_lrs = [group["initial_lr"] for group in groups]
        for group, factor in zip(groups, self.schedule.lr_lambdas, strict=True):
            group["lr"] = group["initial_lr"] * factor(self.schedule.last_epoch)
        if self.average is not None and state["average"]:  # else it begins here
            self.average.restore(state["average"])

    @torch.no_grad()
    def _lay_out(self) -> None:
        """Give what is kept of each parameter that one's layout: a fused step wants both alike."""
        for parameter, held in self.optimizer.state.items():
            for name, value in held.items():
                same = isinstance(value, torch.Tensor) and value.shape == parameter.shape
                if same and value.stride() != parameter.stride():
                    held[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)

    @torch.no_grad()
    def conclude(self) -> None:
        """Leave the parameters as they are to be used: averaged, if anything averages them."""
        if self.average is not None:
            for name, parameter in self.parameters.items():
                parameter.copy_(self.average.values[name])
        elif self.optimizer_averages:
            cast(Any, self.optimizer).eval()

    @contextmanager
    def concluded(self) -> Iterator[None]:
        """The parameters as they are to be used; afterwards they train on from exactly where they
        were."""
        if self.average is not None:
            with self.average.instead_of(self.parameters):
                yield
        elif self.optimizer_averages:
            kept = [p.detach().clone() for p in self.parameters.values()]
            self.conclude()
            try:
                yield
            finally:
                cast(Any, self.optimizer).train()
                with torch.no_grad():  # its own way back rounds
                    for parameter, value in zip(self.parameters.values(), kept, strict=True):
                        parameter.copy_(value)
        else:
            yield
