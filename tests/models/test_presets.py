"""Every preset against diffusers' own pipeline, from a hub on the loopback, in its true layout."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.models.hub_server import serve
from tests.models.preset_layouts import write_repositories
from tintype.errors import ModelError
from tintype.models.families.registry import family
from tintype.models.load import load
from tintype.models.loading.locate import locate
from tintype.models.presets import PRESETS, preset
from tintype.schedulers import canonical
from tintype.types import GenerateRequest


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    root = tmp_path_factory.mktemp("presets")
    repos = write_repositories(root)
    with serve(repos, gated=set()) as (endpoint, _):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "tests.models.preset_driver",
                json.dumps({name: str(path) for name, path in repos.items()}),
            ],
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith("HF_")},
                "HF_ENDPOINT": endpoint,
                "HF_HOME": str(root / "home"),
                "HF_HUB_DISABLE_XET": "1",
            },
            capture_output=True,
            text=True,
            timeout=500,
        )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_draws_what_diffusers_draws_with_its_defaults(
    name: str, outcomes: dict[str, dict[str, Any]]
) -> None:
    row, got = PRESETS[name], outcomes[name]
    assert (got["id"], got["family"]) == (name, row.family)
    assert got["difference"] <= 1
    for field, value in row.generate.items():
        assert got["request"][field] == value, field
    tagged = f"a dog, {row.quality_tags}" if row.quality_tags else "a dog"
    assert got["tagged"] == tagged
    # a variant is downloaded alone, and of many files only the one that is meant
    weights = got["files"]
    if row.variant:
        assert all(".fp16." in file for file in weights)
    if row.file:
        assert weights == []  # the path is that of the file itself


def test_the_rows_are_whole() -> None:
    for row in PRESETS.values():
        assert family(row.family)
        request = GenerateRequest(prompt="a dog", **row.generate)
        assert canonical(request.scheduler) == request.scheduler
        assert row.refiner is None or row.refiner in PRESETS
        assert row.licence
        assert 1 < row.gigabytes < 15
        assert all(width % 8 == height % 8 == 0 for width, height in row.buckets)
    wanted = (
        "stable-diffusion-v1-4",
        "stable-diffusion-v1-5",
        "stable-diffusion-xl-base-1.0",
        "animagine-xl-4.0",
        "novaAnimeXL_ilV140",
        "playground-v2.5-1024px-aesthetic",
    )
    assert set(wanted) <= PRESETS.keys()


def test_every_preset_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    documented = re.findall(
        r"^\| `([\w.-]+)` \| [^|]+ \| (\w+), (\d+) steps?, ", page, re.MULTILINE
    )
    stated = [
        (row.name, row.generate["scheduler"], str(row.generate["steps"]))
        for row in PRESETS.values()
    ]
    assert documented == stated


def test_names_and_hub_ids_mean_presets_and_folders_win(
    sd_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert preset("Animagine-XL-4.0") is preset("cagliostrolab/animagine-xl-4.0")
    base = preset("stabilityai/stable-diffusion-xl-base-1.0")
    assert base is not None
    assert base.adapter is None
    assert preset("ByteDance/SDXL-Lightning") is None
    assert preset("pocket") is None
    monkeypatch.chdir(tmp_path)
    assert locate("animagine-xl-4.0") is None
    (tmp_path / "animagine-xl-4.0").symlink_to(sd_folder)
    found = locate("animagine-xl-4.0")
    assert found is not None
    assert found.path == Path("animagine-xl-4.0")
    with pytest.raises(ModelError, match=r"Did you mean animagine-xl-4\.0"):
        load("animagine-xl-4")
    with pytest.raises(ModelError, match=r"in the hub's cache.*tintype models pull CompVis/"):
        load("stable-diffusion-v1-4", offline=True, cache_dir=tmp_path / "cache")
