"""The model that comes with a clone: it opens with one line, tells voices apart and knows words."""

from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Audio
from transformers import AutoFeatureExtractor, AutoModel

import run_pretrain
from feature_extraction import to_waveform
from mbt_speech.corpora.synthetic.corpus import load_corpus
from mbt_speech.inference.speech_encoder import SpeechClassifier, SpeechEncoder
from modeling_mbt import MBTModel

SMALL_MODEL = Path(run_pretrain.__file__).parent / "models" / "mbt-synthetic"


def test_it_is_small_and_computes_in_single_precision():
    assert sum(path.stat().st_size for path in SMALL_MODEL.iterdir()) < 2_000_000
    model = AutoModel.from_pretrained(SMALL_MODEL)
    assert isinstance(model, MBTModel)
    assert model.dtype == torch.float32
    inputs = AutoFeatureExtractor.from_pretrained(SMALL_MODEL)(
        np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32), sampling_rate=16_000, return_tensors="pt"
    )
    assert model(**inputs).pooler_output.shape == (1, model.config.pooled_size)


def test_its_card_says_that_the_speech_was_synthetic():
    assert "built-in **synthetic** corpus" in (SMALL_MODEL / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_it_tells_voices_apart_and_knows_more_words_than_chance():
    clips = load_corpus("tiny")["labelled"]
    waveforms = [to_waveform(clip["audio"]) for clip in clips.cast_column("audio", Audio(decode=False))]
    lengths = torch.tensor([len(waveform) for waveform in waveforms])
    batch = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(waveform) for waveform in waveforms], batch_first=True)
    with torch.no_grad():
        embeddings = SpeechEncoder.from_pretrained(SMALL_MODEL)(batch, lengths).pooler_output
        classifier = SpeechClassifier.from_pretrained(SMALL_MODEL)
        predicted = classifier(batch, lengths).logits.argmax(1).tolist()
    directions = torch.nn.functional.normalize(embeddings - embeddings.mean(0), dim=1)
    cosines, speakers = (directions @ directions.T).numpy(), np.array(clips["speaker"])
    same = speakers[:, None] == speakers[None]
    others = ~same
    np.fill_diagonal(same, False)
    assert cosines[same].mean() > cosines[others].mean() + 0.05
    words = clips.features["keyword"].int2str(clips["keyword"])
    names = [classifier.model.config.id2label[number] for number in predicted]
    assert set(words) <= set(classifier.model.config.label2id)
    assert np.mean([name == word for name, word in zip(names, words, strict=True)]) > 0.15
