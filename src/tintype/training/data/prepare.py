"""From a config to what is trained on: class pictures, cached latents, the prompts."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tintype.models.hashing import model_key
from tintype.models.model import Model
from tintype.text.grammar import fill_identifier, fill_template
from tintype.training.data.cache import cache_latents
from tintype.training.data.crops import Crop, crops
from tintype.training.data.folder import find_pictures
from tintype.training.data.pictures import read_picture
from tintype.training.seeds import stream_seed
from tintype.training.data.prompts import PromptTable
from tintype.training.data.source import TrainData
from tintype.training.files import sha256
from tintype.training.methods.method import Method
from tintype.training.prior import class_pictures
from tintype.types import Event, Progress, SubjectConfig, TrainConfig

CACHING = "caching"
RANDOM_CROPS = 8  # a picture, where crops are random


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The files of a run: instance pictures, found before anything heavy is loaded."""

    subject: SubjectConfig
    pictures: list[Path]

    @classmethod
    def find(cls, config: TrainConfig, on_event: Callable[[Event], None] | None) -> "Sources":
        """Raises PictureError for a folder without pictures, ConfigError for none given."""
        (subject,) = config.all_subjects
        return cls(subject=subject, pictures=find_pictures(subject.pictures, on_note=on_event))


class Preparation:
    """The steps from `Sources` to TrainData, one after the other, told as events.

    `heed` is called between pictures and may raise to stop. Raises PictureError.
    """

    def __init__(
        self,
        model: Model,
        config: TrainConfig,
        method: Method,
        sources: Sources,
        *,
        on_event: Callable[[Event], None],
        heed: Callable[[], None],
    ) -> None:
        self.model, self.config, self.method, self.sources = model, config, method, sources
        self.on_event, self.heed = on_event, heed
        self.crops = self._crops(sources.pictures)
        self.class_paths: list[Path] = []

    def draw_class_pictures(self, cache_dir: Path) -> None:
        """Draw with the untouched base model those class pictures that are missing."""
        if not self.config.prior.pictures:
            return
        subject = self.sources.subject
        prompt = fill_prompt(subject.class_prompt, subject, subject.identifier)
        events = class_pictures(self.model, self.config, subject, prompt, cache_dir=cache_dir)
        for event in events:
            if isinstance(event, list):
                self.class_paths = event
            else:
                self.on_event(event)
            self.heed()

    def data_hash(self) -> str:
        """What decides the data: the base model and the contents of all pictures."""
        return f"{model_key(self.model)}-{sha256(*self.sources.pictures, *self.class_paths)}"

    def cache(self) -> TrainData:
        """Encode pictures and prompts on the model's device."""
        config, subject = self.config, self.sources.subject
        assert config.batch_size is not None, "a resolved config"
        total = len(self.crops) + len(self.class_paths)
        instance = cache_latents(
            self.model.vae,
            self.crops,
            flip_probability=config.data.flip_probability,
            on_progress=self._report(0, total),
        )
        prior = None
        if self.class_paths:
            prior = cache_latents(
                self.model.vae,
                self._crops(self.class_paths),
                flip_probability=0.0,  # what is preserved is the base's own idea of the class
                on_progress=self._report(len(self.crops), total),
            )
        word = self.method.word(subject)
        prompts = (
            fill_prompt(subject.instance_prompt, subject, word),
            fill_prompt(subject.class_prompt, subject, word),
            "",
        )
        frozen = not self.method.encodes_each_step(config)
        return TrainData(
            instance=instance,
            prior=prior,
            prompts=PromptTable.of(self.model, prompts, frozen=frozen),
            batch_size=config.batch_size,
            prior_weight=config.prior.weight,
            caption_dropout=config.data.caption_dropout,
        )

    def _crops(self, paths: list[Path]) -> list[list[Crop]]:
        config = self.config
        assert config.resolution is not None, "a resolved config"
        count = 1 if config.data.center_crop else config.data.crops
        side = config.resolution
        seeds = [stream_seed(config.seed, index, 0, "crop") for index in range(len(paths))]
        return [
            crops(read_picture(path), side, count=count, seed=seed)
            for path, seed in zip(paths, seeds, strict=True)
        ]

    def _report(self, first: int, total: int) -> Callable[[int], None]:
        def report(done: int) -> None:
            self.on_event(Progress(phase=CACHING, step=first + done, total=total))
            self.heed()

        report(0)
        return report


def fill_prompt(template: str, subject: SubjectConfig, word: str) -> str:
    """A template with the subject's class noun and the word for `[V]` filled in."""
    return fill_identifier(
        fill_template(template, subject.class_noun), word, model=str(subject.pictures)
    )
