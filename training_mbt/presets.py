"""Named combinations of model, features, crop and distortions.

A preset names only what differs from the defaults of `MBTConfig` and `MBTFeatureExtractor`, where every other number
has its home.
"""

from dataclasses import dataclass, field
from typing import Any

from feature_extraction import MBTAugmentation, MBTFeatureExtractor
from feature_extraction.presets import FAITHFUL, STRONG, TINY, Sound
from modeling_mbt import MBTConfig


@dataclass(frozen=True)
class Preset:
    """What `--preset` chooses."""

    sound: Sound
    """Features, distortions, and the length of a crop."""
    model: dict[str, Any] = field(default_factory=dict)
    """Arguments of `MBTConfig`."""

    @property
    def crop_seconds(self) -> float:
        """Length of a pre-training crop."""
        return self.sound.crop_seconds

    def extractor(self, **overrides) -> MBTFeatureExtractor:
        """Create the feature extractor; `overrides` are further arguments of it."""
        return self.sound.extractor(**overrides)

    def config(self, **overrides) -> MBTConfig:
        """Create the config for the preset's features; `overrides` are further arguments of it."""
        return MBTConfig(**{"num_mel_bins": self.extractor().feature_size, **self.model, **overrides})

    def augmenter(self) -> MBTAugmentation:
        """Create the distortions."""
        return self.sound.augmenter()


PRESETS = {
    # The time axis is kept; 0.77 M parameters.
    "strong": Preset(STRONG),
    # arXiv 2309.03619: 2048 latents (its layers are not given: a one-channel ResNet-50 has that width).
    "faithful": Preset(
        FAITHFUL,
        model={
            "embedding_size": 64,
            "layer_type": "bottleneck",
            "hidden_sizes": [256, 512, 1024, 2048],
            "depths": [3, 4, 6, 3],
            "time_strides": [1, 2, 2, 2],
            "frequency_strides": [1, 2, 2, 2],
            "frame_hidden_sizes": [],
            "pooling_mode": "mean",
            "projector_sizes": [2048, 2048, 2048],
            "redundancy_loss_weight": 0.0051,
        },
    ),
    # Seconds on a CPU: for tests and for trying things out.
    "tiny": Preset(
        TINY,
        model={
            "hidden_sizes": [8, 16, 24],
            "depths": [1, 1, 1],
            "time_strides": [2, 2, 1],
            "frequency_strides": [2, 2, 2],
            "frame_hidden_sizes": [32],
            "projector_sizes": [48, 48],
        },
    ),
}
