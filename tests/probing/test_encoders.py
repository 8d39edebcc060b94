"""Frozen encoders, ours and those of the Hub: a clip is represented by itself alone, and the script compares them all.

Axes: B clips, S samples, T' frames.
"""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    Wav2Vec2FeatureExtractor,
)

import run_finetune
from feature_extraction import MBTFeatureExtractor
from mbt_speech.probing.classification import put_on
from mbt_speech.probing.encoders import LogMelStatistics, MBTFrozenEncoder
from mbt_speech.probing.hub_encoders import WaveformEncoder, open_hub_encoder
from mbt_speech.probing.linear_fits import Kind, LinearHead
from modeling_mbt import MBTConfig, MBTForPreTraining, MBTModel
from tests.support.hub_models import HUB_MODELS, save_hub_model
from tests.support.models import TINY, stir
from tests.support.sounds import SAMPLING_RATE, chirp


def hub_encoder(folder, name):
    path = save_hub_model(folder, name)
    return open_hub_encoder(str(path), AutoFeatureExtractor.from_pretrained(path))


@pytest.fixture(params=["mbt", "stats", *HUB_MODELS])
def encoder(request, tmp_path):
    extractor = MBTFeatureExtractor(feature_size=TINY["num_mel_bins"])
    if request.param == "mbt":
        return MBTFrozenEncoder(stir(MBTModel(MBTConfig(**TINY))), extractor)
    return LogMelStatistics(extractor) if request.param == "stats" else hub_encoder(tmp_path, request.param)


@pytest.fixture(scope="module")
def mbt_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders") / "mine"
    stir(MBTForPreTraining(MBTConfig(**TINY))).save_pretrained(folder)
    MBTFeatureExtractor(feature_size=TINY["num_mel_bins"]).save_pretrained(folder)
    return folder


def padded(lengths):
    """Clips of those lengths, (B, S), zero past their ends, and the lengths (B,)."""
    clips = [torch.tensor(chirp(n / SAMPLING_RATE, 110.0 + 60 * i, i)) for i, n in enumerate(lengths)]
    return torch.nn.utils.rnn.pad_sequence(clips, batch_first=True), torch.tensor(lengths)


def test_a_clip_alone_is_represented_as_in_a_padded_batch_of_longer_ones(encoder):
    waveforms, lengths = padded([16_000, 9_000, 9_000, 2_500, 420])
    vectors = encoder.represent(waveforms, lengths)
    frames, real = encoder.frames(waveforms, lengths)
    assert real.sum(1)[0] > real.sum(1)[1] > real.sum(1)[3] > 0
    for row, length in enumerate(lengths):
        alone = waveforms[row : row + 1, :length], lengths[row : row + 1]
        torch.testing.assert_close(encoder.represent(*alone)[0], vectors[row], rtol=1e-4, atol=1e-4)
        own_frames, own_real = encoder.frames(*alone)
        torch.testing.assert_close(own_frames[own_real], frames[row][real[row]], rtol=1e-4, atol=1e-4)
    assert (vectors[0] - vectors[1]).abs().max() > 1e-3


def test_a_representation_depends_on_every_sample_and_on_no_padding(encoder):
    waveforms, lengths = padded([12_000, 6_000])
    louder = waveforms.clone()
    louder[:, 5_000:6_000] *= 3
    vectors, changed = encoder.represent(waveforms, lengths), encoder.represent(louder, lengths)
    assert ((vectors - changed).abs().amax(1) > 1e-4).all()
    longer = torch.nn.functional.pad(waveforms, (0, 4_000))
    torch.testing.assert_close(encoder.represent(longer, lengths), vectors, rtol=1e-4, atol=1e-4)


def test_statistics_are_of_the_log_mels_and_of_their_slopes():
    extractor = MBTFeatureExtractor(feature_size=TINY["num_mel_bins"])
    waveforms, lengths = padded([16_000, 4_000])
    vectors = LogMelStatistics(extractor).represent(waveforms, lengths)
    features, mask = extractor.extract(waveforms, lengths)
    for vector, frames, real in zip(vectors, features, mask.bool(), strict=True):
        own = frames[real].double().numpy()
        longer = np.pad(own, ((2, 2), (0, 0)), mode="edge")
        slopes = [np.polyfit(range(-2, 3), longer[t : t + 5], 1)[0] for t in range(len(own))]
        expected = [own.mean(0), own.std(0), own.max(0), np.std(slopes, axis=0), np.max(slopes, axis=0)]
        np.testing.assert_allclose(vector, np.concatenate(expected), rtol=1e-3, atol=1e-3)


