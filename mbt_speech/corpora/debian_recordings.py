"""What the sound files of the packages hold: whose voice, in which language, saying what; and their decoding.

Axes: T samples.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from feature_extraction.speech import BadAudioError, to_waveform
from mbt_speech.user_errors import require

SAMPLING_RATE = 16_000
ASTERISK, TUXPAINT = Path("usr/share/asterisk/sounds"), Path("usr/share/tuxpaint/stamps")
FILLETS = Path("usr/share/games/fillets-ng/sound")
# Package -> language and speaker, where it holds one voice.
ASTERISK_VOICES = {
    "asterisk-core-sounds-en-g722": ("en", "allison"),
    "asterisk-core-sounds-es-g722": ("es", "allison"),
    "asterisk-core-sounds-fr-g722": ("fr", "june"),
    "asterisk-prompt-fr-armelle": ("fr", "armelle"),
}
PACKAGES = (*ASTERISK_VOICES, "tuxpaint-stamps-default", "fillets-ng-data-cs")
SOUND_SUFFIXES = (".ogg", ".wav")
RAW_SUFFIXES = (".g722", ".gsm")
"""What libsndfile does not read: without a header."""
NO_SPEECH = re.compile(r"beep|ascending|descending|conf(bridge)?-(join|leave)$")
ASTERISK_KINDS = {"digits": r".+", "letters": r"[a-z]", "phonetic": r"[a-z]_p"}
# tuxpaint's numbers are said by the voice of the language's words in these, by somebody else in the others.
SAME_VOICE = {"ca": "tux_ca", "be": "tux_be", "lt": "tux_lt", "en_GB": "tux_en_GB"}
SILENCE_DECIBELS, FRAME_SAMPLES, MARGIN_FRAMES = -40.0, 160, 8
MIN_SECONDS, MAX_SECONDS = 0.15, 20.0
MIN_PEAK, PEAK = 0.004, 0.7


@dataclass(frozen=True)
class Recording:
    """A sound file of a package."""

    path: Path
    key: str
    """The package and the path in it: the same on every machine."""
    speaker: str
    language: str
    kind: str
    """`digits`, `letters`, `phonetic` (the letter as a spelling word), `words`, `dialogs` or `prompts`."""
    word: str
    """What is said: for prompts and dialogs a name."""


def list_recordings(folder: Path) -> list[Recording]:
    """Lists the speech of unpacked packages, sorted by path.

    Args:
        folder: Holds a folder for each package, called like it.
    """
    readers = {"tuxpaint-stamps-default": (TUXPAINT, _read_tuxpaint), "fillets-ng-data-cs": (FILLETS, _read_fillets)}
    recordings = []
    for package in PACKAGES:
        root, read = readers.get(package, (ASTERISK, _read_asterisk))
        for path in _sounds(folder / package / root):
            described = read(path.relative_to(folder / package / root), package)
            if described is not None:
                key = path.relative_to(folder).as_posix()
                recordings.append(Recording(path, key, *described))
    return recordings


def read_clip(path: Path) -> np.ndarray:
    """Decodes a recording to 16 kHz, without its mean and the silence at its ends, at one peak.

    Returns:
        (T,) float32 in [-0.7, 0.7].

    Raises:
        BadAudioError: It cannot be read, is silent, or is shorter than 0.15 s or longer than 20 s without silence.
        ImportError: It is g722 or gsm, and PyAV is not installed.
    """
    audio = _decode_raw(path) if path.suffix.lower() in RAW_SUFFIXES else path
    waveform = to_waveform(audio, SAMPLING_RATE, name=str(path))
    waveform = trim(waveform - waveform.mean())
    seconds, peak = len(waveform) / SAMPLING_RATE, np.abs(waveform).max(initial=0.0)
    if peak < MIN_PEAK:
        raise BadAudioError(str(path), "is silent.")
    if not MIN_SECONDS <= seconds <= MAX_SECONDS:
        raise BadAudioError(str(path), f"holds {seconds:.2f} s of sound, not {MIN_SECONDS} to {MAX_SECONDS:g} s.")
    return waveform / peak * PEAK


def trim(waveform: np.ndarray) -> np.ndarray:
    """Cuts silence off both ends: frames of 10 ms that are 40 dB below the loudest one; 80 ms of it stay. (T,)."""
    frames = waveform[: len(waveform) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    power = np.square(frames).mean(axis=1)
    loud = np.flatnonzero(power > power.max(initial=0.0) * 10 ** (SILENCE_DECIBELS / 10))
    if not len(loud):
        return waveform[:0]
    return waveform[max(0, loud[0] - MARGIN_FRAMES) * FRAME_SAMPLES : (loud[-1] + 1 + MARGIN_FRAMES) * FRAME_SAMPLES]


def _decode_raw(path: Path) -> dict[str, Any]:
    av: Any = require("av", "real", "Decoding g722 and gsm")
    try:
        with av.open(str(path)) as container:
            blocks = [frame.to_ndarray() for frame in container.decode(audio=0)]  # (1, T) int16 each
            rate = container.streams.audio[0].rate
    except av.error.FFmpegError as error:
        raise BadAudioError(str(path), f"cannot be decoded: {error}") from error
    if not blocks:
        raise BadAudioError(str(path), "is empty.")
    return {"array": np.concatenate(blocks, axis=1)[0], "sampling_rate": rate}


def _sounds(folder: Path) -> Iterator[Path]:
    suffixes = SOUND_SUFFIXES + RAW_SUFFIXES
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in suffixes and path.is_file() and not path.is_symlink():
            yield path


def _read_asterisk(path: Path, package: str) -> tuple[str, str, str, str] | None:
    language, speaker = ASTERISK_VOICES[package]
    if "silence" in path.parts or NO_SPEECH.match(path.stem):
        return None
    kind = path.parent.name
    if not re.fullmatch(ASTERISK_KINDS.get(kind, ""), path.stem):
        return speaker, language, "prompts", path.stem
    return speaker, language, kind, path.stem.removesuffix("_p")


def _read_tuxpaint(path: Path, package: str) -> tuple[str, str, str, str] | None:
    folder = path.parent.as_posix()
    if match := re.fullmatch(r"(.+)_desc_([a-z]{2})", path.stem):
        return f"tux_{match[2]}", match[2], "words", match[1].lower()
    if folder == "symbols/math" and (match := re.fullmatch(r"(\d)(?:_([a-zA-Z_]+))?", path.stem)):
        locale = match[2] or "en"
        return SAME_VOICE.get(locale, f"tux_{locale}_num"), locale.split("_")[0], "digits", match[1]
    if "/alphabets/" in folder and (match := re.fullmatch(r"([a-z])_(filled|outline)_en_GB", path.stem)):
        return "tux_en_GB", "en", "letters", match[1]
    return None


def _read_fillets(path: Path, package: str) -> tuple[str, str, str, str] | None:
    match = re.search(r"-(m|v)-", path.stem)  # the small and the big fish
    return (f"fil_cs_{match[1]}", "cs", "dialogs", path.stem) if match else None
