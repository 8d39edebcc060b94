"""Representations of whole sets of clips, in the cache."""

import numpy as np
from accelerate import Accelerator

from mbt_speech.probing import embeddings
from mbt_speech.probing.embeddings import cached_arrays


def test_representations_are_computed_once_for_each_key(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    calls = []

    def compute():
        calls.append(1)
        return {"frames": np.arange(6.0).reshape(2, 3), "counts": np.array([2])}

    for key in ({"model": 1}, {"model": 1}, {"model": 2}):
        arrays = cached_arrays(Accelerator(cpu=True), key, compute)
        assert arrays["frames"].tolist() == [[0, 1, 2], [3, 4, 5]]
        assert arrays["counts"].tolist() == [2]
    assert len(calls) == 2
    assert not list(tmp_path.rglob("*.partial"))


def test_all_processes_compute_where_one_lacks_the_representations(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    accelerator, calls = Accelerator(cpu=True), []
    cached_arrays(accelerator, {}, lambda: {"clips": np.zeros(1)})
    monkeypatch.setattr(Accelerator, "num_processes", 2)
    for missing_elsewhere, computed in ((False, 0), (True, 1)):
        monkeypatch.setattr(embeddings, "gather_object", lambda own, there=missing_elsewhere: [*own, there])
        cached_arrays(accelerator, {}, lambda: calls.append(1) or {"clips": np.zeros(1)})
        assert len(calls) == computed
