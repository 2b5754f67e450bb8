"""Sample pictures of a model in training, with the same seeds each time."""

from collections.abc import Callable, Sequence
from pathlib import Path

from tintype.errors import ModelError
from tintype.files import storage_errors
from tintype.generation.engine import draw_many
from tintype.models.model import Model
from tintype.runtime.memory import let_go
from tintype.training.prior import save_whole
from tintype.training.watch.likeness import Sample
from tintype.types import Event, GeneratedImage, GenerateRequest, Note, Progress, TrainConfig

PHASE = "sampling"


def draw_samples(
    model: Model,
    config: TrainConfig,
    prompts: Sequence[tuple[str, str]],
    run: Path,
    step: int,
    on_event: Callable[[Event], None],
) -> list[Sample]:
    """One picture a prompt into samples/step-N/, picture i from seed + i; the model stays as it is.

    The UNet is where it trains; what lies elsewhere visits its device when it is needed.
    `prompts` are as a person writes them, each with what it becomes for this model. A picture that
    isn't finite is a Note, not an error. Raises StorageError.
    """
    folder = run / "samples" / f"step-{step}"
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    requests = [
        GenerateRequest(
            prompt=filled,
            model=model.card.id,
            steps=config.prior.steps,
            guidance_scale=config.prior.guidance_scale,
            seed=config.seed + index,
            width=config.resolution,
            height=config.resolution,
        )
        for index, (_, filled) in enumerate(prompts)
    ]
    samples: list[Sample] = []
    on_event(Progress(phase=PHASE, step=0, total=len(requests)))
    try:
        for event in draw_many(model, requests):
            if isinstance(event, GeneratedImage):
                path = folder / f"{event.index:02d}.png"
                save_whole(event.image, path)
                prompt, _ = prompts[event.index]
                samples.append(Sample(prompt=prompt, path=path, image=event.image))
                on_event(Progress(phase=PHASE, step=len(samples), total=len(requests)))
    except ModelError as error:
        on_event(Note(message=f"Sample at step {step}: {error}"))
    let_go(model.device)
    return sorted(samples, key=lambda sample: sample.path)
