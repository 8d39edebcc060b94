"""Memory that a step frees stays with the process, for the next step."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGEST_BLOCK_BYTES = 1 << 30


def keep_freed_memory() -> bool:
    """Asks glibc not to return freed memory to the kernel; returns whether it was heard.

    A step on a CPU allocates and frees hundreds of megabytes of activations. By default they are mapped anew, or the
    heap is cut where they were, and the kernel hands out and zeroes every page again, step by step.

    Without glibc (macOS, Windows, musl) nothing happens.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    # Both: each of them alone ends glibc's own adaptation to what is freed, and the other stays small.
    return all(mallopt(option, LARGEST_BLOCK_BYTES) for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD))
