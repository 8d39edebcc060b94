"""Macro-averaged F1 as an `evaluate` metric that loads from its path, without a network."""

import datasets
import evaluate
from sklearn.metrics import f1_score

_DESCRIPTION = "Mean over the classes of the harmonic mean of precision and recall."


class MacroF1(evaluate.Metric):
    """`compute(predictions=[...], references=[...])` gives `{"macro_f1": share}`; class ids on both sides."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description="predictions and references: class ids, (N,).",
            features=datasets.Features(dict.fromkeys(("predictions", "references"), datasets.Value("int64"))),
        )

    def _compute(self, *, predictions=None, references=None, **kwargs) -> dict[str, float]:
        return {"macro_f1": float(f1_score(references, predictions, average="macro"))}
