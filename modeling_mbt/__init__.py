"""MBT: speech representations by invariance and redundancy reduction (Barlow Twins and Modified Barlow Twins).

Importing this package lets the Auto classes of transformers open MBT checkpoints, the feature extractor included.
"""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForPreTraining,
)

from feature_extraction import MBTFeatureExtractor

from .configuration_mbt import MBTConfig
from .modeling_mbt import (
    MBTForPreTraining,
    MBTForPreTrainingOutput,
    MBTForSequenceClassification,
    MBTModel,
    MBTPreTrainedModel,
)

AutoConfig.register(MBTConfig.model_type, MBTConfig, exist_ok=True)
AutoModel.register(MBTConfig, MBTModel, exist_ok=True)
AutoModelForPreTraining.register(MBTConfig, MBTForPreTraining, exist_ok=True)
AutoModelForAudioClassification.register(MBTConfig, MBTForSequenceClassification, exist_ok=True)
AutoFeatureExtractor.register(MBTConfig, MBTFeatureExtractor, exist_ok=True)

__all__ = [
    "MBTConfig",
    "MBTForPreTraining",
    "MBTForPreTrainingOutput",
    "MBTForSequenceClassification",
    "MBTModel",
    "MBTPreTrainedModel",
]