def test_frames_cover_a_clip_evenly_from_its_start_to_its_end(encoder):
    waveforms, lengths = padded([16_000, 7_777])
    frames, real = encoder.frames(waveforms, lengths)
    centers = encoder.centers(frames.shape[1])
    steps = centers.diff()
    assert (steps == steps[0]).all()
    for row, length in enumerate(lengths.tolist()):
        own = centers[real[row]]
        assert 0 <= own[0] <= max(steps[0], 1_400)  # a patch of AST is 0.16 s
        assert length - 1.5 * steps[0] - 1_400 <= own[-1] <= length


@pytest.mark.parametrize("name", ["wav2vec2-layer-norm", "ast", "whisper"])
def test_frames_of_hub_models_stand_in_the_middle_of_what_they_hear(name, tmp_path):
    encoder = hub_encoder(tmp_path, name)
    model = encoder.model
    convolutions = {
        "wav2vec2-layer-norm": getattr(model, "feature_extractor", None),
        "ast": getattr(getattr(model, "embeddings", None), "patch_embeddings", None),
        "whisper": getattr(model, "conv2", None),
    }[name]
    heard = []
    convolutions.register_forward_hook(lambda module, inputs, output: heard.append(output))
    generator = torch.Generator().manual_seed(0)
    noise = 0.01 * torch.randn(1, 16_000, generator=generator)
    click = noise.clone()
    click[0, 8_000] += 1e-3  # too little to change what is relative to the loudest
    lengths = torch.tensor([16_000])
    with torch.no_grad():
        for waveform in (noise, click):
            frames, _ = encoder.frames(waveform, lengths)
    change = (heard[0] - heard[1]).abs()[0]
    if name == "ast":  # patches of all frequencies, then those of the next: (F' * T', H)
        change = change.unflatten(0, (-1, frames.shape[1])).sum(0).T
    weights = change.sum(0)  # (T',)
    weights = torch.where(weights > 0.05 * weights.max(), weights, 0)
    center = (weights * encoder.centers(frames.shape[1])).sum() / weights.sum()
    assert abs(center - 8_000) < encoder.centers(2).diff()[0]


def test_a_clip_that_is_shorter_than_a_window_is_followed_by_silence(tmp_path):
    encoder = hub_encoder(tmp_path, "wav2vec2")
    waveforms, lengths = padded([30])
    longer = torch.nn.functional.pad(waveforms, (0, encoder.min_samples - 30))
    torch.testing.assert_close(
        encoder.represent(waveforms, lengths), encoder.represent(longer, torch.tensor([encoder.min_samples]))
    )


