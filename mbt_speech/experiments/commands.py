"""The scripts' own commands, shown and run: what the demo and the ablations are made of."""

import os
import shlex
import subprocess
import sys
from pathlib import Path


def pretrain(*words: str, output_dir: Path) -> None:
    """Pre-train through accelerate, whose processes have one CPU thread if they are not given more."""
    machine = ("--num_processes", "1", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no")
    threads = ("--num_cpu_threads_per_process", str(os.cpu_count() or 1))
    launch = ("-m", "accelerate.commands.launch", *machine, *threads)
    run(*launch, "run_pretrain.py", *words, "--output_dir", str(output_dir))


def pretrain_once(*words: str, output_dir: Path) -> None:
    """Pre-trains, from the last checkpoint if there is one, unless that was done."""
    if not (output_dir / "README.md").is_file():  # the card is written last
        pretrain(*words, "--resume_from_checkpoint", "auto", output_dir=output_dir)


def finetune(*words: str, output_dir: Path) -> None:
    """Fine-tune in one process, without a launcher."""
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
    for program, module in {"accelerate launch": "accelerate.commands.launch", "mbt": "mbt_speech"}.items():
        shown = shown.replace(f"python -m {module} ", f"{program} ")
    print(f"\n$ {shown}", flush=True)
    subprocess.run([sys.executable, *words], check=True)
