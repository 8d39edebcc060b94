"""Standard error: silent while a library writes noise to it, and shared with threads that have something to say."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm.auto import tqdm

_in_use = threading.RLock()


def _renew_lock() -> None:
    global _in_use
    _in_use = threading.RLock()


# Another thread may hold it while this process is forked, and does not exist in the child to let go of it.
os.register_at_fork(after_in_child=_renew_lock)


def tell(words: str) -> None:
    """Writes a line above the progress bar, once standard error is not silent."""
    with _in_use:
        tqdm.write(words, file=sys.stderr)


@contextmanager
def silent_stderr() -> Iterator[None]:
    """Sends file descriptor 2 to nowhere."""
    with _in_use:
        try:
            stderr = os.dup(2)
        except OSError:  # closed, as in some services
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            os.close(nowhere)
