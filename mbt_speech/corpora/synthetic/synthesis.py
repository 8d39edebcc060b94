"""The helper process of the built-in corpus: it drives espeak-ng through ctypes for one speaker and ends.

Run as `python -m mbt_speech.corpora.synthetic.synthesis`: a job (`SynthesisJob` as JSON) on standard input, the phones
of each utterance as JSON on standard output, the samples in a .npy file. One process per speaker, because espeak-ng
keeps state from one utterance to the next: with a fresh process, a fixed seed and a fixed order the result is the same
to the bit however many run at once. espeak-ng is GPL-3.0; nothing else of this project links to it.
"""

import ctypes
import json
import os
import sys
from dataclasses import asdict, dataclass

import numpy as np

from .degradation import SAMPLING_RATE, draw_room, record, resample

ESPEAK_SYNCHRONOUS = 2  # audio in the caller's own thread: twenty times quicker per word than the retrieval thread
ESPEAK_OPTIONS = 0x8001  # report phones by name; return an error code where the library would exit
ESPEAK_UTF8 = 1
ESPEAK_EVENT_END = 0
ESPEAK_EVENT_PHONEME = 7
ESPEAK_RATE, ESPEAK_VOLUME, ESPEAK_PITCH = 1, 2, 3
VOLUME = 25  # the default is 100, at which the strongest voices reach full scale
MAX_RATE_WPM = 450
MARGIN_SECONDS = 0.02  # kept around the first and the last phone

Phone = tuple[str, float, float]  # name, start and end in seconds


@dataclass(frozen=True)
class Utterance:
    """One thing to say, where, and how long it may take; without `clip_seconds` the recording is as long as needed."""

    text: str
    voice: str
    rate_wpm: int
    pitch: int
    max_seconds: float
    clip_seconds: float | None
    effort_db: float
    room_seed: tuple[int, ...]
    take_seed: tuple[int, ...]


@dataclass(frozen=True)
class SynthesisJob:
    """What one helper process does; without a crowd (a .npy file) it leaves the speech clean, at 16 kHz.

    `folder` holds an `espeak-ng-data` with the voices of the utterances.
    """

    library: str
    folder: str
    output: str
    crowd: str | None
    utterances: list[Utterance]

    def to_json(self) -> str:
        """Serializes for the helper's standard input."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "SynthesisJob":
        """Reads what `to_json` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "utterances": [Utterance(**utterance) for utterance in fields["utterances"]]})


@dataclass(frozen=True)
class SynthesisReport:
    """What the helper says beside the samples: per utterance their number and the phones."""

    num_samples: list[int]
    phones: list[list[Phone]]

    @classmethod
    def from_json(cls, text: str) -> "SynthesisReport":
        """Reads what the helper wrote on its standard output."""
        return cls(**json.loads(text))


def run_job(job: SynthesisJob) -> SynthesisReport:
    """Synthesizes a job's utterances, records them, saves the samples one after the other (int16, 16 kHz)."""
    os.chdir(job.folder)  # espeak-ng cuts the path of its data at 160 characters: a relative one is short
    espeak = Espeak(job.library, ".")
    crowd = None if job.crowd is None else np.load(job.crowd, mmap_mode="r")
    recordings, all_phones = [], []
    for utterance in job.utterances:
        rng = np.random.default_rng(utterance.take_seed)
        speech, phones = say_within(espeak, utterance)
        clip, phones = place(speech, phones, espeak.sampling_rate, utterance.clip_seconds, rng)
        num_samples = clip.size * SAMPLING_RATE // espeak.sampling_rate
        if crowd is None:
            recording = resample(clip, espeak.sampling_rate, num_samples)
        else:
            room = draw_room(np.random.default_rng(utterance.room_seed))
            recording = record(clip, espeak.sampling_rate, num_samples, room, crowd, utterance.effort_db, rng)
        recordings.append(recording)
        all_phones.append(phones)
    np.save(job.output, np.concatenate(recordings))
    return SynthesisReport([recording.size for recording in recordings], all_phones)


