"""Linear heads on frozen representations, and the scores of any classifier.

Axes: N examples, H features of a representation, K classes.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import torch

from modeling_mbt import MBTForSequenceClassification, MBTModel

from .examples import Examples
from .linear_fits import LinearHead
from .linear_head import fit_linear_head

METRICS = ("top1_accuracy", "balanced_accuracy", "macro_f1")


@dataclass(frozen=True)
class Classifier:
    """A fitted classifier: how well it does, and what it is."""

    validation_accuracy: float | None
    """On labeled clips that it, or one like it, did not learn from; `None` if nothing was chosen."""
    test_scores: dict[str, float]
    """On the test split: accuracy, balanced_accuracy, macro_f1."""
    num_train: int
    """Training clips or frames whose labels it was given, with the same share of those of validation."""
    num_test: int
    chance: float
    """Test accuracy of always naming the most frequent class of the training split."""
    fitted: LinearHead | torch.nn.Module
    """A head on frozen representations, or the whole network."""
    alpha: float | None = None
    """Of weights between the probe's, 0, and those that the whole network learned from there, 1."""
    steps: int = 0
    """Optimizer steps of the network that was kept; of a search, those of all its runs are in `minutes`."""
    minutes: float = 0.0
    """Time that it took to choose and to train."""

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy on the test split."""
        return self.test_scores["accuracy"]


def fit_frozen(examples: Examples, chosen: Mapping[str, np.ndarray], num_classes: int, seed: int = 0) -> Classifier:
    """Fit a linear head on representations.

    Args:
        examples: What there is to learn.
        chosen: train, validation -> positions of those whose labels are given.
        num_classes: K.
        seed: Of cross-validation, where validation has few examples.
    """
    features, labels, test = examples.features, examples.labels, examples.rows["test"]
    train, validation = ((features[chosen[part]], labels[chosen[part]]) for part in ("train", "validation"))
    head = fit_linear_head(*train, *validation, num_classes, seed)
    return Classifier(
        validation_accuracy=head.validation_accuracy,
        test_scores=score(head.predict(features[test]), labels[test]),
        num_train=len(chosen["train"]),
        num_test=len(test),
        chance=chance(labels, examples.rows),
        fitted=head.scaled(),
    )


def chance(labels: np.ndarray, rows: Mapping[str, np.ndarray]) -> float:
    """Give the accuracy, on the test split of labels (N,), of naming the most frequent class of the training split."""
    return float((labels[rows["test"]] == np.bincount(labels[rows["train"]]).argmax()).mean())


def class_names(label_names: Sequence[str]) -> dict[str, Any]:
    """Give the entries of a config that name K classes."""
    return {
        "id2label": dict(enumerate(label_names)),
        "label2id": {name: number for number, name in enumerate(label_names)},
    }


def put_on(model: MBTModel, head: LinearHead, label_names: Sequence[str]) -> MBTForSequenceClassification:
    """Make an encoder and the head that was fitted on its pooled output one classifier of K classes."""
    config = copy.deepcopy(model.config)
    config.update(class_names(label_names))
    classifier = MBTForSequenceClassification(config)
    classifier.mbt.load_state_dict(model.state_dict())
    with torch.no_grad():
        classifier.classifier.weight.copy_(torch.from_numpy(head.weight))
        classifier.classifier.bias.copy_(torch.from_numpy(head.bias))
    return classifier


def score(predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
    """Compare predicted and true class ids, (N,) each: accuracy, balanced_accuracy and macro_f1."""
    values: dict[str, float] = {}
    for name in METRICS:
        metric = evaluate.load(str(Path(__file__).parent / "metrics" / f"{name}.py"))
        values |= metric.compute(predictions=predictions, references=references) or {}
    return values
