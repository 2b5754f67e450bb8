"""From a config to what is trained on: class pictures, cached latents, the prompts."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from transformers import CLIPTokenizer

from tintype.errors import ModelError
from tintype.files import sha256
from tintype.models.hashing import model_key
from tintype.models.model import Model
from tintype.pictures import read_picture
from tintype.text.grammar import fill_identifier, fill_template
from tintype.training.batch import Where
from tintype.training.data.buckets import Buckets, bucket_note
from tintype.training.data.captions import shuffles
from tintype.training.data.contents import Contents
from tintype.training.data.crops import Size
from tintype.training.data.folder import some
from tintype.training.data.holes import CLASS_HOLES, INSTANCE_HOLES, Holes
from tintype.training.data.pools import Member, Way, make_pool
from tintype.training.data.prompts import PromptTable
from tintype.training.data.source import Pool, TrainData
from tintype.training.data.sources import Picture, Sources, SubjectFiles
from tintype.training.methods.method import Method
from tintype.training.places import class_batch
from tintype.training.prior import EMPTY, class_pictures, counts, unconditional_pictures
from tintype.training.ranks import ALONE, Crew
from tintype.training.seeds import stream_seed
from tintype.types import Event, Note, Progress, SubjectConfig, TrainConfig

CACHING = "caching"
TINY = 0.5  # of the resolution: smaller pictures are blurred when they are trained on

Report = Callable[[int], None]


class Preparation:
    """The steps from `Sources` to TrainData, one after the other, told as events.

    `heed` is called between pictures and may raise to stop. Raises PictureError for a picture
    that can't be read, ConfigError for buckets that the model can't take, ModelError for a UNet
    with inputs that aren't known here.
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
        assert config.resolution is not None, "a resolved config"
        self.model, self.config, self.method, self.sources = model, config, method, sources
        self.base = model_key(model)  # before it is stored in fewer bits, if it is
        self.on_event, self.heed = on_event, heed
        _check_inputs(model)
        self.buckets = Buckets.of(model, config.data, config.resolution)
        self.sizes = {
            picture.path: read_picture(picture.path).size for picture in self._all_pictures()
        }
        self.chosen: dict[Path, Size] = {
            path: self.buckets.choose(size) for path, size in self.sizes.items()
        }
        self._tell_sizes()
        self.class_paths: dict[str, list[Path]] = {}

    def draw_class_pictures(self, cache_dir: Path, crew: Crew = ALONE) -> None:
        """Draw with the untouched base model those class pictures that are missing, once for
        each class prompt, and those of the empty prompt, all processes together."""
        prior = self.config.prior
        if not prior.pictures or not prior.weight or prior.source == "model":
            unused = [s.class_dir for s in self.config.all_subjects if s.class_dir is not None]
            for folder in dict.fromkeys(unused):
                message = f"The class pictures in {folder} aren't used: see prior.pictures"
                self.on_event(Note(message=message))
            return
        for template, count in counts(self.config).items():
            prompt = self._filled(template, self.sources.subject, _identifier)
            own = self.sources.class_folders.get(template, ())
            self._take(
                template,
                class_pictures(
                    self.model,
                    self.config,
                    prompt,
                    own,
                    count=count,
                    cache_dir=cache_dir,
                    crew=crew,
                ),
            )
        count = round(prior.unconditional * sum(map(len, self.class_paths.values())))
        if count:
            self._take(
                EMPTY,
                unconditional_pictures(
                    self.model, self.config, count, cache_dir=cache_dir, crew=crew
                ),
            )

    def _take(self, template: str, events: Iterable[Event | list[Path]]) -> None:
        """Keep the paths that come last, and tell what comes before."""
        for event in events:
            if isinstance(event, list):
                self.class_paths[template] = event
            else:
                self.on_event(event)
            self.heed()

    def contents(self) -> Contents:
        """What decides the data: the base model, and all pictures, masks and captions."""
        class_pictures = {}
        for template, paths in self.class_paths.items():
            own = self.sources.class_folders.get(template, ())
            after = f" of {template!r}" if len(self.class_paths) > 1 else ""
            for path in paths:
                name = path.name if path in own else f"drawn {path.name}"
                class_pictures[name + after] = {"picture": sha256(path)}
        return Contents(
            base=self.base,
            pictures=self.sources.told(),
            class_pictures=class_pictures,
        )

    def data_hash(self) -> str:
        """A hash of what decides the data, as the first checkpoints have it."""
        digest = hashlib.sha256(self.sources.content().encode())
        for template, paths in self.class_paths.items():
            digest.update(f"{template}\0{sha256(*paths)}\n".encode())
        return f"{self.base}-{digest.hexdigest()}"

    def fill(self, template: str, subject: SubjectConfig | None = None) -> str:
        """A template as the model in training reads it: the words for `[V]`, which is `subject`
        (the first), and for every subject by its name, and the class noun."""
        return self._filled(template, subject or self.sources.subject, self.method.word)

    def cache(self, places: Iterable[Where] | None = None) -> TrainData:
        """Encode pictures and prompts on the model's device.

        With `places`, those of the run where data is drawn, only what is looked at there.
        """
        config = self.config
        assert config.batch_size is not None, "a resolved config"
        texts = _Numbered()
        members = [self._members(f, f.pictures, texts) for f in self.sources.subjects]
        held_out = [self._members(f, f.held_out, texts) for f in self.sources.subjects]
        pools = {
            "instance": [member for some in members for member in some],
            "class": list(self._class_members(texts)),
            "validation": [member for some in held_out for member in some],
        }
        done, total = 0, sum(len(some) for some in pools.values())
        made: dict[str, Pool | None] = {}
        for name, chosen in pools.items():
            made[name] = None
            if chosen:
                report = self._report(done, total)
                seen = None if name == "validation" else places  # that looks at all it has
                made[name] = make_pool(name, self.model.vae, chosen, self._way(name), report, seen)
            done += len(chosen)
        empty = texts.row(EMPTY)
        self._tell_long(texts.all)
        frozen = not self.method.encodes_each_step(config)
        instance = made["instance"]
        assert instance is not None, "no subject is without pictures"
        return TrainData(
            instance=instance,
            prior=made["class"],
            validation=made["validation"],
            prompts=PromptTable.of(self.model, texts.all, frozen=frozen),
            batch_size=config.batch_size,
            prior_weight=config.prior.weight,
            caption_dropout=config.data.caption_dropout,
            empty=empty,
            unmasked_weight=config.data.unmasked_weight,
        )

    def _members(
        self, files: SubjectFiles, pictures: Sequence[Picture], texts: "_Numbered"
    ) -> list[Member]:
        """The pictures of a subject with their prompts."""
        subject = files.subject
        return [
            Member(
                path=picture.path,
                size=self.chosen[picture.path],
                captions=tuple(texts.row(text) for text in self._captions(picture, subject)),
                class_prompt=texts.row(self.fill(subject.class_prompt, subject)),
                mask=picture.mask,
                weight=subject.weight,
                repeats=subject.repeats,
            )
            for picture in pictures
        ]

    def _captions(self, picture: Picture, subject: SubjectConfig) -> list[str]:
        """All that may be said of a picture: its caption, with its tags in several orders if they
        are to be shuffled, else the instance prompt and the others."""
        data = self.config.data
        if picture.caption is None:
            said = [subject.instance_prompt, *data.other_prompts]
        elif data.shuffle_captions:
            seed = stream_seed(self.config.seed, 0, 0, f"tags/{picture.caption}")
            said = shuffles(picture.caption, keep=data.keep_tokens, seed=seed)
        else:
            said = [picture.caption]
        return [self.fill(text, subject) for text in said]

    def _class_members(self, texts: "_Numbered") -> Iterator[Member]:
        """The class pictures, squares whatever the buckets, each with its class prompt."""
        assert self.config.resolution is not None, "a resolved config"
        side = self.config.resolution
        for template, paths in self.class_paths.items():
            row = texts.row(self.fill(template))
            for path in paths:
                yield Member(path=path, size=(side, side), captions=(row,), class_prompt=row)

    def _way(self, name: str) -> Way:
        """How the pictures of a pool are cut and drawn."""
        config = self.config
        assert config.batch_size is not None, "a resolved config"
        instance = name == "instance"
        holes = None
        if self.model.extra_channels:
            holes = Holes(INSTANCE_HOLES if instance else CLASS_HOLES, config.seed, name)
        # class pictures are never mirrored: what is preserved is the base's own idea of the class
        return Way(
            batch_size=class_batch(config) if name == "class" else config.batch_size,
            crops=1 if config.data.center_crop or name == "validation" else config.data.crops,
            flip_probability=config.data.flip_probability if instance else 0.0,
            seed=config.seed,
            holes=holes,
        )

    def _filled(
        self, template: str, subject: SubjectConfig, word: Callable[[SubjectConfig], str]
    ) -> str:
        return fill_identifier(
            fill_template(template, subject.class_noun),
            word(subject),
            model=str(subject.pictures),
            names={each.called: word(each) for each in self.config.all_subjects},
        )

    def _all_pictures(self) -> Iterator[Picture]:
        for files in self.sources.subjects:
            yield from files.pictures
            yield from files.held_out

    def _tell_sizes(self) -> None:
        """The table of buckets, and pictures far below the resolution."""
        config = self.config
        assert config.resolution is not None, "a resolved config"
        if config.data.buckets:
            self.on_event(bucket_note(self.chosen, self.sizes))
        least = (TINY * config.resolution) ** 2
        tiny = [path.name for path, (width, height) in self.sizes.items() if width * height < least]
        if tiny and (config.data.bucket_upscale or not config.data.buckets):
            message = (
                f"Far smaller than {config.resolution} px, so they will look blurred: {some(tiny)}"
            )
            self.on_event(Note(message=message))

    def _tell_long(self, texts: Sequence[str]) -> None:
        """Captions that no text encoder reads to their end."""
        long = [text for text in texts if any(_too_long(t, text) for t in self.model.tokenizers)]
        if long:
            limit = min(tokenizer.model_max_length for tokenizer in self.model.tokenizers)
            message = (
                f"{len(long)} captions are longer than the {limit} tokens that this model reads: "
                f"their ends are cut off, as of {long[0][:60]!r}…"
            )
            self.on_event(Note(message=message))

    def _report(self, first: int, total: int) -> Report:
        def report(done: int) -> None:
            self.on_event(Progress(phase=CACHING, step=first + done, total=total))
            self.heed()

        report(0)
        return report


class _Numbered:
    """Distinct texts, numbered as they come."""

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}

    def row(self, text: str) -> int:
        return self._rows.setdefault(text, len(self._rows))

    @property
    def all(self) -> tuple[str, ...]:
        return tuple(self._rows)


def _identifier(subject: SubjectConfig) -> str:
    return subject.identifier


def _too_long(tokenizer: CLIPTokenizer, text: str) -> bool:
    ids = tokenizer(text, truncation=False, verbose=False).input_ids
    return len(ids) > int(tokenizer.model_max_length)


def _check_inputs(model: Model) -> None:
    """Raises ModelError for a UNet that takes other things beside latents than inpainting does."""
    if model.extra_channels not in (0, 1 + model.latent_channels):
        raise ModelError(
            f"takes {model.extra_channels} channels beside its latents, which only inpainting with "
            f"{1 + model.latent_channels} is known to train",
            field="model",
            value=model.card.id,
        )
