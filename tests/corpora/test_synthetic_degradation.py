"""Rooms, microphones and noise of the synthetic corpus."""

import numpy as np
import pytest

from mbt_speech.corpora.synthetic import degradation


def flat_room(**changes) -> degradation.Room:
    flat = {
        "reverberation_seconds": 0.3,
        "direct_to_reverberant_db": 200.0,
        "first_reflection_seconds": 0.005,
        "microphone_hz": np.array([50.0, 8000.0]),
        "microphone_db": np.zeros(2),
        "noise_slope": 1.0,
    }
    return degradation.Room(**{**flat, **changes})


def tone(rate: int, seconds: float) -> np.ndarray:
    times = np.arange(int(rate * seconds)) / rate
    return (np.sin(2 * np.pi * 1000 * times) * np.hanning(times.size) * 0.1).astype(np.float32)


def record_tone(room: degradation.Room, seed: int = 0, effort_db: float = 0.0) -> np.ndarray:
    crowd = np.random.default_rng(1).integers(-3000, 3000, (4, 100_000)).astype(np.int16)
    rng = np.random.default_rng(seed)
    return degradation.record(tone(22_050, 1.0), 22_050, 16_000, room, crowd, effort_db, rng) / 32_768


def test_resampling_keeps_a_tone():
    resampled = degradation.resample(tone(22_050, 1.0), 22_050, 16_000) / 32_768
    np.testing.assert_allclose(resampled, tone(16_000, 1.0) / tone(16_000, 1.0).max() * 0.5, atol=2e-3)


def test_a_dry_quiet_room_with_a_flat_microphone_changes_only_the_level(monkeypatch):
    monkeypatch.setattr(degradation, "SNR_DB", (150.0, 150.0))
    monkeypatch.setattr(degradation, "LEVEL_DBFS", (-20.0, -20.0))
    recorded = record_tone(flat_room())
    assert 10 * np.log10(np.mean(recorded**2)) == pytest.approx(-20, abs=0.01)
    expected = tone(16_000, 1.0) / np.sqrt(np.mean(tone(16_000, 1.0) ** 2)) * 0.1
    np.testing.assert_allclose(recorded, expected, atol=1e-3)


@pytest.mark.parametrize("snr_db", [3.0, 15.0])
@pytest.mark.parametrize("seed", range(4))  # both sorts of noise are among them
def test_the_signal_to_noise_ratio_is_the_one_drawn(monkeypatch, snr_db, seed):
    monkeypatch.setattr(degradation, "SNR_DB", (snr_db, snr_db))
    recorded, clean = record_tone(flat_room(), seed), tone(16_000, 1.0).astype(float)
    voice = clean * (recorded @ clean) / (clean @ clean)
    measured_db = 10 * np.log10(np.mean(voice**2) / np.mean((recorded - voice) ** 2))
    assert measured_db == pytest.approx(snr_db, abs=1.0)


def test_who_speaks_louder_is_recorded_louder(monkeypatch):
    monkeypatch.setattr(degradation, "LEVEL_DBFS", (-30.0, -30.0))
    levels_db = [10 * np.log10(np.mean(record_tone(flat_room(), 0, effort_db) ** 2)) for effort_db in (0, 6)]
    assert levels_db[1] - levels_db[0] == pytest.approx(6, abs=0.05)


@pytest.mark.parametrize("snr_db", [-60.0, 60.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_microphone_that_cuts_the_highs_cuts_them_from_voice_and_noise(monkeypatch, snr_db, seed):
    monkeypatch.setattr(degradation, "SNR_DB", (snr_db, snr_db))
    rng = np.random.default_rng(seed)
    voice = rng.standard_normal(22_050, dtype=np.float32)
    crowd = rng.integers(-3000, 3000, (4, 100_000)).astype(np.int16)
    room = flat_room(
        microphone_hz=np.array([50.0, 1000.0, 4000.0, 8000.0]),
        microphone_db=np.array([0.0, 0.0, -40.0, -40.0]),
        noise_slope=0.0,
    )
    recorded = degradation.record(voice, 22_050, 16_000, room, crowd, 0.0, rng)
    power = np.abs(np.fft.rfft(recorded)) ** 2
    cut_db = 10 * np.log10(power[200:900].mean() / power[5000:7000].mean())
    assert cut_db == pytest.approx(40, abs=1.5)


@pytest.mark.parametrize("reverberation_seconds", [0.2, 0.4])
def test_reverberation_falls_by_60_db_in_its_time(reverberation_seconds):
    room = flat_room(reverberation_seconds=reverberation_seconds, direct_to_reverberant_db=6.0)
    responses = [degradation.room_impulse_response(room, np.random.default_rng(seed)) for seed in range(100)]
    energy = np.mean(np.square(responses), axis=0, dtype=float)
    assert energy[0] == 1
    assert 10 * np.log10(1 / energy[1:].sum()) == pytest.approx(6, abs=1)
    remaining_db = 10 * np.log10(np.cumsum(energy[::-1])[::-1])  # Schroeder's backward integration
    start, end = int(0.1 * 16_000), int(0.25 * 16_000)
    slope_db_per_second = (remaining_db[end] - remaining_db[start]) / 0.15
    assert -60 / slope_db_per_second == pytest.approx(reverberation_seconds, rel=0.15)


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_noise_has_its_color(slope):
    log_hz = np.log(np.arange(50, 8000)).astype(np.float32)
    spectra = [degradation.colored_noise(slope, log_hz, np.random.default_rng(seed)) for seed in range(50)]
    log_power = np.log(np.mean(np.abs(spectra) ** 2, axis=0))
    assert np.polyfit(log_hz, log_power, 1)[0] == pytest.approx(-slope, abs=0.05)


def test_a_loud_clip_is_turned_down_rather_than_clipped():
    spiky = np.zeros(16_000, np.float32)
    spiky[::4000] = 1
    assert np.abs(degradation.to_level(spiky, -10.0)).max() == round(0.98 * 32_767)
