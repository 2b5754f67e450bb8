"""Stable Diffusion 1.x and 2.x."""

from tintype.models.presets.preset import AdapterSource, Preset

_OPEN_RAIL = "creativeml-openrail-m"
_AS_PUBLISHED = {"scheduler": "plms", "steps": 50, "guidance_scale": 7.5}
_SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"

ROWS = (
    Preset(
        name="stable-diffusion-v1-4",
        title="Stable Diffusion 1.4",
        family="sd1",
        repo="CompVis/stable-diffusion-v1-4",
        variant="fp16",
        licence=_OPEN_RAIL,
        gigabytes=2.1,
        generate=_AS_PUBLISHED,
    ),
    Preset(
        name="stable-diffusion-v1-5",
        title="Stable Diffusion 1.5",
        family="sd1",
        repo=_SD15,
        variant="fp16",
        licence=_OPEN_RAIL,
        gigabytes=2.1,
        generate=_AS_PUBLISHED,
    ),
    Preset(
        name="stable-diffusion-v1-5-lcm",
        title="Stable Diffusion 1.5 in a few steps (LCM)",
        family="sd1",
        repo=_SD15,
        variant="fp16",
        adapter=AdapterSource(
            repo="latent-consistency/lcm-lora-sdv1-5", file="pytorch_lora_weights.safetensors"
        ),
        licence=f"{_OPEN_RAIL}; the adapter openrail++",
        gigabytes=2.3,
        generate={"scheduler": "lcm", "steps": 4, "guidance_scale": 1.0},
    ),
    Preset(
        name="stable-diffusion-v1-5-hyper",
        title="Stable Diffusion 1.5 in 8 steps (Hyper-SD)",
        family="sd1",
        repo=_SD15,
        variant="fp16",
        adapter=AdapterSource(repo="ByteDance/Hyper-SD", file="Hyper-SD15-8steps-lora.safetensors"),
        licence=f"{_OPEN_RAIL}; the adapter's own terms at huggingface.co/ByteDance/Hyper-SD",
        gigabytes=2.4,
        generate={"scheduler": "ddim_sgm_uniform", "steps": 8, "guidance_scale": 0.0},
    ),
    Preset(
        name="stable-diffusion-v1-5-hyper-cfg",
        title="Stable Diffusion 1.5 in 8 steps, with negative prompts (Hyper-SD)",
        family="sd1",
        repo=_SD15,
        variant="fp16",
        adapter=AdapterSource(
            repo="ByteDance/Hyper-SD", file="Hyper-SD15-8steps-CFG-lora.safetensors"
        ),
        licence=f"{_OPEN_RAIL}; the adapter's own terms at huggingface.co/ByteDance/Hyper-SD",
        gigabytes=2.4,
        generate={"scheduler": "ddim_sgm_uniform", "steps": 8, "guidance_scale": 5.0},
    ),
    Preset(
        name="lcm-dreamshaper-v7",
        title="Dreamshaper 7 in a few steps (LCM)",
        family="sd1",
        repo="SimianLuo/LCM_Dreamshaper_v7",
        licence="mit",
        gigabytes=4.3,
        generate={
            "scheduler": "lcm",
            "steps": 4,
            "guidance_scale": 8.0,
            "width": 768,
            "height": 768,
        },
    ),
    Preset(
        name="sd-turbo",
        title="SD Turbo (Stable Diffusion 2.1 in 1 to 4 steps)",
        family="sd2",
        repo="stabilityai/sd-turbo",
        variant="fp16",
        licence="sai-nc-community",
        gigabytes=2.6,
        generate={
            "scheduler": "euler_sgm_uniform",
            "steps": 1,
            "guidance_scale": 0.0,
            "width": 512,
            "height": 512,
        },
    ),
)
