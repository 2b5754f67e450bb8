"""What a run does again and again, done once with stand-ins for pictures and prompts.

On a model whose weights are fake tensors this takes neither memory nor time, and a Ledger tells
what it would have taken; on a real one it can be timed.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from tintype.generation.engine import default_batch_size
from tintype.generation.latents import DECODE_PIXELS
from tintype.models.families.family import Conditioning
from tintype.models.model import Model
from tintype.text.encode import encode_tokens
from tintype.training.data.cache import ENCODE_PIXELS, encode_pixels
from tintype.training.methods.adapters import add_adapters
from tintype.training.methods.method import Group, Method, Trained, text_encoders
from tintype.training.methods.narrow import PURE
from tintype.training.places import asks_base, class_batch
from tintype.types import TrainConfig

MIXED = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
PRECISIONS = {**MIXED, PURE: torch.bfloat16}


def make_fake(*parts: nn.Module) -> None:
    """Give empty modules fake weights on the CPU; to be called within a FakeTensorMode."""
    for part in parts:
        part._apply(lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype))


def make_ready(model: Model, kind: Method, config: TrainConfig) -> Trained:
    """The method's own, but that new words, whose first values can't be had without weights, are
    stood in for by the positions' embeddings: gradients take the same way to both."""
    if not kind.encodes_each_step(config) or config.train_text_encoder:
        return kind.make_ready(model, config)
    encoders = text_encoders(model)
    groups: tuple[Group, ...] = ()
    if "adapter" in kind.groups:
        groups = add_adapters(model, config).groups
    assert config.learning_rate is not None, "a resolved config"
    words = {
        f"{folder}.{name}": parameter.requires_grad_(True)
        for folder, encoder in encoders.items()
        for name, parameter in encoder.named_parameters()
        if name.endswith("position_embedding.weight")
    }
    group = Group(name="words", parameters=words, learning_rate=config.learning_rate)
    return Trained(parts={"unet": model.unet, **encoders}, groups=(*groups, group))


class Rehearsal:
    """One step, one drawing and one encoding of a run whose model is made ready.

    `one_by_one` says that pictures are decoded so, as they are on a CPU.
    """

    def __init__(
        self, model: Model, config: TrainConfig, kind: Method, *, one_by_one: bool = False
    ) -> None:
        assert config.batch_size is not None, "a resolved config"
        assert config.resolution is not None, "a resolved config"
        self.model, self.config = model, config
        self.encodes = kind.encodes_each_step(config)
        classes = class_batch(config)
        self.rows = config.batch_size + classes
        self.asked = classes if asks_base(config) else 0
        self.side = config.resolution
        self.drawn = default_batch_size(self.side, self.side)
        self.decoded = 1 if one_by_one else max(1, min(self.drawn, DECODE_PIXELS // self.side**2))
        self.encoded = max(1, ENCODE_PIXELS // self.side**2)

    @property
    def device(self) -> torch.device:
        return self.model.device

    def latents(self, rows: int, channels: int) -> Tensor:
        """Noise of a latent's size."""
        side = self.side // self.model.latent_factor
        return torch.randn(rows, channels, side, side, device=self.device)

    def conditioning(self, rows: int) -> Conditioning:
        """Embeddings of so many prompts, as they come from the cache."""
        width = int(self.model.unet.config.cross_attention_dim)
        length = self.model.tokenizers[0].model_max_length
        encoders = zip(self.model.family.text_encoders, self.model.text_encoders, strict=True)
        pooled = [int(encoder.config.projection_dim) for spec, encoder in encoders if spec.pooled]
        return Conditioning(
            tokens=torch.randn(rows, length, width, device=self.device),
            pooled=torch.randn(rows, pooled[-1], device=self.device) if pooled else None,
        )

    def forward(self, rows: int, conditioning: Conditioning) -> Tensor:
        """The UNet's prediction for so many latents."""
        kind = self.model.dtype
        sizes = torch.full((rows, 6), self.side, device=self.device)
        added = self.model.family.added_conditions(self.model, conditioning, sizes)
        inputs = self.latents(rows, int(self.model.unet.config.in_channels))
        prediction: Tensor = self.model.unet(
            inputs.to(kind),
            torch.zeros(rows, dtype=torch.long, device=self.device),
            conditioning.tokens.to(kind),
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
        return prediction

    def step(self) -> None:
        """Forward and backward pass of one micro-step; and, before it, what the base is asked: at
        each step, or all of it before the first."""
        with self._autocast():
            self._ask()
            conditioning = self._encoded() if self.encodes else self.conditioning(self.rows)
            prediction = self.forward(self.rows, conditioning)
            target = self.latents(self.rows, self.model.latent_channels)
            loss = ((prediction.float() - target) ** 2).mean(dim=(1, 2, 3)).sum()
        loss.backward()

    @torch.no_grad()
    def _ask(self) -> None:
        if self.asked:
            self.forward(self.asked, self.conditioning(self.asked))

    @torch.no_grad()
    def denoise(self) -> None:
        """One step of drawing: the UNet with and without the prompt."""
        rows = 2 * self.drawn
        self.forward(rows, self.conditioning(rows))

    @torch.no_grad()
    def read(self) -> None:
        """An instance and a class prompt, through all text encoders."""
        self._encoded()

    @torch.no_grad()
    def decode(self) -> None:
        """As many pictures as are decoded at once."""
        latents = self.latents(self.decoded, self.model.latent_channels)
        self.model.vae.decode(latents.to(self.model.vae.dtype), return_dict=False)

    def encode(self) -> None:
        """As many pictures as are encoded at once."""
        encode_pixels(
            self.model.vae, torch.randn(self.encoded, 3, self.side, self.side, device=self.device)
        )

    def _encoded(self) -> Conditioning:
        """The instance and the class prompt, through encoders that train."""
        prompts = min(2, self.rows)
        ids = tuple(
            torch.zeros(prompts, tokenizer.model_max_length, dtype=torch.long, device=self.device)
            for tokenizer in self.model.tokenizers
        )
        return encode_tokens(self.model, ids).repeat(self.rows // prompts)

    def _autocast(self) -> AbstractContextManager[object]:
        dtype = MIXED.get(self.config.precision)
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype)


def storage(modules: dict[str, nn.Module]) -> int:
    """Bytes of the weights and buffers of modules; what they share counts once."""
    found = {
        id(tensor): tensor.numel() * tensor.element_size()
        for module in modules.values()
        for tensor in (*module.parameters(), *module.buffers())
    }
    return sum(found.values())
