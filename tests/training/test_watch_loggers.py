"""What loggers are told, read back by their own libraries; servers that aren't there."""

import http.server
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb
from mlflow.tracking import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.training.helpers import make_config, run_fit
from tintype.errors import MissingExtraError
from tintype.training.run import resume
from tintype.training.watch.rows import read_rows
from tintype.types import Note


@pytest.fixture(autouse=True)
def _nobody_logged_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("WANDB_API_KEY", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def nowhere() -> str:
    """The address of a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


class _Refuses(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    do_POST = do_GET

    def log_message(self, format: str, *arguments: object) -> None:
        """Keeps quiet."""


@pytest.fixture
def refusing() -> Iterator[str]:
    """A server that is there and knows nothing of what it is asked."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Refuses) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_every_logger_is_told_everything_and_goes_on(sd_folder: Path, tmp_path: Path) -> None:
    watch = {
        "loggers": ("tensorboard", "mlflow", "wandb"),
        "offline": True,
        "name": "Rex",
        "tags": ("dogs",),
    }
    config = make_config(
        tmp_path,
        sd_folder,
        watch=watch,
        sample_every=2,
        prior={"steps": 2},
        seed=7,
        train_text_encoder=True,
        optimizer={"text_encoder_learning_rate": 5e-4},
    )
    run_fit(tmp_path, config)
    run = tmp_path / "run"
    resume(run, cache_dir=tmp_path / "cache", device="cpu", changes={"steps": 6})
    rows = read_rows(run)
    losses = {row.step: row.loss for row in rows}
    assert list(losses) == [1, 2, 3, 4, 5, 6]

    board = EventAccumulator(str(run / "tensorboard")).Reload()
    told = {event.step: event.value for event in board.Scalars("loss")}
    assert told == pytest.approx(losses)
    assert [e.step for e in board.Scalars("likeness")] == [0, 2, 4, 6]
    assert len(board.Tags()["images"]) == 2
    assert [e.step for e in board.Images(board.Tags()["images"][0])] == [0, 2, 4, 6]

    client = MlflowClient(f"file:{run / 'mlruns'}")
    (found,) = client.search_runs([client.get_experiment_by_name("tintype").experiment_id])
    assert found.info.run_id == json.loads((run / "mlflow.json").read_text())["mlruns"]
    assert (found.info.run_name, found.info.status) == ("Rex", "FINISHED")
    assert found.data.tags["dogs"] == "true"
    assert found.data.params["seed"] == "7"
    history = client.get_metric_history(found.info.run_id, "loss")
    assert {metric.step: metric.value for metric in history} == pytest.approx(losses)
    assert len(history) == 6
    names = {"gradient_norm", "likeness", "class_similarity", "learning_rate", "instance_loss"}
    assert names <= found.data.metrics.keys()
    assert found.data.metrics["text_encoder_learning_rate"] == 5e-4
    pictures = client.list_artifacts(found.info.run_id, "samples/step-6")
    assert [Path(each.path).name for each in pictures] == ["00.png", "01.png"]

    name = json.loads((run / "wandb.json").read_text())["id"]
    kept = sorted((run / "wandb").glob(f"offline-run-*-{name}"))
    assert len(kept) == 2  # one run, in two pieces
    for folder, count in zip(kept, (6, 2), strict=True):
        data = (folder / f"run-{name}.wandb").read_bytes()
        assert b"gradient_norm" in data
        assert b"Rex" in data
        assert len(list(folder.glob("files/media/images/*.png"))) == count


def test_servers_that_are_not_there(
    nowhere: str, sd_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is missed once, soon, and its files stay here."""
    monkeypatch.setenv("WANDB_BASE_URL", nowhere)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    wandb.teardown()  # it reads its environment once
    watch = {"loggers": ("mlflow", "wandb"), "tracking_uri": nowhere}
    config = make_config(tmp_path, sd_folder, watch=watch)
    start = time.monotonic()
    _, events = run_fit(tmp_path, config)
    assert time.monotonic() - start < 30
    notes = [event.message for event in events if isinstance(event, Note)]
    (told,) = [note for note in notes if "MLflow" in note]
    assert f"can't be reached at {nowhere}" in told
    assert "training goes on" in told
    (told,) = [note for note in notes if "Weights & Biases" in note]
    assert f"can't be reached at {nowhere}" in told
    assert "wandb sync" in told
    run = tmp_path / "run"
    client = MlflowClient(f"file:{run / 'mlruns'}")
    (found,) = client.search_runs([client.get_experiment_by_name("tintype").experiment_id])
    assert found.data.metrics["loss"] == pytest.approx(read_rows(run)[-1].loss)
    assert list(run.glob("wandb/offline-run-*/*.wandb"))


def test_weights_and_biases_without_a_key(sd_folder: Path, tmp_path: Path) -> None:
    wandb.teardown()
    _, events = run_fit(tmp_path, make_config(tmp_path, sd_folder, watch={"loggers": ("wandb",)}))
    (told,) = [e.message for e in events if isinstance(e, Note) and "Weights" in e.message]
    assert "no API key" in told
    assert list((tmp_path / "run").glob("wandb/offline-run-*/*.wandb"))


def test_a_server_that_fails(refusing: str, sd_folder: Path, tmp_path: Path) -> None:
    watch = {"loggers": ("mlflow",), "tracking_uri": refusing}
    _, events = run_fit(tmp_path, make_config(tmp_path, sd_folder, watch=watch))
    (told,) = [e.message for e in events if isinstance(e, Note) and "MLflow" in e.message]
    assert told.startswith("MLflow failed (")
    assert len(read_rows(tmp_path / "run")) == 4


@pytest.mark.parametrize(("name", "title"), [("wandb", "Weights & Biases"), ("mlflow", "MLflow")])
def test_a_missing_package_is_said_before_anything_is_done(
    name: str, title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # what Python takes for "not there"
    config = make_config(tmp_path, tmp_path / "no model", watch={"loggers": (name,)})
    with pytest.raises(MissingExtraError, match=rf"{title} .*'tintype\[{name}\]'"):
        run_fit(tmp_path, config)
