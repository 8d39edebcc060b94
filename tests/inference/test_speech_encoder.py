"""The adapters to the field's benchmarks: HEAR and SUPERB.

Axes: B clips, S samples, T' output frames, H hidden size.
"""

import pytest
import torch

from feature_extraction import MBTFeatureExtractor
from mbt_speech.inference.hear import get_scene_embeddings, get_timestamp_embeddings, load_model
from mbt_speech.inference.s3prl_upstream import UpstreamExpert
from mbt_speech.inference.speech_encoder import SpeechEncoder
from modeling_mbt import MBTConfig, MBTForPreTraining, MBTForSequenceClassification, MBTModel
from tests.support.models import SMALL_BOTTLENECK, SMALL_MAX_POOL, TINY, stir
from tests.support.sounds import SAMPLING_RATE, chirp

TWO_LAYERS = {**TINY, "frame_hidden_sizes": [12, 12]}
SETTINGS = {"plain": TWO_LAYERS, "bottleneck": SMALL_BOTTLENECK, "max_pool": SMALL_MAX_POOL}
ENCODERS = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
LENGTHS = (16_000, 400, 7_777)


def save(folder, settings: dict, model_class=MBTModel, **features) -> str:
    """Leaves a checkpoint as the scripts do."""
    stir(model_class(MBTConfig(**settings))).save_pretrained(folder)
    MBTFeatureExtractor(feature_size=settings["num_mel_bins"], **features).save_pretrained(folder)
    return str(folder)


def voices(lengths) -> list[torch.Tensor]:
    return [torch.tensor(chirp(length / SAMPLING_RATE, 120 + 40 * i, i)) for i, length in enumerate(lengths)]


@pytest.mark.parametrize("model_class", [MBTModel, MBTForPreTraining, MBTForSequenceClassification])
def test_hear_hears_the_encoder_of_every_kind_of_checkpoint(model_class, tmp_path):
    checkpoint = save(tmp_path, TINY, model_class)
    model = load_model(checkpoint)
    waveforms = torch.stack(voices([12_000] * 3))
    saved = model_class.from_pretrained(checkpoint).eval()
    features = MBTFeatureExtractor.from_pretrained(checkpoint)(waveforms, sampling_rate=16000, return_tensors="pt")
    expected = getattr(saved, "mbt", saved)(**features)
    torch.testing.assert_close(get_scene_embeddings(waveforms, model), expected.pooler_output)
    torch.testing.assert_close(get_timestamp_embeddings(waveforms, model)[0], expected.last_hidden_state)
    assert not get_scene_embeddings(waveforms, model).requires_grad


@ENCODERS
@pytest.mark.parametrize("num_samples", [400, 15_999, 16_000, 16_001])
def test_hear_finds_the_sizes_and_the_rate_that_the_model_announces(settings, num_samples, tmp_path):
    model = load_model(save(tmp_path, settings))
    audio = torch.stack(voices([num_samples] * 2))
    embeddings, timestamps = get_timestamp_embeddings(audio, model)
    assert model.sample_rate == 16_000
    assert get_scene_embeddings(audio, model).shape == (2, model.scene_embedding_size)
    assert embeddings.shape == (*timestamps.shape, model.timestamp_embedding_size)
    assert embeddings.dtype == timestamps.dtype == torch.float32
    step = 1000 * model.samples_per_frame / 16_000
    torch.testing.assert_close(timestamps.diff(dim=1), torch.full_like(timestamps[:, 1:], step))
    # Every sound is covered to its end, and every frame reads some of it.
    assert num_samples / 16 - step < timestamps[0, -1] - timestamps[0, 0] <= num_samples / 16
    assert 0 <= timestamps[0, 0] < step / 2


