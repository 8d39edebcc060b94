"""Every distortion by the laws it must obey, and the pipeline that draws them."""

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from feature_extraction import MBTAugmentation, MBTFeatureExtractor
from feature_extraction.augmentation import FEATURE_DISTORTIONS, WAVEFORM_DISTORTIONS

RATE = 16000
SILENT_NOISE_DB = [400, 400]

# Each distortion's parameters at strength 0, where it must change nothing.
WAVEFORM_IDENTITIES: dict[str, dict[str, Any]] = {
    "gain": {"db": [0, 0]},
    "gaussian_noise": {"amplitude": [0, 0]},
    "noise": {"snr_db": SILENT_NOISE_DB},
    "babble": {"snr_db": SILENT_NOISE_DB},
    "reverberation": {"direct_to_reverberant_db": SILENT_NOISE_DB},
    "equalizer": {"db": 0},
    "band_limit": {"low_hz": [0, 0], "high_hz": [1e9, 1e9]},
    "shift": {"fraction": [0, 0]},
    "speed": {"rate": [1, 1]},
    "time_stretch": {"rate": [1, 1]},
    "pitch_shift": {"semitones": [0, 0]},
}
FEATURE_IDENTITIES: dict[str, dict[str, Any]] = {
    "random_resize_crop": {"time_scale": [1, 1], "frequency_scale": [1, 1], "time_canvas": 1},
    "mixup": {"ratio": [0, 0]},
    "noise": {"ratio": [0, 0]},
    "band_equalizer": {"gain": 0.0},
    "fader": {"gain": 0},
    "time_mask": {"width": 0},
    "frequency_mask": {"width": 0},
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def distort_waveforms(name: str, waveforms: Tensor, seed: int = 0, **strengths) -> Tensor:
    return MBTAugmentation(waveform=[{"name": name, **strengths}]).distort_waveforms(waveforms, RATE, seeded(seed))


def some_waveforms(num_clips: int = 6, num_samples: int = 15360, seed: int = 1) -> Tensor:
    noise = torch.randn(num_clips, num_samples, generator=seeded(seed))
    loudness = 1.5 + torch.linspace(0, 20, num_samples).sin()
    return 0.05 * loudness * noise * torch.linspace(0.5, 2, num_clips)[:, None]


def some_features(num_clips: int = 6, num_frames: int = 97, num_bands: int = 64) -> Tensor:
    return MBTFeatureExtractor(feature_size=num_bands).extract(some_waveforms(num_clips, 160 * (num_frames - 1)))[0]


def power_db(waveforms: Tensor) -> Tensor:
    return 10 * waveforms.square().mean(1).log10()


def test_every_distortion_that_has_a_strength_is_tested_at_strength_0():
    assert set(WAVEFORM_IDENTITIES) == set(WAVEFORM_DISTORTIONS) - {"polarity", "recorded_noise", "recorded_room"}
    assert set(FEATURE_IDENTITIES) == set(FEATURE_DISTORTIONS)


@pytest.mark.parametrize("name", WAVEFORM_IDENTITIES)
def test_a_waveform_distortion_of_strength_0_changes_nothing(name):
    waveforms = some_waveforms(num_samples=15000)
    torch.testing.assert_close(
        distort_waveforms(name, waveforms, **WAVEFORM_IDENTITIES[name]), waveforms, atol=2e-6, rtol=1e-5
    )


@pytest.mark.parametrize("name", FEATURE_IDENTITIES)
def test_a_feature_distortion_of_strength_0_changes_nothing(name):
    features = some_features()
    pipeline = MBTAugmentation(features=[{"name": name, **FEATURE_IDENTITIES[name]}])
    torch.testing.assert_close(pipeline.distort_features(features, seeded()), features, atol=1e-4, rtol=1e-5)


def batches_of_the_same_clip() -> list[tuple[str, str, Tensor]]:
    waveforms = some_waveforms(1).expand(4, -1).contiguous()
    features = some_features(1).expand(4, -1, -1).contiguous()
    of_waveforms = [("waveform", name, waveforms) for name in (*WAVEFORM_IDENTITIES, "polarity")]
    return of_waveforms + [("features", name, features) for name in FEATURE_DISTORTIONS]


@pytest.mark.parametrize(("kind", "name", "clips"), batches_of_the_same_clip())
def test_a_distortion_replays_and_differs_per_clip_and_keeps_the_form(kind, name, clips):
    def distorted(clips: Tensor, seed: int) -> Tensor:
        pipeline = MBTAugmentation(**{kind: [{"name": name}]})
        if kind == "waveform":
            return pipeline.distort_waveforms(clips, RATE, seeded(seed))
        return pipeline.distort_features(clips, seeded(seed))

    if name in ("mixup", "babble"):  # what they add is the other clips, which must then differ
        clips = clips * torch.linspace(0.1, 1, clips[0].numel()).reshape(clips[0].shape) ** torch.arange(4).reshape(
            (-1,) + (1,) * (clips.ndim - 1)
        )
    original, first = clips.clone(), distorted(clips, 0)
    assert torch.equal(clips, original), "the input was written to"
    assert torch.equal(distorted(clips, 0), first)
    assert first.shape == clips.shape
    assert first.dtype == clips.dtype
    assert first.isfinite().all()
    assert distorted(torch.zeros_like(clips), 0).isfinite().all()
    assert distorted(clips[:1], 0).shape == clips[:1].shape
    if name != "polarity":  # without any parameter to draw
        assert not torch.equal(distorted(clips, 1), first)
        differences = [(a - b).abs().max() for i, a in enumerate(first) for b in first[:i]]
        assert min(differences) > 1e-5


EVERYTHING = MBTAugmentation(
    waveform=[
        {"name": "gain", "db": [-6, 6]},
        {"choose": 2, "of": [{"name": "shift"}, {"name": "noise", "p": 0.5}, {"name": "speed"}]},
    ],
    features=[{"name": "mixup"}, {"name": "random_resize_crop", "p": 0.7}, {"name": "fader"}, {"name": "noise"}],
)


def test_a_pipeline_is_rebuilt_from_its_dictionary_through_json():
    lists = json.loads(json.dumps(EVERYTHING.to_dict()))
    rebuilt = MBTAugmentation.from_dict(lists)
    assert rebuilt.to_dict() == lists == EVERYTHING.to_dict()
    waveforms, extractor = some_waveforms(), MBTFeatureExtractor()
    views = [pipeline(waveforms, extractor, seeded())[0] for pipeline in (EVERYTHING, rebuilt)]
    assert torch.equal(*views)


def test_a_pipeline_owns_its_lists():
    steps: list[dict[str, Any]] = [{"name": "gain", "db": [0, 3]}]
    pipeline = MBTAugmentation(waveform=steps)
    steps[0]["db"][1] = 99
    pipeline.to_dict()["waveform"].clear()
    assert pipeline.to_dict() == {"waveform": [{"name": "gain", "db": [0, 3]}], "features": []}


def test_a_view_is_replayed_by_its_seed_and_differs_from_the_next_one():
    waveforms, extractor, generator = some_waveforms(), MBTFeatureExtractor(), seeded(5)
    views = [EVERYTHING(waveforms, extractor, generator)[0] for _ in range(2)]
    assert (views[0] - views[1]).abs().mean() > 0.1
    assert torch.equal(EVERYTHING(waveforms, extractor, seeded(5))[0], views[0])
    assert not torch.equal(EVERYTHING(waveforms, extractor, seeded(6))[0], views[0])


def test_views_have_the_form_and_scale_of_the_extractors_features():
    waveforms, extractor, lengths = some_waveforms(), MBTFeatureExtractor(), torch.tensor([15360, 8000] * 3)
    view, mask = EVERYTHING(waveforms, extractor, seeded(), lengths)
    features, expected_mask = extractor.extract(waveforms, lengths)
    assert view.shape == features.shape
    assert torch.equal(mask, expected_mask)
    assert (view[mask == 0] == extractor.padding_value).all()
    own = view[1][mask[1] == 1]
    assert float(own.mean()) == pytest.approx(0, abs=1e-4)
    assert float(own.std(correction=0)) == pytest.approx(1, abs=1e-4)


def test_without_distortions_a_view_is_what_the_extractor_gives():
    waveforms, extractor = some_waveforms(), MBTFeatureExtractor(mean=-20.0, std=15.0)
    view, mask = MBTAugmentation()(waveforms, extractor, seeded())
    outputs = extractor(waveforms, RATE, return_tensors="pt")
    torch.testing.assert_close(view, outputs["input_features"])
    assert torch.equal(mask, outputs["attention_mask"])


def test_feature_distortions_do_not_depend_on_a_clips_level_and_contrast():
    features, pipeline = some_features(), MBTAugmentation(features=EVERYTHING.features)
    distorted = pipeline.distort_features(features, seeded())
    level, contrast = torch.linspace(-30, 30, 6)[:, None, None], torch.linspace(0.5, 2, 6)[:, None, None]
    torch.testing.assert_close(
        pipeline.distort_features(features * contrast + level, seeded()), distorted * contrast + level,
        atol=1e-3, rtol=0,
    )  # fmt: skip


def test_masks_are_of_the_clip_and_not_of_its_padding():
    features = torch.cat([some_features(), torch.full((6, 90, 64), -80.0)], dim=1)
    num_frames = some_features().shape[1]
    mask = (torch.arange(features.shape[1]) < num_frames).int().expand(6, -1)
    lists = [{"name": "time_mask", "width": 0.9}, {"name": "frequency_mask", "width": 0.9}]
    pipeline = MBTAugmentation(features=lists)
    padded = pipeline.distort_features(features, seeded(), mask)
    torch.testing.assert_close(padded[:, :num_frames], pipeline.distort_features(some_features(), seeded()))
    assert (padded[:, :num_frames] != some_features()).any(2).any(1).all()


def test_shifts_and_noises_are_of_the_clip_and_not_of_its_padding():
    waveforms, lengths = some_waveforms(), torch.tensor([4000, 5000, 6000, 7000, 8000, 8000])
    waveforms = waveforms[:, :8000].masked_fill(torch.arange(8000) >= lengths[:, None], 0)
    half = MBTAugmentation(waveform=[{"name": "shift", "fraction": [0.5, 0.5]}])
    for clip, shifted, length in zip(
        waveforms, half.distort_waveforms(waveforms, RATE, seeded(), lengths), lengths.tolist(), strict=True
    ):
        assert torch.equal(shifted[:length], clip[:length].roll(length // 2))
        assert not shifted[length:].any()
    for name in ("noise", "babble"):
        noisy = MBTAugmentation(waveform=[{"name": name, "snr_db": [7, 7]}])
        added = noisy.distort_waveforms(waveforms, RATE, seeded(), lengths) - waveforms
        levels = [power_db(clip[None, :length]) for clip, length in zip(waveforms, lengths.tolist(), strict=True)]
        torch.testing.assert_close(torch.cat(levels) - power_db(added), torch.full((6,), 7.0), atol=0.1, rtol=0)


def test_a_distortion_comes_to_each_clip_with_its_probability():
    waveforms = torch.ones(4000, 4)
    louder = distort_waveforms("gain", waveforms, db=[6, 6], p=0.3)[:, 0] > 1
    assert float(louder.float().mean()) == pytest.approx(0.3, abs=0.03)
    assert torch.equal(distort_waveforms("gain", waveforms, db=[6, 6], p=0.0), waveforms)
    assert (distort_waveforms("gain", waveforms, db=[6, 6], p=1.0) > 1).all()


def test_choose_applies_so_many_distortions_to_each_clip_all_alike_often():
    gains = [{"name": "gain", "db": [db, db]} for db in (1, 2, 4, 8)]
    pipeline = MBTAugmentation(waveform=[{"choose": 2, "of": gains}])
    total_db = power_db(pipeline.distort_waveforms(torch.ones(3000, 4), RATE, seeded())).round().int().tolist()
    pairs = {1 + 2, 1 + 4, 1 + 8, 2 + 4, 2 + 8, 4 + 8}
    assert set(total_db) == pairs
    assert all(abs(total_db.count(pair) / 3000 - 1 / 6) < 0.03 for pair in pairs)


@pytest.mark.parametrize(
    ("lists", "complaint"),
    [
        ({"waveform": [{"name": "nois"}]}, "no distortion 'nois' here, but there are gain, "),
        ({"waveform": [{"name": "mixup"}]}, "no distortion 'mixup'"),
        ({"features": [{"name": "gain"}]}, "no distortion 'gain'"),
        ({"features": [{"gain": 1.0}]}, "no distortion ''"),
        ({"waveform": [{"name": "noise", "snr": [5, 20]}]}, "'noise' has no parameter 'snr', but it has snr_db"),
        ({"waveform": [{"name": "noise", "snr_db": 5}]}, r"'snr_db' of 'noise' is a pair \[lowest, highest\], not 5"),
        ({"waveform": [{"name": "noise", "snr_db": [20, 5]}]}, "pair"),
        ({"features": [{"name": "fader", "gain": [0, 1]}]}, "'gain' of 'fader' is a number"),
        ({"features": [{"name": "fader", "p": 1.5}]}, "between 0 and 1, not at 1.5"),
        ({"features": [{"choose": 2, "of": [{"name": "fader"}]}]}, "at least n distortions"),
        ({"features": [{"choose": 1, "of": [{"name": "fadr"}]}]}, "no distortion 'fadr'"),
        ({"features": [{"choose": 1, "name": "fader"}]}, "at least n distortions"),
        ({"features": [{"choose": "1", "of": [{"name": "fader"}]}]}, "at least n distortions"),
        ({"features": [{"of": [{"name": "fader"}], "p": 0.0}]}, "at least n distortions"),
        ({"features": [{"choose": 1, "of": ["fader"]}]}, "not as 'fader'"),
        ({"feature": []}, "holds the lists 'waveform' and 'features'"),
        (["mixup"], "holds the lists 'waveform' and 'features'"),
        ({"features": None}, "a list of distortions, not None"),
        ({"features": {"name": "fader"}}, "a list of distortions"),
        ({"features": ["mixup"]}, "not as 'mixup'"),
        ({"features": [{"name": ["mixup"]}]}, "no distortion"),
        ({"features": [{"name": "mixup", "ratio": [None, 1]}]}, "pair"),
        ({"features": [{"name": "mixup", "ratio": ["a", "b"]}]}, "pair"),
        ({"features": [{"name": "fader", "gain": float("nan")}]}, "is a number, not nan"),
        ({"features": [{"name": "time_mask", "width": 1.5}]}, "between 0 and 1, not at 1.5"),
        ({"waveform": [{"name": "babble", "num_voices": 0}]}, "'num_voices' of 'babble' lies between 1 and 1000"),
        ({"waveform": [{"name": "band_limit", "high_hz": [0, 0]}]}, "'high_hz' of 'band_limit' lies between 1 and"),
        ({"waveform": [{"name": "reverberation", "rt60_seconds": [1e-6, 1]}]}, "between 0.01 and 60"),
    ],
)
def test_a_pipeline_that_cannot_be_is_refused_with_the_reason(lists, complaint):
    with pytest.raises(ValueError, match=complaint):
        MBTAugmentation.from_dict(lists)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cpu_generator_distorts_clips_on_a_gpu_by_the_same_parameters():
    pipeline = MBTAugmentation(
        waveform=[{"name": name} for name in ("gain", "polarity", "babble", "equalizer", "band_limit", "speed")],
        features=[{"name": name} for name in FEATURE_DISTORTIONS if name != "noise"],
    )
    waveforms, extractor = some_waveforms(), MBTFeatureExtractor()
    on_cpu, _ = pipeline(waveforms, extractor, seeded())
    on_gpu, _ = pipeline(waveforms.cuda(), extractor, seeded())
    assert on_gpu.is_cuda
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, atol=5e-3, rtol=0)


@pytest.mark.parametrize("num_clips", [2, 4])
def test_a_clip_is_mixed_with_its_probability_also_with_one_that_is_not(num_clips):
    step = {"name": "mixup", "ratio": [0.4, 0.4], "p": 0.25}
    generator, mixed = seeded(), 0
    for _ in range(400):
        clips = torch.randn(num_clips, 6, 4, generator=generator)
        changed = MBTAugmentation(features=[step]).distort_features(clips, generator)
        mixed += int(((changed - clips).abs().amax(dim=(1, 2)) > 1e-3).sum())
    assert mixed / (400 * num_clips) == pytest.approx(0.25, abs=0.05)


def test_choosing_among_distortions_leaves_no_clip_as_it_is():
    step = {"choose": 1, "of": [{"name": "mixup", "ratio": [0.4, 0.4]}, {"name": "fader"}, {"name": "noise"}]}
    clips, generator = torch.randn(3, 6, 4), seeded()
    for _ in range(50):
        changed = MBTAugmentation(features=[step]).distort_features(clips, generator)
        assert ((changed - clips).abs().amax(dim=(1, 2)) > 1e-4).all()
