"""transformers' own conformance tests, from the source distribution of the installed version.

`make test` puts the archive beside the environment; without it these tests are skipped.
"""

import importlib.util
import sys
import tarfile
import unittest
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
import transformers

from feature_extraction import MBTFeatureExtractor
from modeling_mbt import MBTConfig, MBTForPreTraining, MBTForSequenceClassification, MBTModel

ABSENT = {"exporters.test_export": "ExportTesterMixin", "generation.test_utils": "GenerationTesterMixin"}
ARCHIVE = Path(sys.prefix, "sdist", f"transformers-{transformers.__version__}.tar.gz")
if not ARCHIVE.is_file():
    pytest.skip(f"{ARCHIVE.name} is not there: `make test` fetches it", allow_module_level=True)


def load_mixin(module: str, name: str, folder: Path = ARCHIVE.parent / "unpacked") -> type:
    """Imports a class of transformers' `tests` folder, under a package name that is not that of this folder."""
    root = folder / ARCHIVE.name.removesuffix(".tar.gz") / "tests"
    if not root.is_dir():
        with tarfile.open(ARCHIVE) as archive:
            archive.extractall(folder, [one for one in archive if "/tests/" in one.name], filter="data")
    package = "tests_of_transformers"
    if package not in sys.modules:
        spec = importlib.util.spec_from_loader(package, loader=None, is_package=True)
        assert spec is not None
        spec.submodule_search_locations = [str(root)]
        sys.modules[package] = importlib.util.module_from_spec(spec)
        for absent, mixin in ABSENT.items():  # not in the distribution, and not for an encoder
            sys.modules[f"{package}.{absent}"] = ModuleType(absent)
            setattr(sys.modules[f"{package}.{absent}"], mixin, type(mixin, (), {}))
    return getattr(importlib.import_module(f"{package}.{module}"), name)


class FeatureExtractorTester(SimpleNamespace):
    """What the mixin asks for: settings, and batches of features of three growing lengths."""

    def prepare_feat_extract_dict(self):
        return {"feature_size": self.feature_size, "padding_value": 0.0, "n_fft": 1024, "sampling_rate": 16000}

    def prepare_inputs_for_common(self, equal_length=False, numpify=False):
        lengths = range(self.min_seq_length, self.max_seq_length, self.seq_length_diff)
        if equal_length:
            lengths = [self.max_seq_length] * self.batch_size
        generator = np.random.default_rng(0)
        clips = [generator.random((length, self.feature_size)) for length in lengths]
        return clips if numpify else [clip.tolist() for clip in clips]


class TestFeatureExtractor(
    load_mixin("test_sequence_feature_extraction_common", "SequenceFeatureExtractionTestMixin"), unittest.TestCase
):
    feature_extraction_class = MBTFeatureExtractor
    feat_extract_tester = FeatureExtractorTester(
        batch_size=3, feature_size=24, min_seq_length=40, max_seq_length=100, seq_length_diff=20
    )


class ModelTester:
    """What the mixin asks for: a small config, and inputs by name."""

    def __init__(self, parent):
        self.parent, self.batch_size, self.is_training = parent, 4, True

    def get_config(self):
        return MBTConfig(
            num_mel_bins=16,
            hidden_sizes=[4, 6],
            depths=[1, 1],
            time_strides=[2, 1],
            frequency_strides=[2, 2],
            frame_hidden_sizes=[12],
            projector_sizes=[10, 8],
        )

    def prepare_config_and_inputs_for_common(self):
        return self.get_config(), {"input_features": torch.rand(self.batch_size, 14, 16)}


class TestModel(load_mixin("test_modeling_common", "ModelTesterMixin"), unittest.TestCase):
    all_model_classes = (MBTModel, MBTForPreTraining, MBTForSequenceClassification)
    has_attentions = test_resize_embeddings = is_encoder_decoder = False

    def setUp(self):
        self.model_tester = ModelTester(self)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        """Adds what a loss takes: labels, or a second view."""
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels=return_labels)
        if return_labels and model_class is MBTForSequenceClassification:
            inputs["labels"] = torch.zeros(len(inputs["input_features"]), dtype=torch.long)
        if return_labels and model_class is MBTForPreTraining:
            inputs["input_features_b"] = inputs["input_features"].flip(1)
        return inputs

    def check_training_gradient_checkpointing(self, *args, **kwargs):
        """Leaves out the model without a head, which has no loss and is told by its place in transformers' tables."""
        self.all_model_classes = (MBTForPreTraining, MBTForSequenceClassification)
        super().check_training_gradient_checkpointing(*args, **kwargs)


HIDDEN_STATES = "they expect all hidden states at one rate and width, or a single view; see test_hidden_states.py"
NOT_APPLICABLE = {
    "test_hidden_states_output": HIDDEN_STATES,
    "test_retain_grad_hidden_states_attentions": HIDDEN_STATES,
    "test_model_get_set_embeddings": "sound has no table of input embeddings",
    "test_training": "a model without a head is told by its place in transformers' own tables; see test_modeling.py",
}
for test, reason in NOT_APPLICABLE.items():
    setattr(TestModel, test, unittest.skip(reason)(getattr(TestModel, test)))
