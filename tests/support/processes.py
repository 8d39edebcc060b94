"""Several processes that compute together."""

import os
from collections.abc import Callable

import torch
from torch.multiprocessing.spawn import spawn


def run_in_two_processes(body: Callable[[int, dict], None]) -> dict:
    """Calls `body(rank, results)` in two processes of one group; returns what they put into `results`."""
    store = torch.distributed.TCPStore("127.0.0.1", 0, 2, is_master=True, wait_for_workers=False)
    with torch.multiprocessing.get_context("spawn").Manager() as manager:
        results = manager.dict()
        spawn(_run, args=(body, results, store.port), nprocs=2)
        return dict(results)


def tell_accelerate(rank: int) -> None:
    """Sets what a launcher sets, so that an `Accelerator` finds the group of two processes."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}


def _run(rank: int, body: Callable[[int, dict], None], results: dict, port: int) -> None:
    store = torch.distributed.TCPStore("127.0.0.1", port, 2, is_master=False)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2, store=store)
    body(rank, results)
    if torch.distributed.is_initialized():  # not ended by the body
        torch.distributed.destroy_process_group()
