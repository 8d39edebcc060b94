"""Runs of the scripts of a few steps, and what they print while uploads wait a moment only."""

import contextlib
import io

from mbt_speech.training import hub_uploads as uploads
from tests.support.runs import finetune, pretrain


@contextlib.contextmanager
def heard():
    """What is printed, where waits are short."""
    uploads.FIRST_WAIT_SECONDS, uploads.ATTEMPTS = 0.02, 3
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        yield text


def heard_pretrain(output_dir, *words):
    with heard() as text:
        pretrain(output_dir, *words)
    return text.getvalue()


def heard_finetune(output_dir, model, *words):
    with heard() as text:
        finetune(output_dir, model, "--max_steps", "3", *words)
    return text.getvalue()
