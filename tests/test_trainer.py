"""transformers' `Trainer` with both heads."""

import pytest
import torch
from transformers import Trainer, TrainingArguments

from modeling_mbt import MBTForPreTraining, MBTForSequenceClassification
from training_mbt.presets import PRESETS


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


def test_an_encoder_is_pre_trained_and_evaluated_without_labels(tmp_path):
    model = MBTForPreTraining(PRESETS["tiny"].config(objective="mbt"))
    trainer, losses = train(model, clips(32, True), tmp_path)
    assert losses[-1] < 0.7 * losses[0]
    assert "eval_loss" in trainer.evaluate()


def test_accumulation_leaves_the_size_of_a_classifiers_loss_alone(tmp_path):
    _, plain = train(MBTForSequenceClassification(PRESETS["tiny"].config()), clips(32, False), tmp_path)
    torch.manual_seed(0)
    model = MBTForSequenceClassification(PRESETS["tiny"].config())
    _, accumulated = train(model, clips(32, False), tmp_path, gradient_accumulation_steps=2)
    assert accumulated[0] == pytest.approx(plain[0], rel=0.2)
