"""Equal error rate of verification scores as an `evaluate` metric that loads from its path, without a network."""

import datasets
import evaluate
import numpy as np

from mbt_speech.inference.verification import error_rates

_DESCRIPTION = "Where as many pairs of one voice are rejected as pairs of two are accepted."


class EqualErrorRate(evaluate.Metric):
    """`compute(predictions=[...], references=[...])` gives `{"eer": value}`.

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
        return {"eer": error_rates(np.array(predictions), np.array(references)).equal_error()[0]}
