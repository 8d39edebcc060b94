"""Models of the Hub that are fine-tuned whole: from their probe on, to a folder that transformers opens.

Axes: B clips, S samples, H input size of the last layer, K classes.
"""

import copy
import json
import shutil

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from transformers import (
    ASTConfig,
    ASTForAudioClassification,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    BertConfig,
    pipeline,
)

import run_finetune
from mbt_speech.probing.hub_classifiers import HubClassifier, open_hub_classifier
from mbt_speech.probing.hub_encoders import open_hub_encoder
from mbt_speech.probing.linear_fits import Kind, LinearHead
from mbt_speech.training.head_first import ALPHAS
from mbt_speech.training.optimization import create_optimizer, layer_depths
from tests.support.hub_models import AST, HUB_MODELS, PATCHES, save_hub_model
from tests.support.sounds import SAMPLING_RATE, chirp

LENGTHS = [9_000, 16_000, 2_500, 9_000, 420]
NAMES = ["low", "middle", "high"]


def clips(lengths=LENGTHS):
    """Clips of those lengths, (B, S), zero past their ends, and the lengths (B,)."""
    each = [torch.tensor(chirp(n / SAMPLING_RATE, 110.0 + 60 * i, i)) for i, n in enumerate(lengths)]
    return torch.nn.utils.rnn.pad_sequence(each, batch_first=True), torch.tensor(lengths)


def opened(path):
    return open_hub_classifier(str(path), AutoFeatureExtractor.from_pretrained(path))


def with_head(path):
    """A classifier with a random head, and the head."""
    model, generator = opened(path), np.random.default_rng(0)
    size = model.represent(*clips()).shape[1]
    head = LinearHead(generator.normal(size=(3, size)), generator.normal(size=3), Kind("logistic", 1.0))
    return model.put_on(head, NAMES), head


@pytest.mark.parametrize("name", HUB_MODELS)
def test_training_starts_from_the_logits_of_the_head_on_the_representations(name, tmp_path):
    path = save_hub_model(tmp_path, name)
    model, head = with_head(path)
    expected = head.logits(opened(path).represent(*clips()).double().numpy())
    with torch.no_grad():
        logits = model(*clips()).logits
    np.testing.assert_allclose(logits.numpy(), expected, rtol=1e-4, atol=1e-4)
    assert np.abs(expected[0] - expected[3]).max() > 1e-3  # two clips of one length


@pytest.mark.parametrize("name", ["wav2vec2", "wav2vec2-layer-norm", "hubert", "wavlm"])
def test_the_wav2vec2_family_starts_from_the_frozen_representation(name, tmp_path):
    path = save_hub_model(tmp_path, name)
    frozen = open_hub_encoder(str(path), AutoFeatureExtractor.from_pretrained(path)).represent(*clips())
    torch.testing.assert_close(opened(path).represent(*clips()), frozen, rtol=1e-4, atol=1e-4)


# WavLM of transformers gives torch a mask of booleans beside one of floats.
@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask:UserWarning")
@pytest.mark.parametrize("name", HUB_MODELS)
def test_what_is_saved_classifies_a_clip_alone_as_training_did(name, tmp_path):
    model, _ = with_head(save_hub_model(tmp_path, name))
    model.hub.save_pretrained(tmp_path / "saved")
    model.extractor.save_pretrained(tmp_path / "saved")
    waveforms, lengths = clips(LENGTHS[:2])
    with torch.no_grad():
        probabilities = model(waveforms, lengths).logits.softmax(1)
    classify = pipeline("audio-classification", model=str(tmp_path / "saved"), device="cpu")
    for waveform, length, expected in zip(waveforms, lengths, probabilities, strict=True):
        found = {one["label"]: one["score"] for one in classify(waveform[:length].numpy())}
        assert found == pytest.approx(dict(zip(NAMES, expected.tolist(), strict=True)), abs=1e-4)


