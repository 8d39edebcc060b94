"""The command `mbt`."""

import sys
from argparse import Namespace
from collections.abc import Sequence

from mbt_speech.subcommands import Command, add_commands
from mbt_speech.user_errors import DEBUG, DEBUG_HELP, OneSentence, explain_user_errors

COMMANDS = {
    "embed": Command("mbt_speech.inference.embed", "write the representations of sound files to a table"),
    "predict": Command("mbt_speech.inference.predict", "classify sound files"),
    "verify": Command("mbt_speech.inference.verification", "say whether two recordings are of one speaker"),
    "show": Command(
        "mbt_speech.reports.views", "draw the features of a recording and the distorted views of it", "train"
    ),
    "export": Command("mbt_speech.inference.export", "write a checkpoint as ONNX", "export"),
    "prepare": Command("mbt_speech.corpora.prepare", "prepare a public data set for training, or build one"),
    "report": Command("mbt_speech.reports.report", "collect the results of all runs on one page", "train"),
    "ablation": Command(
        "mbt_speech.experiments.ablation", "pre-train and compare encoders over a grid of options", "train"
    ),
    "real": Command("mbt_speech.experiments.real_speech", "pre-train and compare encoders on real speech", "real"),
    "demo": Command("mbt_speech.experiments.demo", "pre-train and fine-tune on synthetic speech", "demo"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command; a mistake ends it with one sentence on stderr and exit code 2."""
    words = list(sys.argv[1:] if argv is None else argv)
    with explain_user_errors(words):
        args = parse_args(words)
        args.main(args)


def parse_args(words: Sequence[str]) -> Namespace:
    """Reads the command line; `main` of the result is the command's."""
    parser = OneSentence(
        prog="mbt",
        description="Use MBT models, prepare data for them, and compare them.",
        epilog="To train models, use run_pretrain.py and run_finetune.py.",
    )
    parser.add_argument(DEBUG, action="store_true", help=DEBUG_HELP)
    add_commands(parser, COMMANDS, "command")
    return parser.parse_args([word for word in words if word != DEBUG])


if __name__ == "__main__":
    main()
