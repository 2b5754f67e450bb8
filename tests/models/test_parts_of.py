"""A folder with some parts alone, whose others are an embedded model's."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from tintype.errors import WeightsError
from tintype.models.convert.convert import convert
from tintype.models.describe import describe
from tintype.models.hashing import model_key
from tintype.models.load import load
from tintype.pocket import weights_dir
from tintype.types import ConvertRequest


@pytest.fixture
def unet_alone(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    shutil.copytree(weights_dir() / "unet", folder / "unet")
    card = {"parts_of": "pocket", "defaults": {"generate": {"steps": 7}}}
    (folder / "tintype.json").write_text(json.dumps(card))
    return folder


def test_missing_parts_are_the_embedded_models(
    unet_alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, pocket = load(unet_alone, device="cpu"), load("pocket", device="cpu")
    for name, part in pocket.parts.items():
        for key, value in part.state_dict().items():
            assert torch.equal(mine.parts[name].state_dict()[key], value), (name, key)
    assert mine.scheduler_config == pocket.scheduler_config
    assert [part.name for part in describe(unet_alone).parts] == ["unet", "vae", "text_encoder"]
    key = model_key(mine)
    assert key != model_key(pocket)
    monkeypatch.setattr("tintype.models.loading.folder.pocket.models", lambda: {})
    assert model_key(mine) != key  # what it shares counts
    monkeypatch.undo()
    convert(ConvertRequest(source=str(unet_alone), out=tmp_path / "whole"))
    assert (tmp_path / "whole" / "vae" / "config.json").is_file()
    card = json.loads((tmp_path / "whole" / "tintype.json").read_text())
    assert card["defaults"] == {"generate": {"steps": 7}}
    assert "parts_of" not in card
    whole = load(tmp_path / "whole", device="cpu")
    assert torch.equal(whole.vae.decoder.conv_in.weight, pocket.vae.decoder.conv_in.weight)


@pytest.mark.parametrize("other", [None, "rocket", 3, ["pocket"]])
def test_without_such_a_model_the_part_is_missing(unet_alone: Path, other: object) -> None:
    (unet_alone / "tintype.json").write_text(json.dumps({"parts_of": other}))
    with pytest.raises(WeightsError, match=r"vae is missing|text_encoder is missing"):
        load(unet_alone, device="cpu")
