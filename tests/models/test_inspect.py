"""Any safetensors file, told from its header."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.models.test_single_file import ldm_state
from tintype.errors import WeightsError
from tintype.models.describe import ModelDescription, describe_any
from tintype.models.inspect import inspect
from tintype.models.load import load


@pytest.mark.parametrize(
    ("kind", "name", "shape"),
    [
        ("a LoRA", "lora_unet_mid_block.lora_down.weight", (4, 16)),
        ("a textual inversion embedding", "emb_params", (3, 768)),
        ("a bare VAE", "decoder.up.0.block.0.conv1.weight", (8, 8, 3, 3)),
        ("Stable Diffusion 1.x, not whole", "model.diffusion_model.out.0.weight", (8, 8, 3, 3)),
        ("a file of unknown kind", "weights", (2, 2, 2)),
    ],
)
def test_a_file_that_is_no_base_model_is_shown_for_what_it_is(
    kind: str, name: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    file = tmp_path / "file.safetensors"
    save_file({name: torch.zeros(shape, dtype=torch.float16)}, file, {"ss_network_dim": "4"})
    told = describe_any(file)
    assert told == inspect(file)
    rows = told.rows()
    assert (rows["kind"], rows["tensors"]) == (kind, "1 F16")
    assert rows["metadata ss_network_dim"] == "4"
    assert told.tensor_rows() == {name: f"F16 {list(shape)}"}
    assert told.megabytes * 1e6 == 2 * torch.zeros(shape).numel()


def test_a_checkpoint_is_described_as_a_model(sd_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file(ldm_state(load(sd_folder, device="cpu").parts), file)
    told = describe_any(file)
    assert isinstance(told, ModelDescription)
    assert inspect(file).kind == "Stable Diffusion 1.x"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="is truncated"):
        describe_any(file)
    with pytest.raises(WeightsError, match=r"no \.safetensors file"):
        inspect(tmp_path / "notes.txt")