@ENCODERS
def test_timestamps_stand_in_the_middle_of_what_their_embeddings_hear(settings, tmp_path):
    # Statistics of a data set keep frames independent of one another; they are so low that all features are positive,
    # and positive weights let every change through to every frame that hears it.
    model = load_model(save(tmp_path, settings, mean=-200.0, std=10.0))
    for parameter in model.parameters():
        parameter.data.abs_()
    silence = torch.zeros(1, 24_000)
    quiet, timestamps = get_timestamp_embeddings(silence, model)
    middle = timestamps.shape[1] // 2
    for distance in range(0, model.samples_per_frame, model.extractor.hop_length // 2):
        heard = []
        for sign in (-1, 1):
            click = silence.clone()
            click[0, round(timestamps[0, middle].item() * 16) + sign * distance] = 1.0
            changed = (get_timestamp_embeddings(click, model)[0] != quiet).any(-1)[0]
            heard.append(timestamps[0, changed] - timestamps[0, middle])
        assert 0 < len(heard[0]) < timestamps.shape[1]
        torch.testing.assert_close(heard[0], -heard[1].flip(0))


def test_hear_is_told_what_to_give(tmp_path):
    with pytest.raises(ValueError, match="--model"):
        load_model("")
    with pytest.raises(ValueError, match=r"\(sounds, samples\).*\(16000,\)"):
        get_scene_embeddings(torch.zeros(16_000), load_model(save(tmp_path, TINY)))


@ENCODERS
def test_an_upstream_gives_a_clip_the_same_frames_alone_and_in_a_batch(settings, tmp_path):
    upstream = UpstreamExpert(save(tmp_path, settings)).eval()
    wavs = voices(LENGTHS)
    batch = upstream(wavs)
    assert len(batch["hidden_states"]) == (2 if settings is TWO_LAYERS else 1)
    for clip, wav in enumerate(wavs):
        alone = upstream([wav])
        for layer, layer_alone in zip(batch["hidden_states"], alone["hidden_states"], strict=True):
            real = layer_alone.shape[1]
            torch.testing.assert_close(layer[clip, :real], layer_alone[0], atol=1e-4, rtol=1e-4)
            assert not layer[clip, real:].any()


@ENCODERS
def test_the_downsample_rate_gives_the_number_of_frames_of_every_length(settings, tmp_path):
    upstream = UpstreamExpert(save(tmp_path, settings), model_config=None, refresh=False).eval()
    rate = upstream.get_downsample_rates("hidden_states")
    assert isinstance(rate, int)
    for length in (400, rate * 9, rate * 10 - 1, rate * 10):
        assert upstream(voices([length]))["last_hidden_state"].shape[1] == length // rate + 1


def test_hidden_states_are_the_encoders_layers_from_first_to_last(tmp_path):
    upstream = UpstreamExpert(save(tmp_path, TWO_LAYERS)).eval()
    output = upstream(voices([9_000, 9_000]))
    first, last = output["hidden_states"]
    assert last is output["last_hidden_state"]
    torch.testing.assert_close(upstream.encoder.model.encoder.frame_layers[1](first).relu(), last)


@ENCODERS
def test_gradients_reach_every_weight_of_an_upstream_unless_it_is_frozen(settings, tmp_path):
    upstream = UpstreamExpert(save(tmp_path, settings)).train()
    torch.stack(upstream(voices(LENGTHS))["hidden_states"]).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in upstream.parameters())
    upstream.requires_grad_(False)
    assert not upstream(voices(LENGTHS))["last_hidden_state"].requires_grad


def test_a_recording_that_cannot_be_represented_is_refused_by_its_number(tmp_path):
    encoder = SpeechEncoder.from_pretrained(save(tmp_path, TINY))
    with pytest.raises(ValueError, match="Clip 1 has 399 samples"):
        encoder([torch.zeros(16_000), torch.zeros(399)])


def test_another_kind_of_checkpoint_is_refused(tmp_path):
    MBTConfig(architectures=["BertModel"]).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds a BertModel"):
        SpeechEncoder.from_pretrained(tmp_path)


@ENCODERS
def test_the_frames_that_count_as_real_are_those_that_the_encoder_does_not_mask(settings, tmp_path):
    encoder = SpeechEncoder.from_pretrained(save(tmp_path, settings))
    step = encoder.samples_per_frame
    lengths = torch.tensor([20 * step, 9 * step - 1, 9 * step, 9 * step + step // 2, 400])
    frames = encoder(voices(lengths.tolist())).last_hidden_state
    assert torch.equal(encoder.real_frames(frames.shape[1], lengths), frames.any(-1))
