"""SDXL, its refiner, its fine-tunes, and those that draw in a few steps."""

from tintype.models.presets.preset import AdapterSource, Preset

_RAIL = "openrail++"
_BASE = "stabilityai/stable-diffusion-xl-base-1.0"
_REFINER = "stable-diffusion-xl-refiner-1.0"
# the nine sizes that anime fine-tunes of SDXL name
_NINE = (
    (1024, 1024), (1152, 896), (896, 1152), (1216, 832), (832, 1216),
    (1344, 768), (768, 1344), (1536, 640), (640, 1536),
)  # fmt: skip

ROWS = (
    Preset(
        name="stable-diffusion-xl-base-1.0",
        title="SDXL 1.0",
        family="sdxl",
        repo=_BASE,
        variant="fp16",
        licence=_RAIL,
        gigabytes=6.9,
        generate={"scheduler": "euler", "steps": 40, "guidance_scale": 5.0},
        refiner=_REFINER,
    ),
    Preset(
        name=_REFINER,
        title="SDXL 1.0 refiner",
        family="sdxl_refiner",
        repo="stabilityai/stable-diffusion-xl-refiner-1.0",
        variant="fp16",
        licence=_RAIL,
        gigabytes=6.1,
        generate={"scheduler": "euler", "steps": 40, "guidance_scale": 5.0},
        note="goes on from pictures and latents of SDXL; alone it draws poorly",
    ),
    Preset(
        name="animagine-xl-4.0",
        title="Animagine XL 4.0",
        family="sdxl",
        repo="cagliostrolab/animagine-xl-4.0",
        licence=_RAIL,
        gigabytes=6.9,
        generate={
            "scheduler": "euler_a",
            "steps": 28,
            "guidance_scale": 5.0,
            "width": 832,
            "height": 1216,
            "negative_prompt": (
                "lowres, bad anatomy, bad hands, text, error, missing finger, extra digits, "
                "fewer digits, cropped, worst quality, low quality, low score, bad score, "
                "average score, signature, watermark, username, blurry"
            ),
        },
        quality_tags="masterpiece, high score, great score, absurdres",
        buckets=_NINE,
    ),
    Preset(
        name="novaAnimeXL_ilV140",
        title="Nova Anime XL 14.0 (Illustrious)",
        family="sdxl",
        repo="frankjoshua/novaAnimeXL_ilV140",
        licence="fair-ai-public-license-1.0-sd (that of its base, Illustrious XL)",
        gigabytes=6.9,
        generate={
            "scheduler": "euler_a",
            "steps": 28,
            "guidance_scale": 4.5,
            "width": 832,
            "height": 1216,
            "clip_skip": 2,
            "negative_prompt": (
                "modern, recent, old, oldest, cartoon, graphic, text, painting, crayon, "
                "graphite, abstract, glitch, deformed, mutated, ugly, disfigured, long body, "
                "lowres, bad anatomy, bad hands, missing fingers, extra digits, fewer digits, "
                "cropped, very displeasing, worst quality, bad quality, sketch, jpeg artifacts, "
                "signature, watermark, username, conjoined, bad ai-generated"
            ),
        },
        quality_tags=(
            "masterpiece, best quality, amazing quality, 4k, very aesthetic, high resolution, "
            "ultra-detailed, absurdres, newest"
        ),
        buckets=_NINE,
    ),
    Preset(
        name="playground-v2.5-1024px-aesthetic",
        title="Playground v2.5",
        family="sdxl",
        repo="playgroundai/playground-v2.5-1024px-aesthetic",
        variant="fp16",
        licence="playground-v2dot5-community",
        gigabytes=6.9,
        generate={"scheduler": "dpmpp_2m", "steps": 50, "guidance_scale": 3.0},
        note="in EDM's parametrisation: draws with EDM's schedulers alone",
    ),
    Preset(
        name="sdxl-turbo",
        title="SDXL Turbo (1 to 4 steps)",
        family="sdxl",
        repo="stabilityai/sdxl-turbo",
        variant="fp16",
        licence="sai-nc-community",
        gigabytes=6.9,
        generate={
            "scheduler": "euler_a_sgm_uniform",
            "steps": 1,
            "guidance_scale": 0.0,
            "width": 512,
            "height": 512,
        },
    ),
    Preset(
        name="sdxl-lightning",
        title="SDXL in 4 steps (Lightning)",
        family="sdxl",
        repo="ByteDance/SDXL-Lightning",
        file="sdxl_lightning_4step.safetensors",
        licence=_RAIL,
        gigabytes=6.9,
        generate={"scheduler": "euler_sgm_uniform", "steps": 4, "guidance_scale": 0.0},
    ),
    Preset(
        name="sdxl-lcm",
        title="SDXL in a few steps (LCM)",
        family="sdxl",
        repo=_BASE,
        variant="fp16",
        adapter=AdapterSource(
            repo="latent-consistency/lcm-lora-sdxl", file="pytorch_lora_weights.safetensors"
        ),
        licence=_RAIL,
        gigabytes=7.3,
        generate={"scheduler": "lcm", "steps": 4, "guidance_scale": 1.0},
    ),
    Preset(
        name="sdxl-hyper",
        title="SDXL in 8 steps (Hyper-SD)",
        family="sdxl",
        repo=_BASE,
        variant="fp16",
        adapter=AdapterSource(repo="ByteDance/Hyper-SD", file="Hyper-SDXL-8steps-lora.safetensors"),
        licence=f"{_RAIL}; the adapter's own terms at huggingface.co/ByteDance/Hyper-SD",
        gigabytes=7.7,
        generate={"scheduler": "ddim_sgm_uniform", "steps": 8, "guidance_scale": 0.0},
    ),
    Preset(
        name="sdxl-hyper-cfg",
        title="SDXL in 8 steps, with negative prompts (Hyper-SD)",
        family="sdxl",
        repo=_BASE,
        variant="fp16",
        adapter=AdapterSource(
            repo="ByteDance/Hyper-SD", file="Hyper-SDXL-8steps-CFG-lora.safetensors"
        ),
        licence=f"{_RAIL}; the adapter's own terms at huggingface.co/ByteDance/Hyper-SD",
        gigabytes=7.7,
        generate={"scheduler": "ddim_sgm_uniform", "steps": 8, "guidance_scale": 5.0},
    ),
    Preset(
        name="sdxl-hyper-unified",
        title="SDXL in 1 to 8 steps (Hyper-SD)",
        family="sdxl",
        repo=_BASE,
        variant="fp16",
        adapter=AdapterSource(repo="ByteDance/Hyper-SD", file="Hyper-SDXL-1step-lora.safetensors"),
        licence=f"{_RAIL}; the adapter's own terms at huggingface.co/ByteDance/Hyper-SD",
        gigabytes=7.7,
        generate={"scheduler": "tcd", "steps": 1, "guidance_scale": 0.0, "eta": 1.0},
        note="with more steps, a lower eta gives more detail",
    ),
    Preset(
        name="sdxl-lightning-lora",
        title="SDXL in 8 steps (Lightning's LoRA)",
        family="sdxl",
        repo=_BASE,
        variant="fp16",
        adapter=AdapterSource(
            repo="ByteDance/SDXL-Lightning", file="sdxl_lightning_8step_lora.safetensors"
        ),
        licence=_RAIL,
        gigabytes=7.3,
        generate={"scheduler": "euler_sgm_uniform", "steps": 8, "guidance_scale": 0.0},
    ),
)
