"""Shared fixtures: small real models, made once a session."""

import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def sd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Stable Diffusion 1.x of 64 px; never write into it."""
    from tests.tiny import save_sd

    return save_sd(tmp_path_factory.mktemp("models") / "sd")


@pytest.fixture(scope="session")
def sdxl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random SDXL of 64 px; never write into it."""
    from tests.tiny import save_sdxl

    return save_sdxl(tmp_path_factory.mktemp("models") / "sdxl")
