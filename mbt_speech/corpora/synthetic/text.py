"""What is said in the built-in corpus: the 35 words of Speech Commands, and sentences from a small grammar.

The sentences are made of everyday words, most of the 35 among them, as in anybody's speech.
"""

from collections.abc import Sequence

import numpy as np

VOCABULARY = {
    kind: entries.split(", ")
    for kind, entries in {
        "keyword": "backward, bed, bird, cat, dog, down, eight, five, follow, forward, four, go, happy, house, "
        "learn, left, marvin, nine, no, off, on, one, right, seven, sheila, six, stop, three, tree, "
        "two, up, visual, wow, yes, zero",
        "name": "Marvin, Sheila, Anna, Peter, Joanna, Hugo, Ruth, Oscar, Vera, George, Yasmin, Leo, Chloe, "
        "Thomas, Judith",
        "noun": "bird, cat, dog, house, tree, bed, garden, river, teacher, window, kitchen, bottle, journey, "
        "village, engine, picture, doctor, shadow, orchard, bridge, measure, treasure, church, song, "
        "voyage, letter, mother, brother, shoe, mouth, boy, coin, cloud, train, station, violin, "
        "judge, youth, world, ocean, basket, hammer, farmer, horse, field, question, answer, evening, "
        "morning, machine, paper, guide, valley, beach, market, island, fire, power, hour",
        "adjective": "happy, small, large, quiet, yellow, blue, heavy, early, strange, visual, gentle, rough, "
        "warm, cold, bright, usual, young, old, thin, round, clever, tired, honest, empty, careful, "
        "sharp, smooth, foreign, royal, easy, huge, pure, loyal",
        "verb": "found, saw, carried, followed, washed, measured, joined, watched, bought, enjoyed, heard, "
        "painted, chose, shook, needed, loved, called, pushed, opened, touched, left, learned about, "
        "brought, stopped, moved, asked about, talked about, thought of, looked at, ran to",
        "place": "near, behind, under, beside, on, off, over, above, along, through, in front of, far from, "
        "inside, toward",
        "adverb": "yesterday, very early, right away, once again, on the left, on the right, two days ago, up "
        "and down, forward and backward, with great pleasure, for eight years, without a word, in the "
        "usual way, at half past five, after seven hours, before the thunder, quite often, upstairs, "
        "at zero degrees, down by the water",
        "number": "two, three, four, five, six, seven, eight, nine, ten, eleven, twelve, thirteen, twenty, forty",
        "article": "the, the, this, my, her, our, every, one",
        "interjection": "Yes, No, Wow, Oh, Well, Stop, Go",
        "link": "and, but, while, because, until, so, although",
    }.items()
}

# The words of Speech Commands v2 (Warden, arXiv 1804.03209).
KEYWORDS = tuple(VOCABULARY["keyword"])


def sentence(num_words: int, rng: np.random.Generator) -> str:
    """Draws a sentence of about `num_words` words, from one to a few clauses."""
    words = f"{_draw('interjection', rng)}, {_clause(rng)}" if rng.random() < 0.15 else _clause(rng)
    while (missing := num_words - len(words.split())) > 1:
        words += f" {_draw('adverb', rng)}" if missing < 5 else f" {_draw('link', rng)} {_clause(rng)}"
    return words + _pick("..?!", rng)


def _clause(rng: np.random.Generator) -> str:
    clause = f"{_noun_phrase(rng)} {_draw('verb', rng)} {_noun_phrase(rng)}"
    return f"{clause} {_draw('place', rng)} {_noun_phrase(rng)}" if rng.random() < 0.4 else clause


def _noun_phrase(rng: np.random.Generator) -> str:
    kind = rng.random()
    if kind < 0.2:
        return _draw("name", rng)
    if kind < 0.4:
        return f"{_draw('number', rng)} {_draw('adjective', rng)} {_draw('noun', rng)}s"
    adjective = f"{_draw('adjective', rng)} " if rng.random() < 0.5 else ""
    return f"{_draw('article', rng)} {adjective}{_draw('noun', rng)}"


def _draw(kind: str, rng: np.random.Generator) -> str:
    return _pick(VOCABULARY[kind], rng)


def _pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
