"""transformers' `Trainer` with both heads."""

import pytest
import torch
from datasets import ClassLabel, Dataset
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    Trainer,
    TrainingArguments,
)

from mbt_speech.presets import PRESETS
from modeling_mbt import MBTConfig, MBTForPreTraining, MBTForSequenceClassification
from tests.support.models import TINY, stir
from tests.support.sounds import SAMPLING_RATE, chirp


def clips(number, two_views):
    """Low clips have their energy in the lower half of the features, high ones in the upper half."""
    generator = torch.Generator().manual_seed(0)
    items = []
    for index in range(number):
        features = torch.randn(24, 32, generator=generator)
        features[:, 16 * (index % 2) : 16 * (index % 2) + 16] += 2
        item = {"input_features": features}
        if two_views:
            item["input_features_b"] = features + 0.3 * torch.randn(24, 32, generator=generator)
        else:
            item["labels"] = index % 2
        items.append(item)
    return items


def train(model, items, tmp_path, **settings):
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=12, per_device_train_batch_size=8, learning_rate=5e-3, use_cpu=True,
        report_to="none", save_strategy="no", logging_steps=1, disable_tqdm=True, seed=0, **settings,
    )  # fmt: skip
    trainer = Trainer(model=model, args=arguments, train_dataset=items, eval_dataset=items)
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    return trainer, losses


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_a_classifier_learns(tmp_path):
    trainer, losses = train(MBTForSequenceClassification(PRESETS["tiny"].config()), clips(32, False), tmp_path)
    assert losses[-1] < 0.5 * losses[0]
    assert trainer.evaluate()["eval_loss"] < 0.6
    assert trainer.predict(clips(4, False)).predictions.argmax(1).tolist() == [0, 1, 0, 1]
    trainer.save_model(str(tmp_path / "model"))
    assert MBTForSequenceClassification.from_pretrained(tmp_path / "model").config.num_labels == 2


@pytest.mark.slow
def test_an_encoder_is_pre_trained_and_evaluated_without_labels(tmp_path):
    model = MBTForPreTraining(PRESETS["tiny"].config(objective="mbt"))
    trainer, losses = train(model, clips(32, True), tmp_path)
    assert losses[-1] < 0.7 * losses[0]
    assert "eval_loss" in trainer.evaluate()


@pytest.mark.slow
def test_accumulation_leaves_the_size_of_a_classifiers_loss_alone(tmp_path):
    _, plain = train(MBTForSequenceClassification(PRESETS["tiny"].config()), clips(32, False), tmp_path)
    torch.manual_seed(0)
    model = MBTForSequenceClassification(PRESETS["tiny"].config())
    _, accumulated = train(model, clips(32, False), tmp_path, gradient_accumulation_steps=2)
    assert accumulated[0] == pytest.approx(plain[0], rel=0.2)


@pytest.mark.slow
def test_a_checkpoint_is_fine_tuned_as_transformers_own_script_does_it(tmp_path):
    """Its calls: a mask asked of the extractor, ids as strings, features made batch by batch, a frozen encoder."""
    MBTForPreTraining(PRESETS["tiny"].config()).save_pretrained(tmp_path / "pretrained")
    PRESETS["tiny"].extractor().save_pretrained(tmp_path / "pretrained")
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path / "pretrained", return_attention_mask=True)
    name = extractor.model_input_names[0]
    waveforms = [chirp(0.4 + 0.05 * (number % 5), (120.0, 310.0)[number % 2], number) for number in range(32)]
    dataset = Dataset.from_dict({"waveform": waveforms, "label": [number % 2 for number in range(32)]})
    dataset = dataset.cast_column("label", ClassLabel(names=["low", "high"]))

    def transform(batch):
        inputs = extractor([torch.tensor(one).numpy() for one in batch["waveform"]], sampling_rate=SAMPLING_RATE)
        return {name: inputs.get(name), "labels": list(batch["label"])}

    dataset.set_transform(transform, output_all_columns=False)
    config = AutoConfig.from_pretrained(
        tmp_path / "pretrained", num_labels=2, label2id={"low": "0", "high": "1"}, id2label={"0": "low", "1": "high"},
        finetuning_task="audio-classification",
    )  # fmt: skip
    model = AutoModelForAudioClassification.from_pretrained(tmp_path / "pretrained", config=config)
    model.freeze_feature_encoder()
    before = model.mbt.state_dict()
    before = {key: value.clone() for key, value in before.items()}
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "out"), max_steps=40, per_device_train_batch_size=16, learning_rate=2e-2,
        use_cpu=True, report_to="none", remove_unused_columns=False, save_steps=20, eval_strategy="steps",
        eval_steps=20, load_best_model_at_end=True, metric_for_best_model="accuracy", disable_tqdm=True,
    )  # fmt: skip

    def accuracy(prediction):
        return {"accuracy": float((prediction.predictions.argmax(axis=1) == prediction.label_ids).mean())}

    trainer = Trainer(
        model=model, args=arguments, train_dataset=dataset, eval_dataset=dataset, processing_class=extractor,
        compute_metrics=accuracy,
    )  # fmt: skip
    trainer.train()
    assert trainer.evaluate()["eval_accuracy"] > 0.9
    assert all(torch.equal(value, before[key]) for key, value in model.mbt.state_dict().items())
    trainer.save_model()
    trainer.create_model_card(tasks="audio-classification")
    assert AutoModelForAudioClassification.from_pretrained(tmp_path / "out").config.id2label == {0: "low", 1: "high"}
    assert AutoFeatureExtractor.from_pretrained(tmp_path / "out").sampling_rate == SAMPLING_RATE


def test_replicas_of_data_parallel_classify_but_compare_no_parts_of_a_batch():
    features = torch.randn(4, 20, 16)
    classifier, pretraining = (
        stir(kind(MBTConfig(**TINY))).eval() for kind in (MBTForSequenceClassification, MBTForPreTraining)
    )
    torch.testing.assert_close(replica(classifier)(features).logits, classifier(features).logits)
    with pytest.raises(ValueError, match="start one process for each GPU"):
        replica(pretraining)(features, features)


def replica(module):
    """A copy as `torch.nn.DataParallel` makes one for each GPU: its weights are attributes, and no parameters."""
    copies = {one: one._replicate_for_data_parallel() for one in module.modules()}
    for one, copied in copies.items():
        for name, child in one._modules.items():
            copied._modules[name] = copies[child]
        for name, value in {**one._parameters, **one._buffers}.items():
            copied._parameters.pop(name, None)
            copied._buffers.pop(name, None)
            object.__setattr__(copied, name, value)
    return copies[module]