def say_within(espeak: "Espeak", utterance: Utterance) -> tuple[np.ndarray, list[Phone]]:
    """Speaks an utterance, faster where it would not fit into `max_seconds`."""
    rate_wpm = utterance.rate_wpm
    while True:
        samples, phones = espeak.say(utterance.text, utterance.voice, rate_wpm, utterance.pitch)
        seconds = phones[-1][2] - phones[0][1]
        if seconds <= utterance.max_seconds:
            return samples, phones
        assert rate_wpm < MAX_RATE_WPM, f"{utterance.text!r} cannot be said within {utterance.max_seconds} s."
        rate_wpm = int(rate_wpm * max(1.05, seconds / utterance.max_seconds)) + 1


def place(
    speech: np.ndarray, phones: list[Phone], rate: int, clip_seconds: float | None, rng: np.random.Generator
) -> tuple[np.ndarray, list[Phone]]:
    """Cuts the silence around the speech and puts it at a random place in a clip; the phones move along.

    Returns:
        (samples,) float32 in [-1, 1] and the phones in the clip's time.
    """
    start = max(0, round((phones[0][1] - MARGIN_SECONDS) * rate))
    speech = speech[start : round((phones[-1][2] + MARGIN_SECONDS) * rate)]
    if clip_seconds is None:
        before, after = (rng.uniform(0.1, 0.4, 2) * rate).astype(int)
    else:
        silence = round(clip_seconds * rate) - speech.size
        before = int(rng.integers(silence + 1))
        after = silence - before
    clip = np.pad(speech.astype(np.float32) / 32768, (before, after))
    shift_seconds = (before - start) / rate
    return clip, [(name, begin + shift_seconds, end + shift_seconds) for name, begin, end in phones]


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h, with the phone's name in place of the union."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("name", ctypes.c_char * 8),
    )


_SynthCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Event))


class Espeak:
    """espeak-ng with its audio and phone events collected in memory. One per process."""

    def __init__(self, library: str, folder: str):
        self._library = ctypes.CDLL(library)
        self._audio: list[bytes] = []
        self._phones: list[tuple[str, int]] = []
        self._callback = _SynthCallback(self._receive)  # kept here: ctypes callbacks die with their last reference
        self.sampling_rate = self._library.espeak_Initialize(ESPEAK_SYNCHRONOUS, 500, folder.encode(), ESPEAK_OPTIONS)
        if self.sampling_rate <= 0:
            raise RuntimeError(f"espeak-ng did not start with the data in {folder}: reinstall espeakng-loader.")
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        self._library.espeak_SetSynthCallback(self._callback)

    def say(self, text: str, voice: str, rate_wpm: int, pitch: int) -> tuple[np.ndarray, list[Phone]]:
        """Speaks at a pitch of 0-100 (the voice's own is 50).

        Returns:
            (samples,) int16 and the phones, pauses left out.
        """
        self._audio.clear()
        self._phones.clear()
        if self._library.espeak_SetVoiceByName(voice.encode()):
            raise RuntimeError(f"espeak-ng does not know the voice {voice}.")
        for parameter, value in ((ESPEAK_RATE, rate_wpm), (ESPEAK_PITCH, pitch), (ESPEAK_VOLUME, VOLUME)):
            self._library.espeak_SetParameter(parameter, value, 0)
        encoded = text.encode()
        self._library.espeak_Synth(encoded, len(encoded) + 1, 0, 1, 0, ESPEAK_UTF8, None, None)
        samples = np.frombuffer(b"".join(self._audio), np.int16)
        bounds = [sample / self.sampling_rate for _, sample in self._phones] + [samples.size / self.sampling_rate]
        phones = [
            (name.lstrip("',%="), start, end)
            for (name, _), start, end in zip(self._phones, bounds[:-1], bounds[1:], strict=True)
            if name and not name.startswith("_")
        ]
        return samples, phones

    def _receive(self, audio: int | None, num_samples: int, events) -> int:
        if audio and num_samples:
            self._audio.append(ctypes.string_at(audio, 2 * num_samples))
        index = 0
        while events[index].type != ESPEAK_EVENT_END:
            if events[index].type == ESPEAK_EVENT_PHONEME:
                self._phones.append((events[index].name.decode(), events[index].sample))
            index += 1
        return 0


if __name__ == "__main__":
    json.dump(asdict(run_job(SynthesisJob.from_json(sys.stdin.read()))), sys.stdout)
