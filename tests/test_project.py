"""The habits of the project: style, types, layers, and a start that costs nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        pytest.param(("mypy",), marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_checkers_are_content(command: tuple[str, ...]) -> None:
    result = run(sys.executable, "-m", *command)
    assert result.returncode == 0, result.stdout + result.stderr


def test_imports_point_down() -> None:
    result = run(
        sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("start", ["import tintype", "import tintype.cli", "import tintype.types"])
def test_start_loads_nothing_heavy(start: str) -> None:
    heavy = "{'torch', 'diffusers', 'transformers', 'numpy', 'PIL', 'pytorch_lightning'}"
    code = f"{start}; import sys; print(sorted({heavy} & set(sys.modules)))"
    result = run(sys.executable, "-c", code)
    assert result.stdout.strip() == "[]", result.stdout + result.stderr


def test_files_stay_small() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in (ROOT / "src").rglob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert long == {}


def test_package_stays_small() -> None:
    weights = list((ROOT / "src").rglob("*.safetensors"))
    sizes = {path.name: path.stat().st_size / 1e6 for path in weights}
    assert weights
    assert max(sizes.values()) <= 15, sizes
    assert sum(sizes.values()) <= 38, sizes
