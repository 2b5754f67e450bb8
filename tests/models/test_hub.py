"""Hub ids, against a hub on the loopback and the real client, each in a fresh process."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.models.hub_server import TOKEN, serve

SCRIPT = """
import json, sys
from pathlib import Path
from tintype.errors import ModelError
from tintype.models.hub.hub import fetch
events = []
try:
    path = fetch(sys.argv[1], offline="offline" in sys.argv, on_event=events.append)
    files = [p.relative_to(path).as_posix() for p in sorted(path.rglob("*")) if p.is_file()]
    answer = {"path": str(path), "files": files}
except ModelError as error:
    answer = {"error": type(error).__name__ + ": " + str(error)}
answer["events"] = [[e.phase, e.step, e.total] for e in events]
answer["torch"] = "torch" in sys.modules
print(json.dumps(answer))
"""


class Hub:
    """Runs `fetch` in a process of its own, with a home of its own."""

    def __init__(self, endpoint: str, asked: list[str], home: Path) -> None:
        self.asked = asked
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("HF_")},
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
        }

    def fetch(self, *arguments: str, **env: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, *arguments],
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return {**answer, "stderr": done.stderr}


@pytest.fixture
def hub(sd_folder: Path, tmp_path: Path) -> Iterator[Hub]:
    tiny = tmp_path / "tiny"
    shutil.copytree(sd_folder, tiny)
    weights = tiny / "unet" / "diffusion_pytorch_model.safetensors"
    shutil.copy(weights, weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
    shutil.copy(weights, weights.with_name("diffusion_pytorch_model.bin"))
    shutil.copy(weights, tiny / "v1-5-pruned.safetensors")
    pickled = tmp_path / "pickled"
    shutil.copytree(sd_folder, pickled)
    whole = pickled / "vae" / "diffusion_pytorch_model.safetensors"
    whole.rename(whole.with_suffix(".bin"))
    repos = {"me/tiny": tiny, "me/gated": sd_folder, "me/pickled": pickled}
    with serve(repos, gated={"me/gated"}) as (endpoint, asked):
        yield Hub(endpoint, asked, tmp_path / "home")


def test_downloads_what_is_needed_once_and_then_works_offline(hub: Hub, sd_folder: Path) -> None:
    first = hub.fetch("me/tiny")
    weights = [name for name in first["files"] if name.endswith((".safetensors", ".bin"))]
    assert weights == [
        "text_encoder/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    for name in first["files"]:
        assert (Path(first["path"]) / name).read_bytes() == (sd_folder / name).read_bytes()
    assert {phase for phase, _, _ in first["events"]} == {"download"}
    assert any(step == total for _, step, total in first["events"])
    assert first["stderr"] == ""
    assert not first["torch"]

    asked = len(hub.asked)
    assert hub.fetch("me/tiny", "offline")["path"] == first["path"]
    assert hub.fetch("me/tiny", HF_HUB_OFFLINE="1")["path"] == first["path"]
    assert len(hub.asked) == asked
    assert hub.fetch("me/tiny", HF_ENDPOINT="http://127.0.0.1:9")["path"] == first["path"]


def test_a_gated_model_says_how_to_log_in_and_takes_a_token(hub: Hub) -> None:
    error = hub.fetch("me/gated")["error"]
    assert error.startswith("ModelError: model 'me/gated': is gated: accept its terms at ")
    assert "/me/gated, then log in with: hf auth login (or set HF_TOKEN)" in error
    assert "unet/config.json" in hub.fetch("me/gated", HF_TOKEN=TOKEN)["files"]


def test_a_missing_model_and_an_unreachable_hub_say_what_to_do(hub: Hub) -> None:
    assert "there is no such model on http" in hub.fetch("me/nothing")["error"]
    for answer in (hub.fetch("me/tiny", "offline"), hub.fetch("me/tiny", HF_HUB_OFFLINE="1")):
        assert "is not (or not wholly) in the hub's cache" in answer["error"]
        assert "tintype models pull me/tiny" in answer["error"]


def test_a_download_that_was_cut_short_is_not_taken_for_the_model(hub: Hub) -> None:
    path = Path(hub.fetch("me/tiny")["path"])
    (path / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    assert "not wholly" in hub.fetch("me/tiny", "offline")["error"]
    assert "vae/diffusion_pytorch_model.safetensors" in hub.fetch("me/tiny")["files"]


def test_pickles_are_refused_before_they_are_downloaded(hub: Hub) -> None:
    error = hub.fetch("me/pickled")["error"]
    assert error.startswith("WeightsError: ")
    assert "vae/diffusion_pytorch_model.bin" in error
    assert "--allow-pickle" in error
    assert not any(
        "resolve" in path and path.endswith((".bin", ".safetensors")) for path in hub.asked
    )
