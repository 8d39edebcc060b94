"""Prepare a public data set for training, or build one: each set is a command of its own.

mbt prepare librispeech data/LibriSpeech --output_dir data/librispeech
mbt prepare synthetic --size small
"""

from argparse import ArgumentParser

from mbt_speech.subcommands import Command, add_commands

PUBLIC, SYNTHETIC = "mbt_speech.corpora.public_sets", "mbt_speech.corpora.synthetic.corpus"
SETS = {
    "crema_d": Command(PUBLIC, "CREMA-D: six emotions, speakers"),
    "debian_speech": Command(
        "mbt_speech.corpora.debian_speech", "real speech from Debian packages: pre-training and four tasks", "real"
    ),
    "five_leaders": Command(PUBLIC, "speeches of five political leaders: speakers"),
    "librispeech": Command(PUBLIC, "LibriSpeech: speakers, gender"),
    "ravdess": Command(PUBLIC, "RAVDESS: eight emotions, speakers, gender"),
    "speech_commands": Command(PUBLIC, "Speech Commands v2: 35 words, speakers"),
    "speech_commands_12": Command(PUBLIC, "Speech Commands v2: ten words, other words, silence"),
    "synthetic": Command(SYNTHETIC, "the built-in corpus of synthetic speech", "demo"),
    "timit": Command(PUBLIC, "TIMIT: 39 phones, speakers"),
    "voxceleb1": Command(PUBLIC, "VoxCeleb-1: speakers, gender"),
}


def add_arguments(parser: ArgumentParser) -> None:
    """Adds a command for each set."""
    add_commands(parser, SETS, "set")
