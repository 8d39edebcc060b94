"""`accelerate launch --cpu --num_processes N` with N processes."""

import os
import sys
from pathlib import Path

import psutil

# What a launcher that starts several processes tells each of them.
RANKS = ("RANK", "LOCAL_RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
LAUNCHERS = ("launch", "launch.py", "accelerate-launch", "accelerate.commands.launch")


def start_cpu_processes() -> None:
    """Become as many processes as `accelerate launch` was asked for, where it started one alone.

    With `--cpu`, accelerate leaves starting the processes to mpirun and otherwise starts a single one without a word,
    which would then train with another batch. Everywhere else this returns at once.
    """
    if "MASTER_ADDR" not in os.environ or os.environ.get("ACCELERATE_USE_CPU", "").lower() != "true":
        return
    if any(name in os.environ for name in RANKS):
        return
    num_processes = _asked_for()
    if num_processes < 2:
        return
    print(f"accelerate started one process for {num_processes}: starting the others.", file=sys.stderr)
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_processes), *sys.argv]
    os.execv(sys.executable, [sys.executable, *words])


def _asked_for() -> int:
    """Read the number of processes off the launcher's command line, as the launcher does; 1 without a launcher."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    parent = psutil.Process().parent()
    words = parent.cmdline() if parent is not None else []
    launchers = [i for i, word in enumerate(words) if Path(word).name in LAUNCHERS]
    if not launchers:
        return 1
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(words[launchers[0] + 1 :]))
    return args.num_processes if args.num_machines == 1 else 1