@pytest.mark.parametrize("name", HUB_MODELS)
def test_every_weight_that_learns_has_a_gradient_and_clips_shorter_than_a_mask_train_too(name, tmp_path):
    model, _ = with_head(save_hub_model(tmp_path, name))
    model.train()
    waveforms, lengths = clips()
    for _ in range(2):
        model(waveforms, lengths, torch.tensor([0, 1, 2, 0, 1])).loss.backward()
    learning = {key: parameter for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert [key for key, parameter in learning.items() if parameter.grad is None] == []
    if name in ("wav2vec2", "hubert"):
        assert model.config.apply_spec_augment
        first, second = (model(waveforms[:2], lengths[:2]).logits for _ in range(2))
        assert not torch.equal(first[1], second[1])


def test_a_classifier_that_a_file_brings_is_replaced_and_its_projector_kept(tmp_path):
    model, _ = with_head(save_hub_model(tmp_path, "hubert"))
    torch.nn.init.normal_(model.hub.projector.weight)
    model.hub.save_pretrained(tmp_path / "saved")
    model.extractor.save_pretrained(tmp_path / "saved")
    again = opened(tmp_path / "saved")
    assert torch.equal(again.hub.projector.weight, model.hub.projector.weight)
    assert not again(*clips()).logits.any()


def test_the_encoder_and_the_classifier_learn_at_their_rates_and_lower_layers_slower(tmp_path):
    for name in HUB_MODELS:
        model, _ = with_head(save_hub_model(tmp_path, name))
        optimizer = create_optimizer(model, 1e-3, 0.01, encoder_learning_rate=1e-5)
        fast = {id(one) for group in optimizer.param_groups if group["lr"] == 1e-3 for one in group["params"]}
        assert fast == {id(one) for one in model.hub.classifier.parameters()}
        depths = layer_depths(model)
        assert len(set(depths.values())) > 3
        assert max(depths.values()) == depths[list(depths)[-1]]


def finetune(output_dir, folder, *words):
    words = ["--output_dir", output_dir, "--train_dir", folder, "--per_device_train_batch_size", "8", *words]
    run_finetune.main([*map(str, words), "--logging_steps", "1", "--warmup_steps", "0"])
    return [json.loads(line) for line in (output_dir / "results.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def hard_folder(speech_folder, tmp_path_factory):
    """The recordings of `speech_folder` under labels that nothing tells, so that no probe is perfect."""
    folder = tmp_path_factory.mktemp("hard")
    paths = sorted(path for path in speech_folder.rglob("*") if path.is_file())
    labels = np.random.default_rng(0).permutation(["first", "second"] * (len(paths) // 2))
    for path, label in zip(paths, labels, strict=True):
        (folder / label).mkdir(exist_ok=True)
        shutil.copy(path, folder / label / f"{path.parent.name}-{path.name}")
    return folder


@pytest.mark.parametrize("name", ["wav2vec2-layer-norm", "ast", "whisper"])
def test_fine_tuning_lowers_the_loss_and_leaves_a_folder_that_transformers_opens(name, hard_folder, tmp_path):
    path, run = save_hub_model(tmp_path, name), tmp_path / "run"
    (line,) = finetune(run, hard_folder, "--model_name_or_path", path, "--max_steps", "16",
                       "--encoder_learning_rate", "3e-3", "--learning_rate", "1e-2")  # fmt: skip
    config = json.loads((run / "config.json").read_text())
    assert (line["encoder"], line["model_type"]) == ("trained", config["model_type"])
    assert (run / "results.csv").is_file()
    losses = [json.loads(line)["loss"] for line in (run / "train_log.jsonl").read_text().splitlines()]
    assert len(losses) == 16
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    classify = pipeline("audio-classification", model=str(run), device="cpu")
    assert {one["label"] for one in classify(chirp(0.7, 120.0, 0))} == {"first", "second"}
    card = ModelCard.load(run / "README.md")
    assert f"is {name}, fine-tuned" in card.text
    assert "trust_remote_code" not in card.text
    assert "arxiv" not in card.text.lower()
    assert not {"mbt", "barlow-twins"} & set(card.data.tags)


@pytest.mark.parametrize("name", ["wav2vec2", "ast"])
def test_fine_tuning_resumes_bit_for_bit(name, hard_folder, tmp_path, monkeypatch):
    path, whole, weights = save_hub_model(tmp_path, name), tmp_path / "whole", []

    def logits_on(self, rows):
        weights.append(copy.deepcopy(self.model.state_dict()))
        return np.eye(2), np.array([0, 0])

    monkeypatch.setattr(run_finetune.FullTraining, "logits_on", logits_on)
    words = ["--model_name_or_path", path, "--max_steps", "4", "--save_steps", "2", "--encoder_learning_rate", "1e-3"]
    finetune(whole, hard_folder, *words)
    (whole / "results.jsonl").unlink()
    finetune(whole, hard_folder, *words, "--resume_from_checkpoint", whole / "checkpoint-2")
    end, again = weights[len(ALPHAS) - 1], weights[-2]  # at alpha = 1; each run ends with the test
    assert all(torch.equal(end[key], again[key]) for key in end)
    AutoModelForAudioClassification.from_pretrained(whole / "checkpoint-2")
    middle = opened(whole / "checkpoint-2").state_dict()
    assert any(not torch.equal(middle[key], end[key]) for key in end if not key.startswith("classifier."))


def test_a_sweep_of_ours_and_others_saves_the_model_that_is_best_on_validation(hard_folder, tmp_path, capsys):
    path, run = save_hub_model(tmp_path, "hubert"), tmp_path / "run"
    words = ["--preset", "tiny", "--max_steps", "2", "--model_name_or_path", path, "random"]
    lines = finetune(run, hard_folder, *words)
    best = max(lines, key=lambda line: line["validation_accuracy"])
    assert json.loads((run / "config.json").read_text())["model_type"] == best["model_type"]
    predicts = f"mbt predict {run} RECORDING" in capsys.readouterr().out.splitlines()[-1]
    assert predicts == (best["model_type"] == "mbt")  # which opens no other models
    card = (run / "README.md").read_text()
    assert f"the best trained model on validation: {best['method'].split('/')[-1]}, " in card


def test_a_model_of_others_saved_over_one_of_ours_leaves_none_of_its_code(hard_folder, tmp_path, monkeypatch):
    path, run = save_hub_model(tmp_path, "hubert"), tmp_path / "run"
    monkeypatch.setattr(run_finetune.Results, "is_best", lambda self, line: True)
    for method, has_code in (("random", True), (path, False)):
        finetune(run, hard_folder, "--preset", "tiny", "--max_steps", "1", "--model_name_or_path", method)
        assert bool(list(run.glob("*.py"))) == has_code


def test_what_cannot_be_trained_is_refused_in_one_sentence(speech_folder, tmp_path):
    path = save_hub_model(tmp_path, "hubert")
    with pytest.raises(ValueError, match="--augmentation distorts the features of MBT models: leave it out to train"):
        finetune(tmp_path / "run", speech_folder, "--model_name_or_path", path, "--augmentation", "{}")
    bert = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    bert.save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match="bert is a bert model, which cannot be trained here: name an MBT model, or"):
        finetune(tmp_path / "run", speech_folder, "--model_name_or_path", tmp_path / "bert")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    with pytest.raises(ValueError, match=r"lacks weights of its HubertForSequenceClass.*, such as hubert\.encoder"):
        opened(path)


def test_the_layer_norm_of_an_ast_checkpoint_is_kept(tmp_path):
    torch.manual_seed(0)
    model = ASTForAudioClassification(ASTConfig(**AST, **PATCHES, num_labels=5))
    torch.nn.init.normal_(model.classifier.layernorm.weight)
    model.save_pretrained(tmp_path)
    HUB_MODELS["ast"]()[1].save_pretrained(tmp_path)
    again = opened(tmp_path)
    assert isinstance(again, HubClassifier)
    assert torch.equal(again.hub.classifier.layernorm.weight, model.classifier.layernorm.weight)


def test_batch_norm_that_is_synchronized_stays_frozen_too(tmp_path):
    model = opened(save_hub_model(tmp_path, "ast"))
    model.hub.plain, model.hub.synchronized = torch.nn.BatchNorm1d(2), torch.nn.SyncBatchNorm(2)
    model.train()
    assert model.hub.training
    assert not model.hub.plain.training
    assert not model.hub.synchronized.training