def test_a_model_of_another_kind_and_one_without_its_weights_are_refused(tmp_path):
    path = save_hub_model(tmp_path, "wav2vec2")
    extractor = AutoFeatureExtractor.from_pretrained(path)
    config = json.loads((path / "config.json").read_text())
    weights = load_file(path / "model.safetensors")
    lacking = {name: tensor for name, tensor in weights.items() if "feature_projection" not in name}
    save_file(lacking, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks weights of its Wav2Vec2Model, such as feature_projection\."):
        open_hub_encoder(str(path), extractor)
    (path / "model.safetensors").write_bytes(b"half a file")
    with pytest.raises(ValueError, match=f"The model of {path} cannot be opened: "):
        open_hub_encoder(str(path), extractor)
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    (path / "config.json").write_text(json.dumps(config | {"add_adapter": True}))
    with pytest.raises(ValueError, match="holds a Wav2Vec2Model: the frozen encoders that are known here"):
        open_hub_encoder(str(path), extractor)


def test_fingerprints_tell_weights_and_settings_apart_but_not_class_names():
    def fingerprint(feature_size=TINY["num_mel_bins"], shift=0.0, **settings):
        torch.manual_seed(0)
        model = stir(MBTModel(MBTConfig(**TINY | settings)))
        with torch.no_grad():
            next(model.parameters())[0] += shift
        return json.dumps(MBTFrozenEncoder(model, MBTFeatureExtractor(feature_size=feature_size)).fingerprint())

    same = fingerprint()
    assert fingerprint(id2label={0: "a", 1: "b"}, label2id={"a": 0, "b": 1}) == same
    others = [fingerprint(shift=1e-3), fingerprint(pooling_mode="mean"), fingerprint(feature_size=30)]
    assert len({same, *others}) == 4
    model, _ = HUB_MODELS["wav2vec2"]()
    extractors = [Wav2Vec2FeatureExtractor(do_normalize=normal) for normal in (True, False)]
    first, second = (WaveformEncoder(model, extractor).fingerprint() for extractor in extractors)
    assert json.dumps(first) != json.dumps(second)


def test_a_head_on_an_encoder_gives_the_logits_that_it_was_fitted_for():
    model, generator = stir(MBTModel(MBTConfig(**TINY))).eval(), np.random.default_rng(0)
    head = LinearHead(
        generator.normal(size=(3, model.config.hidden_size)), generator.normal(size=3), Kind("logistic", 1.0)
    )
    classifier = put_on(model, head, ["a", "b", "c"]).eval()
    features = torch.randn(4, 50, TINY["num_mel_bins"])
    with torch.no_grad():
        expected = model(features).pooler_output.double().numpy() @ head.weight.T + head.bias
        np.testing.assert_allclose(classifier(features).logits.numpy(), expected, rtol=1e-4, atol=1e-4)
    assert classifier.config.id2label == {0: "a", 1: "b", 2: "c"}


def finetune(output_dir, speech_folder, *words):
    words = ["--output_dir", output_dir, "--train_dir", speech_folder, "--preset", "tiny", *words]
    run_finetune.main([str(word) for word in words])
    lines = [json.loads(line) for line in (output_dir / "results.jsonl").read_text().splitlines()]
    return {line["method"]: line for line in lines}


@pytest.mark.slow
def test_one_command_compares_ours_with_hub_models_and_saves_our_best(
    speech_folder, mbt_folder, tmp_path, monkeypatch
):
    others = [save_hub_model(tmp_path, name) for name in ("wav2vec2", "whisper", "ast")]
    words = ["--freeze_encoder", "--model_name_or_path", others[0], mbt_folder, *others[1:], "random", "stats"]
    lines = finetune(tmp_path / "run", speech_folder, *words)
    types = ["wav2vec2", "mbt", "whisper", "audio-spectrogram-transformer", "mbt", "stats"]
    assert [line["model_type"] for line in lines.values()] == types
    assert lines[str(others[0])]["accuracy"] >= 0.5
    classifier = AutoModelForAudioClassification.from_pretrained(tmp_path / "run")
    assert classifier.config.model_type == "mbt"
    assert classifier.config.hidden_size == TINY["frame_hidden_sizes"][-1]
    card = (tmp_path / "run" / "README.md").read_text()
    assert "| wav2vec2 | frozen | 100 % |" in card
    best = max((lines[str(mbt_folder)], lines["random"]), key=lambda line: line["validation_accuracy"])
    assert f"best MBT model on validation: {best['method'].split('/')[-1]}, " in card

    def refuse(*args):
        raise AssertionError("These representations are in the cache.")

    for encoder_class in (WaveformEncoder, MBTFrozenEncoder):
        monkeypatch.setattr(encoder_class, "represent", refuse)
    again = finetune(tmp_path / "again", speech_folder, *words)
    assert {m: line["accuracy"] for m, line in again.items()} == {m: line["accuracy"] for m, line in lines.items()}


def test_models_of_the_hub_alone_leave_results_and_pictures_and_no_model(speech_folder, tmp_path):
    path = save_hub_model(tmp_path, "hubert")
    finetune(tmp_path / "run", speech_folder, "--freeze_encoder", "--model_name_or_path", path)
    left = {file.name for file in (tmp_path / "run").iterdir()}
    assert {"results.jsonl", "results.csv", "results.md", "embeddings.png", "spectra.png"} <= left
    assert not left & {"config.json", "model.safetensors", "README.md"}


def test_a_hub_model_of_another_rate_is_refused(speech_folder, mbt_folder, tmp_path):
    path = save_hub_model(tmp_path, "hubert")
    Wav2Vec2FeatureExtractor(sampling_rate=8_000).save_pretrained(path)
    with pytest.raises(ValueError, match=r"hubert 8000 Hz.*mine 16000 Hz"):
        finetune(tmp_path / "run", speech_folder, "--freeze_encoder", "--model_name_or_path", path, mbt_folder)
