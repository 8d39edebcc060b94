"""MBTFeatureExtractor saved and opened, with and without our packages."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor

import modeling_mbt  # noqa: F401 - AutoFeatureExtractor opens the extractor as ours
from feature_extraction import MBTFeatureExtractor
from tests.support.extractors import ALL, features_of, some_speech

ROOT = Path(__file__).resolve().parents[2]


@ALL
def test_a_saved_extractor_comes_back_with_every_setting(settings, tmp_path):
    extractor, clip = MBTFeatureExtractor(**settings), some_speech(8000)
    before = features_of(extractor, clip)
    extractor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert saved["auto_map"] == {"AutoFeatureExtractor": "feature_extraction_mbt.MBTFeatureExtractor"}
    assert not any(isinstance(value, list) for value in saved.values())
    loaded = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert type(loaded) is MBTFeatureExtractor
    assert loaded.to_dict() == extractor.to_dict()
    assert torch.equal(features_of(loaded, clip), before)


def run_python(code: str, directory: Path, **environment: str) -> str:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(directory / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=directory, env=clean | offline | environment, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_checkpoint_carries_its_code_where_our_packages_are_not(tmp_path):
    extractor, clip = MBTFeatureExtractor(mean=-31.0, std=16.0), some_speech(8000)
    extractor.save_pretrained(tmp_path / "checkpoint")
    np.save(tmp_path / "clip.npy", clip)
    run_python(
        """
        import sys
        import numpy as np
        from transformers import AutoFeatureExtractor
        sys.modules["feature_extraction"] = sys.modules["modeling_mbt"] = None  # whoever imports them fails
        extractor = AutoFeatureExtractor.from_pretrained("checkpoint", trust_remote_code=True)
        assert type(extractor).__module__.startswith("transformers_modules."), type(extractor).__module__
        outputs = extractor(np.load("clip.npy"), sampling_rate=16000, return_tensors="np")
        np.save("features.npy", outputs["input_features"])
        extractor.save_pretrained("again")
        """,
        tmp_path,
    )
    np.testing.assert_array_equal(np.load(tmp_path / "features.npy"), features_of(extractor, clip).numpy())
    assert (tmp_path / "again" / "feature_extraction_mbt.py").exists()


@pytest.mark.slow
def test_importing_the_models_lets_auto_classes_open_the_extractor(tmp_path):
    MBTFeatureExtractor().save_pretrained(tmp_path / "checkpoint")
    printed = run_python(
        """
        import modeling_mbt
        from transformers import AutoFeatureExtractor
        print(type(AutoFeatureExtractor.from_pretrained("checkpoint")).__module__)
        """,
        tmp_path,
        PYTHONPATH=str(ROOT),
    )
    assert printed.strip() == "feature_extraction.feature_extraction_mbt"
