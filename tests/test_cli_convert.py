"""`tintype convert`, `merge` and `push` as a person types them."""

from pathlib import Path

import pytest

from tests.test_cli import Shell
from tintype.models.load import load


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return Shell(monkeypatch, capsys)


def test_pocket_to_a_file_and_back(shell: Shell) -> None:
    code, out, _ = shell("convert", "pocket", "pocket.safetensors")
    size = f"{Path('pocket.safetensors').stat().st_size / 1e6:.1f} MB"
    assert (code, out) == (0, f"Wrote pocket.safetensors (model, single-file, {size})\n")
    code, out, _ = shell("convert", "pocket.safetensors", "copy", "--dtype", "fp16", "--pruned")
    assert code == 0
    assert out.startswith("Wrote copy (model, diffusers, ")
    code, _, err = shell("convert", "pocket", "pocket.safetensors")
    assert code == 2
    assert "exists already: add --force to replace it" in err
    code, out, _ = shell("merge", "mix.safetensors", "pocket:0.5", "copy", "--force")
    assert (code, out) == (0, f"Wrote mix.safetensors (model, single-file, {size})\n")
    ours, pocket = (load(name, device="cpu") for name in ("mix.safetensors", "pocket"))
    assert all(
        (ours.unet.state_dict()[name] == tensor).all()
        for name, tensor in pocket.unet.state_dict().items()
    )
    code, out, _ = shell("push", "copy", "me/pocket", "--private", "--dry-run")
    assert code == 0
    lines = out.splitlines()
    assert any(line.endswith(" MB  unet/diffusion_pytorch_model.safetensors") for line in lines)
    assert lines[-1].endswith("would be sent to the private repository me/pocket")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["convert", "nothing-here", "x"], "there is no such model"),
        (["convert", "pocket", "x", "--dtype", "fp4"], "Choices: fp32, fp16, bf16, fp8"),
        (["merge", "x.safetensors", "pocket", "--rank", "0"], "rank 0"),
        (["push", "nothing-here", "me/x"], "there is no such file or folder"),
    ],
)
def test_what_is_wrong_is_said(shell: Shell, words: list[str], told: str) -> None:
    code, _, err = shell(*words)
    assert code == 2
    assert told in err
