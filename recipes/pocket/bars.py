"""Put the measured figures beside what was asked: one row a bar, asked, got, met."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Bar:
    """One bar: its words, where its figure is in the report, and the least (or most) it may be."""

    name: str
    path: tuple[str, ...]
    asked: float
    unit: str = ""
    most: bool = False
    scale: float = 1.0

    def got(self, report: dict[str, Any]) -> float | None:
        """The figure, or None where it wasn't measured."""
        value: Any = report
        for key in self.path:
            if not isinstance(value, dict) or key not in value:
                return None
            value = value[key]
        return float(value) * self.scale

    def row(self, report: dict[str, Any]) -> tuple[str, str, str, str]:
        """Name, asked, got, met."""
        sign, got = "at most" if self.most else "at least", self.got(report)
        asked = f"{sign} {self.asked:g}{self.unit}"
        if got is None:
            return self.name, asked, "not measured", "no"
        met = got <= self.asked if self.most else got >= self.asked
        return self.name, asked, f"{got:.4g}{self.unit}", "yes" if met else "no"


BARS = (
    Bar("autoencoder on held-out art", ("autoencoder", "art"), 30, " dB"),
    Bar("autoencoder on photographs", ("autoencoder", "photos"), 24, " dB"),
    Bar(
        "100 concepts, one draw each, in the first 5",
        ("recognition", "top5"),
        85,
        " of 100",
        scale=100,
    ),
    Bar("backgrounds of the colour asked for", ("backgrounds", "right"), 95, " %", scale=100),
    Bar("two things, both found", ("composition", "both found"), 60, " of 100", scale=100),
    Bar("100 concepts in 4 steps (LCM), in the first 5", ("lcm", "top5"), 70, " of 100", scale=100),
    Bar("DreamBooth: unseen characters learnt", ("dreambooth", "learnt"), 8, " of 10"),
    Bar("DreamBooth: learnt within 60 s", ("dreambooth", "met"), 8, " of 10"),
    Bar("seconds a picture, 20 steps", ("seconds a picture",), 1.5, " s", most=True),
    Bar("base weights", ("megabytes", "weights"), 30, " MB", most=True),
    Bar("largest file", ("megabytes", "largest file"), 15, " MB", most=True),
    Bar("inpainting variant", ("extras", "inpainting"), 12, " MB", most=True),
    Bar("canny ControlNet", ("extras", "canny"), 12, " MB", most=True),
    Bar("LCM LoRA", ("extras", "lcm"), 2, " MB", most=True),
    Bar("pocket-xl", ("extras", "xl"), 20, " MB", most=True),
    Bar("all of them, with pocket-clip", ("megabytes", "all"), 64, " MB", most=True),
)


def table(report: dict[str, Any]) -> str:
    """Return all bars as a Markdown table."""
    rows = [("what", "asked", "got", "met"), ("---",) * 4, *(b.row(report) for b in BARS)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"
