"""Whatever names a model, to a Model: found, recognised, checked, assembled."""
