"""`tintype train --plan`: its figures against those of the run itself."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from torch.profiler import ProfilerActivity, profile

from tests.tiny import save_sdxl
from tests.training.helpers import make_config, make_task
from tintype.errors import ConfigError, ModelError
from tintype.models.load import load
from tintype.models.loading.assemble import empty_vae
from tintype.runtime.device import has_bfloat16
from tintype.runtime.ledger import Ledger
from tintype.training.data.cache import encode_pixels
from tintype.training.keeping.space import size_of
from tintype.training.methods import method
from tintype.training.optim.table import ENDS
from tintype.training.plan import plan as planning
from tintype.training.plan import plan_run
from tintype.training.plan.count import Counted, count_run
from tintype.training.plan.shadow import shadow
from tintype.training.plan.timing import Pace
from tintype.training.resolve import resolve
from tintype.types import TrainConfig

TOLERANCE = 0.08


def allocated(run: Callable[[], object]) -> int:
    """The most bytes that torch's CPU allocator gave out for it, by torch's own profiler."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    now = peak = 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak


def counted(
    model: str | Path, config: TrainConfig, *, cpu: bool = True
) -> tuple[Counted, TrainConfig]:
    made, _ = shadow(model)
    whole = resolve(config, made)
    return count_run(made, whole, cpu=cpu), whole


@pytest.mark.parametrize(
    "values",
    [
        {"batch_size": 8, "resolution": 128},
        {"method": "lora", "batch_size": 8, "resolution": 128, "adapter": {"rank": 2}},
        {
            "batch_size": 8,
            "resolution": 128,
            "memory": {"gradient_checkpointing": True},
        },
        {
            "method": "lora",
            "batch_size": 4,
            "resolution": 128,
            "memory": {"base_precision": "bf16"},
            "train_text_encoder": True,
        },
        {
            "batch_size": 8,
            "resolution": 128,
            "precision": "bf16-true",
            "train_text_encoder": True,
        },
    ],
    ids=["dreambooth", "lora", "checkpointing", "bf16 base and text encoder", "bf16-true"],
)
def test_a_steps_memory_is_that_of_the_real_step(
    values: dict[str, object], sd_folder: Path, tmp_path: Path
) -> None:
    found, _ = counted(sd_folder, make_config(tmp_path, sd_folder, **values))
    planned = found.training["activations"] + found.training["gradients"]

    task = make_task(tmp_path, load(sd_folder, device="cpu"), **values)
    where = task.where(0)
    measured = allocated(lambda: task.step(where)["loss"].backward())
    # the kernels of a CPU that doesn't compute in bfloat16 itself take room of their own
    roomy = "bf16" in str(values) and not has_bfloat16(task.model.device)
    assert planned == pytest.approx(measured, rel=0.15 if roomy else TOLERANCE)

    trained = size_of(task.trained.parameters.values())
    state = task.configure_optimizers()["optimizer"]
    state.step()
    kept = sum(size_of(v for v in s.values() if v.ndim) for s in state.state.values())
    assert found.training["gradients"] == trained
    assert found.training["optimiser"] == pytest.approx(kept, rel=0.01)


def test_what_the_base_is_asked_is_counted(sd_folder: Path, tmp_path: Path) -> None:
    """Forward and backward are three passes of both halves; the base is asked about one."""
    plain, _ = counted(sd_folder, make_config(tmp_path, sd_folder))
    asked, _ = counted(sd_folder, make_config(tmp_path, sd_folder, prior={"distill": True}))
    assert asked.step.convolutions / plain.step.convolutions == pytest.approx(7 / 6, rel=0.02)


