"""How much each noise level counts; one row a weighting, whatever the model predicts.

A weighting is of the error of the denoised latents x0, as a function of the signal-to-noise ratio.
The error of a prediction is that error times a factor, and its weight is divided by the factor.
"""

from collections.abc import Callable

from torch import Tensor

from tintype.types import LossConfig

# A schedule may end without any signal, where only v-prediction has a weight.
SMALLEST_SNR = 1e-8

# The squared error of a prediction, over that of x0, at each signal-to-noise ratio.
ERRORS: dict[str, Callable[[Tensor], Tensor]] = {
    "epsilon": lambda snr: snr,
    "v_prediction": lambda snr: snr + 1,
    "sample": lambda snr: snr**0,
}


def min_snr(snr: Tensor, config: LossConfig) -> Tensor:
    """min(SNR, gamma): levels with little noise count no more than gamma (arXiv:2303.09556)."""
    return snr.clamp(max=config.min_snr_gamma)


def debiased(snr: Tensor, config: LossConfig) -> Tensor:
    """SNR over its root, which is 1 / sqrt(SNR) for the error of epsilon (arXiv:2310.08442)."""
    return snr.sqrt()


WEIGHTINGS: dict[str, Callable[[Tensor, LossConfig], Tensor]] = {
    "min_snr_gamma": min_snr,
    "debiased": debiased,
}


def weights_of(snr: Tensor, prediction: str, config: LossConfig) -> Tensor | None:
    """The weight of each loss, [n], or None if all are 1."""
    ratio = snr.clamp(min=SMALLEST_SNR)
    for field, weighting in WEIGHTINGS.items():
        if getattr(config, field):
            return weighting(ratio, config) / ERRORS[prediction](ratio)
    return None
