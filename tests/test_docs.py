"""The documentation is run: its commands work, its help texts are today's, its links lead."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from tintype.types import TrainConfig

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMANDS = [
    [],
    ["demo"],
    ["train"],
    ["sweep"],
    ["generate"],
    ["upscale"],
    ["evaluate"],
    ["convert"],
    ["merge"],
    ["push"],
    ["schedulers"],
    ["models", "list"],
    ["models", "show"],
    ["models", "pull"],
    ["models", "rm"],
    ["models", "verify"],
]


def environment(home: Path) -> dict[str, str]:
    """A new person's machine: nothing cached, tintype on the PATH, an 80-column terminal."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "80",
        "TERM": "dumb",
        "NO_COLOR": "1",
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "left"),
    [
        ("tutorial.md", ["runs/*/contact-sheet.png", "outputs/*.png"]),
        ("prompts.md", ["both/*.png", "chosen/0003-2.png", "between/*.png"]),
        ("models.md", []),
        ("convert.md", ["*.safetensors", "baked/README.md", "outputs/*.png"]),
        ("modes.md", ["start/*.png", "outputs/*.png"]),
        ("sweep.md", ["runs/*/ranking.csv", "runs/*/sheet.png"]),
        ("data.md", ["runs/two/model/tintype.json", "outputs/*.png"]),
    ],
)
def test_pages_work_as_written(page: str, left: list[str], tmp_path: Path) -> None:
    """Every block of a page in order, in one folder, as a reader would type them."""
    blocks = BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))
    assert blocks
    for language, code in blocks:
        shell = ["bash", "-euo", "pipefail", "-c"] if language == "bash" else [sys.executable, "-c"]
        result = subprocess.run(
            [*shell, code],
            cwd=tmp_path,
            env=environment(tmp_path),
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert result.returncode == 0, f"{code}\n{result.stdout}\n{result.stderr}"
    assert all(list(tmp_path.glob(pattern)) for pattern in left)


def help_page(home: Path) -> str:
    """docs/cli.md as it should be."""
    parts = ["# The command line\n\nWritten by `python -m tests.write_docs`; a test compares it.\n"]
    for command in COMMANDS:
        text = subprocess.run(
            ["tintype", *command, "--help"],
            env=environment(home),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        lines = "\n".join(line.rstrip() for line in text.strip("\n ").splitlines())
        parts.append(f"## {' '.join(['tintype', *command])}\n\n```text\n{lines}\n```\n")
    return "\n".join(parts)


def test_help_in_the_docs_is_todays(tmp_path: Path) -> None:
    assert (DOCS / "cli.md").read_text(encoding="utf-8") == help_page(tmp_path)


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))], ids=lambda p: p.name
)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text)
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


# where the settings of each group are told
PAGES = {
    "adapter": ["methods/lora.md"],
    "inversion": ["methods/textual-inversion.md", "methods/pivotal.md"],
    "data": ["data.md"],
    "prior": ["training.md"],
    "loss": ["losses.md"],
    "optimizer": ["optimizers.md"],
    "memory": ["training.md"],
    "speed": ["training.md"],
    "watch": ["watching.md"],
}


def test_every_training_setting_is_documented() -> None:
    text = (DOCS / "training.md").read_text(encoding="utf-8").partition("## Settings")[2]
    documented = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert documented == list(TrainConfig.model_fields)
    for group, pages in PAGES.items():
        said = "".join((DOCS / page).read_text(encoding="utf-8") for page in pages)
        named = set(re.findall(r"`(?:\w+\.)?(\w+)[^`]*`", said))
        fields = TrainConfig.model_fields[group].annotation
        assert isinstance(fields, type)
        assert issubclass(fields, BaseModel)
        assert set(fields.model_fields) - named == set(), group
