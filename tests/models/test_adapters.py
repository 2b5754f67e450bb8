"""Adapters against peft's own layers, and their files against plain diffusers and peft."""

import copy
from pathlib import Path

import pytest
import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, OFTConfig, PeftConfig, PeftModel

from tests.models.adapting import (
    ATTENTION,
    EVERYTHING,
    TEXT,
    difference,
    given,
    outputs,
    part,
    pipeline,
    same,
    scales,
    state,
    with_peft,
)
from tests.models.ldm import unet_to_ldm
from tintype.errors import InputError
from tintype.models.adapters import LAYOUTS, Adapter, applied, read_adapter, write_adapter
from tintype.models.adapters.targets import targets_of
from tintype.models.families.registry import family
from tintype.models.load import load

FOLDERS = ["sd_folder", "sdxl_folder"]
# each layer's own rank and alpha
MIXED = {
    "r": 4,
    "lora_alpha": 2,
    "rank_pattern": {"to_q": 2, "down_blocks.1.attentions.0.proj_in": 3},
    "alpha_pattern": {"to_q": 7.5, "conv1": 1},
    "init_lora_weights": False,
}
SMALL = {"r": 4, "alpha": 2, "init_weights": False}
KINDS: dict[str, PeftConfig] = {
    "lora": LoraConfig(**MIXED, target_modules=EVERYTHING),
    "rslora": LoraConfig(**MIXED, target_modules=EVERYTHING, use_rslora=True),
    "dora": LoraConfig(**MIXED, target_modules=EVERYTHING, use_dora=True),
    "loha": LoHaConfig(**SMALL, target_modules=EVERYTHING),
    "loha-tucker": LoHaConfig(**SMALL, target_modules=EVERYTHING, use_effective_conv2d=True),
    "lokr": LoKrConfig(**SMALL, target_modules=EVERYTHING),
    "lokr-both": LoKrConfig(
        r=1, alpha=3, target_modules=EVERYTHING, decompose_both=True, init_weights=False
    ),
    "lokr-tucker": LoKrConfig(
        r=1,
        alpha=2,
        target_modules=EVERYTHING,
        use_effective_conv2d=True,
        decompose_factor=2,
        init_weights=False,
    ),
    "oft": OFTConfig(
        r=0, oft_block_size=4, target_modules=["to_q", "to_k", "conv1"], init_weights=False
    ),
    "oft-exact": OFTConfig(
        r=2,
        oft_block_size=0,
        target_modules=["to_v", "ff.net.2"],
        init_weights=False,
        use_cayley_neumann=False,
        block_share=True,
    ),
}


def test_names_are_those_of_the_original_code(sd_folder: Path, sdxl_folder: Path) -> None:
    for folder in (sd_folder, sdxl_folder):
        model = load(folder, device="cpu")
        targets = targets_of(model)
        for layer in targets.layers["unet"]:
            weight = {f"{layer}.weight": model.unet.get_submodule(layer).weight}
            everything = {**model.unet.state_dict(), **weight}
            original = unet_to_ldm(everything, targets.blocks)
            assert f"{targets.original_name(layer)}.weight" in original

    xl = targets_of(family("sdxl"))
    attention = [name for name in xl.layers["unet"] if ".attentions." in name]
    assert len(attention) == 722
    assert xl.kohya_name("unet", attention[1]) == (
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
    )
    assert len([n for n in targets_of(family("sd1")).layers["unet"] if ".attentions." in n]) == 192


@pytest.mark.parametrize("kind", KINDS)
def test_merged_it_does_what_it_does_in_peft(kind: str, sd_folder: Path) -> None:
    """Every kind, on linear layers and convolutions of every shape."""
    peft_model, adapter = with_peft(sd_folder, {"unet": copy.deepcopy(KINDS[kind])})
    model = load(sd_folder, device="cpu")
    before = given(model)
    if kind.startswith("oft"):  # peft's OFT of a strided convolution can't be run, but merged
        from peft.tuners.tuners_utils import BaseTunerLayer

        for layer in peft_model.unet.modules():
            if isinstance(layer, BaseTunerLayer):
                layer.merge()
    with applied(model, [(adapter, 1.0)]):
        assert difference(given(model), given(peft_model)) < 2e-5
        assert difference(given(model), before) > 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_a_layout_gives_back_to_the_bit_what_it_can_hold(
    kind: str, sd_folder: Path, tmp_path: Path
) -> None:
    _, adapter = with_peft(sd_folder, {"unet": copy.deepcopy(KINDS[kind])})
    plain = load(sd_folder, device="cpu")
    flat = {"kohya", "comfyui"} if not kind.startswith("oft") else set()
    diffusers = {"diffusers"} if kind in ("lora", "rslora", "dora") else set()
    held = {"peft", "tintype"} | flat | diffusers
    for layout in LAYOUTS:
        place = tmp_path / (layout if layout == "peft" else f"{layout}.safetensors")
        if layout not in held:
            with pytest.raises(InputError, match=r"can't hold .*use "):
                write_adapter(adapter, place, plain, layout=layout)
            continue
        write_adapter(adapter, place, plain, layout=layout)
        back = read_adapter(place, plain)
        if "lokr" in kind and layout in ("kohya", "comfyui"):
            # where both factors are whole these have no place for a scale
            with applied(plain, [(adapter, 1.0)]):
                once = given(plain)
            with applied(plain, [(back, 1.0)]):
                assert difference(once, given(plain)) < 1e-5
            continue
        assert same(state(back), state(adapter))
        assert scales(back) == pytest.approx(scales(adapter), rel=1e-6)
        assert [p.kind for p in back.parts] == [p.kind for p in adapter.parts]


