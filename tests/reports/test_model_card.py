"""The model card's metadata, as the Hub reads them."""

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from huggingface_hub.utils import validate_repo_id

from mbt_speech.arguments import SYNTHETIC, FinetuneArguments, PretrainArguments
from mbt_speech.data.sources import source
from mbt_speech.presets import PRESETS
from mbt_speech.reports.model_card import write_classifier_card, write_pretraining_card
from mbt_speech.training.sparsity import encoder_cost
from modeling_mbt import MBTConfig, MBTModel

RESULT = {"method": "runs/mbt", "encoder": "frozen", "label_fraction": 1.0, "task": "keyword", "model_type": "mbt",
          "unit": "clips", "num_train": 80, "num_test": 40, "chance": 0.1, "alpha": None}  # fmt: skip
SCORES = {0: (0.5, 0.6), 1: (0.7, 0.8)}


def write_card(output_dir, **data) -> ModelCard:
    """Writes the card of two seeds of one method, and a control that is better on test."""
    args = FinetuneArguments(
        output_dir=str(output_dir), model_name_or_path=["runs/mbt"], label_column_name="keyword", **data
    )
    rows = [
        RESULT | {"seed": seed, "validation_accuracy": validation, "accuracy": test}
        for seed, (validation, test) in SCORES.items()
    ]
    control = {"method": "stats", "model_type": "stats", "seed": 0, "validation_accuracy": 1, "accuracy": 1}
    rows.append(RESULT | control)
    write_classifier_card(args, MBTConfig(num_labels=2), rows, 16_000)
    return ModelCard.load(output_dir / "README.md", ignore_metadata_errors=False)


@pytest.mark.parametrize("kind", ["folder of sounds", "folder of a data set", "synthetic", "on the Hub"])
def test_the_hub_reads_the_results_of_a_card(kind, tmp_path):
    data = {"folder of sounds": {"train_dir": str(tmp_path)}, "folder of a data set": {"dataset_name": str(tmp_path)},
            "synthetic": {"dataset_name": SYNTHETIC}, "on the Hub": {"dataset_name": "someone/words"}}  # fmt: skip
    card = write_card(tmp_path, **data[kind])
    assert card.data.eval_results is not None
    (result,) = card.data.eval_results
    assert (result.task_type, result.task_name, result.dataset_split) == ("audio-classification", "keyword", "test")
    assert (result.metric_type, result.metric_value) == ("accuracy", pytest.approx(0.7))
    assert result.metric_name == "accuracy, mean of 2 seeds"
    validate_repo_id(result.dataset_type)
    assert card.data.datasets == (["someone/words"] if kind == "on the Hub" else None)
    index = card.data.to_dict()["model-index"]
    assert model_index_to_eval_results(index) == (tmp_path.name, [result])
    assert eval_results_to_model_index(tmp_path.name, [result]) == index
    assert str(tmp_path.parent) not in str(card)


def test_the_card_of_pre_training_says_how_wide_an_embedding_is(tmp_path):
    config = PRESETS["strong"].config()
    args = PretrainArguments(output_dir=str(tmp_path), train_dir=str(tmp_path))
    write_pretraining_card(args, config, encoder_cost(MBTModel(config), 97), {}, {"step": 1, "loss": 2.0}, 16_000)
    assert f"pooler_output  # (1, {config.pooled_size})" in (tmp_path / "README.md").read_text()


def test_models_in_folders_of_the_same_name_are_two(tmp_path):
    args = FinetuneArguments(output_dir=str(tmp_path), model_name_or_path=["a"], train_dir=str(tmp_path))
    rows = [
        RESULT | {"method": method, "seed": 0, "validation_accuracy": accuracy, "accuracy": accuracy}
        for method, accuracy in (("runs/bt/best", 0.5), ("runs/mbt/best", 0.9))
    ]
    write_classifier_card(args, MBTConfig(num_labels=2), rows, 16_000)
    card = ModelCard.load(tmp_path / "README.md")
    assert "| bt/best | frozen | 100 % | 50.0 | 1 |" in card.content
    assert "| mbt/best | frozen | 100 % | 90.0 | 1 |" in card.content
    assert card.data.eval_results[0].metric_value == 0.9


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"method": "random"}, "Its encoder, `random`, was not pre-trained"),
        ({"encoder": "trained", "alpha": 0.0}, "the encoder is the frozen one"),
        ({"encoder": "trained", "alpha": 0.5}, "0.5 of the way from the frozen encoder"),
    ],
)
def test_the_card_of_a_classifier_says_where_its_weights_come_from(changes, sentence, tmp_path):
    args = FinetuneArguments(output_dir=str(tmp_path), model_name_or_path=["runs/mbt"], train_dir=str(tmp_path))
    row = RESULT | {"seed": 0, "validation_accuracy": 0.5, "accuracy": 0.6} | changes
    write_classifier_card(args, MBTConfig(num_labels=2), [row], 16_000)
    assert sentence in (tmp_path / "README.md").read_text()


def test_a_card_names_all_data_sets_of_a_mix():
    args = PretrainArguments(
        output_dir="x", train_dir="data/english", interleave_datasets=["data/french", "me/german"]
    )
    assert source(args) == "english, data/french, me/german"
