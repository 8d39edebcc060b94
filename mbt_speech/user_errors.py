"""What a user can cause, said in one sentence on stderr; a traceback is for what only a bug of ours can cause."""

import importlib
import json
import os
import re
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from .stopping import stops_in_one_line

DEBUG = "--debug"
DEBUG_HELP = "show the traceback of an error"
EXIT_CODE = 2
HUB_NAME = r"([A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*"
LOCAL_FOLDERS = ("runs",)
"""Where the scripts' examples write to: what is named so and is not there was never trained, or elsewhere."""
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
"""In torch's messages, of a GPU and of a CPU."""
USER_ERRORS = (ValueError, OSError, ImportError, FloatingPointError)
OF_WORKER = re.compile(r"Caught \w+ in DataLoader worker process \d+\.")
"""How torch begins the message of an error of a worker: the worker's traceback follows, and its message is last."""


@contextmanager
def explain_user_errors(words: Sequence[str] | None = None) -> Iterator[None]:
    """Ends the process with exit code 2 and a sentence where a user's mistake would end it with a traceback.

    Signals that tell to stop end it in a line too, with 128 and their number.

    Args:
        words: The command line, by default the process's; with `--debug` in it, errors pass.
    """
    try:
        with stops_in_one_line():
            yield
    except Exception as error:
        if not _is_users(error) or DEBUG in (sys.argv if words is None else words):
            raise
        print(redact(as_sentence(error)), file=sys.stderr)
        sys.exit(EXIT_CODE)


def _is_users(error: Exception) -> bool:
    """Returns whether a user can cause an error; configs of models are checked when they are opened."""
    bases = {base.__name__ for base in type(error).__mro__}  # by name: the Hub's client takes its time to import
    return isinstance(error, USER_ERRORS) or "StrictDataclassError" in bases or _is_of_memory(error)


def _is_of_memory(error: BaseException) -> bool:
    is_torchs = isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)
    return is_torchs or isinstance(error, MemoryError)


class OneSentence(ArgumentParser):
    """A parser that says what is wrong with a command line, and not also all that would be right."""

    def error(self, message: str) -> NoReturn:
        """Ends the process."""
        self.exit(EXIT_CODE, f"{redact(message)}{'' if message.endswith('.') else f' (see {self.prog} --help).'}\n")


def redact(text: str, token: str | None = None) -> str:
    """Takes tokens for the Hub out of what is shown: this one and the process's own, also as Python writes them."""
    hub = sys.modules.get("huggingface_hub")
    for secret in (token, os.environ.get("HF_TOKEN"), None if hub is None else hub.get_token()):
        for form in (secret, repr(secret)[1:-1], *secret.split()) if secret else ():
            text = text.replace(form, "***") if form.strip() else text
    return text


def as_sentence(error: BaseException) -> str:
    """Returns what an error says, without codes and types."""
    if _is_of_memory(error):
        return (
            "There is not enough memory: lower the batch size (of the scripts --per_device_train_batch_size, with "
            "more --gradient_accumulation_steps; of `mbt` --batch_size)."
        )
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}."
    if type(error).__name__.startswith("StrictDataclass") and error.__cause__ is not None:
        return as_sentence(error.__cause__)  # without the name of the check that a config has not passed
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if OF_WORKER.match(lines[0]):
        return lines[-1].partition(": ")[2] or lines[-1]
    # transformers and the Hub's client follow the fault with paragraphs of advice.
    return lines[0] if isinstance(error, OSError) else " ".join(line.strip() for line in lines)


def check_model_name(name: str | Path) -> None:
    """Refuses what is no checkpoint's folder and looks like none on the Hub, before the Hub is asked for minutes.

    Raises:
        ValueError: The folder does not exist or holds no model, or the name is not of the form owner/name.
    """
    path = Path(name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ValueError(f"The folder {name} holds no model: it has no config.json.")
        for file in (path / "config.json", path / "preprocessor_config.json"):
            if file.is_file() and not _is_json_object(file):
                raise ValueError(f"{file} is damaged: it holds no JSON object.")
        return
    if path.exists():
        raise ValueError(f"{name} is a file: name the folder of a model.")
    if looks_local(name) or "/" not in str(name):
        raise ValueError(f"There is no model folder {name}: name one, or a model on the Hub as owner/name.")


def looks_local(name: str | Path) -> bool:
    """Returns whether a name that is no folder here was meant as one: without the Hub's form, or below a folder."""
    owner, *rest = str(name).split("/")
    return not re.fullmatch(HUB_NAME, str(name)) or owner in LOCAL_FOLDERS or (len(rest) > 0 and Path(owner).is_dir())


def _is_json_object(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_text(encoding="utf-8")), dict)
    except (ValueError, RecursionError):
        return False


def require(module: str, extra: str | None, purpose: str) -> ModuleType:
    """Imports a module that a plain installation may lack.

    Args:
        module: Its full name.
        extra: The extra that brings the module, or what it imports; None for what is always there.
        purpose: What needs it: the subject of the error's sentence.

    Raises:
        ImportError: It is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if extra is None:
            raise
        raise ImportError(missing(purpose, error.name or module, extra)) from error


def missing(purpose: str, module: str, extra: str) -> str:
    """Returns the sentence that says how to install what is missing."""
    return f'{purpose} needs {module}, which is not installed: pip install "mbt-speech[{extra}]".'
