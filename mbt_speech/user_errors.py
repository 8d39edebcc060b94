"""What a user can cause, said in one sentence on stderr; a traceback is for what only a bug of ours can cause."""

import importlib
import os
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import NoReturn

DEBUG = "--debug"
DEBUG_HELP = "show the traceback of an error"
EXIT_CODE = 2
USER_ERRORS = (ValueError, OSError, ImportError, FloatingPointError, subprocess.CalledProcessError)


@contextmanager
def explain_user_errors(words: Sequence[str] | None = None) -> Iterator[None]:
    """Ends the process with exit code 2 and a sentence where a user's mistake would end it with a traceback.

    Args:
        words: The command line, by default the process's; with `--debug` in it, errors pass.
    """
    try:
        yield
    except USER_ERRORS as error:
        if DEBUG in (sys.argv if words is None else words):
            raise
        print(redact(as_sentence(error)), file=sys.stderr)
        sys.exit(EXIT_CODE)


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
    if isinstance(error, subprocess.CalledProcessError):
        return f"The command above ended with exit code {error.returncode}."
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}."
    return str(error)


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
