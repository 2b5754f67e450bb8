"""Adapters merged into a model and taken out; several made into one."""

from pathlib import Path

import pytest
import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig

from tests.models.adapting import (
    EVERYTHING,
    TEXT,
    difference,
    given,
    part,
    same,
    state,
    weights,
    with_peft,
)
from tintype.errors import InputError, WeightsError
from tintype.models.adapters import Adapter, Part, applied, apply, clamp_rank, combine, resize
from tintype.models.load import load
from tintype.models.model import Model

Pair = tuple[Adapter, Adapter]


def lora(rank: int, targets: list[str], **more: object) -> LoraConfig:
    return LoraConfig(
        r=rank, lora_alpha=rank / 2, target_modules=targets, init_lora_weights=False, **more
    )


@pytest.fixture(scope="module")
def pair(sd_folder: Path) -> Pair:
    """Two LoRAs of different ranks that overlap in part, one on the text encoder too."""
    _, first = with_peft(sd_folder, {"unet": lora(3, EVERYTHING)})
    _, second = with_peft(
        sd_folder, {"unet": lora(2, ["to_q", "conv1"]), "text_encoder": lora(2, TEXT)}, seed=1
    )
    return first, second


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_ejection_restores_the_model_to_the_bit(dtype: str, pair: Pair, sd_folder: Path) -> None:
    model = load(sd_folder, device="cpu", dtype=dtype)
    first, second = pair
    before = weights(model)
    one = apply(model, [(first, 0.8)])
    alone = weights(model)
    two = apply(model, [(second, 1.2), (first, 0.1)])
    both = weights(model)
    assert not same(alone, before)
    assert not same(both, alone)
    one.eject()  # in the order in which they came
    assert not same(weights(model), before)
    two.eject()
    two.eject()
    assert same(weights(model), before)

    two = apply(model, [(second, 1.2), (first, 0.1)])
    one = apply(model, [(first, 0.8)])
    two.eject()
    assert same(weights(model), alone)
    one.eject()
    assert same(weights(model), before)


def test_parameters_stay_the_same_objects(pair: Pair, sd_folder: Path) -> None:
    """A merged model is a plain one: what holds its parameters needn't know."""
    model = load(sd_folder, device="cpu")
    held = {name: parameter for name, parameter in model.unet.named_parameters()}
    with applied(model, [(pair[0], 1.0)]):
        assert held.keys() == dict(model.unet.named_parameters()).keys()
        assert all(held[name] is p for name, p in model.unet.named_parameters())


def test_a_weight_scales_what_is_added(pair: Pair, sd_folder: Path) -> None:
    model = load(sd_folder, device="cpu")
    before = weights(model)
    with applied(model, [(pair[1], 1.0)]):
        whole = weights(model)
    with applied(model, [(pair[1], {"unet": 0.5, "text_encoder": 0})]):
        half = weights(model)
    for name in before:
        share = 0.5 if name.startswith("unet.") else 0
        expected = before[name] + share * (whole[name] - before[name])
        assert torch.allclose(half[name], expected, atol=1e-6)
    with applied(model, [(pair[0], 0)]):
        assert same(weights(model), before)
    for bad in (float("nan"), float("inf")):
        with pytest.raises(InputError, match=r"weight (nan|inf)"):
            apply(model, [(pair[0], bad)])


def test_a_text_encoders_weight_is_that_of_both(sdxl_folder: Path) -> None:
    names = ("text_encoder", "text_encoder_2")
    _, adapter = with_peft(sdxl_folder, {name: lora(2, TEXT) for name in names})
    model = load(sdxl_folder, device="cpu")
    before = weights(model)
    with applied(model, [(adapter, {"text_encoder": 0.0, "unet": 1.0})]):
        assert same(weights(model), before)
    with applied(model, [(adapter, {"text_encoder": 0.0, "text_encoder_2": 1.0})]):
        changed = {
            name.partition(".")[0]
            for name, t in weights(model).items()
            if not torch.equal(t, before[name])
        }
        assert changed == {"text_encoder_2"}


