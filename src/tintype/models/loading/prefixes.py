"""What the names of tensors start with in a single file in the original LDM layout."""

UNET = "model.diffusion_model."
VAE = "first_stage_model."
TEXT_SD1 = "cond_stage_model.transformer."
TEXT_SD2 = "cond_stage_model.model."
TEXT_XL_1 = "conditioner.embedders.0.transformer."
TEXT_XL_2 = "conditioner.embedders.1.model."
TEXT_REFINER = "conditioner.embedders.0.model."
