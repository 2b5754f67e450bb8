"""Before and after training: the same prompts and seeds given to both models."""

import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL.Image import Image

from tintype.generation.engine import draw_many
from tintype.models.model import Model
from tintype.text.grammar import IDENTIFIER, fill_template
from tintype.types import Event, GeneratedImage, GenerateRequest, Progress

ARTICLE_IDENTIFIER = re.compile(r"\b(an?|the|my) " + re.escape(IDENTIFIER))

# From the paper's own list of prompts (arXiv:2208.12242, supplement), one kind of context each.
PROMPTS = (
    "a [V] {class_noun} in the jungle",
    "a [V] {class_noun} in the snow",
    "a [V] {class_noun} on the beach",
    "a [V] {class_noun} with a city in the background",
    "a [V] {class_noun} with a mountain in the background",
    "a [V] {class_noun} floating on top of water",
)


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What is drawn, alike on both models.

    Picture i of each prompt is drawn from `seed + i`; `[V]` and `{class_noun}` are filled in.
    `others` are further fields of a GenerateRequest.
    """

    class_noun: str
    identifier: str
    prompts: tuple[str, ...] = PROMPTS
    class_prompt: str = "a photo of a {class_noun}"
    seed: int = 1000  # class pictures to train on are drawn from 0
    pictures: int = 3
    class_pictures: int = 6
    steps: int = 25
    guidance_scale: float = 7.5
    scheduler: str = "ddim"
    others: Mapping[str, Any] = field(default_factory=dict)

    def drawn(self, prompt: str) -> str:
        """The prompt as the models are given it: both know the identifier by its own name."""
        return fill_template(prompt, self.class_noun).replace(IDENTIFIER, self.identifier)

    def shown(self, prompt: str) -> str:
        """The prompt as a person writes it, with `[V]`."""
        return fill_template(prompt, self.class_noun)

    def meant(self, prompt: str) -> str:
        """The prompt in words that a CLIP knows: "[V] dog" and "a [V] dog" are "a dog"."""
        words = ARTICLE_IDENTIFIER.sub(r"\1", prompt).replace(IDENTIFIER, "a")
        return fill_template(words, self.class_noun)

    def requests(self) -> tuple[GenerateRequest, ...]:
        """One request a prompt, the class prompt last."""
        counts = [(prompt, self.pictures) for prompt in self.prompts]
        counts.append((self.class_prompt, self.class_pictures))
        return tuple(
            GenerateRequest(
                prompt=self.drawn(prompt),
                seed=self.seed,
                num_images=count,
                steps=self.steps,
                guidance_scale=self.guidance_scale,
                scheduler=self.scheduler,
                **self.others,
            )
            for prompt, count in counts
        )

    @property
    def settings(self) -> str:
        """How it is drawn, as a line below the pictures tells it."""
        told = f"{self.scheduler}, {self.steps} steps, guidance {self.guidance_scale:g}"
        options = self.requests()[0].guidance
        if (options.start, options.end) == (0, 1):
            return told
        return f"{told} from {options.start:.0%} to {options.end:.0%} of them"


@dataclass(frozen=True, kw_only=True)
class Drawings:
    """What one model drew: for each prompt its pictures in the order of their seeds."""

    prompts: tuple[tuple[Image, ...], ...]
    class_pictures: tuple[Image, ...]


def draw_all(model: Model, protocol: Protocol, *, phase: str) -> Generator[Event, None, Drawings]:
    """Draw the whole protocol with one model; Progress is in pictures, named `phase`."""
    requests = protocol.requests()
    total = sum(request.num_images for request in requests)
    found: dict[tuple[str, int], Image] = {}
    yield Progress(phase=phase, step=0, total=total)
    for event in draw_many(model, requests):
        if isinstance(event, GeneratedImage):
            found[event.request.prompt, event.request.seed] = event.image
            yield Progress(phase=phase, step=len(found), total=total)
    rows = [
        tuple(found[request.prompt, request.seed + i] for i in range(request.num_images))
        for request in requests
    ]
    return Drawings(prompts=tuple(rows[:-1]), class_pictures=rows[-1])
