"""Top-1 accuracy as an `evaluate` metric that loads from its path, without a network."""

import datasets
import evaluate
from sklearn.metrics import accuracy_score

_DESCRIPTION = "Share of the clips whose highest-scoring class is the right one."


class Top1Accuracy(evaluate.Metric):
    """`compute(predictions=[...], references=[...])` gives `{"accuracy": share}`; class ids on both sides."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description="predictions and references: class ids, (N,).",
            features=datasets.Features(dict.fromkeys(("predictions", "references"), datasets.Value("int64"))),
        )

    def _compute(self, *, predictions=None, references=None, **kwargs) -> dict[str, float]:
        return {"accuracy": float(accuracy_score(references, predictions))}
