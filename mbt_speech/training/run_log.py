"""What a run tells while it runs: progress bar, log file, tracker."""

import json
import logging
import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

logger = logging.getLogger(__name__)

LOG_NAME = "train_log.jsonl"
# What trackers number the first step of the next training after: they are the same for all trainings of a run.
_TRACKED: WeakKeyDictionary[Accelerator, int] = WeakKeyDictionary()


class RunLog:
    """Progress bar with loss, rate and time left; `train_log.jsonl`; accelerate's trackers. Main process only.

    Trackers are told of several trainings of a run one after the other: steps go on from those of the training before,
    and the names of values begin with the folder of the training, if it is below that of the run.

    Args:
        accelerator: Knows which process this is, and the trackers.
        output_dir: Folder of `train_log.jsonl`.
        description: Words in front of the bar.
        max_steps: Steps of the whole run.
        start_step: Steps done by the run that this one resumes.
        is_same_run: Whether that run's log is here; its later lines are dropped.
        logging_steps: Steps between two lines.
        clips_per_step: Clips over all processes, for the rate.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        output_dir: Path,
        description: str,
        max_steps: int,
        *,
        start_step: int,
        is_same_run: bool,
        logging_steps: int,
        clips_per_step: int,
    ):
        self.accelerator, self.path = accelerator, output_dir / LOG_NAME
        self.max_steps, self.logging_steps, self.clips_per_step = max_steps, logging_steps, clips_per_step
        self.description, self.last_step, self.last_time = description, start_step, time.perf_counter()
        if accelerator.is_main_process:
            kept = [line for line in read_log(output_dir) if line["step"] <= start_step] if is_same_run else []
            write_lines(self.path, kept)
        # A file or a pipe gets a plain line for each logged step instead of a bar.
        self.is_plain = accelerator.is_main_process and not sys.stderr.isatty()
        folder = Path(os.path.relpath(output_dir, accelerator.project_dir)).as_posix()
        self.tracked_from, self.tracked_in = _TRACKED.get(accelerator, 0), "" if folder == "." else f"{folder}/"
        self.bar = tqdm(
            total=max_steps,
            initial=start_step,
            desc=description,
            unit="step",
            disable=self.is_plain or not accelerator.is_main_process,
            mininterval=0.5,
            maxinterval=30,
        )

    def step(self, step: int, values: dict) -> None:
        """Logs one finished step; `values` maps names to 0-d tensors or numbers, averaged over processes."""
        self.bar.update()
        if not is_logged(step, self.logging_steps, self.max_steps):
            return
        device = self.accelerator.device
        tensors = {name: torch.as_tensor(value, device=device).detach().float() for name, value in values.items()}
        values = {name: float(self.accelerator.reduce(tensor, "mean")) for name, tensor in tensors.items()}  # pyright: ignore[reportArgumentType]
        now = time.perf_counter()
        rate = (step - self.last_step) * self.clips_per_step / (now - self.last_time)
        self.last_step, self.last_time = step, now
        self.bar.set_postfix_str(f"loss {values['loss']:.4g}, {rate:.0f} clips/s")
        if self.is_plain:
            left = round((self.max_steps - step) * self.clips_per_step / rate)
            words = f"step {step}/{self.max_steps}, loss {values['loss']:.4g}, {rate:.0f} clips/s, {left} s left"
            print(f"{self.description}: {words}", file=sys.stderr, flush=True)
        self._write(step, values, "train", {"clips_per_second": round(rate, 1)})

    def evaluation(self, step: int, values: dict[str, float]) -> None:
        """Logs a measurement at a step."""
        self._write(step, values, "eval", {})

    def _write(self, step: int, values: dict[str, float], group: str, extra: dict[str, float]) -> None:
        tracked = {f"{self.tracked_in}{group}/{name.removeprefix('eval_')}": value for name, value in values.items()}
        self.accelerator.log(tracked, step=self.tracked_from + step)
        if self.accelerator.is_main_process:
            append_line(self.path, {"step": step, **values, **extra})

    def close(self) -> None:
        """Ends the bar, and this training for the trackers."""
        self.bar.close()
        _TRACKED[self.accelerator] = self.tracked_from + self.max_steps


def is_logged(step: int, logging_steps: int, max_steps: int) -> bool:
    """Returns whether a finished step gets a line: every `logging_steps`, and the last one."""
    return step % logging_steps == 0 or step == max_steps


def read_log(output_dir: Path) -> list[dict]:
    """Reads the lines of `train_log.jsonl`, oldest first; none if there is no log."""
    return read_lines(Path(output_dir) / LOG_NAME)


def last_step(log: Sequence[dict]) -> dict:
    """Returns the line of the last training step in a log, which may end with an evaluation; {} if there is none."""
    return next((line for line in reversed(log) if "loss" in line), {})


def read_lines(path: Path) -> list[dict]:
    """Reads a file of JSON objects, one a line; none if it is not there.

    A damaged line, as a process that died leaves it, is left out with a warning.
    """
    lines = []
    for number, text in enumerate(path.read_bytes().split(b"\n") if path.is_file() else (), 1):
        if not text.strip():
            continue
        try:
            lines.append(dict(json.loads(text)))
        except (ValueError, TypeError, RecursionError):
            logger.warning("Line %d of %s is no line of JSON and is left out.", number, path)
    return lines


def write_lines(path: Path, lines: Iterable[dict]) -> None:
    """Replaces a file of JSON objects, one a line, as a whole."""
    unfinished = path.with_name(f".{path.name}.partial")
    unfinished.write_bytes(b"".join(json.dumps(values).encode() + b"\n" for values in lines))
    unfinished.replace(path)


def append_line(path: Path, values: dict) -> None:
    """Adds a JSON object to a file of them, on a line of its own whatever stands before it."""
    with path.open("a+b") as file:
        if file.seek(0, os.SEEK_END) and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n":
            file.write(b"\n")
        file.write(json.dumps(values).encode() + b"\n")
