"""MBT: speech representations by invariance and redundancy reduction (Barlow Twins and Modified Barlow Twins).

Importing this package lets the Auto classes of transformers open MBT checkpoints, the feature extractor included.
"""

from transformers import AutoConfig, AutoModel, AutoModelForAudioClassification, AutoModelForPreTraining

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

import feature_extraction  # noqa: E402, F401 - registers the extractor; it imports the config from above

__all__ = [
    "MBTConfig",
    "MBTForPreTraining",
    "MBTForPreTrainingOutput",
    "MBTForSequenceClassification",
    "MBTModel",
    "MBTPreTrainedModel",
]
