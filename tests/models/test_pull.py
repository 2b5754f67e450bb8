"""`tintype models`, against a hub on the loopback, as a person types it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.models.hub_server import COMMIT, TOKEN, serve

UNET = "unet/diffusion_pytorch_model.safetensors"


class Shell:
    """Types commands, with a home of their own."""

    def __init__(self, endpoint: str, home: Path, asked: list[str]) -> None:
        self.home, self.asked = home, asked
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("HF_")},
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "COLUMNS": "200",
            "TERM": "dumb",
        }

    def __call__(self, *words: str, answer: str = "", status: int = 0, **env: str) -> str:
        code = "from tintype.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, "models", *words],
            env={**self.env, **env},
            input=answer,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def shell(sd_folder: Path, tmp_path: Path) -> Iterator[Shell]:
    folder = tmp_path / "v1-4"
    shutil.copytree(sd_folder, folder)
    for file in list(folder.rglob("*.safetensors")):
        shutil.copy(file, file.with_name(file.name.replace(".safetensors", ".fp16.safetensors")))
    (folder / "README.md").write_text("---\nlicense: creativeml-openrail-m\n---\nA tiny one.\n")
    repos = {"CompVis/stable-diffusion-v1-4": folder, "me/tiny": sd_folder, "me/gated": sd_folder}
    with serve(repos, gated={"me/gated"}) as (endpoint, asked):
        yield Shell(endpoint, tmp_path / "home", asked)


def test_a_preset_is_pulled_listed_verified_and_removed(shell: Shell) -> None:
    name = "stable-diffusion-v1-4"
    assert f"{name}             2.1 GB to pull" in shell("list")
    said = shell("pull", name)
    assert "licence creativeml-openrail-m" in said
    assert "https://huggingface.co/CompVis/stable-diffusion-v1-4" in said
    assert str(shell.home) in said
    fetched = [line for line in shell.asked if line.startswith("GET") and "safetensors" in line]
    assert len(fetched) == 3
    assert all(".fp16.safetensors" in line for line in fetched)
    assert f"{name}             0.00 GB here" in shell("list", HF_HUB_OFFLINE="1")

    shown = shell("show", name, HF_HUB_OFFLINE="1")
    for text in ("licence          creativeml-openrail-m", "scheduler plms, steps 50", "openrail"):
        assert text in shown
    checked = shell("verify", name)
    assert checked.count("ok ") == 10
    assert "unknown" not in checked

    (blob,) = [p.resolve() for p in shell.home.rglob("*.safetensors") if p.parent.name == "unet"]
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    complaint = shell("verify", name, status=2)
    assert "1 of " in complaint
    assert f"tintype models rm {name} --yes && tintype models pull {name}" in complaint

    assert "Aborted" in shell("rm", name, answer="n\n", status=1)
    assert "Freed" in shell("rm", name, "--yes")
    assert not list(shell.home.rglob("*.safetensors"))
    assert "is not in the hub's cache" in shell("rm", name, "--yes", status=2)
    assert "is a part of tintype" in shell("rm", "pocket", "--yes", status=2)


def test_a_pull_that_was_cut_off_goes_on_where_it_stopped(shell: Shell, sd_folder: Path) -> None:
    """A process that dies leaves what it had; the next asks for the rest alone."""
    die = (
        "import os, huggingface_hub.constants as c\n"
        "c.DOWNLOAD_CHUNK_SIZE = 10_000\n"
        "from tintype.models.hub import download, hub\n"
        "download.SECONDS_BETWEEN_EVENTS = 0\n"
        "def listen(event):\n"
        "    if event.step >= 40_000 and event.total > 50_000: os._exit(9)\n"
        "hub.fetch('me/tiny', on_event=listen)"
    )
    done = subprocess.run(
        [sys.executable, "-c", die], env=shell.env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 9, done.stderr
    (part,) = shell.home.rglob("*.part")
    size = part.stat().st_size
    assert size >= 30_000
    shell.asked.clear()
    shell("pull", "me/tiny")
    weights = [line for line in shell.asked if line.startswith("GET") and UNET in line]
    assert weights == [f"GET /me/tiny/resolve/{COMMIT}/{UNET} from {size}"]
    assert not list(shell.home.rglob("*.part"))
    (pulled,) = [p for p in shell.home.rglob("*.safetensors") if p.parent.name == "unet"]
    assert pulled.read_bytes() == (sd_folder / UNET).read_bytes()
    assert "me/tiny" in shell("list")


def test_a_gated_model_says_how_to_get_in(shell: Shell) -> None:
    said = shell("pull", "me/gated", status=2)
    assert "is gated: accept its terms at http" in said
    assert "hf auth login (or set HF_TOKEN)" in said
    shell("pull", "me/gated", HF_TOKEN=TOKEN)
    assert "ok " in shell("verify", "me/gated")
