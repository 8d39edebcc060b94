"""Balanced accuracy as an `evaluate` metric that loads from its path, without a network."""

import datasets
import evaluate
import numpy as np
from sklearn.metrics import recall_score

_DESCRIPTION = "Mean over the classes of the share of their clips that is recognized."


class BalancedAccuracy(evaluate.Metric):
    """`compute(predictions=[...], references=[...])` gives `{"balanced_accuracy": share}`; class ids on both sides."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description="predictions and references: class ids, (N,).",
            features=datasets.Features(dict.fromkeys(("predictions", "references"), datasets.Value("int64"))),
        )

    def _compute(self, *, predictions=None, references=None, **kwargs) -> dict[str, float]:
        return {
            "balanced_accuracy": float(
                recall_score(references, predictions, labels=np.unique(np.array(references)), average="macro")
            )
        }
