"""Adapters' files of other tools, made by hand: their formulas, metadata, and damage."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save, save_file

from tests.models.adapting import EVERYTHING, TEXT, same, scales, state, with_peft
from tintype.errors import ModelError, WeightsError
from tintype.models.adapters import applied, read_adapter, write_adapter
from tintype.models.adapters.guess import guess_family
from tintype.models.families.registry import family
from tintype.models.load import load
from tintype.models.loading.headers import read_header
from tintype.models.loading.locate import locate
from tintype.models.model import Model

State = dict[str, torch.Tensor]
LINEAR = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
CONV = "mid_block.resnets.0.conv1"
KOHYA = {name: "lora_unet_" + name.replace(".", "_") for name in (LINEAR, CONV)}
OUT, IN, SIZE = 32, 32, 3


@pytest.fixture(scope="module")
def sd(sd_folder: Path) -> Model:
    return load(sd_folder, device="cpu")


def drawn(*shape: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=rng)


def grown(model: Model, file: Path, layer: str, weight: float = 1.0) -> torch.Tensor:
    """What an adapter's file adds to one layer of a model."""
    module = model.unet.get_submodule(layer)
    before = module.weight.clone()
    with applied(model, [(read_adapter(file, model), weight)]):
        return (module.weight - before).detach()


def lora() -> tuple[str, State, torch.Tensor]:
    up, down = drawn(OUT, 4), drawn(4, IN)
    return LINEAR, {"lora_up.weight": up, "lora_down.weight": down}, up @ down / 4


def lora_scalar() -> tuple[str, State, torch.Tensor]:
    layer, tensors, added = lora()
    return layer, {**tensors, "scalar": torch.tensor(-0.5)}, -added / 2


def locon() -> tuple[str, State, torch.Tensor]:
    up, down = drawn(OUT, 4, 1, 1), drawn(4, IN, SIZE, SIZE)
    added = torch.einsum("or,rihw->oihw", up[:, :, 0, 0], down)
    return CONV, {"lora_up.weight": up, "lora_down.weight": down}, added / 4


def locon_tucker() -> tuple[str, State, torch.Tensor]:
    up, core, down = drawn(OUT, 4, 1, 1), drawn(4, 4, SIZE, SIZE), drawn(4, IN, 1, 1)
    added = torch.einsum("or,rshw,si->oihw", up[:, :, 0, 0], core, down[:, :, 0, 0])
    tensors = {"lora_up.weight": up, "lora_mid.weight": core, "lora_down.weight": down}
    return CONV, tensors, added / 4


def loha() -> tuple[str, State, torch.Tensor]:
    flat = IN * SIZE * SIZE
    a, b, c, d = drawn(OUT, 4), drawn(4, flat), drawn(OUT, 4) + 1, drawn(4, flat) + 1
    added = torch.einsum("or,ri->oi", a, b) * torch.einsum("or,ri->oi", c, d)
    tensors = {"hada_w1_a": a, "hada_w1_b": b, "hada_w2_a": c, "hada_w2_b": d}
    return CONV, tensors, added.reshape(OUT, IN, SIZE, SIZE) / 4


def loha_tucker() -> tuple[str, State, torch.Tensor]:
    a, b, t = drawn(4, OUT), drawn(4, IN), drawn(4, 4, SIZE, SIZE)
    c, d, u = a + 1, b - 1, t * 2
    first = torch.einsum("rshw,ro,si->oihw", t, a, b)
    second = torch.einsum("rshw,ro,si->oihw", u, c, d)
    tensors = {"hada_w1_a": a, "hada_w1_b": b, "hada_w2_a": c, "hada_w2_b": d}
    return CONV, {**tensors, "hada_t1": t, "hada_t2": u}, first * second / 4


