"""Each method: its first losses and gradients are those of a plain loop of the libraries."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import save_edm, save_inpaint, save_sd2
from tests.training.helpers import CLASS, losses_of, make_config, make_task, run_fit
from tests.training.plain import Plain
from tintype.models.load import load

RANK, STEPS, PRIOR = 4, 3, 0.5
WORD = {"identifier": "<rex>", "inversion": {"vectors": 2, "learning_rate": 2e-3}}
ADAPTER = {"adapter": {"rank": RANK}}


def lora(plain: Plain) -> None:
    plain.add_lora(["unet"], RANK)


def lora_everywhere(plain: Plain) -> None:
    plain.add_lora(["unet", *plain.encoders], RANK)


def word(plain: Plain) -> None:
    plain.add_word("<rex>", 2, "dog")


def lora_and_word(plain: Plain) -> None:
    lora(plain)
    word(plain)


def keys_and_values(plain: Plain) -> None:
    plain.train("unet", lambda name: "attn2.to_k" in name or "attn2.to_v" in name)


def keys_values_and_word(plain: Plain) -> None:
    keys_and_values(plain)
    word(plain)


Case = tuple[dict[str, Any], Callable[[Plain], None], dict[str, float]]
# The config, the plain preparation, and the learning rates by the ends of names.
CASES: dict[str, Case] = {
    "lora": ({"method": "lora", **ADAPTER}, lora, {"weight": 1e-3}),
    "lora with text encoders": (
        {
            "method": "lora",
            "train_text_encoder": True,
            **ADAPTER,
        },
        lora_everywhere,
        {"weight": 1e-3},
    ),
    "inversion": (
        {"method": "textual-inversion", **WORD, "prior": {"weight": 0}, "class_dir": None},
        word,
        {"words": 2e-3},
    ),
    "pivotal": (
        {"method": "pivotal", **WORD, **ADAPTER},
        lora_and_word,
        {"weight": 1e-3, "words": 2e-3},
    ),
    "custom diffusion": ({"method": "custom-diffusion"}, keys_and_values, {"weight": 1e-3}),
    "custom diffusion with a word": (
        {"method": "custom-diffusion", **WORD},
        keys_values_and_word,
        {"weight": 1e-3, "words": 2e-3},
    ),
}
FAMILIES = [
    *((case, kind) for case in CASES for kind in ("sd", "sdxl")),
    *(("lora", kind) for kind in ("sd2", "edm", "inpaint")),
    ("pivotal", "edm"),
]


@pytest.fixture(scope="session")
def folders(
    sd_folder: Path, sdxl_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A small random model of each family."""
    root = tmp_path_factory.mktemp("families")
    return {
        "sd": sd_folder,
        "sdxl": sdxl_folder,
        "sd2": save_sd2(root / "sd2"),
        "edm": save_edm(root / "edm"),
        "inpaint": save_inpaint(root / "inpaint"),
    }


@pytest.mark.parametrize(("case", "kind"), FAMILIES)
def test_losses_and_gradients_are_those_of_a_plain_loop(
    case: str, kind: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    values, prepare, rates = CASES[case]
    values = {"prior": {"weight": PRIOR}, **values, "steps": STEPS}
    prior = values["prior"]["weight"]
    run_fit(tmp_path, make_config(tmp_path, folders[kind], **values))

    task = make_task(tmp_path, load(folders[kind], device="cpu"), **values)
    identifier = values.get("identifier", "sks")
    plain = Plain.load(folders[kind], (f"a photo of {identifier} dog", CLASS))
    prepare(plain)
    plain.copy_from(task.trained.parameters)
    plain.loss(task, 0, prior).backward()
    task.step(task.where(0))["loss"].backward()
    for name, parameter in task.trained.parameters.items():
        if parameter.grad is None:  # SDXL's last layers condition nothing
            assert plain.parameters[name].grad is None
            continue
        torch.testing.assert_close(
            parameter.grad, plain.parameters[name].grad, rtol=2e-3, atol=1e-5, msg=name
        )
    assert any(p.grad is not None and p.grad.any() for p in task.trained.parameters.values())
    for value in plain.parameters.values():
        value.grad = None
    expected = plain.run(task, STEPS, prior, rates)
    assert losses_of(tmp_path / "run") == pytest.approx(expected, rel=1e-4)
