"""Sound to features to views: `to_waveform`, `MBTFeatureExtractor`, `MBTAugmentation`.

Importing this package lets `AutoFeatureExtractor` open MBT checkpoints, and lets a saved extractor carry its code.
"""

from transformers import AutoFeatureExtractor

from modeling_mbt.configuration_mbt import MBTConfig

from .augmentation import MBTAugmentation
from .feature_extraction_mbt import MBTFeatureExtractor
from .speech import BadAudioError, to_waveform

AutoFeatureExtractor.register(MBTConfig, MBTFeatureExtractor, exist_ok=True)
MBTFeatureExtractor.register_for_auto_class("AutoFeatureExtractor")

__all__ = ["BadAudioError", "MBTAugmentation", "MBTFeatureExtractor", "to_waveform"]
