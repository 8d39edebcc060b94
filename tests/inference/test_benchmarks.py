"""The adapters to MTEB and X-ARES, against what those packages ask of an encoder.

Neither package is installed for these tests; both were run by hand, as docs/evaluation.md says.
"""

import shutil
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import soxr
import torch
from datasets import Audio, Dataset
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader

from feature_extraction import MBTFeatureExtractor
from mbt_speech.inference.mteb_encoder import BATCH_SIZE, MtebEncoder
from mbt_speech.inference.speech_encoder import SpeechEncoder
from mbt_speech.inference.xares_encoder import XaresEncoder
from modeling_mbt import MBTConfig, MBTModel
from tests.support.models import TINY, stir
from tests.support.sounds import SAMPLING_RATE, chirp


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    model: Any = stir(MBTModel(MBTConfig(**TINY)))
    model.save_pretrained(folder)
    MBTFeatureExtractor(feature_size=TINY["num_mel_bins"]).save_pretrained(folder)
    return folder


def recordings(folder, count) -> tuple[Any, list[np.ndarray]]:
    """A data set of audio files, as those of the Hub are, and their samples."""
    waveforms = [chirp(0.4 + 0.01 * number, 120 + 20 * number, number) for number in range(count)]
    paths = [str(folder / f"{number}.wav") for number in range(count)]
    for path, waveform in zip(paths, waveforms, strict=True):
        sf.write(path, waveform, SAMPLING_RATE, subtype="FLOAT")
    return Dataset.from_dict({"audio": paths}).cast_column("audio", Audio()), waveforms


def test_mteb_is_given_the_pooled_representation_of_every_clip_in_its_order(checkpoint, tmp_path):
    clips, waveforms = recordings(tmp_path, BATCH_SIZE + 3)
    model = MtebEncoder(str(checkpoint), None, device="cpu")
    found = model.encode(DataLoader(clips, batch_size=4), task_metadata=None, hf_split="test", hf_subset="default")
    expected = torch.cat([SpeechEncoder.from_pretrained(checkpoint)([one]).pooler_output for one in waveforms])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.detach(), atol=1e-4, rtol=1e-4)


def test_mteb_keeps_results_of_other_weights_apart(checkpoint, tmp_path):
    revisions = [MtebEncoder(str(checkpoint)).revision for _ in range(2)]
    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    weights = load_file(copy / "model.safetensors")
    next(value for value in weights.values() if value.ndim)[:] += 1
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert len({*revisions, MtebEncoder(str(copy)).revision, MtebEncoder(str(copy), "v2").revision}) == 3


def test_mteb_clips_of_another_rate_are_resampled(checkpoint, tmp_path):
    waveform = chirp(1.0, 150.0, 0)
    clips = []
    for rate in (SAMPLING_RATE, 2 * SAMPLING_RATE):
        path = str(tmp_path / f"{rate}.wav")
        sf.write(path, soxr.resample(waveform, SAMPLING_RATE, rate), rate, subtype="FLOAT")
        clips.append(Dataset.from_dict({"audio": [path]}).cast_column("audio", Audio()))
    same, resampled = (MtebEncoder(str(checkpoint)).encode(DataLoader(one)) for one in clips)
    assert np.linalg.norm(resampled - same) < 0.05 * np.linalg.norm(same)


def test_mteb_similarities_are_cosines(checkpoint):
    model, (first, second) = MtebEncoder(str(checkpoint)), np.random.default_rng(0).standard_normal((2, 5, 8))
    expected = torch.cosine_similarity(*map(torch.tensor, (first, second)), dim=-1).float()
    torch.testing.assert_close(model.similarity_pairwise(first, second), expected)
    torch.testing.assert_close(model.similarity(first, second).diagonal(), expected)
    assert model.similarity(first, second[:3]).shape == (5, 3)


def test_mteb_is_told_that_text_cannot_be_represented(checkpoint):
    text: Any = Dataset.from_dict({"text": ["a"]})
    texts = DataLoader(text)
    with pytest.raises(ValueError, match="modality is audio"):
        MtebEncoder(str(checkpoint)).encode(texts)


def test_xares_finds_what_it_checks(checkpoint):
    class MineEncoder(XaresEncoder):
        def __init__(self):
            super().__init__(checkpoint)

    encoder = MineEncoder()
    audio = torch.stack([torch.tensor(chirp(50_000 / SAMPLING_RATE, pitch, 0)) for pitch in (100, 200)])
    frames = encoder(audio)
    assert encoder.sampling_rate == SAMPLING_RATE
    assert frames.shape[::2] == (2, encoder.output_dim)
    assert frames.shape[1] * encoder.hop_size_in_ms == pytest.approx(50_000 / 16, abs=encoder.hop_size_in_ms)
    torch.testing.assert_close(encoder(audio[0]), frames[:1], atol=1e-4, rtol=1e-4)
