"""Models that only add to a base: what a run leaves when the base's own weights stay."""
