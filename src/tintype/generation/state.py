"""Borrowing a model, perhaps one in training, without leaving a trace on it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from tintype.models.model import Model


@contextmanager
def inferring(model: Model) -> Iterator[None]:
    """Every part in evaluation mode, no gradients, no autocast; as it was on the way out.

    Meant for a moment between two yields, never around one: a generator that is suspended
    inside would leave its caller in inference mode.
    """
    training = [
        module
        for part in model.parts.values()
        if part.training
        for module in part.modules()
        if module.training
    ]
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        # the weight's device, as looking for the whole UNet's takes longer than all the rest
        device = model.unet.conv_in.weight.device
        stack.enter_context(torch.autocast(device.type, enabled=False))
        for module in training:
            module.training = False
        try:
            yield
        finally:
            for module in training:
                module.training = True
