"""The plan of the built-in corpus: who says what, how, where, and to which part of which split it belongs.

Every draw comes from a generator seeded by what it is for, never by what ran before.
"""

from dataclasses import dataclass

import numpy as np

from .synthesis import Utterance
from .text import KEYWORDS, sentence
from .voices import GENDERS, STYLES, Speaker, draw_speaker

CORPUS_SEED = 230903619
# Seeds are (corpus seed, of what, of which sort of speaker, numbers): no two things share a stream.
VOICE, ROOM, TAKE = 1, 2, 3
LABELLED, UNLABELLED, CROWD = 1, 2, 3
NAME_PREFIX = {LABELLED: "l", UNLABELLED: "u", CROWD: "c"}

CLIP_SECONDS = 1.0
MAX_WORD_SECONDS = 0.9
WORD_RATE = 0.8  # people say single words slower than sentences
SENTENCE_SECONDS = (2.0, 5.0)  # aimed at, by the number of words
MAX_SENTENCE_SECONDS = 5.2

# Dealt in this order: takes and rooms to the parts of `speaker_split`, the speakers of a gender to those of `split`.
PARTS = ("train", "train", "validation", "test")
ROOMS_PER_TURN = 10
UNLABELLED_ROOMS = 200
CROWD_SPEAKERS = 6
CROWD_SENTENCES = 8


@dataclass(frozen=True)
class CorpusSize:
    """How much of everything."""

    labelled_speakers: int
    keywords: tuple[str, ...]
    takes: int
    unlabelled_speakers: int
    sentences_per_speaker: int


SIZES = {
    "tiny": CorpusSize(8, ("bed", "five", "marvin", "no", "seven", "wow"), 4, 6, 10),
    "small": CorpusSize(40, KEYWORDS, 4, 64, 40),
    "base": CorpusSize(100, KEYWORDS, 8, 240, 60),
}


@dataclass(frozen=True)
class Session:
    """All that one speaker says, in order, with the labels and the file name of each utterance."""

    speaker: Speaker
    utterances: list[Utterance]
    labels: list[dict]
    names: list[str]


def plan_labelled(size: CorpusSize) -> list[Session]:
    """Plans the labeled split: every speaker says every keyword `takes` times."""
    return [_labelled_session(size, index) for index in range(size.labelled_speakers)]


def plan_unlabelled(size: CorpusSize) -> list[Session]:
    """Plans the unlabeled split: sentences by speakers of its own."""
    return [
        _sentence_session(UNLABELLED, index, size.sentences_per_speaker) for index in range(size.unlabelled_speakers)
    ]


def plan_crowd() -> list[Session]:
    """Plans the speech of which babble is made, by speakers of its own."""
    return [_sentence_session(CROWD, index, CROWD_SENTENCES) for index in range(CROWD_SPEAKERS)]


def _labelled_session(size: CorpusSize, index: int) -> Session:
    rng = np.random.default_rng((CORPUS_SEED, VOICE, LABELLED, index))
    speaker = _speaker(LABELLED, index, rng)
    speaker_part = PARTS[index // len(GENDERS) % len(PARTS)]
    utterances, labels, names = [], [], []
    for take in range(size.takes):
        turn = take % len(PARTS)
        styles = rng.permutation(np.resize(rng.permutation(list(STYLES)), len(size.keywords)))
        for keyword, style in zip(size.keywords, styles.tolist(), strict=True):
            room = int(rng.integers(ROOMS_PER_TURN)) * len(PARTS) + turn
            utterances.append(
                Utterance(
                    text=keyword + str(rng.choice([".", "?", "!"], p=[0.7, 0.15, 0.15])),
                    max_seconds=MAX_WORD_SECONDS,
                    clip_seconds=CLIP_SECONDS,
                    room_seed=(CORPUS_SEED, ROOM, LABELLED, room),
                    take_seed=(CORPUS_SEED, TAKE, LABELLED, index, len(utterances)),
                    **_manner(speaker, style, WORD_RATE, rng),
                )
            )
            names.append(f"{speaker.name}-{keyword}-{take}")
            labels.append(
                {
                    "speaker": speaker.name,
                    "gender": speaker.gender,
                    "keyword": keyword,
                    "style": style,
                    "take": take,
                    "room": room,
                    "split": speaker_part,
                    "speaker_split": PARTS[turn],
                }
            )
    return Session(speaker, utterances, labels, names)


def _sentence_session(kind: int, index: int, num_sentences: int) -> Session:
    rng = np.random.default_rng((CORPUS_SEED, VOICE, kind, index))
    speaker = _speaker(kind, index, rng)
    utterances = []
    for number in range(num_sentences):
        manner = _manner(speaker, str(rng.choice(list(STYLES))), 1.0, rng)
        num_words = round(rng.uniform(*SENTENCE_SECONDS) * manner["rate_wpm"] / 60)
        utterances.append(
            Utterance(
                text=sentence(num_words, rng),
                max_seconds=MAX_SENTENCE_SECONDS,
                clip_seconds=None,
                room_seed=(CORPUS_SEED, ROOM, UNLABELLED, int(rng.integers(UNLABELLED_ROOMS))),
                take_seed=(CORPUS_SEED, TAKE, kind, index, number),
                **manner,
            )
        )
    names = [f"sentence-{index * num_sentences + number:06d}" for number in range(num_sentences)]
    return Session(speaker, utterances, [{"utterance_id": name} for name in names], names)


def _speaker(kind: int, index: int, rng: np.random.Generator) -> Speaker:
    return draw_speaker(f"{NAME_PREFIX[kind]}{index:03d}", GENDERS[index % len(GENDERS)], rng)


def _manner(speaker: Speaker, style: str, rate: float, rng: np.random.Generator) -> dict:
    """Draws how this speaker speaks in this style, give or take what differs between two takes of one person."""
    rate_wpm = speaker.rate_wpm * STYLES[style].rate * rate * 2 ** rng.normal(0, 0.12)
    return {
        "voice": speaker.voice_name(style),
        "rate_wpm": int(np.clip(rate_wpm, 80, 400)),
        "pitch": int(np.clip(round(rng.normal(50, 5)), 20, 80)),
        "effort_db": STYLES[style].effort_db,
    }
