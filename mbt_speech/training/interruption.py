"""A run that is told to stop finishes its step first."""

import signal
import threading
from types import FrameType


class StopSignals:
    """Notes SIGTERM and SIGINT while it is entered, instead of dying of them; the same one again kills as usual.

    After Ctrl-C, a process of a launcher that ends at once gets SIGINT first and then SIGTERM.
    """

    def __init__(self):
        self.received: signal.Signals | None = None

    def __enter__(self) -> "StopSignals":
        self._handlers = {}
        if threading.current_thread() is threading.main_thread():  # signals reach no other
            self._handlers = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        signal.signal(number, self._handlers[self.received])
