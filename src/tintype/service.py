"""The one door for every front: requests in, events and results out."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tintype.errors import ConfigError
from tintype.generation.kept import Kept
from tintype.settings import Settings
from tintype.types import (
    ConvertRequest,
    Event,
    GenerateRequest,
    MergeRequest,
    Note,
    PushRequest,
    SweepConfig,
    TrainConfig,
    TrainResult,
    UpscaleRequest,
)

if TYPE_CHECKING:
    from tintype.demo import DemoResult
    from tintype.evaluate.report import Evaluation
    from tintype.generation.control.source import Source
    from tintype.generation.library import Library
    from tintype.models.convert.convert import Converted
    from tintype.models.describe import ModelDescription
    from tintype.models.hub.cached import Checked, Entry
    from tintype.models.inspect import FileDescription
    from tintype.models.model import Model
    from tintype.models.sharing.push import Pushed
    from tintype.sweeping.run import SweepResult
    from tintype.text.encode import EmbeddingCache
    from tintype.training.plan import Plan

Emit = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The listener of a caller who only wants the result."""


class Service:
    """What tintype does, on one machine and with one person's settings.

    The model used last stays loaded, and the ControlNets and the like that it was led by, so that
    the next request for them starts at once. The heavy libraries are imported by the methods that
    need them: a front that shows help loads none.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._loaded: tuple[str, Model] | None = None
        self._refiner: tuple[str, Model] | None = None
        self._encoded: EmbeddingCache | None = None
        self._kept = Kept()

    def model(self, name: str, *, emit: Emit = ignore) -> "Model":
        """The model of that name, loaded once; raises ModelError and its kind."""
        if self._loaded is None or self._loaded[0] != name:
            from tintype.text.encode import EmbeddingCache

            self._loaded = None
            self._encoded = None
            self._kept.clear()
            self._loaded = (name, self._load(name, emit))
            self._encoded = EmbeddingCache()
        return self._loaded[1]

    def refiner(self, name: str, *, emit: Emit = ignore) -> "Model":
        """A second model, kept beside the first; raises ModelError and its kind."""
        if self._refiner is None or self._refiner[0] != name:
            self._refiner = None
            self._refiner = (name, self._load(name, emit))
        return self._refiner[1]

    def _load(self, name: str, emit: Emit) -> "Model":
        from tintype.models.load import load

        return load(
            name,
            device=self.settings.device,
            allow_pickle=self.settings.allow_pickle,
            offline=self.settings.offline,
            on_event=emit,
        )

    def generate(self, request: GenerateRequest, *, emit: Emit = ignore) -> Iterator[Event]:
        """Draw: Progress for each step, a GeneratedImage for each picture; close to cancel."""
        from tintype.generation.engine import draw_many
        from tintype.schedulers import canonical

        canonical(request.scheduler)  # a typing error shouldn't wait for gigabytes to load
        requests = self.expand(request)
        model = self.model(request.model, emit=emit)
        yield from draw_many(
            model,
            requests,
            library=self.library(),
            cache=self._encoded,
            load=lambda name: self.refiner(name, emit=emit),
            source=self._source(emit),
        )

    def library(self) -> "Library":
        """The folders of adapters, embeddings and upscalers that the settings name."""
        from tintype.generation.library import Library

        return Library(
            adapters=self.settings.adapters_dir,
            embeddings=self.settings.embeddings_dir,
            upscalers=self.settings.upscalers_dir,
            allow_pickle=self.settings.allow_pickle,
        )

    def _source(self, emit: Emit) -> "Source":
        """How ControlNets and the like are found and loaded; they stay loaded beside the model."""
        from tintype.generation.control.source import Source
        from tintype.models.control.find import find_control, find_detector

        offline, pickle = self.settings.offline, self.settings.allow_pickle
        return Source(
            find=partial(find_control, allow_pickle=pickle, offline=offline, on_event=emit),
            find_detector=partial(find_detector, offline=offline, on_event=emit),
            kept=self._kept,
            allow_pickle=pickle,
        )

    def like(self, picture: Path, *, emit: Emit = ignore) -> GenerateRequest:
        """The request in a picture; a Note of each adapter or embedding of it that isn't here.

        Raises PictureError for a file that holds no request.
        """
        from tintype.generation.hashes import differences
        from tintype.generation.images import hashes_in, read_request

        request = read_request(picture)
        for note in differences(hashes_in(picture), request, self.library()):
            emit(Note(message=note))
        return request

    def expand(self, request: GenerateRequest) -> list[GenerateRequest]:
        """The requests that `generate` draws: styles applied, wildcards and choices made.

        Raises PromptError for an unknown style or wildcard.
        """
        from tintype.generation.expand import expand_request
        from tintype.text.styles import read_styles
        from tintype.text.wildcards import wildcard_lines

        file = self.settings.styles_file
        if request.styles and file is None:
            raise ConfigError("is not set, so there are no styles", field="styles_file")
        styles = read_styles(file) if request.styles and file else {}
        lines = wildcard_lines(self.settings.wildcards_dir)
        return expand_request(request, styles=styles, lines=lines)

    def upscale(self, request: UpscaleRequest) -> Iterator[Path]:
        """Write larger pictures to the folder for pictures, with what is written in them.

        Raises PictureError for what is no picture, ConfigError for an unknown upscaler.
        """
        from tintype.generation.upscale import upscale
        from tintype.runtime.device import resolve_device

        return upscale(
            request,
            self.settings.out_dir,
            library=self.library(),
            device=resolve_device(self.settings.device),
            kept=self._kept,
        )

    def upscalers(self) -> "dict[str, str]":
        """The picture upscalers by name, and what each is."""
        from tintype.generation.upscale import PICTURE

        files = self.library().upscaler_names
        return {name: "built in" for name in PICTURE} | {n: str(p) for n, p in files.items()}

    def train(self, config: TrainConfig, *, emit: Emit = ignore) -> TrainResult:
        """Run a training to its end, or until the person interrupts it."""
        from tintype.training.run import fit

        return fit(
            config,
            cache_dir=self.settings.cache_dir,
            runs_dir=self.settings.runs_dir,
            device=self.settings.device,
            allow_pickle=self.settings.allow_pickle,
            offline=self.settings.offline,
            on_event=emit,
        )

    def plan(self, config: TrainConfig) -> "Plan":
        """What a training would take, in memory and time; nothing is begun, written or fetched."""
        from tintype.training.plan import plan_run

        return plan_run(config, device=self.settings.device, runs_dir=self.settings.runs_dir)

    def resume(
        self,
        run: Path,
        *,
        changes: Mapping[str, Any] | None = None,
        allow_changed: bool = False,
        emit: Emit = ignore,
    ) -> TrainResult:
        """Go on with a run from its last checkpoint, with `changes` laid over its config.

        Raises RunError for a run that has changed otherwise than `allow_changed` allows.
        """
        from tintype.training.run import resume

        return resume(
            run,
            cache_dir=self.settings.cache_dir,
            changes=changes,
            allow_changed=allow_changed,
            device=self.settings.device,
            allow_pickle=self.settings.allow_pickle,
            offline=self.settings.offline,
            on_event=emit,
        )

    def evaluate(self, run: Path, *, emit: Emit = ignore) -> "Evaluation":
        """Measure a run before and after training, and draw its contact sheet."""
        from tintype.evaluate.report import evaluate_run

        return evaluate_run(run, device=self.settings.device, on_event=emit)

    def demo(self, out: Path, *, emit: Emit = ignore) -> "DemoResult":
        """Train on the bundled subject and show what came of it."""
        from tintype.demo import run_demo

        return run_demo(
            out, cache_dir=self.settings.cache_dir, device=self.settings.device, on_event=emit
        )

    def sweep(self, config: SweepConfig, *, emit: Emit = ignore) -> "SweepResult":
        """Train with many settings, measure each and rank them; goes on with what is there."""
        from tintype.sweeping.run import sweep

        return sweep(
            config, cache_dir=self.settings.cache_dir, device=self.settings.device, on_event=emit
        )

    def read_sweep(self, folder: Path) -> SweepConfig:
        """The sweep that a folder holds; raises RunError for any other folder."""
        from tintype.sweeping.run import read_sweep

        return read_sweep(folder)

    def describe(self, name: str) -> "ModelDescription | FileDescription":
        """What a model, or any safetensors file, is: read off its configs and headers."""
        from tintype.models.describe import describe_any

        return describe_any(name, allow_pickle=self.settings.allow_pickle)

    def inspect(self, file: str) -> "FileDescription":
        """What a safetensors file holds, read off its header."""
        from tintype.models.inspect import inspect

        return inspect(Path(file).expanduser())

    def models(self) -> "list[Entry]":
        """The embedded model, the presets, and the models in the hub's cache."""
        from tintype.models.hub.cached import entries

        return entries()

    def pull(self, name: str, *, emit: Emit = ignore) -> Path:
        """Download a preset or hub model, going on where that stopped; gives its files' place.

        Raises ModelError for one that doesn't exist, is gated or can't be reached.
        """
        from tintype.models.loading.find import find
        from tintype.models.presets import preset

        row = preset(name)
        if row is not None:
            emit(Note(message=f"{row.title}: licence {row.licence}, {row.terms}"))
        return find(
            name,
            allow_pickle=self.settings.allow_pickle,
            offline=self.settings.offline,
            on_event=emit,
        ).path

    def remove(self, name: str) -> float:
        """Delete a preset or hub model from the cache; gives the MB that this freed."""
        from tintype.models.hub.cached import remove

        return remove(name)

    def verify(self, name: str, *, emit: Emit = ignore) -> "list[Checked]":
        """Hash a model's files; raises WeightsError if one is damaged."""
        from tintype.models.hub.cached import raise_damaged, verify

        checked = verify(name, on_event=emit)
        raise_damaged(name, checked)
        return checked

    def convert(self, request: ConvertRequest, *, emit: Emit = ignore) -> "Converted":
        """Write a model, an adapter or an embedding in another layout or precision."""
        from tintype.models.convert.convert import convert

        return convert(
            request,
            allow_pickle=self.settings.allow_pickle,
            offline=self.settings.offline,
            on_event=emit,
        )

    def merge(self, request: MergeRequest, *, emit: Emit = ignore) -> "Converted":
        """Merge models, or adapters, or adapters into a model."""
        from tintype.models.sharing.merge import merge

        return merge(
            request,
            allow_pickle=self.settings.allow_pickle,
            offline=self.settings.offline,
            on_event=emit,
        )

    def push(self, request: PushRequest) -> "Pushed":
        """Send a model, an adapter or an embedding to the hub, or say what would be sent."""
        from tintype.models.sharing.push import push

        return push(request, offline=self.settings.offline)
