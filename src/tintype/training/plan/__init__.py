"""What a run will take, told before it begins."""

from tintype.training.plan.plan import Phase, Plan, plan_run

__all__ = ["Phase", "Plan", "plan_run"]
