"""The scripts' own commands, shown and run: what the demo and the ablations are made of."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from mbt_speech.stopping import stopping_put_off

STOP_SECONDS = 60.0  # for a step of training and its checkpoint


def pretrain(*words: str, output_dir: Path) -> None:
    """Pre-trains, from the last checkpoint if there is one.

    Raises:
        ValueError: It was told to stop before its end.
    """
    run("run_pretrain.py", *words, "--resume_from_checkpoint", "auto", "--output_dir", str(output_dir))
    if not _is_pretrained(output_dir):
        raise ValueError(f"Pre-training of {output_dir} was stopped: call the same command again to go on from there.")


def pretrain_once(*words: str, output_dir: Path) -> None:
    """Pre-trains unless that was done; errors as of `pretrain`."""
    if not _is_pretrained(output_dir):
        pretrain(*words, output_dir=output_dir)


def _is_pretrained(output_dir: Path) -> bool:
    return (output_dir / "README.md").is_file()  # the card is written last


def finetune(*words: str, output_dir: Path) -> None:
    """Fits classifiers, those that are left."""
    run("run_finetune.py", *words, "--output_dir", str(output_dir))


def run(*words: str) -> None:
    """Shows a command and runs it.

    Raises:
        ValueError: The scripts are not here.
        CalledProcessError: The command fails.
    """
    if not Path("run_pretrain.py").is_file():
        raise ValueError(
            "`mbt demo`, `mbt real` and `mbt ablation` run the scripts and recipes of a clone: call them in its "
            "folder."
        )
    shown = shlex.join(["python", *words])
    shown = shown.replace("python -m mbt_speech ", "mbt ")
    print(f"\n$ {shown}", flush=True)
    child = None
    try:
        with stopping_put_off():  # or else a child could be there that nobody knows of
            # Of a session of its own: Ctrl-C reaches this process alone, which passes it on once.
            child = subprocess.Popen([sys.executable, *words], stdin=subprocess.DEVNULL, start_new_session=True)
        exit_code = child.wait()
    except KeyboardInterrupt as stopped:
        if child is not None:
            _stop(child)
        stopped.args = (f"{stopped} Call the same command again to go on from there.",)
        raise
    if exit_code:
        raise subprocess.CalledProcessError(exit_code, shown)


def _stop(child: subprocess.Popen) -> None:
    """Ends a child and all that it has started, once it had time to save where it is."""
    try:
        child.terminate()
        child.wait(STOP_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
