"""How the processes of a run start: on the CPU, and with an accelerator, seeds and trackers."""

import atexit
import ctypes
import os
import signal
import sys
import tempfile
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import psutil
import torch
from accelerate import Accelerator
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from accelerate.tracking import get_available_trackers
from accelerate.utils import (
    DistributedType,
    GradientAccumulationPlugin,
    InitProcessGroupKwargs,
    LoggerType,
    ProjectConfiguration,
    set_seed,
)
from transformers.utils import logging

from mbt_speech.run_arguments import RunArguments

from .checkpoints import CheckpointError
from .memory import keep_freed_memory
from .output_folder import claim_output_dir

# What a launcher that starts several processes tells each of them.
RANKS = ("RANK", "LOCAL_RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
LAUNCHERS = (
    "accelerate launch", "accelerate_cli launch", "accelerate-launch", "accelerate.commands.launch",
    "accelerate/commands/launch.py",
)  # fmt: skip
PR_SET_PDEATHSIG = 1  # of Linux's prctl: the signal that a process gets when its parent ends
SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)

# The group of this run's processes, until the process ends. `end_training` gives it up, and a network in
# DistributedDataParallel that lives longer would be its last owner: it frees the group without letting go of Python's
# global lock, for which gloo's thread may be waiting, and both would wait for ever (torch 2.13).
KEPT_GROUPS = []
atexit.register(KEPT_GROUPS.clear)


def obey_launcher() -> None:
    """Does what `accelerate launch` was asked for and leaves out where it starts one process; else nothing.

    The process gets SIGTERM when the launcher ends, which passes no signal on. And with `--cpu`, accelerate leaves
    starting several processes to mpirun and otherwise starts a single one without a word, which would then train with
    another batch: this one becomes as many as were asked for.
    """
    words = _words_of_launcher()
    if words is None or any(name in os.environ for name in RANKS):
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if "MASTER_ADDR" not in os.environ or os.environ.get("ACCELERATE_USE_CPU", "").lower() != "true":
        return
    num_processes = _asked_for(words)
    if num_processes < 2:
        return
    print(f"accelerate started one process for {num_processes}: starting the others.", file=sys.stderr)
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_processes), *sys.argv]
    os.execv(sys.executable, [sys.executable, *words])


def _words_of_launcher() -> list[str] | None:
    """Returns what stands behind the launcher's name on the command line of the parent process, if it is one."""
    try:
        parent = psutil.Process().parent()
        words = parent.cmdline() if parent is not None else []
    except psutil.Error:  # it has just ended, or is somebody else's
        return None
    named = [number for number, two in enumerate(pairwise(["", *words]), 1) if " ".join(two).endswith(LAUNCHERS)]
    return words[named[0] :] if named else None


def _asked_for(words: list[str]) -> int:
    """Reads the number of processes off the launcher's command line and its config file."""
    given = [launch_command_parser().parse_args(words)]
    if given[0].config_file is not None or not given[0].cpu:  # with --cpu alone, accelerate reads no file
        given.append(load_config_from_file(given[0].config_file))
    num_processes, num_machines = (
        next((number for one in given if (number := getattr(one, name)) is not None), 1)
        for name in ("num_processes", "num_machines")
    )
    return num_processes if num_machines == 1 else 1


def create_accelerator(args: RunArguments, name: str, seed: int) -> Accelerator:
    """Creates the accelerator, seeds every random number generator and starts the trackers.

    transformers is told to report errors only: that a projector is left out or a classifier is new, at every loading,
    is what the scripts are for.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    check_tracker(args.report_to)
    try:
        Path(args.output_dir).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=args.output_dir):
            pass
    except OSError as error:
        raise CheckpointError(f"--output_dir {args.output_dir} cannot be written to: {error}.") from None
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # or else each of torchrun's processes takes itself for the only one
        mixed_precision=args.mixed_precision,
        dynamo_backend="inductor" if args.torch_compile else None,
        # Ours is exact; accelerate's own would divide losses on top of it.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        log_with=None if args.report_to == "none" else args.report_to,
        project_config=ProjectConfiguration(project_dir=args.output_dir, logging_dir=args.output_dir),
        # Of several processes, one downloads and indexes, which can take hours, while the others wait.
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=12))],
    )
    if torch.distributed.is_initialized():
        KEPT_GROUPS.append(torch.distributed.group.WORLD)
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    if accelerator.distributed_type in SHARDED:
        raise ValueError(
            "These networks fit on any one device, so that sharding them would only cost time: launch without FSDP or "
            "DeepSpeed, for example with recipes/accelerate/gpus.yaml."
        )
    if accelerator.is_main_process:
        claim_output_dir(args)
    set_seed(seed)
    if args.report_to != "none":
        accelerator.init_trackers(name)
    return accelerator


def check_tracker(report_to: str) -> None:
    """Checks that a tracker is installed: accelerate leaves one that is not out without a word.

    Raises:
        ImportError: It is not installed.
    """
    if report_to not in ("none", "all") and LoggerType(report_to) not in get_available_trackers():
        raise ImportError(f"--report_to {report_to} needs that package: pip install {report_to}.")
