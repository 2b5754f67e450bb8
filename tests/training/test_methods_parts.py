"""Which parameters train: targets of adapters, frozen ones, new words, and the table of them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.helpers import make_config, make_task, run_fit
from tintype.errors import ConfigError, InputError
from tintype.models.load import load
from tintype.types import Note

WORD = {"identifier": "<rex>"}
ALONE = {"prior": {"weight": 0}, "class_dir": None}


def names_of(root: Path, folder: Path, **values: Any) -> list[str]:
    return list(make_task(root, load(folder, device="cpu"), **values).trained.parameters)


def test_targets_are_layers_by_set_and_by_pattern(sd_folder: Path, tmp_path: Path) -> None:
    unet = load(sd_folder, device="cpu").unet
    kinds: dict[str, tuple[type, ...]] = {
        "linear": (torch.nn.Linear,),
        "all": (torch.nn.Linear, torch.nn.Conv2d),
    }
    expected = {
        name: sum(isinstance(layer, kind) for layer in unet.modules())
        for name, kind in kinds.items()
    }
    blocks = sum(name.endswith("attn1") for name, _ in unet.named_modules())
    expected |= {"attention": 8 * blocks, "attention+ff": 12 * blocks}
    assert blocks == 4, "with one block each, a transformer has one proj_in and one proj_out"
    for targets, count in expected.items():
        values = {"method": "lora", "adapter": {"rank": 2, "targets": targets}}
        assert len(names_of(tmp_path, sd_folder, **values)) == 2 * count, targets
    patterns = {"rank": 2, "targets": ["unet.down_blocks.*.attn2.to_k", "*.conv_shortcut"]}
    found = names_of(tmp_path, sd_folder, method="lora", adapter=patterns)
    assert all(".attn2.to_k.lora" in n or ".conv_shortcut.lora" in n for n in found)
    assert any(".conv_shortcut.lora_A" in name for name in found)
    with pytest.raises(
        ConfigError, match=r"adapter\.targets 'unet\.dwn.*Nearest: unet\.down_blocks"
    ):
        names_of(tmp_path, sd_folder, method="lora", adapter={"targets": ["unet.dwn_blocks.*"]})


@pytest.mark.parametrize("kind", ["lora", "dora", "loha", "lokr", "oft"])
def test_every_kind_of_adapter_trains_and_begins_as_the_base(
    kind: str, sd_folder: Path, tmp_path: Path
) -> None:
    adapter = {"rank": 4, "kind": kind, "targets": "all", "dropout": 0.1}
    values = {"method": "lora", "adapter": adapter, "train_text_encoder": True}
    task = make_task(tmp_path, load(sd_folder, device="cpu"), **values)
    parts = {name.split(".")[0] for name in task.trained.parameters}
    assert parts == {"unet", "text_encoder"}
    task.parts.eval()
    base = make_task(tmp_path, load(sd_folder, device="cpu"))
    base.parts.eval()
    with torch.no_grad():
        mine, plain = (t.step(t.where(0))["loss"] for t in (task, base))
    torch.testing.assert_close(mine, plain, rtol=1e-4, atol=1e-5)
    task.parts.train()
    task.step(task.where(0))["loss"].backward()
    assert any(p.grad is not None and p.grad.any() for p in task.trained.parameters.values())


def test_a_rank_larger_than_a_layer_is_clamped_with_a_note(sd_folder: Path, tmp_path: Path) -> None:
    adapter = {"rank": 64, "targets": "attention"}
    config = make_config(tmp_path, sd_folder, method="lora", adapter=adapter)
    _, events = run_fit(tmp_path, config)
    notes = [event.message for event in events if isinstance(event, Note)]
    assert any("adapter.rank 64 is more than" in note and "16" in note for note in notes)
    task = make_task(tmp_path, load(sd_folder, device="cpu"), method="lora", adapter=adapter)
    for name, parameter in task.trained.parameters.items():
        assert min(parameter.shape) <= 32, name
    for layer in task.model.unet.modules():
        for scale in getattr(layer, "scaling", {}).values():
            assert scale == 1, "alpha shrinks with the rank"


def test_frozen_parameters_stay(sd_folder: Path, tmp_path: Path) -> None:
    frozen = ["unet.down_blocks.*", "*.norm?.*"]
    task = make_task(tmp_path, load(sd_folder, device="cpu"), freeze=frozen)
    base = load(sd_folder, device="cpu")
    names = list(task.trained.parameters)
    assert names
    assert not any(name.startswith("unet.down_blocks") or ".norm1." in name for name in names)
    optimizer = torch.optim.SGD(task.trained.parameters.values(), lr=0.1)
    task.step(task.where(0))["loss"].backward()
    optimizer.step()
    changed = {
        f"unet.{name}"
        for (name, new), old in zip(
            task.model.unet.named_parameters(), base.unet.parameters(), strict=True
        )
        if not torch.equal(new, old)
    }
    assert changed <= set(names)
    assert "unet.conv_in.weight" in changed
    with pytest.raises(
        ConfigError, match=r"freeze 'unet\.down_block\.\*'.*Nearest: unet\.down_blocks"
    ):
        names_of(tmp_path, sd_folder, freeze=["unet.down_block.*"])
    with pytest.raises(ConfigError, match="leaves nothing to train"):
        names_of(tmp_path, sd_folder, method="lora", freeze=["unet.*"])


def test_only_the_new_rows_move(sdxl_folder: Path, tmp_path: Path) -> None:
    values = {"method": "textual-inversion", **WORD, **ALONE, "inversion": {"vectors": 3}}
    model = load(sdxl_folder, device="cpu")
    before = [encoder.get_input_embeddings().weight.clone() for encoder in model.text_encoders]
    task = make_task(tmp_path, model, **values)
    own = task.trained.parameters
    assert {name: tuple(value.shape) for name, value in own.items()} == {
        "text_encoder.words": (3, 16),
        "text_encoder_2.words": (3, 32),
    }
    first = {name: value.detach().clone() for name, value in own.items()}
    optimizer = torch.optim.AdamW(own.values(), lr=0.1)
    for step in range(2):
        task.step(task.where(step))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    for encoder, old in zip(task.model.text_encoders, before, strict=True):
        assert torch.equal(encoder.get_input_embeddings().weight[: len(old)], old)
    assert all(not torch.equal(value, first[name]) for name, value in own.items())
    with torch.no_grad():
        for value in own.values():
            value *= 100
    assert task.trained.after_step is not None
    task.trained.after_step()
    for value, old in zip(own.values(), before, strict=True):
        torch.testing.assert_close(value.norm(dim=1), old.norm(dim=1).max().expand(3))


def test_words_learn_alone_at_first(sd_folder: Path, tmp_path: Path) -> None:
    """And a resumed run knows where it was: test_resume has it."""
    given = {
        "method": "pivotal",
        **WORD,
        "adapter": {"rank": 2},
        "inversion": {"first_steps": 2},
        "checkpoint_every": 1,
        "keep_checkpoints": 9,
    }
    run_fit(tmp_path, make_config(tmp_path, sd_folder, **given))
    from safetensors.torch import load_file

    weights = [
        load_file(tmp_path / "run" / "checkpoints" / f"step-{step}" / "weights.safetensors")
        for step in (1, 2, 3)
    ]
    lora = [name for name in weights[0] if "lora" in name]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in lora)
    assert not all(torch.equal(weights[1][name], weights[2][name]) for name in lora)
    assert not torch.equal(weights[0]["text_encoder.words"], weights[1]["text_encoder.words"])


def test_the_table_says_what_trains(sd_folder: Path, tmp_path: Path) -> None:
    config = make_config(
        tmp_path,
        sd_folder,
        method="lora",
        adapter={"rank": 2},
        train_text_encoder=True,
        optimizer={"text_encoder_learning_rate": 5e-5},
    )
    _, events = run_fit(tmp_path, config)
    table = (tmp_path / "run" / "trains.txt").read_text()
    assert table.strip() in [event.message for event in events if isinstance(event, Note)]
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines()}
    task = make_task(
        tmp_path,
        load(sd_folder, device="cpu"),
        **config.model_dump(
            include={"method", "adapter", "train_text_encoder", "optimizer"}, exclude_unset=True
        ),
    )
    for part in ("unet", "text_encoder"):
        count = sum(
            p.numel() for n, p in task.trained.parameters.items() if n.startswith(part + ".")
        )
        own = load(sd_folder, device="cpu").parts[part].num_parameters()
        assert rows[part] == [
            f"{count:,}",
            f"{own:,}",
            f"{4 * count / 1000:,.1f}",
            "kB",
            {"unet": "0.001", "text_encoder": "5e-05"}[part],
        ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "lora", "identifier": "<rex>"}, "5 tokens.*Choices: sks"),
        ({"method": "textual-inversion", **ALONE, "identifier": "rex"}, "Did you mean <rex>"),
        ({"method": "pivotal", "identifier": "sks"}, "angle brackets.*<sks>"),
        ({"method": "custom-diffusion", "identifier": "rex"}, "3 tokens"),
        ({"method": "textual-inversion", **WORD, "prior": {"weight": 1.0}}, "leave it at 0"),
        (
            {"method": "lora", "adapter": {"kind": "oft", "targets": ["*.conv1"]}},
            "no layer here that oft can adapt",
        ),
        ({"method": "textual-inversion", **WORD, **ALONE, "train_text_encoder": True}, "pivotal"),
        ({"method": "custom-diffusion", "train_text_encoder": True}, "angle brackets"),
        ({"method": "pivotal", **WORD, "inversion": {"first_steps": 4}}, "none of the 4 steps"),
        ({"method": "pivotal", **WORD, "inversion": {"initial": " "}}, "holds no word"),
        ({"method": "lorra"}, "Did you mean lora"),
        ({"adapter": {"rank": 8}}, r"adapter\.rank 8: method dreambooth has no such.*lora has"),
        ({"method": "lora", "inversion": {"vectors": 2}}, r"inversion\.vectors 2"),
    ],
)
def test_refusals(values: dict[str, Any], message: str, sd_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        make_task(tmp_path, load(sd_folder, device="cpu"), **values)
