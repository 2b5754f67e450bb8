"""What is sent to the hub, and what never is; against a hub on the loopback and the real client."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.models.made import personal
from tests.models.upload_server import READER, WRITER, serve
from tintype.errors import ModelError
from tintype.models.convert.convert import convert
from tintype.models.load import load
from tintype.models.sharing.push import Pushed, plan, push
from tintype.types import ConvertRequest, PushRequest


@pytest.fixture
def run_folder(sd_folder: Path, tmp_path: Path) -> Path:
    """A run of a full fine-tune, with all that mustn't leave the machine in and around it."""
    run = tmp_path / "rex"
    shutil.copytree(sd_folder, run / "model")
    (run / "config.yaml").write_text("pictures: /home/me/photos\n")
    (run / "checkpoints" / "step-3").mkdir(parents=True)
    (run / "checkpoints" / "step-3" / "state.safetensors").write_bytes(b"x")
    private = ["photo.jpg", "photos/1.png", "photos/1.txt", ".cache/x.json", "optimizer.pt"]
    for name in [*private, "checkpoints/a.safetensors", "pictures/00.jpg", "LICENSE"]:
        place = run / "model" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"1234")
    card = {"identifier": "sks", "class_noun": "dog", "base_model": "/home/me/base"}
    (run / "model" / "tintype.json").write_text(json.dumps(card))
    (run / "model" / "README.md").write_text("Load it from path/to/this/folder.\n")
    return run


def names(pushed: Pushed) -> set[str]:
    return {upload.name for upload in pushed.uploads}


def test_a_dry_run_says_exactly_what_would_go(run_folder: Path) -> None:
    request = PushRequest(source=str(run_folder), repo="me/rex", dry_run=True)
    pushed = push(request)
    weights = [
        f"{part}/{stem}.safetensors"
        for part, stem in (
            ("unet", "diffusion_pytorch_model"),
            ("vae", "diffusion_pytorch_model"),
            ("text_encoder", "model"),
        )
    ]
    expected = {
        *weights,
        "unet/config.json",
        "vae/config.json",
        "text_encoder/config.json",
        "scheduler/scheduler_config.json",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
        "model_index.json",
        "tintype.json",
        "README.md",
        "LICENSE",
        "pictures/00.jpg",
    }
    assert names(pushed) == expected
    assert set(pushed.kept_here) == {
        "photo.jpg", "photos/1.png", "photos/1.txt", ".cache/x.json", "optimizer.pt",
        "checkpoints/a.safetensors",
    }  # fmt: skip
    assert pushed.url is None
    held = {u.name: u.source for u in pushed.uploads if isinstance(u.source, bytes)}
    assert held["README.md"] == b"Load it from me/rex.\n"
    assert json.loads(held["tintype.json"])["base_model"] == "base"
    sizes = {u.name: u.size for u in pushed.uploads}
    assert sizes[weights[0]] == (run_folder / "model" / weights[0]).stat().st_size
    assert pushed.size == sum(sizes.values())


def test_what_has_no_card_gets_one(sd_folder: Path, tmp_path: Path) -> None:
    """A model, a file, and a personal model, whose base's path stays here."""
    convert(ConvertRequest(source=str(sd_folder), out=tmp_path / "file.safetensors"))
    run = personal(tmp_path / "run", load(sd_folder, device="cpu"), words=True)
    lone = tmp_path / "lora.safetensors"
    shutil.copyfile(run / "model" / "adapter.safetensors", lone)
    for source, told, tag in (
        (sd_folder, "Stable Diffusion 1.x. A whole model.", "stable-diffusion"),
        (tmp_path / "file.safetensors", "Stable Diffusion 1.x. A whole model.", "diffusers"),
        (run, "An addition to sd: LoRA of rank 4", "tintype"),
        (lone, "An addition to its base model: a LoRA.", "lora"),
    ):
        pushed = plan(PushRequest(source=str(source), repo="me/it"))
        (text,) = (u.source for u in pushed.uploads if u.name == "README.md")
        assert isinstance(text, bytes)
        assert told in text.decode()
        assert "me/it" in text.decode()
        assert tag in yaml.safe_load(text.decode().split("---")[1])["tags"]
        if source == run:
            assert {"adapter.safetensors", "embedding-0.safetensors"} <= names(pushed)
            assert "its base model is a path on this machine" in pushed.notes[0]
            assert str(sd_folder.parent).encode() not in b"".join(
                u.source for u in pushed.uploads if isinstance(u.source, bytes)
            )


# the hub's client reads where the hub is when it is imported, so each in a process of its own
ERRORS = """
import os, sys
from tintype.errors import ModelError
from tintype.models.sharing.push import push
from tintype.types import PushRequest
for token in sys.argv[2:]:
    os.environ["HF_TOKEN"] = token
    try:
        push(PushRequest(source=sys.argv[1], repo="you/rex"))
    except ModelError as error:
        print(error)
try:
    push(PushRequest(source=sys.argv[1], repo="you/rex"), offline=True)
except ModelError as error:
    print(error)
"""


def run_python(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    return subprocess.run(
        [sys.executable, *arguments],
        env={**clean, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", **env},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow
def test_a_real_upload_arrives_whole(run_folder: Path, tmp_path: Path) -> None:
    command = ["-m", "tintype", "push", str(run_folder), "me/rex", "--private"]
    with serve() as hub:
        env = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home")}
        done = run_python(*command, HF_TOKEN=WRITER, **env)
        assert done.returncode == 0, done.stderr
        told = run_python("-c", ERRORS, str(run_folder), READER, "hf_wrong", "", **env)
    assert hub.repos == {"me/rex": "private"}
    planned = plan(PushRequest(source=str(run_folder), repo="me/rex"))
    assert hub.files["me/rex"].keys() == names(planned)
    for upload in planned.uploads:
        held = upload.source
        data = held if isinstance(held, bytes) else held.read_bytes()
        assert hub.files["me/rex"][upload.name] == data
    assert f"{hub.endpoint}/me/rex" in done.stdout
    assert "sent to the private repository me/rex" in done.stdout
    refused, unknown, missing, offline = told.stdout.splitlines()
    assert "the token may not write for you" in refused
    assert "log in again with: hf auth login" in unknown
    assert "there is no token: log in with: hf auth login (or set HF_TOKEN)" in missing
    assert "offline mode is on" in offline
    gone = run_python(*command, HF_TOKEN=WRITER, **env)
    assert (gone.returncode, gone.stdout) == (2, "")
    assert "can't be reached" in " ".join(gone.stderr.split())
    assert "Traceback" not in gone.stderr


@pytest.mark.parametrize(
    ("source", "repo", "told"),
    [
        ("here", "rex", "expected OWNER/NAME"),
        ("here", "me/../rex", "is no name of a repository"),
        ("nowhere", "me/rex", "there is no such file or folder"),
        ("empty", "me/rex", r"holds no \.safetensors file to send"),
    ],
)
def test_what_cannot_be_sent(
    source: str, repo: str, told: str, sd_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    place = sd_folder if source == "here" else tmp_path / source
    with pytest.raises(ModelError, match=told):
        push(PushRequest(source=str(place), repo=repo, dry_run=True))
