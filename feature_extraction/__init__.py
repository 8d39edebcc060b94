"""Sound to features to views: `to_waveform`, `MBTFeatureExtractor`, `MBTAugmentation`.

A saved extractor carries its code; importing `modeling_mbt` lets `AutoFeatureExtractor` open it as one of ours.
"""

from .augmentation import MBTAugmentation
from .feature_extraction_mbt import MBTFeatureExtractor
from .speech import BadAudioError, to_waveform

MBTFeatureExtractor.register_for_auto_class("AutoFeatureExtractor")

__all__ = ["BadAudioError", "MBTAugmentation", "MBTFeatureExtractor", "to_waveform"]
