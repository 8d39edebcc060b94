"""Several processes that compute together."""

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


def _run(rank: int, body: Callable[[int, dict], None], results: dict, port: int) -> None:
    store = torch.distributed.TCPStore("127.0.0.1", port, 2, is_master=False)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2, store=store)
    body(rank, results)
    if torch.distributed.is_initialized():  # not ended by the body
        torch.distributed.destroy_process_group()
