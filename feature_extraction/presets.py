"""Named combinations of features, distortions and crop length: the half of `--preset` that is about sound.

A preset names only what differs from the defaults of `MBTFeatureExtractor`, where every other number has its home.
"""

from dataclasses import dataclass, field
from typing import Any

from .augmentation import MBTAugmentation
from .feature_extraction_mbt import MBTFeatureExtractor


@dataclass(frozen=True)
class Sound:
    """What a model hears of a recording while it is pre-trained."""

    crop_seconds: float
    """Length of a crop."""
    features: dict[str, Any] = field(default_factory=dict)
    """Arguments of `MBTFeatureExtractor`."""
    augmentation: dict[str, Any] = field(default_factory=dict)
    """Arguments of `MBTAugmentation`: lists of distortions for `waveform` and `features`."""

    def extractor(self, **overrides) -> MBTFeatureExtractor:
        """Create the feature extractor; `overrides` are further arguments of it."""
        return MBTFeatureExtractor(**{**self.features, **overrides})

    def augmenter(self) -> MBTAugmentation:
        """Create the distortions."""
        return MBTAugmentation(**self.augmentation)


# 64 log-mels every 10 ms, and the distortions that mattered most for speech in published ablations: mixing with other
# clips and random resize crops of the log-mel (BYOL-A, arXiv 2204.07402).
STRONG = Sound(
    crop_seconds=0.96,
    augmentation={
        "features": [
            {"name": "mixup", "ratio": [0.0, 0.4]},
            {"name": "random_resize_crop"},
            {"name": "noise", "ratio": [0.0, 0.2]},
            {"name": "fader", "gain": 1.0},
        ]
    },
)
# The 513 x 32 spectrogram of one second of arXiv 2309.03619; waveform distortions of its authors' sibling work, two of
# four for each view.
FAITHFUL = Sound(
    crop_seconds=1.0,
    features={
        "feature_size": 513,
        "hop_length": 512,
        "win_length": 1024,
        "n_fft": 1024,
        "frequency_scale": "linear",
        "min_frequency": 0.0,
        "max_frequency": 8000.0,
    },
    augmentation={
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
)
# 32 log-mels of half a second: for tests and for trying things out.
TINY = Sound(crop_seconds=0.48, features={"feature_size": 32}, augmentation=STRONG.augmentation)
SOUNDS = {"strong": STRONG, "faithful": FAITHFUL, "tiny": TINY}
