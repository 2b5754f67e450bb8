"""Loggers beside metrics.csv, Lightning's own, each a row of LOGGERS."""

import json
import os
import urllib.error
import urllib.request
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from tintype.errors import MissingExtraError
from tintype.files import write_text
from tintype.training.watch.likeness import Sample
from tintype.types import TrainConfig, WatchConfig

REACH_SECONDS = 5.0  # to wait for a server's first answer
FINISH_SECONDS = 20.0  # for what is still to be sent at the end


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a logger is opened with; `say` hears what the person should know, once."""

    run: Path
    config: TrainConfig
    steps_done: int
    offline: bool
    say: Callable[[str], None]

    @property
    def watch(self) -> WatchConfig:
        return self.config.watch

    @property
    def name(self) -> str:
        """The run's name for loggers."""
        return self.watch.name or self.run.name

    @property
    def settings(self) -> dict[str, Any]:
        """The config in plain values."""
        return self.config.model_dump(mode="json")


class Sink(ABC):
    """A logger that is open; raises what its library raises."""

    def __init__(self, logger: Logger) -> None:
        self.logger = logger

    def row(self, step: int, values: Mapping[str, float]) -> None:
        """The figures of a step."""
        self.logger.log_metrics(dict(values), step=step)

    @abstractmethod
    def pictures(self, step: int, samples: Sequence[Sample]) -> None:
        """The samples of a step."""

    def finish(self, ok: bool) -> None:
        """After the last call; `ok` if training ended well."""
        self.logger.finalize("finished" if ok else "failed")


class TensorBoard(Sink):
    """Event files in tensorboard/."""

    def __init__(self, told: Told) -> None:
        self.board = TensorBoardLogger(
            told.run,
            name="tensorboard",
            version="",
            default_hp_metric=False,
            purge_step=told.steps_done + 1,
        )
        super().__init__(self.board)
        if not told.steps_done:
            lines = json.dumps(told.settings, indent=2).splitlines()
            text = "\n".join(f"    {line}" for line in lines)  # Markdown for "as it is"
            self.board.experiment.add_text("config", text)

    def pictures(self, step: int, samples: Sequence[Sample]) -> None:
        for sample in samples:
            pixels = np.asarray(sample.image.convert("RGB"))
            self.board.experiment.add_image(
                f"samples/{sample.path.stem} {sample.prompt}", pixels, step, dataformats="HWC"
            )


class Wandb(Sink):
    """Weights & Biases; without a server or a key its files stay in wandb/, to be synced later."""

    def __init__(self, told: Told) -> None:
        import wandb

        online = not told.offline and _can_log_in(told)
        settings: dict[str, Any] = {
            "silent": True,
            "console": "off",
            "disable_git": True,
            "disable_code": True,
            "x_disable_stats": True,
            "reinit": "create_new",
            "init_timeout": 2 * REACH_SECONDS,
            "finish_timeout": FINISH_SECONDS,
        }
        run = wandb.init(
            project=told.watch.project,
            name=told.name,
            dir=told.run,
            id=_kept_id(told.run / "wandb.json"),
            resume="allow",
            tags=list(told.watch.tags),
            config=told.settings,
            mode="online" if online else "offline",
            settings=wandb.Settings(**settings),
        )
        run.define_metric("trainer/global_step")
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        self.wandb = WandbLogger(experiment=run)
        super().__init__(self.wandb)

    def pictures(self, step: int, samples: Sequence[Sample]) -> None:
        captions = [sample.prompt for sample in samples]
        images = [sample.image for sample in samples]
        self.wandb.log_image("samples", images, step=step, caption=captions)

    def finish(self, ok: bool) -> None:
        super().finish(ok)
        self.wandb.experiment.finish(exit_code=0 if ok else 1)


class MLflow(Sink):
    """MLflow; without a server its files stay in mlruns/."""

    def __init__(self, told: Told) -> None:
        from mlflow.environment_variables import MLFLOW_TRACKING_URI

        here = told.run / "mlruns"
        uri = told.watch.tracking_uri or MLFLOW_TRACKING_URI.get()
        if told.offline or not uri or not _answers(uri, "MLflow", f"{here} keeps it", told.say):
            uri = f"file:{here}"
        if uri.startswith("file:"):  # MLflow's wish is a database, which takes SQLAlchemy
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        key = here.name if uri == f"file:{here}" else uri
        kept = told.run / "mlflow.json"
        known = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
        self.mlflow = MLFlowLogger(
            experiment_name=told.watch.project,
            run_name=told.name,
            tracking_uri=uri,
            tags=dict.fromkeys(told.watch.tags, "true"),
            run_id=known.get(key),
        )
        super().__init__(self.mlflow)
        if key not in known:
            self.mlflow.log_hyperparams(told.settings)
            write_text(kept, json.dumps({**known, key: self.mlflow.run_id}, indent=2) + "\n")

    def pictures(self, step: int, samples: Sequence[Sample]) -> None:
        for sample in samples:
            self.mlflow.experiment.log_artifact(
                self.mlflow.run_id, str(sample.path), f"samples/step-{step}"
            )


@dataclass(frozen=True, kw_only=True)
class LoggerSpec:
    """How a logger is opened, the package and extra that it needs, and its library's errors as
    "module:name"."""

    title: str
    package: str
    extra: str | None
    open: Callable[[Told], Sink]
    error: str | None


LOGGERS = {
    "tensorboard": LoggerSpec(
        title="TensorBoard", package="tensorboard", extra=None, open=TensorBoard, error=None
    ),
    "wandb": LoggerSpec(
        title="Weights & Biases",
        package="wandb",
        extra="wandb",
        open=Wandb,
        error="wandb.errors:Error",
    ),
    "mlflow": LoggerSpec(
        title="MLflow",
        package="mlflow",
        extra="mlflow",
        open=MLflow,
        error="mlflow.exceptions:MlflowException",
    ),
}


def check_loggers(config: TrainConfig) -> None:
    """Raises MissingExtraError for a logger whose package isn't installed."""
    for name in config.watch.loggers:
        spec = LOGGERS[name]
        found = find_spec(spec.package)
        # a folder of that name, as wandb leaves, is found too, but has no origin
        if spec.extra is not None and (found is None or found.origin is None):
            raise MissingExtraError(spec.title, spec.extra)


def _kept_id(file: Path) -> str:
    """The id that a run has for a logger, made once."""
    if not file.is_file():
        write_text(file, json.dumps({"id": uuid.uuid4().hex[:12]}) + "\n")
    return str(json.loads(file.read_text(encoding="utf-8"))["id"])


def _can_log_in(told: Told) -> bool:
    """Whether Weights & Biases answers and knows who asks; says so if not."""
    import wandb

    later = f"{told.run / 'wandb'} keeps it, for `wandb sync`"
    if not wandb.login(prompt=False, verify=False):
        told.say(f"Weights & Biases has no API key (wandb login): {later}")
        return False
    return _answers(wandb.setup().settings.base_url, "Weights & Biases", later, told.say)


def _answers(uri: str, title: str, otherwise: str, say: Callable[[str], None]) -> bool:
    """Whether there is a server, if it is one of the web; says what happens otherwise."""
    if not uri.startswith(("http://", "https://")):
        return True
    try:
        urllib.request.urlopen(uri, timeout=REACH_SECONDS).close()
    except urllib.error.HTTPError:
        return True  # an answer all the same
    except OSError as error:
        reason = getattr(error, "reason", error)
        say(f"{title} can't be reached at {uri} ({reason}): training goes on, {otherwise}")
        return False
    return True
