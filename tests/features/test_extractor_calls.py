"""MBTFeatureExtractor as transformers' users call it: types, padding, what it refuses."""

import math

import numpy as np
import pytest
import torch
from transformers.testing_utils import CaptureLogger

from feature_extraction import MBTFeatureExtractor, feature_extraction_mbt
from tests.support.extractors import SAMPLING_RATE, features_of, some_speech


def test_outputs_have_the_type_that_is_asked_for():
    extractor, clips = MBTFeatureExtractor(), [some_speech(n) for n in (16000, 8000)]
    outputs = {kind: extractor(clips, SAMPLING_RATE, return_tensors=kind) for kind in ("pt", "np", None)}
    assert isinstance(outputs["pt"]["input_features"], torch.Tensor)
    assert outputs["pt"]["attention_mask"].dtype == torch.int64
    assert isinstance(outputs["np"]["input_features"], np.ndarray)
    assert isinstance(outputs[None]["input_features"], list)
    for output in outputs.values():
        np.testing.assert_array_equal(np.stack(list(output["input_features"])), outputs["np"]["input_features"])
        np.testing.assert_array_equal(np.stack(list(output["attention_mask"])), outputs["np"]["attention_mask"])


def test_the_attention_mask_is_returned_unless_someone_says_no():
    clip = some_speech(8000)
    assert "attention_mask" in MBTFeatureExtractor()(clip, SAMPLING_RATE)
    assert "attention_mask" not in MBTFeatureExtractor()(clip, SAMPLING_RATE, return_attention_mask=False)
    without = MBTFeatureExtractor(return_attention_mask=False)
    assert "attention_mask" not in without(clip, SAMPLING_RATE)
    assert "attention_mask" in without(clip, SAMPLING_RATE, return_attention_mask=True)


def test_padding_truncation_and_multiples_count_samples():
    extractor, clips = MBTFeatureExtractor(), [some_speech(n) for n in (16000, 8000)]

    def frames(**kwargs) -> int:
        return features_of(extractor, *clips, **kwargs).shape[1]

    assert frames() == frames(padding="longest") == 101
    assert frames(padding="max_length", max_length=32000) == 201
    assert frames(padding="max_length", max_length=4000) == 101
    assert frames(padding="max_length", max_length=4000, truncation=True) == 26
    assert frames(max_length=12000, truncation=True) == 76
    assert frames(pad_to_multiple_of=6400) == 1 + 19200 // 160
    assert frames(padding="max_length", max_length=16001, pad_to_multiple_of=1600) == 1 + 17600 // 160
    torch.testing.assert_close(
        features_of(extractor, *clips, max_length=8000, truncation=True)[0], features_of(extractor, clips[0][:8000])[0]
    )


@pytest.mark.parametrize("padding", [False, "do_not_pad"])
def test_without_padding_each_clip_keeps_its_own_frames(padding):
    extractor, clips = MBTFeatureExtractor(padding_value=-3.0), [some_speech(n) for n in (16000, 8000)]
    unpadded = extractor(clips, SAMPLING_RATE, padding=padding)
    assert [len(features) for features in unpadded["input_features"]] == [101, 51]
    assert [len(mask) for mask in unpadded["attention_mask"]] == [101, 51]
    joined = extractor.pad(unpadded, padding=True, return_tensors="pt")
    padded = extractor(clips, SAMPLING_RATE, return_tensors="pt")
    torch.testing.assert_close(joined["input_features"], padded["input_features"])
    assert (joined["attention_mask"] == padded["attention_mask"]).all()


