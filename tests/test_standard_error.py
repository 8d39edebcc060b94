"""Standard error, silent for a while, and threads that have something to say meanwhile."""

import os
import threading

from mbt_speech.standard_error import silent_stderr, tell


def test_what_a_thread_tells_waits_until_standard_error_is_no_longer_silent(capfd):
    with silent_stderr():
        os.write(2, b"noise")
        thread = threading.Thread(target=tell, args=["news"])
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
    thread.join()
    assert capfd.readouterr().err == "news\n"


def test_a_forked_process_does_not_wait_for_a_thread_that_it_lacks():
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with silent_stderr():
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    if (child := os.fork()) == 0:
        tell("")
        os._exit(7)
    done.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