@pytest.mark.parametrize("cpu", [True, False], ids=["on a CPU", "elsewhere"])
def test_muons_own_products_are_counted(cpu: bool, sd_folder: Path, tmp_path: Path) -> None:
    """Five iterations of its quintic (Jordan et al., 2024): X X^T, its square, and that times X.
    On a CPU those of Gram matrices, which X is multiplied by after the second and the fifth."""
    plain, _ = counted(sd_folder, make_config(tmp_path, sd_folder))
    assert (plain.update.products, plain.update.calls) == (0, {})
    assert plain.update.moved == 2 * plain.training["optimiser"] + 4 * plain.training["gradients"]

    config = make_config(tmp_path, sd_folder, optimizer={"name": "muon"})
    found, _ = counted(sd_folder, config, cpu=cpu)
    wanted = 0
    for name, weight in load(sd_folder, device="cpu").unet.named_parameters():
        if weight.ndim > 1 and not any(end in name for end in ENDS):
            m, n = sorted((len(weight), weight[0].numel()))
            long, short = (4, 14) if cpu else (10, 5)
            wanted += long * 2 * m * m * n + short * 2 * m**3
    assert found.update.products == wanted > 0


def test_weights_are_those_of_the_parts(sd_folder: Path, tmp_path: Path) -> None:
    model = load(sd_folder, device="cpu")
    sizes = {name: size_of([*p.parameters(), *p.buffers()]) for name, p in model.parts.items()}
    found, _ = counted(sd_folder, make_config(tmp_path, sd_folder))
    assert found.training["weights of unet"] == sizes["unet"]
    assert found.untouched == sizes
    assert found.others == sum(sizes.values()) - sizes["unet"]


def test_parts_visit_a_gpu_one_by_one(sd_folder: Path, tmp_path: Path) -> None:
    """And beside what trains there is its average, always in float32."""
    model = load(sd_folder, device="cpu")
    sizes = {name: size_of([*p.parameters(), *p.buffers()]) for name, p in model.parts.items()}
    sizes["unet"] //= 2
    found: list[Counted] = []
    for decay in (None, 0.9):
        values = {"precision": "bf16-true", "optimizer": {"ema_decay": decay}}
        run, _ = counted(sd_folder, make_config(tmp_path, sd_folder, **values), cpu=False)
        found.append(run)
    plain, averaged = found
    drawn = plain.memory["class pictures"] - sizes["unet"]
    beside = {"unet": 0, "vae": sizes["vae"], "text_encoder": sizes["text_encoder"]}
    assert drawn == max(plain.drawing[part] + size for part, size in beside.items())
    assert drawn < sum(sizes.values()) - sizes["unet"] + max(plain.drawing.values())
    lasting = sum(plain.training.values()) - plain.training["activations"]
    assert plain.memory["samples"] == lasting + drawn
    wide = 4 * sum(p.numel() for p in model.unet.parameters())
    more = averaged.memory["samples"] - plain.memory["samples"]
    assert more == wide + wide // 2, "the weights themselves are set aside"


def test_encoding_is_that_of_a_real_vae(sd_folder: Path, tmp_path: Path) -> None:
    # wide enough not to be filled up to the 16 channels that the CPU's convolutions want
    made, _ = shadow(sd_folder)
    config = {**made.vae.config, "block_out_channels": (32, 32, 32, 32)}
    made.vae = empty_vae(config)
    whole = resolve(make_config(tmp_path, sd_folder, resolution=256), made)
    found = count_run(made, whole, cpu=True)

    vae = AutoencoderKL.from_config(config)
    pixels = torch.zeros(found.encoded_at_once, 3, 256, 256)
    measured = allocated(lambda: encode_pixels(vae, pixels)) + pixels.nbytes
    assert found.encoding == pytest.approx(measured, rel=TOLERANCE)


@pytest.mark.parametrize("way", ["textual-inversion", "pivotal", "custom-diffusion"])
def test_new_words_and_every_method_are_planned(way: str, tmp_path: Path) -> None:
    folder = save_sdxl(tmp_path / "xl")
    config = TrainConfig(
        pictures=tmp_path / "none",
        class_noun="dog",
        model=str(folder),
        method=way,
        identifier="<rex>",
        steps=3,
        inversion={"vectors": 2},
    )
    plan = plan_run(config, device="cpu")
    assert plan.parts["activations"] > 0
    assert plan.fits
    assert {"weights of text_encoder", "weights of text_encoder_2"} <= plan.parts.keys()
    assert plan.pace == "measured"


