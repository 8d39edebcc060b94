"""Sounds that the tests make."""

import numpy as np

SAMPLING_RATE = 16_000


def chirp(seconds: float, hertz: float, seed: int) -> np.ndarray:
    """Returns a wavering harmonic tone in a little noise: enough like a voice to be told from others, (S,) float32."""
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * SAMPLING_RATE)) / SAMPLING_RATE
    phase = 2 * np.pi * hertz * (time + 0.01 * np.sin(2 * np.pi * generator.uniform(2, 5) * time))
    harmonics = sum(np.sin(k * phase) / k for k in range(1, 6))
    return (0.1 * harmonics + 0.005 * generator.standard_normal(time.size)).astype(np.float32)
