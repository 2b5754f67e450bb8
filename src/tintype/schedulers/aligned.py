"""The timesteps of "Align Your Steps" (arXiv:2404.14507), for any number of steps."""

import numpy as np
from diffusers.schedulers.scheduling_utils import AysSchedules


def aligned_timesteps(table: str, steps: int, sigmas: "np.ndarray") -> list[int]:
    """`steps` descending timesteps from the table of that name ("StableDiffusion").

    Ten are the published ones; other numbers interpolate their noise levels, log-linearly, and
    take the timesteps nearest to these. `sigmas` are the noise levels of all training timesteps.
    """
    published = AysSchedules[f"{table}Timesteps"]
    if steps == len(published):
        return list(published)
    levels = np.log(AysSchedules[f"{table}Sigmas"][: len(published)])
    places = np.linspace(0, 1, len(published))
    wanted = np.interp(np.linspace(0, 1, steps), places, levels)
    training = np.log(np.maximum(sigmas, 1e-10))
    found = [int(np.abs(training - level).argmin()) for level in wanted]
    # two steps can't be at one timestep: near neighbours move apart, downwards
    for place in range(1, steps):
        found[place] = min(found[place], found[place - 1] - 1)
    return [max(step, steps - 1 - place) for place, step in enumerate(found)]
