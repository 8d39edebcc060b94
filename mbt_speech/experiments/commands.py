"""The scripts' own commands, shown and run one after the other: what the demo and the ablations are made of.

They run in this process, because each new one would spend ten seconds of two CPU cores on its imports.
"""

import shlex
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from pathlib import Path

from mbt_speech.arguments import PretrainArguments
from mbt_speech.command_line import changed_arguments, parse_arguments
from mbt_speech.corpora.prepare import add_arguments
from mbt_speech.stopping import stop_behind
from mbt_speech.user_errors import require

GO_ON = "Call the same command again to go on from there."


def prepare(*words: str) -> None:
    """Prepares a data set."""
    run(("mbt", "prepare"), _prepare, words)


def pretrain(*words: str, output_dir: Path) -> None:
    """Pre-trains, from the last checkpoint if there is one."""
    words = (*words, "--resume_from_checkpoint", "auto", "--output_dir", str(output_dir))
    run(("python", "run_pretrain.py"), _pretrain, words)


def pretrain_once(*words: str, output_dir: Path) -> None:
    """Pre-trains unless that was done.

    Raises:
        ValueError: It was done with other arguments.
    """
    if not (output_dir / "README.md").is_file():  # the card is written last
        pretrain(*words, output_dir=output_dir)
        return
    args = parse_arguments(PretrainArguments, [*words, "--output_dir", str(output_dir)])
    if changed := changed_arguments(args, output_dir):
        raise ValueError(
            f"{output_dir} was trained with other arguments, and is now to have {', '.join(changed)}: delete it, or "
            "move it away."
        )


def finetune(*words: str, output_dir: Path) -> None:
    """Fits classifiers, those that are left."""
    run(("python", "run_finetune.py"), _finetune, (*words, "--output_dir", str(output_dir)))


def run(command: Sequence[str], main: Callable[[list[str]], None], words: Sequence[str]) -> None:
    """Shows a command with its words, and calls what it does with these.

    Raises:
        ValueError: The recipes are not here.
        KeyboardInterrupt: A signal told to stop.
    """
    if not Path("recipes").is_dir():
        raise ValueError(
            "`mbt demo`, `mbt real` and `mbt ablation` run the recipes of a clone: call them in its folder."
        )
    print(f"\n$ {shlex.join([*command, *words])}", flush=True)
    try:
        main(list(words))
    except BaseException as error:
        if (stopped := stop_behind(error)) is None:
            raise
        stopped.args = (f"{stopped} {GO_ON}",)
        raise stopped from None


def _prepare(words: list[str]) -> None:
    parser = ArgumentParser(prog="mbt prepare")
    add_arguments(parser)
    args = parser.parse_args(words)
    args.main(args)


def _pretrain(words: list[str]) -> None:
    _start_anew()
    require("run_pretrain", "train", "Pre-training").main(words)


def _finetune(words: list[str]) -> None:
    _start_anew()
    require("run_finetune", "train", "Fine-tuning").main(words)


def _start_anew() -> None:
    """Lets go of the accelerator that the command before used: this one may ask for another precision."""
    require("accelerate.state", "train", "Training").AcceleratorState._reset_state(reset_partial_state=True)
