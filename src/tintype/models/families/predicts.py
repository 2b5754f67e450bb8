"""What a UNet predicts, told by its scheduler's config; importing this loads no torch."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tintype.schedulers.edm import is_edm

if TYPE_CHECKING:
    from torch import Tensor


def prediction_type(scheduler_config: Mapping[str, Any]) -> str:
    """ "epsilon", "v_prediction", "sample", or "edm" for a model in EDM's parametrisation."""
    if is_edm(scheduler_config):
        return "edm"
    return str(scheduler_config.get("prediction_type", "epsilon"))


def edm_coefficients(
    scheduler_config: Mapping[str, Any], sigma: "Tensor"
) -> tuple["Tensor", "Tensor", "Tensor", "Tensor"]:
    """c_in, c_noise, c_skip, c_out at each noise level (table 1 of arXiv:2206.00364).

    The denoised latents are c_skip x + c_out F(c_in x, c_noise), where F is the UNet and x the
    latents with noise of standard deviation sigma; c_noise is what it takes for a timestep. Where
    the model is a v-prediction one, c_out has the other sign.
    """
    data = float(scheduler_config.get("sigma_data", 0.5))
    total = (sigma**2 + data**2).sqrt()
    sign = -1 if scheduler_config.get("prediction_type") == "v_prediction" else 1
    return 1 / total, sigma.log() / 4, (data / total) ** 2, sign * sigma * data / total
