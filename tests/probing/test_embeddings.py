"""Representations of whole sets of clips, in the cache."""

import numpy as np

from mbt_speech.probing.embeddings import cached_arrays


def test_representations_are_computed_once_for_each_key(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    calls = []

    def compute():
        calls.append(1)
        return {"frames": np.arange(6.0).reshape(2, 3), "counts": np.array([2])}

    for key in ({"model": 1}, {"model": 1}, {"model": 2}):
        arrays = cached_arrays(key, compute)
        assert arrays["frames"].tolist() == [[0, 1, 2], [3, 4, 5]]
        assert arrays["counts"].tolist() == [2]
    assert len(calls) == 2
    assert not list(tmp_path.rglob("*.partial"))