@pytest.mark.parametrize(
    ("clips", "kwargs", "complaint"),
    [
        (
            np.zeros(16000, np.float32),
            {"sampling_rate": 8000},
            "must have 16000 Hz here, and this has 8000: resample first",
        ),
        ([], {}, "no audio here"),
        (np.zeros(0, np.float32), {}, "no audio here"),
        ([np.zeros(16000, np.float32), np.zeros(0, np.float32)], {}, "Clip 1 has 0 samples"),
        (np.zeros(399, np.float32), {}, "Clip 0 has 399 samples: pass at least a window, 400"),
        ([np.zeros((2, 16000), np.float32)], {}, r"Clip 0 has the shape \(2, 16000\): pass one channel"),
        (np.zeros((1, 2, 16000), np.float32), {}, "pass one channel"),
        (np.zeros(16000, np.int16), {}, "int16: pass floats"),
        ([np.full(16000, np.nan, np.float32)], {}, "Clip 0 holds NaN or infinity"),
        ([np.zeros(900), np.full(900, np.inf)], {}, "Clip 1 holds NaN or infinity"),
        (np.zeros(16000, np.float32), {"truncation": True}, "need `max_length`"),
        (np.zeros(16000, np.float32), {"padding": "max_length"}, "need `max_length`"),
        (np.zeros(16000, np.float32), {"max_length": 2e4, "padding": "max_length"}, "`max_length` must be at least"),
        (np.zeros(16000, np.float32), {"max_length": -3}, "`max_length` must be at least a window of 400 samples"),
        *(
            (np.zeros(16000, np.float32), {"pad_to_multiple_of": n}, "`pad_to_multiple_of` must")
            for n in (-7, 1.5, "8")
        ),
        (iter([0.0] * 16000), {}, "A list_iterator holds no samples: pass those of `audio"),
        ({"array": np.zeros(16000), "path": None}, {}, "A dict holds no samples: pass those of `audio"),
        ([{"array": np.zeros(16000)}], {}, "Clip 0 holds no samples, but object: pass those of"),
        ([None], {}, "Clip 0 holds no samples"),
        ("speech.wav", {}, "A str holds no samples: .*to_waveform"),
        (["speech.wav"], {}, "Clip 0 holds no samples"),
        (None, {}, "A NoneType holds no samples"),
        (torch.tensor(1.0), {}, "A Tensor holds no samples"),
        (np.zeros(16000, np.float32), {"padding": "max_lenght"}, "`padding` is one of True, False, 'longest'"),
    ],
)
def test_bad_input_is_refused_with_the_reason(clips, kwargs, complaint):
    with pytest.raises(ValueError, match=complaint):
        MBTFeatureExtractor()(clips, **{"sampling_rate": SAMPLING_RATE, **kwargs})


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"frequency_scale": "bark"}, "'mel' or 'linear', not 'bark'"),
        ({"win_length": 600}, "at least `win_length` = 600"),
        ({"n_fft": 513}, "even"),
        ({"max_frequency": 9000.0}, "between 0 and 8000 Hz"),
        ({"min_frequency": 7900.0}, "between 0 and 8000 Hz"),
        ({"sampling_rate": 8000}, "between 0 and 4000 Hz"),
        ({"feature_size": 200}, "lower `feature_size` or raise `n_fft`"),
        ({"frequency_scale": "linear", "min_frequency": 0.0, "max_frequency": 8000.0}, "Set `feature_size` to 257"),
        ({"mean": 3.0}, "both `mean` and `std`"),
        ({"padding_side": "left"}, "'right'"),
        *(({"hop_length": value}, "`hop_length` must be a whole number") for value in (0, -5, 1.5, True, "160", None)),
        *(({"feature_size": value}, "`feature_size` must be a whole number") for value in (0, 10**8)),
        ({"win_length": 0}, "`win_length` must be a whole number"),
        ({"n_fft": 2**30}, "`n_fft` must be a whole number"),
        ({"sampling_rate": 0}, "`sampling_rate` must be a whole number"),
        ({"mean": 0.0, "std": 0.0}, "`std` must be above 0"),
        ({"mean": [0.0] * 64, "std": [1.0] * 63 + [0.0]}, "`std` must be above 0"),
        ({"mean": [0.0] * 3, "std": 1.0}, "one for each of 64 features"),
        *(({"mean": value, "std": 1.0}, "must be numbers") for value in (math.nan, "loud", [math.inf] * 64)),
        *(({"power_floor": value}, "must be numbers") for value in (0, math.nan, -1.0)),
        ({"max_frequency": math.nan}, "must be numbers"),
        ({"padding_value": math.nan}, "must be numbers"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(settings, complaint):
    with pytest.raises(ValueError, match=complaint):
        MBTFeatureExtractor(**settings)


def test_a_missing_sampling_rate_is_warned_of():
    with CaptureLogger(feature_extraction_mbt.logger) as captured:
        MBTFeatureExtractor()(some_speech(8000))
    assert "Pass `sampling_rate`" in captured.out


def test_views_of_arrays_and_foreign_byte_orders_are_read():
    extractor, waveform = MBTFeatureExtractor(), np.random.default_rng(0).standard_normal(1600).astype(np.float32)
    for same in (waveform[::-1][::-1], waveform.astype(">f4"), np.repeat(waveform, 2)[::2]):
        np.testing.assert_array_equal(extractor(same, sampling_rate=16000).input_features[0],
                                      extractor(waveform, sampling_rate=16000).input_features[0])  # fmt: skip
    with pytest.raises(ValueError, match="at least a window"):
        extractor(waveform, sampling_rate=16000, truncation=True, max_length=0)
