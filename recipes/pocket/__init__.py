"""How tintype's embedded base model is built, from icon packages to weights."""
