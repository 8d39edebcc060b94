"""The encoder, its heads, and what a checkpoint keeps.

Axes: B clips, T frames, M mel bins.
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForAudioClassification, AutoModelForPreTraining

from mbt_speech.presets import PRESETS
from modeling_mbt import MBTConfig, MBTForPreTraining, MBTForSequenceClassification, MBTModel
from modeling_mbt.objectives_mbt import barlow_twins_loss, modified_barlow_twins_loss
from tests.support.models import SMALL_BOTTLENECK, SMALL_MAX_POOL, TINY, stir


@pytest.mark.parametrize("settings", [TINY, SMALL_MAX_POOL, SMALL_BOTTLENECK], ids=["plain", "max_pool", "bottleneck"])
@pytest.mark.parametrize("length", [1, 2, 5, 7, 30, 63])
def test_a_clip_has_one_representation_alone_or_among_longer_clips(settings, length):
    config = MBTConfig(**settings, num_labels=3)
    model = stir(MBTForSequenceClassification(config))
    features = torch.randn(3, 64, config.num_mel_bins)  # what stands in the padding must not matter
    mask = torch.ones(3, 64, dtype=torch.long)
    mask[1, length:] = 0
    batched, alone = model(features, mask), model(features[1:2, :length])
    torch.testing.assert_close(batched.logits[1], alone.logits[0], atol=1e-4, rtol=1e-4)
    frames = model.mbt(features, mask).last_hidden_state
    frames_alone = model.mbt(features[1:2, :length]).last_hidden_state
    real = frames_alone.shape[1]
    torch.testing.assert_close(frames[1, :real], frames_alone[0], atol=1e-4, rtol=1e-4)
    assert not frames[1, real:].any()


@pytest.mark.parametrize("settings", [TINY, SMALL_MAX_POOL, SMALL_BOTTLENECK], ids=["plain", "max_pool", "bottleneck"])
@pytest.mark.parametrize("length", [2, 7, 30])
def test_a_clip_has_one_gradient_alone_or_among_longer_clips(settings, length):
    model = stir(MBTForSequenceClassification(MBTConfig(**settings, num_labels=3)))
    features, mask = torch.randn(3, 64, settings["num_mel_bins"]), torch.ones(3, 64, dtype=torch.long)
    mask[1, length:] = 0
    batched, alone = model(features, mask).logits[1], model(features[1:2, :length]).logits[0]
    weights = list(model.parameters())
    for one, other in zip(*(torch.autograd.grad(logits[2], weights) for logits in (batched, alone)), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("settings", [TINY, SMALL_MAX_POOL, SMALL_BOTTLENECK], ids=["plain", "max_pool", "bottleneck"])
def test_a_full_mask_and_no_mask_are_the_same(settings):
    model = stir(MBTModel(MBTConfig(**settings)))
    features = torch.randn(2, 21, settings["num_mel_bins"])
    masked = model(features, torch.ones(2, 21, dtype=torch.bool))
    torch.testing.assert_close(masked.pooler_output, model(features).pooler_output)


def test_mean_max_pooling_is_the_mean_plus_the_maximum_over_time():
    model = stir(MBTModel(MBTConfig(**TINY)))
    output = model(torch.randn(2, 20, 16))
    expected = output.last_hidden_state.mean(1) + output.last_hidden_state.amax(1)
    torch.testing.assert_close(output.pooler_output, expected)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_builds_a_model_that_fits_its_extractor(name):
    preset = PRESETS[name]
    extractor = preset.extractor()
    config = preset.config()
    assert config.num_mel_bins == extractor.feature_size
    features = extractor([torch.randn(16000) * 0.1], sampling_rate=16000, return_tensors="pt")
    output = MBTModel(config).eval()(**features)
    assert output.pooler_output.shape == (1, config.pooled_size)
    assert output.last_hidden_state.shape[2] == config.hidden_size


def test_the_faithful_preset_is_a_one_channel_resnet_50():
    preset = PRESETS["faithful"]
    features = preset.extractor()([torch.randn(16000)], sampling_rate=16000, return_tensors="pt")["input_features"]
    assert features.shape == (1, 32, 513)
    with torch.device("meta"):
        model = MBTForPreTraining(preset.config())
    # torchvision's ResNet-50 has 25 557 032 parameters: less its classifier and two of three stem channels.
    assert sum(p.numel() for p in model.mbt.parameters()) == 25_557_032 - (2048 + 1) * 1000 - 2 * 64 * 7 * 7
    assert model.mbt.config.hidden_size == 2048
    assert model.projector.layers[-1].out_features == 2048


@pytest.mark.parametrize(("objective", "function"), [("bt", barlow_twins_loss), ("mbt", modified_barlow_twins_loss)])
def test_pre_training_returns_the_objective_of_its_projections_by_name(objective, function):
    model = MBTForPreTraining(MBTConfig(**TINY, objective=objective, redundancy_loss_weight=0.02))
    output = model(torch.randn(8, 20, 16), torch.randn(8, 20, 16))
    expected = function(output.projections, output.projections_b, redundancy_loss_weight=0.02)
    assert output.projections.shape == (8, 6)
    for name in ("loss", "invariance_loss", "redundancy_loss"):
        torch.testing.assert_close(getattr(output, name), getattr(expected, name))


def test_the_loss_stands_first_in_the_tuple_of_pre_training():
    model, views = MBTForPreTraining(MBTConfig(**TINY)).eval(), torch.randn(2, 4, 20, 16)
    output = model(*views)
    names = ["loss", "invariance_loss", "redundancy_loss", "projections", "projections_b"]
    assert list(output)[:5] == names
    for value, name in zip(model(*views, return_dict=False), output, strict=True):
        torch.testing.assert_close(value, output[name])


def test_one_view_gives_projections_without_a_loss():
    output = MBTForPreTraining(MBTConfig(**TINY)).eval()(torch.randn(2, 20, 16))
    assert output.loss is None
    assert output.projections.shape == (2, 6)


def test_every_learnt_tensor_gets_a_gradient():
    for model, views in (
        (MBTForPreTraining(MBTConfig(**TINY)), {"input_features_b": torch.randn(8, 20, 16)}),
        (MBTForSequenceClassification(MBTConfig(**TINY)), {"labels": torch.arange(8) % 2}),
    ):
        model(torch.randn(8, 20, 16), **views).loss.backward()
        assert all(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize(
    ("problem_type", "num_labels", "labels", "function"),
    [
        ("regression", 1, torch.tensor([[0.5], [2.0], [-1.0], [0.0]]), nn.functional.mse_loss),
        ("regression", 3, torch.linspace(-1, 1, 12).view(4, 3), nn.functional.mse_loss),
        ("single_label_classification", 3, torch.tensor([0, 2, 1, 1]), nn.functional.cross_entropy),
        (
            "multi_label_classification",
            3,
            torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]]),
            nn.functional.binary_cross_entropy_with_logits,
        ),
    ],
)
def test_every_problem_type_has_the_loss_of_transformers_classifiers(problem_type, num_labels, labels, function):
    config = MBTConfig(**TINY, problem_type=problem_type, num_labels=num_labels)
    model = MBTForSequenceClassification(config)
    output = model(torch.randn(4, 20, 16), labels=labels)
    torch.testing.assert_close(output.loss, function(output.logits, labels))
    output.loss.backward()
    assert model.classifier.weight.grad.any()


def test_a_frozen_encoder_stays_as_it_is_in_training_mode():
    model = MBTForSequenceClassification(MBTConfig(**TINY))
    model.freeze_feature_encoder()
    before = {name: tensor.clone() for name, tensor in model.mbt.state_dict().items()}
    model.train()
    model(torch.randn(8, 20, 16), labels=torch.zeros(8, dtype=torch.long)).loss.backward()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.mbt.state_dict().items())
    assert [name for name, p in model.named_parameters() if p.grad is not None] == [
        "classifier.weight",
        "classifier.bias",
    ]


def test_features_of_another_size_are_refused_with_the_size_that_fits():
    for features in (torch.randn(2, 20, 17), torch.randn(2, 0, 16), torch.randn(20, 16)):
        with pytest.raises(ValueError, match=r"\(batch, frames, 16\)"):
            MBTModel(MBTConfig(**TINY))(features)


@pytest.mark.parametrize("shape", [(2, 3200), (2,), (1, 20)])
def test_a_mask_of_something_else_is_refused_with_the_shape_that_fits(shape):
    with pytest.raises(ValueError, match=r"`attention_mask` must be of shape \(2, 20\)"):
        MBTModel(MBTConfig(**TINY))(torch.randn(2, 20, 16), torch.ones(shape))


def test_one_clip_alone_is_refused_in_training():
    model = MBTForPreTraining(MBTConfig(**TINY)).train()
    with pytest.raises(ValueError, match="Batch norm needs two clips"):
        model(torch.randn(1, 40, 16))
    model.eval()(torch.randn(1, 40, 16))


def test_a_classifier_in_double_precision_has_its_loss_in_it():
    model = MBTForSequenceClassification(MBTConfig(**TINY, num_labels=3)).double()
    assert model(torch.randn(2, 40, 16).double(), labels=torch.tensor([0, 2])).loss.dtype == torch.float64


@pytest.mark.parametrize(
    "settings",
    [
        {"hidden_sizes": [8]},
        {"depths": [0, 1, 1, 1]},
        {"layer_type": "other"},
        {"hidden_dropout_prob": 1.5},
        {"pooling_mode": "mean", "pooling_cosines": 1},
        {"pooling_mode": "statistics", "pooling_cosines": -1},
        {"frame_hidden_sizes": [], "concatenate_local_features": True},
        {"depths": [10**9, 1, 1, 1]},
        {"hidden_sizes": [10**6] * 4},
        {"projector_sizes": [10**9]},
        {"time_strides": [10**12, 1, 1, 1]},
        {"embedding_size": 0},
        {"num_mel_bins": 10**9},
        {"num_labels": 10**7},
        {"num_labels": 0},
        {"num_labels": "3"},
        {"hidden_size": 5},
        {"pooled_size": 5},
        {"context_size": 10**8},
        {"pooling_mode": "statistics", "pooling_cosines": 10**9},
        {"redundancy_loss_weight": math.nan},
        {"redundancy_loss_weight": -0.1},
        {"verification_threshold": math.inf},
    ],
)
def test_a_config_that_makes_no_encoder_is_refused(settings):
    with pytest.raises((StrictDataclassError, ValueError)):
        MBTConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"frequency_strides": [0, 1, 1, 1]}, "Every size, depth and stride must be at least 1"),
        ({"depths": [1, 1]}, "need one entry for each stage"),
        (
            {name: [] for name in ("hidden_sizes", "depths", "time_strides", "frequency_strides")},
            "lists of one length",
        ),
    ],
)
def test_stages_that_cannot_be_are_refused_in_a_sentence(settings, sentence):
    with pytest.raises(StrictDataclassError, match=sentence):
        MBTConfig(**settings)


def test_weights_that_are_no_numbers_are_refused_when_they_are_opened(tmp_path):
    for value in (math.nan, math.inf):
        model = MBTModel(MBTConfig(**TINY))
        model.state_dict()["encoder.layers.0.normalization.running_mean"][1] = value
        model.save_pretrained(tmp_path)
        for model_class in (MBTModel, MBTForSequenceClassification):
            with pytest.raises(ValueError, match=r"encoder\.layers\.0\.normalization\.running_mean .* no numbers"):
                model_class.from_pretrained(tmp_path)


def test_an_unknown_objective_is_refused_when_the_model_is_built():
    with pytest.raises(ValueError, match="objective"):
        MBTForPreTraining(MBTConfig(**TINY, objective="nonsense"))


AUTO_CLASSES = {
    MBTForPreTraining: [AutoModel, AutoModelForPreTraining, AutoModelForAudioClassification],
    MBTForSequenceClassification: [AutoModel, AutoModelForAudioClassification],
}


@pytest.mark.parametrize("saved_class", AUTO_CLASSES)
def test_auto_classes_open_what_was_saved_with_every_tensor_equal(saved_class, tmp_path):
    model = stir(saved_class(MBTConfig(**TINY)))
    model.save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), MBTConfig)
    for auto_class in AUTO_CLASSES[saved_class]:
        loaded = auto_class.from_pretrained(tmp_path).eval()
        base, saved_base = getattr(loaded, "mbt", loaded), model.mbt
        for name, tensor in saved_base.state_dict().items():
            assert torch.equal(tensor, base.state_dict()[name]), name
    same = saved_class.from_pretrained(tmp_path).eval()
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), same.state_dict().values(), strict=True))
    features = torch.randn(2, 20, 16)
    assert torch.equal(model(features)[0], same(features)[0])


@pytest.mark.slow
def test_a_process_without_our_packages_opens_a_checkpoint(tmp_path):
    model = stir(MBTForPreTraining(MBTConfig(**TINY)))
    model.save_pretrained(tmp_path / "checkpoint")
    features = torch.randn(2, 20, 16)
    torch.save(features, tmp_path / "features.pt")
    program = """
import json, sys, torch
from transformers import AutoModel, AutoModelForAudioClassification, AutoModelForPreTraining
features = torch.load("features.pt", weights_only=True)
pooled = {}
for auto_class in (AutoModel, AutoModelForPreTraining, AutoModelForAudioClassification):
    model = auto_class.from_pretrained("checkpoint", trust_remote_code=True).eval()
    assert "modeling_mbt" not in sys.modules
    pooled[type(model).__name__] = getattr(model, "mbt", model)(features).pooler_output.tolist()
json.dump(pooled, open("pooled.json", "w"))
"""
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True)
    pooled = json.loads(Path(tmp_path / "pooled.json").read_text())
    assert sorted(pooled) == ["MBTForPreTraining", "MBTForSequenceClassification", "MBTModel"]
    for values in pooled.values():
        torch.testing.assert_close(torch.tensor(values), model.mbt(features).pooler_output, atol=1e-6, rtol=1e-6)