def test_a_model_is_unchanged_by_what_does_not_fit(
    pair: Pair, sd_folder: Path, sdxl_folder: Path
) -> None:
    model = load(sd_folder, device="cpu")
    before = weights(model)
    _, other = with_peft(sdxl_folder, {"unet": lora(2, ["to_k"]), "text_encoder_2": lora(2, TEXT)})
    with pytest.raises(WeightsError, match=r"no such layer in its unet"):
        apply(model, [(pair[0], 1.0), (Adapter(parts=other.parts[:1]), 1.0)])
    with pytest.raises(WeightsError, match="text_encoder_2, which Stable Diffusion"):
        apply(model, [(pair[0], 1.0), (Adapter(parts=other.parts[1:]), 1.0)])
    own = part(pair[0], "unet")
    layer = "mid_block.resnets.0.conv1"
    wrong = {f"{layer}.{name}": t[:, :3] for name, t in own.layers[layer].items()}
    cut = Adapter(parts=(Part(component="unet", config=own.config, state=wrong),))
    with pytest.raises(WeightsError, match=r"unet\.mid_block.*doesn't fit the model"):
        apply(model, [(pair[0], 1.0), (cut, 1.0)])
    huge = part(pair[0], "unet")
    tensors = {name: t * 1e30 for name, t in huge.state.items()}
    broken = Adapter(parts=(Part(component="unet", config=huge.config, state=tensors),))
    with pytest.raises(WeightsError, match="aren't finite in float32"):
        apply(model, [(pair[0], 1.0), (broken, 1.0)])
    assert same(weights(model), before)


def test_combined_they_do_what_they_do_together(pair: Pair, sd_folder: Path) -> None:
    model = load(sd_folder, device="cpu")
    shares = [(pair[0], 0.7), (pair[1], {"unet": -1.5, "text_encoder": 0.3})]
    with applied(model, shares):
        together = given(model)
    one = combine(shares)
    ranks = part(one, "unet").ranks
    layer = "mid_block.resnets.0.conv1"
    assert ranks[layer] == 5
    assert ranks["conv_out"] == 3
    with applied(model, [(one, 1.0)]):
        assert difference(given(model), together) < 1e-5

    cut = combine(shares, rank=4)
    assert max(part(cut, "unet").ranks.values()) == 4
    assert "rank 4 keeps 9" in cut.notes[0]

    # the best of that rank: the largest singular values of the whole
    def whole(adapter: Adapter) -> torch.Tensor:
        own = part(adapter, "unet").layers[layer]
        return own["lora_B.weight"].flatten(1) @ own["lora_A.weight"].flatten(1)

    values = torch.linalg.svdvals(whole(one))
    error = torch.linalg.matrix_norm(whole(one) - whole(cut))
    assert error == pytest.approx(values[4:].square().sum().sqrt().item(), rel=1e-3)


def test_resizing_keeps_what_fits(pair: Pair, sd_folder: Path) -> None:
    model = load(sd_folder, device="cpu")
    with applied(model, [(pair[0], 1.0)]):
        expected = given(model)
    with applied(model, [(resize(pair[0], 8), 1.0)]):
        assert difference(given(model), expected) < 1e-4
    assert resize(pair[0], 8).notes == ("rank 8 keeps 100.0% of the change (squared norm)",)
    assert set(part(resize(pair[0], 1), "unet").ranks.values()) == {1}


def test_other_kinds_become_a_lora(sd_folder: Path, pair: Pair) -> None:
    model = load(sd_folder, device="cpu")
    dora = lora(2, ["to_v"], use_dora=True)
    kinds = {
        "loha": LoHaConfig(r=2, alpha=2, target_modules=["conv2", "to_k"], init_weights=False),
        "lokr": LoKrConfig(r=2, alpha=2, target_modules=["conv2", "to_k"], init_weights=False),
        "dora": dora,
    }
    for kind, config in kinds.items():
        _, adapter = with_peft(sd_folder, {"unet": config})
        with pytest.raises(InputError, match=f"{kind} can't be written as a LoRA.*give a rank"):
            combine([(adapter, 1.0), (pair[0], 1.0)])
        with applied(model, [(adapter, 0.5)]):
            expected = given(model)
        if kind == "dora":
            with pytest.raises(InputError, match="depends on the base model"):
                combine([(adapter, 0.5)], rank=64)
        one = combine([(adapter, 0.5)], rank=64, model=model)
        assert {p.kind for p in one.parts} == {"lora"}
        with applied(model, [(one, 1.0)]):
            assert difference(given(model), expected) < 1e-4
    with pytest.raises(InputError, match="rank 0"):
        resize(pair[0], 0)


def test_a_rank_is_clamped_to_what_a_layer_has(sd_folder: Path) -> None:
    model: Model = load(sd_folder, device="cpu")
    names = ["conv_in", "conv_out", "mid_block.resnets.0.conv1"]
    assert clamp_rank(model.unet, names, 20) == {"conv_in": 16, "conv_out": 4}
    assert state(Adapter(parts=())) == {}
