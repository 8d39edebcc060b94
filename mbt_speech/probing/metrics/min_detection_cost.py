"""Minimal detection cost of verification scores as an `evaluate` metric that loads from its path, offline."""

import datasets
import evaluate
import numpy as np

from mbt_speech.inference.verification import error_rates

_DESCRIPTION = "Least weighted cost of both errors at a prior of 0.05 for one voice, relative to one fixed answer."


class MinDetectionCost(evaluate.Metric):
    """`compute(predictions=[...], references=[...])` gives `{"min_dcf": value}`.

    Predictions are scores, higher for the same voice; references are 1 for one voice and 0 for two.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description="predictions: scores, (P,). references: 1 or 0, (P,).",
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, *, predictions=None, references=None, **kwargs) -> dict[str, float]:
        return {"min_dcf": error_rates(np.array(predictions), np.array(references)).min_detection_cost()}
