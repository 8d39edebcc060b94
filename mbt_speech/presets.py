"""Named combinations of model, features, crop and distortions.

A preset names only what differs from the defaults of `MBTConfig` and `MBTFeatureExtractor`, where every other number
has its home.
"""

from dataclasses import dataclass, field
from typing import Any

from feature_extraction import MBTAugmentation, MBTFeatureExtractor
from modeling_mbt import MBTConfig


@dataclass(frozen=True)
class Preset:
    """What `--preset` chooses."""

    crop_seconds: float
    """Length of a pre-training crop."""
    features: dict[str, Any] = field(default_factory=dict)
    """Arguments of `MBTFeatureExtractor`."""
    augmentation: dict[str, Any] = field(default_factory=dict)
    """Arguments of `MBTAugmentation`: lists of distortions for `waveform` and `features`."""
    views: str = "same_crop"
    """Whether one crop is distorted twice, or two crops of an utterance, `"two_crops"`."""
    model: dict[str, Any] = field(default_factory=dict)
    """Arguments of `MBTConfig`."""

    def extractor(self, **overrides) -> MBTFeatureExtractor:
        """Creates the feature extractor; `overrides` are further arguments of it."""
        return MBTFeatureExtractor(**{**self.features, **overrides})

    def config(self, **overrides) -> MBTConfig:
        """Creates the config for the preset's features; `overrides` are further arguments of it."""
        return MBTConfig(**{"num_mel_bins": self.extractor().feature_size, **self.model, **overrides})

    def augmenter(self) -> MBTAugmentation:
        """Creates the distortions."""
        return MBTAugmentation(**self.augmentation)


# The distortions that did best on voices and words together (docs/recipe.md), those of BYOL-A (arXiv 2103.06695): much
# of other clips, time and frequency resized, and a gain that changes over time.
RESIZING = {
    "features": [
        {"name": "mixup", "ratio": [0.0, 0.4]},
        {"name": "random_resize_crop"},
        {"name": "fader", "gain": 1.0},
    ]
}
# Another channel, hidden stretches, a little of other clips: what `recipes/voices.yaml` distorts by, and training from
# scratch.
CHANNELS = {
    "features": [
        {"name": "mixup", "ratio": [0.0, 0.2]},
        {"name": "band_equalizer", "gain": 1.0},
        {"name": "fader", "gain": 0.5},
        {"name": "time_mask", "width": 0.3},
        {"name": "frequency_mask", "width": 0.3},
    ]
}
# The 513 x 32 spectrogram of one second of arXiv 2309.03619; waveform distortions of its authors' sibling work, two of
# four a view.
PAPER: dict[str, Any] = {
    "crop_seconds": 1.0,
    "features": {
        "feature_size": 513,
        "hop_length": 512,
        "win_length": 1024,
        "n_fft": 1024,
        "frequency_scale": "linear",
        "min_frequency": 0.0,
        "max_frequency": 8000.0,
    },
    "augmentation": {
        "waveform": [
            {
                "choose": 2,
                "of": [
                    {"name": "gaussian_noise", "amplitude": [0.001, 0.015]},
                    {"name": "time_stretch", "rate": [0.8, 1.25]},
                    {"name": "pitch_shift", "semitones": [-4, 4]},
                    {"name": "shift", "fraction": [-0.5, 0.5]},
                ],
            }
        ]
    },
}
RESNET_50 = {
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
}
PRESETS = {
    # 64 log-mels every 10 ms, and the shape that arXiv 2204.07402 found best for audio: 0.53 M parameters.
    "strong": Preset(
        crop_seconds=0.96,
        augmentation=RESIZING,
        model={
            "layer_type": "max_pool",
            "hidden_sizes": [32, 32],
            "depths": [1, 1],
            "time_strides": [2, 2],
            "frequency_strides": [2, 2],
            "frame_hidden_sizes": [512, 512],
            "concatenate_local_features": True,
            "pooling_mode": "statistics",
            "pooling_cosines": 4,
            "pool_input_features": True,
        },
    ),
    # arXiv 2309.03619: 2048 latents (its layers are not given: a one-channel ResNet-50 has that width).
    "faithful": Preset(**PAPER, model=RESNET_50),
    # The same at half of the width: a quarter of the operations.
    "faithful_small": Preset(
        **PAPER, model={**RESNET_50, "embedding_size": 32, "hidden_sizes": [128, 256, 512, 1024]}
    ),
    # 32 log-mels of half a second, seconds on a CPU: for tests and for trying things out.
    "tiny": Preset(
        crop_seconds=0.48,
        features={"feature_size": 32},
        augmentation=CHANNELS,
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
