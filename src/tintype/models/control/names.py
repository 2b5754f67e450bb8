"""Short names of well-known ControlNets and their kin: data, a row each, name -> hub id."""

NAMES = {
    "sd15-canny": "lllyasviel/control_v11p_sd15_canny",
    "sd15-depth": "lllyasviel/control_v11f1p_sd15_depth",
    "sd15-inpaint": "lllyasviel/control_v11p_sd15_inpaint",
    "sd15-lineart": "lllyasviel/control_v11p_sd15_lineart",
    "sd15-openpose": "lllyasviel/control_v11p_sd15_openpose",
    "sd15-scribble": "lllyasviel/control_v11p_sd15_scribble",
    "sd15-shuffle": "lllyasviel/control_v11e_sd15_shuffle",
    "sd15-softedge": "lllyasviel/control_v11p_sd15_softedge",
    "sd15-tile": "lllyasviel/control_v11f1e_sd15_tile",
    "sd15-ip-adapter": "h94/IP-Adapter/models/ip-adapter_sd15.safetensors",
    "sd15-ip-adapter-plus": "h94/IP-Adapter/models/ip-adapter-plus_sd15.safetensors",
    "sd15-ip-adapter-full-face": "h94/IP-Adapter/models/ip-adapter-full-face_sd15.safetensors",
    "sdxl-canny": "diffusers/controlnet-canny-sdxl-1.0",
    "sdxl-depth": "diffusers/controlnet-depth-sdxl-1.0",
    "sdxl-openpose": "xinsir/controlnet-openpose-sdxl-1.0",
    "sdxl-scribble": "xinsir/controlnet-scribble-sdxl-1.0",
    "sdxl-tile": "xinsir/controlnet-tile-sdxl-1.0",
    "sdxl-union": "xinsir/controlnet-union-sdxl-1.0",
    "sdxl-t2i-canny": "TencentARC/t2i-adapter-canny-sdxl-1.0",
    "sdxl-t2i-depth": "TencentARC/t2i-adapter-depth-midas-sdxl-1.0",
    "sdxl-t2i-lineart": "TencentARC/t2i-adapter-lineart-sdxl-1.0",
    "sdxl-t2i-openpose": "TencentARC/t2i-adapter-openpose-sdxl-1.0",
    "sdxl-t2i-sketch": "TencentARC/t2i-adapter-sketch-sdxl-1.0",
    "sdxl-ip-adapter": "h94/IP-Adapter/sdxl_models/ip-adapter_sdxl.safetensors",
    "sdxl-ip-adapter-plus": "h94/IP-Adapter/sdxl_models/ip-adapter-plus_sdxl_vit-h.safetensors",
}
# what the preprocessors that need weights look with, unless another is named
DETECTORS = {
    "depth": "depth-anything/Depth-Anything-V2-Small-hf",
    "pose": "usyd-community/vitpose-base-simple",
}