@pytest.mark.parametrize("fixture", FOLDERS)
def test_diffusers_and_peft_load_what_is_written(
    fixture: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder: Path = request.getfixturevalue(fixture)
    model = load(folder, device="cpu")
    texts = [spec.folder for spec in model.family.text_encoders]
    # of kohya's files diffusers loses alphas that differ among attention layers and text encoders
    uneven = {**MIXED, "alpha_pattern": {"conv1": 1}}
    configs: dict[str, PeftConfig] = {
        "unet": LoraConfig(**uneven, target_modules=EVERYTHING),
        **{
            name: LoraConfig(r=4, lora_alpha=2, target_modules=TEXT, init_lora_weights=False)
            for name in texts
        },
    }
    _, adapter = with_peft(folder, configs)
    with applied(model, [(adapter, 1.0)]):
        ours = given(model)
    for layout in ("diffusers", "kohya"):
        write_adapter(adapter, tmp_path / f"{layout}.safetensors", model, layout=layout)
        pipe = pipeline(folder)
        pipe.load_lora_weights(str(tmp_path), weight_name=f"{layout}.safetensors")
        encoders = [getattr(pipe, name) for name in texts]
        assert difference(outputs(pipe.unet, encoders), ours) < 1e-5, layout
    write_adapter(adapter, tmp_path / "peft", model, layout="peft")
    pipe = pipeline(folder)
    loaded = [
        PeftModel.from_pretrained(getattr(pipe, name), tmp_path / "peft" / name)
        for name in ("unet", *texts)
    ]
    assert difference(outputs(loaded[0], loaded[1:]), ours) < 1e-5


def test_diffusers_loads_dora(sd_folder: Path, tmp_path: Path) -> None:
    model = load(sd_folder, device="cpu")
    dora = LoraConfig(**MIXED, target_modules=EVERYTHING, use_dora=True)
    _, adapter = with_peft(sd_folder, {"unet": dora})
    write_adapter(adapter, tmp_path / "dora.safetensors", model)
    pipe = pipeline(sd_folder)
    pipe.load_lora_weights(str(tmp_path), weight_name="dora.safetensors")
    with applied(model, [(adapter, 1.0)]):
        assert difference(outputs(pipe.unet, [pipe.text_encoder]), given(model)) < 1e-5


@pytest.mark.parametrize("fixture", FOLDERS)
def test_what_diffusers_saves_is_read(
    fixture: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """With metadata, and as older releases did: without, under names of attention processors."""
    folder: Path = request.getfixturevalue(fixture)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=ATTENTION, init_lora_weights=False)
    _, adapter = with_peft(folder, {"unet": config})
    model = load(folder, device="cpu")
    own = part(adapter, "unet")
    pipe_class = type(pipeline(folder))
    metadata = {**config.to_dict(), "target_modules": sorted(config.target_modules)}
    pipe_class.save_lora_weights(
        tmp_path / "new", unet_lora_layers=own.state, unet_lora_adapter_metadata=metadata
    )
    assert scales(read_adapter(tmp_path / "new", model)) == scales(adapter)
    assert same(state(read_adapter(tmp_path / "new", model)), state(adapter))

    older = {
        name.replace(".to_out.0", ".to_out")
        .replace(".to_", ".processor.to_")
        .replace(".lora_A", "_lora.down")
        .replace(".lora_B", "_lora.up"): tensor
        for name, tensor in own.state.items()
    }
    pipe_class.save_lora_weights(tmp_path / "old", unet_lora_layers=older)
    back = read_adapter(tmp_path / "old", model)
    assert same(state(back), state(adapter))
    assert set(scales(back).values()) == {1.0}


def test_layouts_refuse_what_they_would_lose(sd_folder: Path, tmp_path: Path) -> None:
    model = load(sd_folder, device="cpu")
    _, adapter = with_peft(sd_folder, {"unet": LoraConfig(r=2, target_modules=["to_q"])})
    with pytest.raises(InputError, match=r"no such layout.*diffusers, kohya"):
        write_adapter(adapter, tmp_path / "x", model, layout="webui")
    with pytest.raises(InputError, match=r"no such dtype.*fp16"):
        write_adapter(adapter, tmp_path / "x", model, dtype="half")
    _, other = with_peft(sd_folder, {"unet": LoHaConfig(r=2, target_modules=["to_k"])})
    both = Adapter(parts=(*adapter.parts, *other.parts))
    with pytest.raises(InputError, match=r"LoHa.*use kohya"):
        write_adapter(other, tmp_path / "x", model)
    with pytest.raises(InputError, match="two kinds at once"):
        write_adapter(both, tmp_path / "x", model)
    with pytest.raises(InputError, match="two kinds at once"):
        write_adapter(both, tmp_path / "x", model, layout="peft")
    for layout in ("kohya", "tintype"):
        write_adapter(both, tmp_path / "both.safetensors", model, layout=layout)
        back = read_adapter(tmp_path / "both.safetensors", model)
        assert sorted(p.kind for p in back.parts) == ["loha", "lora"]
        assert same(state(back), state(both))


def test_a_dtype_is_that_of_the_file(sd_folder: Path, tmp_path: Path) -> None:
    model = load(sd_folder, device="cpu")
    config = LoraConfig(r=4, target_modules=ATTENTION, init_lora_weights=False)
    _, adapter = with_peft(sd_folder, {"unet": config})
    write_adapter(adapter, tmp_path / "half.safetensors", model, dtype="fp16")
    back = state(read_adapter(tmp_path / "half.safetensors", model))
    assert same(back, {name: t.half() for name, t in state(adapter).items()})
    assert {t.dtype for t in back.values()} == {torch.float16}
