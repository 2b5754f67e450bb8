"""The optimisers, by name: one row each, whose package is imported when it is first asked for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from torch.optim import Optimizer

from tintype.errors import ConfigError, MissingExtraError
from tintype.training.methods.method import Group

ParameterGroups = list[dict[str, Any]]
# What Muon leaves to AdamW: layers at the ends of a network, and words.
ENDS = ("conv_in", "conv_out", "embed", "words")


def by_rate(groups: Sequence[Group]) -> ParameterGroups:
    """One group of parameters for each learning rate."""
    return [{"params": list(g.parameters.values()), "lr": g.learning_rate} for g in groups]


def matrices_apart(groups: Sequence[Group]) -> ParameterGroups:
    """Muon for the hidden layers' matrices and convolutions, AdamW for all else."""

    def halves(group: Group) -> Iterator[dict[str, Any]]:
        for muon in (True, False):
            chosen = [
                parameter
                for name, parameter in group.parameters.items()
                if (parameter.ndim >= 2 and not any(end in name for end in ENDS)) == muon
            ]
            if chosen:
                yield {"params": chosen, "lr": group.learning_rate, "use_muon": muon}

    return [half for group in groups for half in halves(group)]


@dataclass(frozen=True, kw_only=True)
class OptimizerSpec:
    """One row.

    `path` is "module:class" and `extra` what has to be installed with tintype for it (None:
    nothing); `defaults` are arguments that a config's own go over; `learning_rate` is its default
    in place of the model's. `fused` says that it can run as one kernel, `one_rate` that all
    groups must have the same learning rate, `averages` that it averages the weights itself: by
    its methods `eval` and `train`, and with no schedule; `shards` that its state has the shapes of
    the parameters, which may be spread over devices; `each_alone` that it updates each parameter
    without looking at others, so that they may be widened some at a time; `multiplies` that an
    update takes products of matrices, which for a large model are more than the step's own.
    """

    path: str
    extra: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    learning_rate: float | None = None
    fused: bool = False
    one_rate: bool = False
    averages: bool = False
    shards: bool = False
    each_alone: bool = False
    multiplies: bool = False
    groups: Callable[[Sequence[Group]], ParameterGroups] = by_rate

    def load(self) -> type[Optimizer]:
        """Its class; raises MissingExtraError."""
        module, name = self.path.split(":")
        package = module.partition(".")[0]
        try:
            found: type[Optimizer] = getattr(import_module(module), name)
        except ModuleNotFoundError as error:
            if error.name != package or self.extra is None:
                raise
            raise MissingExtraError(package, self.extra) from None
        return found


OPTIMIZERS = {
    # arXiv:1711.05101
    "adamw": OptimizerSpec(path="torch.optim:AdamW", fused=True, shards=True, each_alone=True),
    # arXiv:2110.02861
    "adamw-8bit": OptimizerSpec(path="bitsandbytes.optim:AdamW8bit", extra="8bit", each_alone=True),
    # arXiv:1804.04235, with the config's learning rate in place of its own
    "adafactor": OptimizerSpec(
        path="transformers.optimization:Adafactor",
        defaults={"scale_parameter": False, "relative_step": False},
        each_alone=True,
    ),
    # arXiv:2302.06675
    "lion": OptimizerSpec(path="pytorch_optimizer:Lion", each_alone=True),
    # arXiv:2307.02047
    "came": OptimizerSpec(path="pytorch_optimizer:CAME", each_alone=True),
    # arXiv:2306.06101; the learning rate is a factor of the one that it finds
    "prodigy": OptimizerSpec(
        path="pytorch_optimizer:Prodigy",
        defaults={"bias_correction": True, "safeguard_warmup": True},
        learning_rate=1.0,
        one_rate=True,
    ),
    # arXiv:2405.15682
    "schedule-free": OptimizerSpec(path="pytorch_optimizer:ScheduleFreeAdamW", averages=True),
    # arXiv:2502.16982, whose adjustment lets both halves have AdamW's learning rate
    "muon": OptimizerSpec(
        path="tintype.runtime.muon:Muon",
        defaults={"use_adjusted_lr": True},
        multiplies=True,
        groups=matrices_apart,
    ),
}


def optimizer_spec(name: str) -> OptimizerSpec:
    """The row of that name; raises ConfigError with the names there are."""
    if name not in OPTIMIZERS:
        raise ConfigError(
            "no such optimiser", field="optimizer.name", value=name, choices=OPTIMIZERS
        )
    return OPTIMIZERS[name]
