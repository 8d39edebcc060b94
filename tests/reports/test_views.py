"""What people look at and listen to before they train."""

import json
from argparse import Namespace

import numpy as np
import pytest
import soundfile as sf
from PIL import Image

from feature_extraction import MBTAugmentation, MBTFeatureExtractor
from mbt_speech.__main__ import main
from mbt_speech.presets import PRESETS
from mbt_speech.reports.views import crop_length
from tests.support.sounds import SAMPLING_RATE, chirp


@pytest.fixture
def recording(tmp_path):
    sf.write(tmp_path / "speech.flac", chirp(1.3, 150.0, 0), SAMPLING_RATE)
    return tmp_path / "speech.flac"


def test_views_are_drawn_and_distorted_waveforms_written(recording, tmp_path):
    out = tmp_path / "shown"
    words = ["--preset", "faithful", "--num_pairs", "2", "--start_seconds", "0.2", "--output_dir", str(out)]
    main(["show", str(recording), *words])
    names = {path.name for path in out.iterdir()}
    assert names == {"views.png", "crop.wav", "view_1a.wav", "view_1b.wav", "view_2a.wav", "view_2b.wav"}
    crop, rate = sf.read(out / "crop.wav")
    assert (len(crop), rate) == (16000, 16000)
    np.testing.assert_allclose(crop, sf.read(recording)[0][3200:19200], atol=1e-4)
    view_a, view_b = sf.read(out / "view_1a.wav")[0], sf.read(out / "view_1b.wav")[0]
    assert np.abs(view_a - view_b).max() > 0.01
    with Image.open(out / "views.png") as picture:
        assert picture.width > 900
        assert picture.height > 700


def test_a_runs_own_features_and_distortions_are_shown(recording, tmp_path):
    run = tmp_path / "run"
    MBTFeatureExtractor(feature_size=24).save_pretrained(run)
    lists = MBTAugmentation(waveform=[{"name": "polarity"}]).to_dict()
    (run / "augmentation.json").write_text(json.dumps(lists))
    main(["show", str(recording), "--run", str(run), "--num_pairs", "1", "--output_dir", str(tmp_path / "shown")])
    crop, view = (sf.read(tmp_path / "shown" / name)[0] for name in ("crop.wav", "view_1a.wav"))
    np.testing.assert_allclose(view, -crop, atol=1e-4)


def test_no_sound_is_written_where_only_features_are_distorted(recording, tmp_path, capsys):
    (tmp_path / "shown").mkdir()
    (tmp_path / "shown" / "thesis.txt").write_text("not of this command")
    words = ["--augmentation", '{"features": [{"name": "fader"}]}', "--output_dir", str(tmp_path / "shown")]
    main(["show", str(recording), str(recording), *words])
    assert {path.name for path in (tmp_path / "shown").iterdir()} == {"views.png", "crop.wav", "thesis.txt"}
    assert "crop.wav, views.png are in" in capsys.readouterr().out


def test_a_file_that_is_no_sound_and_no_number_of_pairs_are_refused(tmp_path, capsys):
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(SystemExit):
        main(["show", str(tmp_path / "text.wav"), "--output_dir", str(tmp_path)])
    assert "text.wav" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["show", "x.wav", "--num_pairs", "0"])
    assert "--num_pairs" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["show", "x.wav", "--crop_seconds", "0"])
    assert "--crop_seconds must be at least 0.05" in capsys.readouterr().err
    for start in ("inf", "nan", "-1"):
        with pytest.raises(SystemExit):
            main(["show", "x.wav", "--start_seconds", start])
        assert "--start_seconds must not be negative or infinite" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["show", "x.wav", "--run", str(tmp_path), "--preset", "strong"])
    assert "--run or --preset" in capsys.readouterr().err


def test_the_crop_is_as_long_as_those_of_the_run(tmp_path):
    (tmp_path / "recipe.yaml").write_text("preset: faithful\n")
    args = Namespace(crop_seconds=None, run=tmp_path, preset="strong")
    assert crop_length(args) == PRESETS["faithful"].crop_seconds != PRESETS["strong"].crop_seconds
    (tmp_path / "recipe.yaml").write_text("preset: faithful\ncrop_seconds: 0.7\n")
    assert crop_length(args) == 0.7
    assert crop_length(Namespace(crop_seconds=None, run=None, preset="strong")) == PRESETS["strong"].crop_seconds
