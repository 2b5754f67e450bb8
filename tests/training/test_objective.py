"""Each part of the objective against its formula, or diffusers' own parts."""

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, EDMEulerScheduler
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr
from diffusers.training_utils import compute_snr

from tintype.errors import ConfigError
from tintype.training.batch import Where
from tintype.training.objective import check_loss, with_schedule
from tintype.training.objective.distance import DISTANCES, mean_over_pixels
from tintype.training.objective.noise import make_noise, perturbed
from tintype.training.objective.process import Edm, Timesteps
from tintype.types import LossConfig

SCHEDULE: dict[str, Any] = {
    "_class_name": "DDIMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}
EDM = {"sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5}
PREDICTIONS = ("epsilon", "v_prediction", "sample")
ALL = torch.arange(1000)


def latents(seed: int, n: int = 4) -> torch.Tensor:
    return torch.randn(n, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def ddpm(prediction: str) -> DDPMScheduler:
    return DDPMScheduler.from_config({**SCHEDULE, "prediction_type": prediction})


def process(prediction: str, **loss: Any) -> Timesteps:
    scheduler = {**SCHEDULE, "prediction_type": prediction}
    config = LossConfig(**loss)
    return Timesteps(with_schedule(scheduler, config), prediction, config)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_inputs_and_targets_are_those_of_diffusers(prediction: str) -> None:
    clean, noise, steps = latents(0), latents(1), torch.tensor([0, 10, 500, 999])
    schedule = ddpm(prediction)
    inputs, timesteps, target = process(prediction).mix(clean, noise, noise, steps)
    torch.testing.assert_close(inputs, schedule.add_noise(clean, noise, steps))
    assert timesteps is steps
    expected = {
        "epsilon": noise,
        "v_prediction": schedule.get_velocity(clean, noise, steps),
        "sample": clean,
    }
    torch.testing.assert_close(target, expected[prediction])


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_min_snr_weights_are_those_of_diffusers_scripts(prediction: str) -> None:
    snr = compute_snr(ddpm(prediction), ALL)
    clamped = torch.stack([snr, 5 * torch.ones_like(snr)], dim=1).min(dim=1)[0]
    divided_by = {"epsilon": snr, "v_prediction": snr + 1, "sample": 1}[prediction]
    found = process(prediction, min_snr_gamma=5.0).weights(ALL)
    torch.testing.assert_close(found, clamped / divided_by, rtol=1e-4, atol=1e-6)
    assert process(prediction).weights(ALL) is None


@pytest.mark.parametrize("loss", [{"min_snr_gamma": 5.0}, {"debiased": True}])
def test_a_weighting_means_the_same_whatever_is_predicted(loss: dict[str, Any]) -> None:
    """The same wrong idea of the clean latents costs the same, said as epsilon, v or x0."""
    clean, noise, wrong = latents(0), latents(1), latents(2)
    steps = torch.tensor([5, 100, 500, 950])
    schedule = ddpm("epsilon")
    noisy = schedule.add_noise(clean, noise, steps)
    kept = schedule.alphas_cumprod[steps].view(-1, 1, 1, 1)
    wrong_noise = (noisy - kept.sqrt() * wrong) / (1 - kept).sqrt()
    said = {
        "epsilon": wrong_noise,
        "v_prediction": schedule.get_velocity(wrong, wrong_noise, steps),
        "sample": wrong,
    }
    costs = []
    for prediction in PREDICTIONS:
        made = process(prediction, **loss)
        target = made.mix(clean, noise, noise, steps)[2]
        weights = made.weights(steps)
        assert weights is not None
        costs.append(weights * ((said[prediction] - target) ** 2).mean(dim=(1, 2, 3)))
    torch.testing.assert_close(costs[1], costs[0], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(costs[2], costs[0], rtol=1e-3, atol=1e-5)


def test_debiased_weights_are_one_over_the_root_of_the_snr() -> None:
    expected = compute_snr(ddpm("epsilon"), ALL) ** -0.5
    found = process("epsilon", debiased=True).weights(ALL)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_zero_terminal_snr_is_diffusers_rescaling() -> None:
    made = process("v_prediction", zero_terminal_snr=True)
    betas = rescale_zero_terminal_snr(ddpm("v_prediction").betas)
    kept = torch.cumprod(1 - betas, dim=0)
    torch.testing.assert_close(made.signal_rate**2, kept, rtol=1e-4, atol=1e-7)
    clean, noise = latents(0, 1), latents(1, 1)
    inputs, _, target = made.mix(clean, noise, noise, torch.tensor([999]))
    torch.testing.assert_close(inputs, noise)
    torch.testing.assert_close(target, -clean)
    weights = process("v_prediction", zero_terminal_snr=True, min_snr_gamma=5.0).weights(ALL)
    assert weights is not None
    assert bool(weights.isfinite().all())


@pytest.mark.parametrize("name", ["DDIMScheduler", "PNDMScheduler"])
def test_sampling_after_zero_terminal_snr_begins_at_pure_noise(name: str) -> None:
    base = {**SCHEDULE, "_class_name": name, "prediction_type": "v_prediction"}
    changed = with_schedule(base, LossConfig(zero_terminal_snr=True))
    assert changed["_class_name"] == "DDIMScheduler", "PNDM can't"
    sampler = DDIMScheduler.from_config(changed)
    sampler.set_timesteps(10)
    assert sampler.timesteps[0] == 999
    assert sampler.alphas_cumprod[999] < 1e-6
    assert with_schedule(base, LossConfig()) == base


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_edm_is_the_weighted_loss_of_diffusers_preconditioning(prediction: str) -> None:
    """In both of EDM's signs."""
    scheduler = EDMEulerScheduler(**EDM, prediction_type=prediction)
    clean, noise, network = latents(0), latents(1), latents(2)
    sigmas = torch.tensor([0.002, 0.3, 2.0, 80.0])
    made = Edm({**EDM, "prediction_type": prediction}, LossConfig())
    inputs, timesteps, target = made.mix(clean, noise, noise, sigmas)
    for i, sigma in enumerate(sigmas):
        noisy = clean[i] + sigma * noise[i]
        torch.testing.assert_close(inputs[i], scheduler.precondition_inputs(noisy, sigma))
        torch.testing.assert_close(timesteps[i], scheduler.precondition_noise(sigma))
        denoised = scheduler.precondition_outputs(noisy, network[i], sigma)
        weight = (sigma**2 + 0.25) / (sigma * 0.5) ** 2  # arXiv:2206.00364, table 1
        expected = weight * (denoised - clean[i]) ** 2
        torch.testing.assert_close((network[i] - target[i]) ** 2, expected, rtol=2e-3, atol=2e-4)


def test_edm_noise_levels() -> None:
    def drawn(**loss: Any) -> torch.Tensor:
        made = Edm(EDM, LossConfig(**loss))
        return made.draw(20000, torch.Generator().manual_seed(0)).double()

    logs = drawn().log()
    assert logs.mean() == pytest.approx(-1.2, abs=0.03)
    assert logs.std() == pytest.approx(1.2, abs=0.03)
    moved = drawn(timestep_mean=0.5, timestep_std=0.7).log()
    assert moved.mean() == pytest.approx(0.5, abs=0.03)
    assert moved.std() == pytest.approx(0.7, abs=0.03)
    places = EDMEulerScheduler(**EDM).sigmas[:-1].flip(0)  # of both ends too: 1001
    assert len(places) == 1001
    spread = drawn(timesteps="uniform")
    assert spread.median() == pytest.approx(float(places[500]), rel=0.1)
    assert spread.max() <= 80
    low, high = float(places[200]), float(places[400])
    for name in ("log-normal", "uniform"):
        ranged = drawn(timesteps=name, timestep_range=(200, 400))
        assert low * 0.999 <= ranged.min() <= ranged.max() <= high * 1.001
        assert ranged.std() > 0


def test_how_often_each_timestep_is_trained() -> None:
    def drawn(**loss: Any) -> torch.Tensor:
        made = process("epsilon", **loss)
        return made.draw(20000, torch.Generator().manual_seed(0))

    plain = torch.randint(1000, (20000,), generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn(), plain)
    middle = drawn(timesteps="logit-normal", timestep_mean=1.0, timestep_std=0.5) / 1000
    logits = torch.logit(middle + 0.0005)
    assert logits.mean() == pytest.approx(1.0, abs=0.02)
    assert logits.std() == pytest.approx(0.5, abs=0.02)
    # of 1 - u^3: a median of 7/8
    assert drawn(timesteps="cubic").median() == pytest.approx(875, abs=10)
    for name in ("uniform", "logit-normal", "cubic"):
        steps = drawn(timesteps=name, timestep_range=(100, 103))
        assert set(steps.tolist()) == {100, 101, 102}


def noise_of(**loss: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The noise to predict and the noise that is added, at one place in a run."""
    where = Where(seed=3, step=5)
    config = LossConfig(**loss)
    noise = make_noise(torch.Size([64, 4, 16, 16]), config, where.generator)
    return noise, perturbed(noise, config, where.generator)


def test_offset_noise_moves_each_channel() -> None:
    plain, _ = noise_of()
    moved, added = noise_of(noise_offset=0.5)
    offset = moved - plain
    torch.testing.assert_close(offset, offset[:, :, :1, :1].expand_as(offset), rtol=0, atol=1e-6)
    assert offset[:, :, 0, 0].std() == pytest.approx(0.5, rel=0.2)
    assert torch.equal(added, moved)


def test_pyramid_noise_has_more_of_what_is_coarse() -> None:
    plain, _ = noise_of()
    coloured, _ = noise_of(pyramid_noise=0.7)

    def coarse(noise: torch.Tensor) -> float:
        return float(torch.nn.functional.avg_pool2d(noise, 8).var())

    assert coarse(coloured) > 5 * coarse(plain)
    spread = coloured.std(dim=(1, 2, 3))
    torch.testing.assert_close(spread, torch.ones_like(spread))


def test_input_perturbation_is_added_but_not_predicted() -> None:
    plain, _ = noise_of()
    noise, added = noise_of(input_perturbation=0.1)
    assert torch.equal(noise, plain)
    assert (added - noise).std() == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize(("kind", "far"), [("huber", 0.2), ("smooth-l1", 2.0)])
def test_huber_is_square_near_and_straight_far(kind: str, far: float) -> None:
    delta = torch.tensor(0.1)
    distance = DISTANCES[kind]
    errors = torch.tensor([1e-3, 10.0, -10.0], dtype=torch.float64)
    near, one, other = distance(errors, delta.double())
    assert float(near) == pytest.approx(1e-6 * far / 0.2, rel=1e-3)
    assert float(one) == float(other) == pytest.approx(far * 10, rel=0.02)


def test_huber_thresholds_over_the_schedule() -> None:
    def at(schedule: str, step: int) -> float:
        made = process("epsilon", kind="huber", huber_delta=0.1, huber_schedule=schedule)
        return float(made.thresholds(torch.tensor([step])))

    assert at("constant", 10) == at("constant", 900) == pytest.approx(0.1)
    assert at("exponential", 0) == 1
    assert at("exponential", 500) == pytest.approx(0.1**0.5)
    sigma = compute_snr(ddpm("epsilon"), torch.tensor([700])) ** -0.5
    assert at("snr", 700) == pytest.approx(float(0.9 / (1 + sigma) ** 2 + 0.1), rel=1e-4)


def test_a_mask_chooses_pixels_and_not_how_much_a_picture_counts() -> None:
    errors = latents(0, 3) ** 2
    mask = torch.zeros(3, 1, 8, 8)
    mask[0, :, :2, :2], mask[1], mask[2, :, 4:] = 1, 1, 0.25
    found = mean_over_pixels(errors, mask)
    expected = [errors[0, :, :2, :2].mean(), errors[1].mean(), errors[2, :, 4:].mean()]
    torch.testing.assert_close(found, torch.stack(expected))
    torch.testing.assert_close(mean_over_pixels(errors, 0.3 * mask), found)
    torch.testing.assert_close(mean_over_pixels(errors, None), errors.mean(dim=(1, 2, 3)))
    assert float(mean_over_pixels(errors, torch.zeros(3, 1, 8, 8)).sum()) == 0


@pytest.mark.parametrize(
    ("loss", "prediction", "named"),
    [
        ({"min_snr_gamma": 5, "debiased": True}, None, ("min_snr_gamma", "loss.debiased")),
        ({"noise_offset": 0.1, "pyramid_noise": 0.3}, None, ("noise_offset", "pyramid_noise")),
        ({"huber_schedule": "snr"}, None, ("huber_schedule", "loss.kind l2")),
        (
            {"timesteps": "cubic", "timestep_mean": 0.1},
            None,
            ("loss.timestep_mean", "loss.timesteps cubic"),
        ),
        ({"timestep_range": [500, 400]}, None, ("loss.timestep_range", "low before high")),
        ({"timestep_range": [0, 1001]}, None, ("loss.timestep_range", "0..1000")),
        ({"min_snr_gamma": 5}, "edm", ("min_snr_gamma", "prediction_type edm")),
        ({"debiased": True}, "edm", ("debiased", "prediction_type edm")),
        ({"zero_terminal_snr": True}, "epsilon", ("zero_terminal_snr", "prediction_type epsilon")),
        ({"zero_terminal_snr": True}, "edm", ("zero_terminal_snr", "prediction_type edm")),
        ({"timesteps": "log-normal"}, "v_prediction", ("timesteps", "prediction_type v_pred")),
        (
            {"kind": "huber", "huber_schedule": "snr"},
            "edm",
            ("huber_schedule", "prediction_type edm"),
        ),
    ],
)
def test_contradictions_name_both(
    loss: dict[str, Any], prediction: str | None, named: tuple[str, str]
) -> None:
    config = LossConfig(**loss)
    with pytest.raises(ConfigError) as caught:
        check_loss(config, prediction)
    for words in named:
        assert words in str(caught.value)
    if prediction is not None:
        check_loss(config)
