"""The configs on the pages about losses and optimisers train as they stand."""

import re
from pathlib import Path

import pytest
import yaml

from tests.tiny import save_sd2
from tests.training.helpers import losses_of, make_config, run_fit
from tintype.training.objective.distance import DISTANCES
from tintype.training.optim import OPTIMIZERS
from tintype.training.optim.schedules import SCHEDULES
from tintype.types import LossConfig, OptimizerConfig

DOCS = Path(__file__).parents[2] / "docs"
CONFIGS = [
    (page, number)
    for page in ("losses.md", "optimizers.md")
    for number, _ in enumerate(re.findall(r"^```yaml$", (DOCS / page).read_text(), re.MULTILINE))
]


def test_there_are_configs_to_try() -> None:
    assert len(CONFIGS) == 4


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that predicts v, as pocket does."""
    return save_sd2(tmp_path_factory.mktemp("models") / "sd2")


@pytest.mark.parametrize(("page", "number"), CONFIGS)
def test_a_config_trains(page: str, number: int, base: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    values = {"learning_rate": None, "steps": 2, **yaml.safe_load(blocks[number])}
    run_fit(tmp_path, make_config(tmp_path, base, **values))
    assert len(losses_of(tmp_path / "run")) == 2


def test_every_setting_and_name_is_on_its_page() -> None:
    losses, optimizers = ((DOCS / page).read_text() for page in ("losses.md", "optimizers.md"))
    for text, names in (
        (losses, [*LossConfig.model_fields, *DISTANCES]),
        (optimizers, [*(set(OptimizerConfig.model_fields) - {"name"}), *OPTIMIZERS, *SCHEDULES]),
    ):
        assert [name for name in names if f"`{name}`" not in text] == []
