"""Models of the command for the tests of this folder."""

import pytest
import torch

from mbt_speech.presets import PRESETS
from modeling_mbt import MBTForPreTraining, MBTForSequenceClassification


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    MBTForPreTraining(PRESETS["tiny"].config()).save_pretrained(folder)
    PRESETS["tiny"].extractor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    labels = {"id2label": {0: "low", 1: "high", 2: "none"}, "label2id": {"low": 0, "high": 1, "none": 2}}
    MBTForSequenceClassification(PRESETS["tiny"].config(**labels)).save_pretrained(folder)
    PRESETS["tiny"].extractor().save_pretrained(folder)
    return folder
