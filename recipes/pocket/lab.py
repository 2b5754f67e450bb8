"""Convert between sRGB (0..255) and CIE L*a*b* with the D65 white point; arrays (..., 3)."""

from __future__ import annotations

import numpy as np

TO_XYZ = np.array(
    (
        (0.4124564, 0.3575761, 0.1804375),
        (0.2126729, 0.7151522, 0.072175),
        (0.0193339, 0.119192, 0.9503041),
    ),
    np.float32,
)
WHITE = np.array((0.95047, 1.0, 1.08883), np.float32)
EDGE = 6 / 29


def from_rgb(rgb: np.ndarray) -> np.ndarray:
    """Return L* (0..100), a* and b* as float32."""
    x = np.asarray(rgb, np.float32) / 255
    linear = np.where(x > 0.04045, ((x + 0.055) / 1.055) ** 2.4, x / 12.92)
    t = linear @ TO_XYZ.T / WHITE
    f = np.where(t > EDGE**3, np.cbrt(t), t / (3 * EDGE**2) + 4 / 29)
    parts = (116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2]))
    return np.stack(parts, -1).astype(np.float32)


def to_rgb(lab: np.ndarray) -> np.ndarray:
    """Return sRGB as float32 in 0..255; colours outside it are clipped."""
    y = (lab[..., 0] + 16) / 116
    f = np.stack((y + lab[..., 1] / 500, y, y - lab[..., 2] / 200), -1)
    t = np.where(f > EDGE, f**3, 3 * EDGE**2 * (f - 4 / 29)) * WHITE
    linear = np.clip(t @ np.linalg.inv(TO_XYZ).T, 0, 1)
    x = np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
    return np.clip(x * 255, 0, 255).astype(np.float32)