def lokr() -> tuple[str, State, torch.Tensor]:
    first, a, b = drawn(4, 4), drawn(OUT // 4, 4), drawn(4, IN // 4 * SIZE * SIZE)
    second = (a @ b).reshape(OUT // 4, IN // 4, SIZE, SIZE)
    added = torch.einsum("ac,bdhw->abcdhw", first, second).reshape(OUT, IN, SIZE, SIZE)
    return CONV, {"lokr_w1": first, "lokr_w2_a": a, "lokr_w2_b": b}, added / 4


def lokr_whole() -> tuple[str, State, torch.Tensor]:
    """Where both factors are whole, alpha says nothing."""
    first, second = drawn(4, 8), drawn(OUT // 4, IN // 8)
    added = torch.einsum("ac,bd->abcd", first, second).reshape(OUT, IN)
    return LINEAR, {"lokr_w1": first, "lokr_w2": second}, added


HAND_MADE: list[Callable[[], tuple[str, State, torch.Tensor]]] = [
    lora,
    lora_scalar,
    locon,
    locon_tucker,
    loha,
    loha_tucker,
    lokr,
    lokr_whole,
]


@pytest.mark.parametrize("make", HAND_MADE, ids=lambda make: make.__name__)
def test_a_file_of_kohya_adds_what_its_formula_says(
    make: Callable[[], tuple[str, State, torch.Tensor]], sd: Model, tmp_path: Path
) -> None:
    layer, tensors, added = make()
    file = tmp_path / "x.safetensors"
    named = {f"{KOHYA[layer]}.{name}": tensor for name, tensor in tensors.items()}
    save_file({**named, f"{KOHYA[layer]}.alpha": torch.tensor(1.0)}, file)
    assert torch.allclose(grown(sd, file, layer), added, atol=1e-5, rtol=1e-4)
    assert torch.allclose(grown(sd, file, layer, -0.5), -added / 2, atol=1e-5, rtol=1e-4)
    # and what is read of it is written so that it says the same
    again = tmp_path / "again.safetensors"
    write_adapter(read_adapter(file, sd), again, sd, layout="kohya")
    assert torch.allclose(grown(sd, again, layer), added, atol=1e-5, rtol=1e-4)
    if not {"lora_mid.weight", "scalar"} & tensors.keys():  # which are folded into others
        assert same({k: v for k, v in load_file(again).items() if k in named}, named)


@pytest.mark.parametrize("axis", [0, 1], ids=["outputs", "inputs"])
@pytest.mark.parametrize("make", [lora, locon, loha], ids=lambda make: make.__name__)
def test_dora_has_magnitudes_along_either_axis(
    make: Callable[[], tuple[str, State, torch.Tensor]], axis: int, sd: Model, tmp_path: Path
) -> None:
    """ComfyUI's and A1111's weight: the whole difference, not only the low-rank one, is scaled."""
    layer, tensors, added = make()
    weight = sd.unet.get_submodule(layer).weight.detach()
    others = [i for i in range(weight.dim()) if i != axis]
    norm = (weight + added).square().sum(dim=others, keepdim=True).sqrt()
    scale = drawn(*norm.shape).abs() + 0.5
    expected = scale * (weight + added) / norm - weight
    file = tmp_path / "x.safetensors"
    named = {f"{KOHYA[layer]}.{name}": tensor for name, tensor in tensors.items()}
    extra = {"alpha": torch.tensor(1.0), "dora_scale": scale}
    save_file({**named, **{f"{KOHYA[layer]}.{k}": v for k, v in extra.items()}}, file)
    assert torch.allclose(grown(sd, file, layer), expected, atol=1e-5, rtol=1e-4)
    assert torch.allclose(grown(sd, file, layer, 0.3), 0.3 * expected, atol=1e-5, rtol=1e-4)
    write_adapter(read_adapter(file, sd), tmp_path / "again.safetensors", sd, layout="kohya")
    assert torch.equal(
        load_file(tmp_path / "again.safetensors")[f"{KOHYA[layer]}.dora_scale"], scale
    )


@pytest.mark.parametrize("fixture", ["sd_folder", "sdxl_folder"])
def test_every_name_that_tools_give_a_layer_is_known(
    fixture: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder: Path = request.getfixturevalue(fixture)
    model = load(folder, device="cpu")
    texts = [spec.folder for spec in model.family.text_encoders]
    configs = {
        "unet": LoraConfig(r=2, target_modules=EVERYTHING, init_lora_weights=False),
        **{n: LoraConfig(r=2, target_modules=TEXT, init_lora_weights=False) for n in texts},
    }
    _, adapter = with_peft(folder, configs)
    file = tmp_path / "x.safetensors"
    write_adapter(adapter, file, model, layout="kohya")
    plain = load_file(file)
    first = "lora_te1_" if len(texts) > 1 else "lora_te_"
    assert f"{first}text_model_encoder_layers_0_mlp_fc1.lora_down.weight" in plain
    sgm = "lora_unet_input_blocks_3_1_transformer_blocks_0_attn1_to_q.lora_down.weight"
    assert (sgm in plain) == (len(texts) > 1)

    write_adapter(adapter, file, model, layout="comfyui")
    comfy = load_file(file)
    assert "diffusion_model.middle_block.0.in_layers.2.lora_A.weight" in comfy
    clip = "text_encoders.clip_l.transformer.text_model.encoder.layers.0.mlp.fc1"
    assert f"{clip}.lora_B.weight" in comfy

    # diffusers' names as kohya spells them (as LCM's and others' SDXL files have)
    spelled = {}
    for name, tensor in state(adapter).items():
        component, _, rest = name.partition(".")
        start = {"unet": "lora_unet_", texts[0]: first}.get(component, "lora_te2_")
        bare = rest.removeprefix("text_model.")
        layer, _, end = bare.rpartition(".lora_")
        wrap = "" if component == "unet" else "text_model_"
        ends = {"A.weight": "lora_down.weight", "B.weight": "lora_up.weight"}
        spelled[f"{start}{wrap}{layer.replace('.', '_')}.{ends[end]}"] = tensor
    save_file(spelled, file)
    assert same(state(read_adapter(file, model)), state(adapter))


def test_metadata_is_what_other_tools_look_for(
    sd_folder: Path, sdxl_folder: Path, tmp_path: Path
) -> None:
    for folder, version, architecture in (
        (sd_folder, "sd_v1", "stable-diffusion-v1/lora"),
        (sdxl_folder, "sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora"),
    ):
        model = load(folder, device="cpu")
        # large enough for the older hash, of what lies behind the first MiB
        config = LoraConfig(r=1024, lora_alpha=2, target_modules=["to_q"], init_lora_weights=False)
        _, adapter = with_peft(folder, {"unet": config})
        file = tmp_path / "rex.safetensors"
        extra = {"modelspec.trigger_phrase": "sks dog", "ss_training_comment": "mine"}
        write_adapter(adapter, file, model, layout="kohya", metadata=extra)
        header = read_header(file)
        told = header.metadata
        assert extra.items() <= told.items()
        assert told["ss_base_model_version"] == version
        assert (told["ss_network_dim"], told["ss_network_alpha"]) == ("1024", "2.0")
        assert told["ss_network_module"] == "networks.lora"
        assert json.loads(told["ss_network_args"]) == {}
        assert told["modelspec.sai_model_spec"] == "1.0.1"
        assert told["modelspec.architecture"] == architecture
        assert told["modelspec.title"] == "rex"
        assert guess_family(header.tensors, {"ss_base_model_version": version}) == model.family.name
        # as sd-scripts computes them: of the file with its ss_ metadata alone
        own = {key: value for key, value in told.items() if key.startswith("ss_")}
        raw = save(load_file(file), own)
        data = raw[8 + int.from_bytes(raw[:8], "little") :]
        assert told["sshs_model_hash"] == hashlib.sha256(data).hexdigest()
        assert len(raw) > 0x110000
        legacy = hashlib.sha256(raw[0x100000:0x110000]).hexdigest()[:8]
        assert told["sshs_legacy_hash"] == legacy
        alphas = [t for name, t in load_file(file).items() if name.endswith(".alpha")]
        assert len(alphas) == len(adapter.parts[0].layers)
        assert all(alpha.shape == () and alpha == 2 for alpha in alphas)

        # training's own words survive another layout
        write_adapter(read_adapter(file, model), tmp_path / "b.safetensors", model)
        again = read_adapter(tmp_path / "b.safetensors", model)
        assert again.metadata["ss_training_comment"] == "mine"
        assert scales(again) == scales(adapter)


def test_the_family_is_told_by_the_file() -> None:
    def shape(*sides: int) -> torch.Tensor:
        return torch.empty(sides, device="meta")

    to_k = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight"
    for width, name in ((768, "sd1"), (1024, "sd2"), (2048, "sdxl"), (1280, "sdxl_refiner")):
        assert guess_family({to_k: shape(4, width)}, {}) == name
    assert guess_family({to_k: shape(4, 320)}, {}) is None
    architecture = {"modelspec.architecture": "stable-diffusion-v2-768-v/lora"}
    assert guess_family({}, architecture) == "sd2"


def test_without_a_model_a_file_is_read_by_its_family(tmp_path: Path) -> None:
    """A file of the true sizes: names and shapes are checked against the standard model."""
    start = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    rows = {"lora_down.weight": drawn(4, 768), "lora_up.weight": drawn(1280, 4)}
    file = tmp_path / "x.safetensors"
    save_file({f"{start}.{name}": tensor for name, tensor in rows.items()}, file)
    adapter = read_adapter(file)
    assert adapter.title == "LoRA of rank 4 (unet 1 layers)"
    with pytest.raises(
        WeightsError, match=r"for Stable Diffusion 1\.x, not for Stable Diffusion 2"
    ):
        read_adapter(file, family("sd2"))
    with pytest.raises(WeightsError, match=r"for Stable Diffusion 1\.x, not for SDXL"):
        read_adapter(file, family("sdxl"))


def refused(file: Path, model: Model, tensors: State, match: str) -> None:
    save_file(tensors, file)
    with pytest.raises(WeightsError, match=match):
        read_adapter(file, model)


def test_a_file_that_does_not_fit_is_refused(sd: Model, sdxl_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    layer, tensors, _ = lora()
    good = {f"{KOHYA[layer]}.{name}": tensor for name, tensor in tensors.items()}
    up, down = (f"{KOHYA[layer]}.lora_{end}.weight" for end in ("up", "down"))
    refused(file, sd, {up: good[up]}, f"unet.{LINEAR}.*lacks lora_A")
    refused(file, sd, {**good, down: drawn(4, 48)}, r"weight is \[32, 32\].*\[4, 48\]")
    nan = good[down].clone()
    nan[0, 0] = float("nan")
    refused(file, sd, {**good, down: nan}, "holds NaN")
    strange = {"lora_unet_nowhere.lora_up.weight": drawn(2, 2)}
    refused(file, sd, {**good, **strange}, "1 of its 3 tensors belong to no layer.*nowhere")
    twice = f"unet.{LINEAR}.lora_A.weight"
    refused(file, sd, {**good, twice: drawn(4, 32)}, "is there twice")
    flux = {"lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight": drawn(2, 2)}
    refused(file, sd, flux, r"changes Stable Diffusion 1\.x: found Flux")
    refused(file, sd, {"emb_params": drawn(1, 16)}, "found a textual inversion embedding")
    refused(file, sd, {"first_stage_model.x": drawn(1)}, "found a whole model")

    xl = load(sdxl_folder, device="cpu")
    config = LoraConfig(r=2, target_modules=["to_k"], init_lora_weights=False)
    _, adapter = with_peft(sdxl_folder, {"unet": config})
    for layout in ("diffusers", "kohya", "comfyui"):
        write_adapter(adapter, file, xl, layout=layout)
        with pytest.raises(WeightsError, match=r"is for SDXL, not for Stable Diffusion 1\.x"):
            read_adapter(file, sd)


def test_damage_and_danger_are_refused(sd: Model, tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    layer, tensors, _ = lora()
    good = {f"{KOHYA[layer]}.{name}": tensor for name, tensor in tensors.items()}
    save_file(good, file)
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(WeightsError, match="is truncated"):
        read_adapter(file, sd)
    with pytest.raises(ModelError, match="no such file"):
        read_adapter(tmp_path / "rex.safetensors", sd)
    pickled = tmp_path / "x.pt"
    torch.save(good, pickled)
    with pytest.raises(WeightsError, match="allow-pickle"):
        read_adapter(pickled, sd)
    assert same(
        state(read_adapter(pickled, sd, allow_pickle=True)).copy(),
        {
            f"unet.{LINEAR}.lora_A.weight": tensors["lora_down.weight"],
            f"unet.{LINEAR}.lora_B.weight": tensors["lora_up.weight"],
        },
    )
    (tmp_path / "folder").mkdir()
    with pytest.raises(WeightsError, match=r"expected adapter_config\.json"):
        read_adapter(tmp_path / "folder", sd)
    (tmp_path / "folder" / "adapter_config.json").write_text('{"peft_type": "IA3"}')
    save_file(good, tmp_path / "folder" / "adapter_model.safetensors")
    with pytest.raises(WeightsError, match="of kind IA3"):
        read_adapter(tmp_path / "folder", sd)


def test_what_lies_beside_a_low_rank_adapter_is_named(sd: Model, tmp_path: Path) -> None:
    layer, tensors, added = lora()
    good = {f"{KOHYA[layer]}.{name}": tensor for name, tensor in tensors.items()}
    beside = {"lora_unet_mid_block_resnets_0_norm1.w_norm": drawn(32)}
    save_file({**good, **beside}, tmp_path / "x.safetensors")
    adapter = read_adapter(tmp_path / "x.safetensors", sd)
    assert "left out 1 tensors of norm layers" in adapter.notes[0]
    assert next(iter(beside)) in adapter.notes[0]
    assert torch.allclose(grown(sd, tmp_path / "x.safetensors", layer), added * 4, atol=1e-4)


def test_an_adapter_is_no_model(sd: Model, sd_folder: Path, tmp_path: Path) -> None:
    config = LoraConfig(r=2, target_modules=["to_k"], init_lora_weights=False)
    _, adapter = with_peft(sd_folder, {"unet": config})
    write_adapter(adapter, tmp_path / "rex.safetensors", sd)
    write_adapter(adapter, tmp_path / "rex", sd, layout="peft")
    for place in (tmp_path / "rex.safetensors", tmp_path / "rex", tmp_path / "rex" / "unet"):
        with pytest.raises(
            WeightsError, match=r"an adapter, not a model: name its base.*--adapter"
        ):
            load(place)
    assert locate(sd_folder) is not None
