"""Four tasks on the recordings: which clips, under which label, in which split. Nothing is drawn at random.

Where clips must be chosen, the order is that of a hash of their names: the same on every machine.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .debian_recordings import Recording

SPLITS = ("train", "validation", "test")
# From the packages' documents, or by pitch; the voices of a split are in no other.
GENDER_VOICES = {
    "train": {
        "female": "armelle tux_be tux_el tux_es tux_ro_num",
        "male": "tux_da tux_de_num tux_el_num tux_en_GB tux_fr tux_lt tux_nn_num tux_ru",
    },
    "validation": {"female": "allison june", "male": "tux_bg tux_nb_num"},
    "test": {
        "female": "fil_cs_m tux_bg_num tux_ko_num tux_ro",
        "male": "fil_cs_v tux_ca tux_fr_num tux_nl tux_pt_num tux_zh_tw_num",
    },
}
SEVERAL_VOICES = ("tux_ca", "tux_fr")
"""Named like one speaker, but several people: of no use for telling speakers apart."""
NATO_VOICES = {
    ("allison", "en"): "train",
    ("allison", "es"): "train",
    ("armelle", "fr"): "validation",
    ("june", "fr"): "test",
}
WORD_TEST_VOICES = {"en": "tux_en_GB", "es": "tux_es_num", "fr": "armelle"}
WORD_VALIDATION_VOICES = ("tux_en_num", "tux_fr_num")
SPEAKER_CLIPS, MIN_SPEAKER_CLIPS, GENDER_CLIPS = 100, 30, 40
SPEAKER_SHARES = {"train": 0.5, "validation": 0.6, "test": 1.0}
"""Split -> share of a speaker's clips that it and the splits before it hold."""
MIN_TASK_SECONDS = 0.3
"""Of clips by which voices are judged."""


@dataclass(frozen=True)
class Clip:
    """A recording that was decoded."""

    recording: Recording
    file_name: str
    seconds: float


class Example(NamedTuple):
    """A clip of a task."""

    clip: Clip
    label: str
    split: str


def make_tasks(clips: Sequence[Clip]) -> dict[str, list[Example]]:
    """Returns the clips of each task: `speaker`, `gender`, `nato`, `words`."""
    by_speaker: dict[str, list[Clip]] = {}
    for clip in clips:
        if clip.seconds >= MIN_TASK_SECONDS:
            by_speaker.setdefault(clip.recording.speaker, []).append(clip)
    return {
        "speaker": list(_speakers(by_speaker)),
        "gender": list(_genders(by_speaker)),
        "nato": [
            Example(clip, clip.recording.word, NATO_VOICES[clip.recording.speaker, clip.recording.language])
            for clip in clips
            if clip.recording.kind == "phonetic"
        ],
        "words": list(_words(clips)),
    }


def make_pool(clips: Iterable[Clip], tasks: dict[str, list[Example]]) -> list[Example]:
    """Returns the clips to pre-train on: all that no task tests; the label is what is said."""
    tested = {example.clip.file_name for examples in tasks.values() for example in examples if example.split == "test"}
    return [Example(clip, clip.recording.word, "train") for clip in clips if clip.file_name not in tested]


def _speakers(by_speaker: dict[str, list[Clip]]) -> Iterable[Example]:
    """Voices with enough clips: half of them to learn from, a tenth to choose, the others to test."""
    for speaker, clips in sorted(by_speaker.items()):
        if speaker in SEVERAL_VOICES or len(clips) < MIN_SPEAKER_CLIPS:
            continue
        chosen = _choose(clips, SPEAKER_CLIPS, "speaker")
        for number, clip in enumerate(chosen):
            split = next(split for split, share in SPEAKER_SHARES.items() if number < share * len(chosen))
            yield Example(clip, speaker, split)


def _genders(by_speaker: dict[str, list[Clip]]) -> Iterable[Example]:
    for split, voices_of in GENDER_VOICES.items():
        for gender, voices in voices_of.items():
            for voice in voices.split():
                for clip in _choose(by_speaker.get(voice, []), GENDER_CLIPS, "gender"):
                    yield Example(clip, gender, split)


def _words(clips: Iterable[Clip]) -> Iterable[Example]:
    """Numbers and letters that both a test voice and another one say in a language; each is tested once."""
    said: dict[str, list[Example]] = {}
    for clip in clips:
        spoken = clip.recording
        if spoken.kind in ("digits", "letters") and spoken.language in WORD_TEST_VOICES:
            label = f"{spoken.language}_{spoken.kind}_{spoken.word}"
            split = "validation" if spoken.speaker in WORD_VALIDATION_VOICES else "train"
            split = "test" if spoken.speaker == WORD_TEST_VOICES[spoken.language] else split
            said.setdefault(label, []).append(Example(clip, label, split))
    for _, examples in sorted(said.items()):
        of_split = {split: [example for example in examples if example.split == split] for split in SPLITS}
        if of_split["train"] and of_split["test"]:
            yield from of_split["train"] + of_split["validation"] + of_split["test"][:1]


def _choose(clips: Iterable[Clip], number: int, task: str) -> list[Clip]:
    return sorted(clips, key=lambda clip: hashlib.sha256(f"{task} {clip.file_name}".encode()).digest())[:number]
