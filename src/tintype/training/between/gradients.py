"""Whether a gradient reaches everything that is to train."""

import torch

from tintype.training.between.part import Moment, Part
from tintype.training.ranks.shards import own_part
from tintype.training.watch.watch import Watch


class Gradients(Part):
    """Looks once, after the first step of a run, when its gradients are still there."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def after_step(self, moment: Moment) -> None:
        if moment.step != 1:
            return
        found: dict[str, list[torch.Tensor]] = {}
        for group in moment.task.trained.groups:
            if not group.waits:
                for name, parameter in group.parameters.items():
                    gradients = found.setdefault(name.split(".")[0], [])
                    if parameter.grad is not None:
                        gradients.append(parameter.grad)
        for part, gradients in found.items():
            reached = any(bool(own_part(gradient).any()) for gradient in gradients)
            if not moment.task.crew.any(reached) and moment.is_first_rank:
                self.watch.warn(
                    moment.step,
                    "no gradient",
                    f"{part} is to train, but no gradient reaches it, so nothing in it will "
                    "change: does the base model heed its prompts at all? With precision "
                    "16-mixed, gradients this small vanish: try bf16-mixed or 32",
                )
