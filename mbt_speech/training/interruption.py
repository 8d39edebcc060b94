"""A run that is told to stop finishes its step first."""

import signal
import threading
import time
from types import FrameType

from mbt_speech.stopping import SIGNALS

ONE_STOP_SECONDS = 2.0


class StopSignals:
    """Notes SIGTERM, SIGINT and SIGHUP while it is entered, instead of dying of them; one seconds later kills.

    What is ignored stays ignored. Several in a row are one: after Ctrl-C, a process of a launcher gets SIGINT and then
    SIGTERM, and the kernel sends the latter for every thread of the launcher that ends.
    """

    def __init__(self):
        self.received: signal.Signals | None = None

    def __enter__(self) -> "StopSignals":
        self._handlers = {}
        if threading.current_thread() is threading.main_thread():  # signals reach no other
            heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._handlers = {number: signal.signal(number, self._note) for number in heard}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received, self._first = signal.Signals(number), time.monotonic()
        elif time.monotonic() - self._first > ONE_STOP_SECONDS:
            self.__exit__()
            signal.raise_signal(number)
