"""Trainings that differ in some settings: tried, measured and ranked."""
