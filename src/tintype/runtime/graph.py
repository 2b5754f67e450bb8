"""A UNet's forward and backward pass as CUDA graphs: recorded once, launched as a whole.

A small batch on a fast GPU waits for Python, which launches thousands of kernels a step. A graph
launches them all at once.
"""

from typing import Any

import torch
from torch import Tensor, nn

Shapes = tuple[tuple[torch.Size, torch.dtype], ...]


class Graphed:
    """The graphs of one UNet's training; `put_in` and `take_out` may alternate.

    They are recorded at the first call with gradients, and replayed for those of its shapes; all
    other calls run as ever. A replay reads and writes the same memory each time, so there must be
    one forward for each backward, gradients mustn't be summed over several, and parameters are to
    be changed in place.
    """

    name = "CUDA graph"

    def __init__(self, unet: Any) -> None:
        self.unet = unet
        self.replay: Any = None
        self.shapes: Shapes | None = None

    def put_in(self) -> None:
        """Have the UNet's training calls replayed."""
        self.unet.forward = self._run

    def take_out(self) -> None:
        """The UNet as it was."""
        del self.unet.forward

    def _run(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        added_cond_kwargs: dict[str, Tensor] | None = None,
        **named: Any,
    ) -> Any:
        added = added_cond_kwargs or {}
        given = (sample, timestep, encoder_hidden_states, *added.values())
        shapes = tuple((tensor.shape, tensor.dtype) for tensor in given)
        learns = self.unet.training and torch.is_grad_enabled()
        if not learns or self.shapes not in (None, shapes):
            forward = type(self.unet).forward
            return forward(self.unet, *given[:3], added_cond_kwargs=added_cond_kwargs, **named)
        if self.replay is None:
            self.shapes, self.replay = shapes, _record(_Forward(self.unet, tuple(added)), given)
        return (self.replay(*given),)


class _Forward(nn.Module):
    """The UNet as a function of tensors alone, `names` those of its added conditions."""

    def __init__(self, unet: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.unet, self.names = unet, names

    def forward(self, sample: Tensor, timestep: Tensor, tokens: Tensor, *added: Tensor) -> Tensor:
        conditions = dict(zip(self.names, added, strict=True)) or None
        forward: Any = type(self.unet).forward
        prediction: Tensor = forward(
            self.unet, sample, timestep, tokens, added_cond_kwargs=conditions, return_dict=False
        )[0]
        return prediction


def _record(module: nn.Module, given: tuple[Tensor, ...]) -> Any:
    """The module with its graphs; weights cast by autocast aren't kept over a recording."""
    with torch.autocast(
        "cuda",
        dtype=torch.get_autocast_dtype("cuda"),
        enabled=torch.is_autocast_enabled("cuda"),
        cache_enabled=False,
    ):
        return torch.cuda.make_graphed_callables(
            module, tuple(tensor.detach().clone() for tensor in given), allow_unused_input=True
        )
