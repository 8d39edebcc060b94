"""Runs of the scripts of a few steps, and what they print while uploads wait a moment only."""

import contextlib
import io

import run_finetune
import run_pretrain
from mbt_speech.training import hub_uploads as uploads

TINY_RUN = ["--preset", "tiny", "--per_device_train_batch_size", "8", "--logging_steps", "1", "--warmup_steps", "0"]


@contextlib.contextmanager
def heard():
    """What is printed, where waits are short."""
    uploads.FIRST_WAIT_SECONDS, uploads.ATTEMPTS = 0.02, 3
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        yield text


def pretrain(output_dir, *words):
    with heard() as text:
        run_pretrain.main([*TINY_RUN, "--output_dir", str(output_dir), "--max_steps", "4", *map(str, words)])
    return text.getvalue()


def finetune(output_dir, *words):
    with heard() as text:
        run_finetune.main([*TINY_RUN, "--output_dir", str(output_dir), "--max_steps", "3", *map(str, words)])
    return text.getvalue()
