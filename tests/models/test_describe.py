"""Descriptions, read from headers alone, against the loaded models; and the hashes of weights."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.models.test_single_file import ldm_state
from tintype.errors import ModelError
from tintype.models.describe import describe
from tintype.models.hashing import model_key, weights_sha256
from tintype.models.load import load
from tintype.models.model import Model

UNET = Path("unet") / "diffusion_pytorch_model.safetensors"


def counts(model: Model) -> dict[str, int]:
    return {name: sum(p.numel() for p in part.parameters()) for name, part in model.parts.items()}


@pytest.mark.parametrize("fixture", ["sd_folder", "sdxl_folder"])
def test_a_description_tells_what_loading_would_find(
    fixture: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model = load(request.getfixturevalue(fixture), device="cpu")
    folder = Path(shutil.copytree(model.card.path, tmp_path / "model"))
    (folder / "tintype.json").write_text('{"identifier": "sks", "class_noun": "dog"}')
    (folder / "concepts.json").write_text('{"concepts": [{"name": "cat"}, {"name": "dog"}]}')
    (folder / "README.md").write_text("---\nlicense: cc0-1.0\n---\nA small one.\n")
    told = describe(folder)
    assert told.family == model.family.title
    assert {part.name: part.parameters for part in told.parts} == counts(model)
    assert told.parameters == sum(counts(model).values())
    size = sum(p.stat().st_size for p in folder.rglob("*.safetensors"))
    assert told.megabytes == pytest.approx(size / 1e6)
    assert (told.native_size, told.prediction_type) == (64, "epsilon")
    assert (told.identifier, told.class_noun) == ("sks", "dog")
    assert told.concepts == ("cat", "dog")
    assert (told.licence, told.card) == ("cc0-1.0", "A small one.")

    file = tmp_path / "model.safetensors"
    save_file(ldm_state(model.parts), file, metadata={"modelspec.resolution": "64x64"})
    told = describe(file)
    assert told.family == model.family.title
    assert {part.name: part.parameters for part in told.parts} == counts(model)
    assert (told.native_size, told.licence) == (64, None)


def test_describing_needs_no_torch_and_no_network(sd_folder: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from tintype.models.describe import describe;"
        "print(describe(sys.argv[1]).family); assert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", script, str(sd_folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("Stable Diffusion 1.x\n", "")
    with pytest.raises(ModelError, match="hub's cache"):
        describe("owner/name", cache_dir=tmp_path)


def test_the_hash_follows_the_weights_and_nothing_else(sd_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sd_folder, tmp_path / "model"))
    before = weights_sha256(folder)
    assert before == weights_sha256(sd_folder)
    key = model_key(load(folder, device="cpu"))
    assert key == model_key(load(sd_folder, device="cpu"))
    assert len(key) == 16

    (folder / "README.md").write_text("words")
    os.utime(folder / UNET)
    assert weights_sha256(folder) == before

    state = load_file(folder / UNET)
    state["conv_in.bias"][0] += 1
    save_file(state, folder / UNET)
    assert weights_sha256(folder) != before
    assert model_key(load(folder, device="cpu")) != key
    assert weights_sha256(folder / UNET) != weights_sha256(sd_folder / UNET)

    scheduler = folder / "scheduler" / "scheduler_config.json"
    changed = {**json.loads(scheduler.read_text()), "prediction_type": "v_prediction"}
    after = model_key(load(folder, device="cpu"))
    scheduler.write_text(json.dumps(changed))
    assert model_key(load(folder, device="cpu")) != after
    with pytest.raises(ModelError, match="holds no weights"):
        weights_sha256(folder / "scheduler")
