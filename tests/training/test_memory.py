"""What a step frees is not asked of the kernel again."""

import multiprocessing
import resource
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

from mbt_speech.training.memory import keep_freed_memory

BLOCKS, BLOCK_BYTES = 5, 50_000_000


def page_faults_of_a_repeated_step(keep: bool) -> int:
    if keep:
        assert keep_freed_memory()
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        blocks = [np.ones(BLOCK_BYTES, np.uint8) for _ in range(BLOCKS)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_memory_that_is_freed_is_used_again_without_the_kernel():
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        given_back, kept = (pool.submit(page_faults_of_a_repeated_step, keep).result() for keep in (False, True))
    assert given_back > 100  # few where pages are huge
    assert kept < given_back / 10
