"""SIGINT (Ctrl-C), SIGTERM and SIGHUP end a command in one line, wherever it is, and what it started along with it."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """A signal that tells to stop; its text is a sentence."""

    def __init__(self, number: int):
        super().__init__(f"Stopped by {signal.Signals(number).name}.")
        self.number, self.exit_code = number, 128 + number  # as shells have it


class StoppedAfterSaving(SystemExit):
    """The end, with exit code 0, of a script that a signal told to stop, after it has saved all that it did."""

    def __init__(self, number: int):
        super().__init__(0)
        self.number = number


def stop_behind(error: BaseException) -> KeyboardInterrupt | None:
    """Returns the signal that an error tells of, if it does: also one that came while a compiled module was imported.

    Such modules make an ImportError of it.
    """
    if isinstance(error, StoppedAfterSaving):
        return Stopped(error.number)
    chain: BaseException | None = error
    while chain is not None and not isinstance(chain, KeyboardInterrupt):
        chain = chain.__cause__ or chain.__context__
    return chain


def stop_in_one_line() -> None:
    """Ends this process in one line for the rest of its life, also while modules are imported."""
    _set_handlers()
    sys.excepthook, sys.unraisablehook = _tell, _send_again


@contextmanager
def stops_in_one_line() -> Iterator[None]:
    """Ends the process with a line on stderr where a signal that tells to stop arrives within."""
    before, hook = {number: signal.getsignal(number) for number in SIGNALS}, sys.unraisablehook
    _set_handlers()
    sys.unraisablehook = _send_again
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if (found := stop_behind(error)) is None:
            raise
        stop = found if isinstance(found, Stopped) else Stopped(signal.SIGINT)
        print(stop, file=sys.stderr)
        sys.exit(stop.exit_code)
    finally:
        sys.unraisablehook = hook
        if _can_set():
            for number, handler in before.items():
                signal.signal(number, handler)


def _set_handlers() -> None:
    for number in SIGNALS if _can_set() else ():
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):  # not what nohup ignores
            signal.signal(number, _stop)


def _can_set() -> bool:
    return threading.current_thread() is threading.main_thread()


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)


def _tell(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if isinstance(error, KeyboardInterrupt):
        print(error if isinstance(error, Stopped) else Stopped(signal.SIGINT), file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


def _send_again(unraisable: "sys.UnraisableHookArgs") -> None:
    """Sends a signal again that came while Python was in a callback, out of which no exception gets."""
    if isinstance(unraisable.exc_value, Stopped):
        again = threading.Timer(0.01, os.kill, (os.getpid(), unraisable.exc_value.number))
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(unraisable)


def _restore() -> None:
    """Lets a process that was forked end as it would have."""
    for number in SIGNALS:
        if signal.getsignal(number) is _stop:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


os.register_at_fork(after_in_child=_restore)
