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


def finetune(*words: str, output_dir: Path) -> None:
    """Fine-tune in one process, without a launcher."""
    run("run_finetune.py", *words, "--output_dir", str(output_dir))


def run(*words: str) -> None:
    """Show a command and run it; its failure ends this one."""
    shown = shlex.join(["python", *words]).replace("python -m accelerate.commands.launch", "accelerate launch")
    print(f"\n$ {shown}", flush=True)
    subprocess.run([sys.executable, *words], check=True)
