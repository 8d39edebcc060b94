"""What probes measure while an encoder is trained."""

from types import SimpleNamespace

import numpy as np

from mbt_speech.probing.online_probe import score_probes


def test_probes_are_scored_on_the_validation_split():
    labels = np.arange(60) % 2
    features = np.where(labels, 1.0, -1.0)[:, None] + 0.1 * np.random.default_rng(0).normal(size=(60, 3))
    features[40:50] *= -1  # of the validation clips, a half is another way round
    rows = {"train": np.arange(40), "validation": np.arange(40, 60)}
    speech = SimpleNamespace(rows=rows, label_names=["a", "b"], clips=SimpleNamespace(labels=labels))
    found = score_probes(speech, features)
    assert found == {"eval_frozen_knn20_accuracy": 0.5, "eval_frozen_linear_accuracy": 0.5}