def test_a_preset_that_is_not_here_is_planned_by_its_family(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, is_here = shadow("stable-diffusion-v1-5")
    assert not is_here
    assert sum(p.numel() for p in model.unet.parameters()) == 859_520_964
    assert sum(p.numel() for p in model.text_encoders[0].parameters()) == 123_060_480
    assert sum(p.numel() for p in model.vae.parameters()) == 83_653_863
    assert model.unet.device.type == "meta"
    with pytest.raises(ModelError, match="no such model"):
        shadow("stable-diffusion-v1-55")


def test_what_does_not_fit_comes_with_what_would(
    sd_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(tmp_path, sd_folder, batch_size=4, resolution=256)
    whole, _ = counted(sd_folder, config)
    room = int(0.5 * whole.memory["training"])
    monkeypatch.setattr(planning, "free_memory", lambda device: room)
    plan = plan_run(config, device="cpu")
    assert not plan.fits
    assert plan.ways[0].settings == ("memory.gradient_checkpointing=true",)
    assert [way.peak for way in plan.ways] == sorted((way.peak for way in plan.ways), reverse=True)
    told = plan.summary()
    assert "It doesn't fit" in told
    assert "--set memory.gradient_checkpointing=true" in told
    assert not (tmp_path / "run").exists()


def test_the_ledger_counts_what_lives_and_what_is_done() -> None:
    left, right = torch.ones(8, 4), torch.ones(4, 2)
    with Ledger([left, right]) as ledger:
        product = left @ right
        view = product.t()
        _ = (view + 1).sum()
    assert (ledger.work.products, ledger.work.convolutions) == (2 * 8 * 4 * 2, 0)
    # the sum of the view, and 1 added to it
    assert ledger.work.moved == 3 * product.nbytes + 4
    assert ledger.now == product.nbytes + 4
    assert ledger.peak >= 2 * product.nbytes


def test_a_contradiction_is_told_before_anything_is_counted(
    sd_folder: Path, tmp_path: Path
) -> None:
    config = make_config(tmp_path, sd_folder, memory={"base_precision": "nf4"})
    assert method("dreambooth").trains_base
    with pytest.raises(ConfigError, match=r"memory\.base_precision"):
        plan_run(config, device="cpu")


def test_fewer_class_pictures_a_step_are_less_work(sd_folder: Path, tmp_path: Path) -> None:
    convolved = []
    for most in (1, None):
        made, _ = shadow(sd_folder)
        prior = {"pictures": 4, "batch_size": most}
        config = make_config(tmp_path, sd_folder, class_dir=None, batch_size=2, prior=prior)
        convolved.append(count_run(made, resolve(config, made), cpu=True).step.convolutions)
    assert convolved[0] == pytest.approx(convolved[1] * 3 / 4)


def test_pictures_of_the_empty_prompt_take_half_of_a_class_picture(
    sd_folder: Path, tmp_path: Path
) -> None:
    """But for decoding, which both need; none are drawn without a prior."""
    pace = Pace(step=0.0, how="measured", convolutions=1.0, products=1.0, moved=1.0)
    found: dict[tuple[int, int], float] = {}
    for pictures, unconditional in ((4, 0), (4, 2), (0, 2)):
        made, _ = shadow(sd_folder)
        prior = {"pictures": pictures, "unconditional": unconditional}
        config = make_config(tmp_path, sd_folder, class_dir=None, prior=prior)
        whole = resolve(config, made)
        counted_run = count_run(made, whole, cpu=True)
        seconds = counted_run.seconds(whole, pace)
        found[pictures, unconditional] = seconds.get("class pictures", 0.0)
    decoding = pace.of(counted_run.decoding) / counted_run.decoded_at_once
    assert found[4, 2] == pytest.approx(2 * found[4, 0] + 4 * decoding)
    assert found[0, 2] == 0
