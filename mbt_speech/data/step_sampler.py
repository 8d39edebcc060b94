"""The order of the data: which items each process reads at which step."""

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Sampler


class StepSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) for the optimizer steps from `start_step` up to `max_steps`, so many for each step.

    The order follows from (seed, epoch) alone: a run that stops and starts again reads what it would have read, and
    the items of a step are the same however its batch is shared between processes and micro-batches. The items left
    over at the end of an epoch sit it out; the next epoch draws anew.

    Args:
        num_items: Items of the data set.
        batch_size: Items of a micro-batch.
        seed: Seed of the order.
        start_step: First step to give.
        max_steps: End of the steps.
        micro_batches: Batches per process and step.
        num_processes: Processes that share each step.
        process_index: This one.

    Raises:
        ValueError: There are fewer items than one step takes.
    """

    def __init__(
        self,
        num_items: int,
        batch_size: int,
        *,
        seed: int,
        start_step: int,
        max_steps: int,
        micro_batches: int = 1,
        num_processes: int = 1,
        process_index: int = 0,
    ):
        self.num_items, self.batch_size, self.seed = num_items, batch_size, seed
        self.start_step, self.max_steps = start_step, max_steps
        self.micro_batches, self.num_processes, self.process_index = micro_batches, num_processes, process_index
        self.steps_per_epoch = steps_per_epoch(num_items, batch_size * micro_batches * num_processes)

    def __len__(self) -> int:
        return max(0, self.max_steps - self.start_step) * self.micro_batches

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        last_epoch, order = -1, torch.empty(0)
        for step in range(self.start_step, self.max_steps):
            epoch, step_of_epoch = divmod(step, self.steps_per_epoch)
            if epoch != last_epoch:
                generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch))
                last_epoch, order = epoch, torch.randperm(self.num_items, generator=generator)
            batches = order.split(self.batch_size)
            first = (step_of_epoch * self.num_processes + self.process_index) * self.micro_batches
            for batch in batches[first : first + self.micro_batches]:
                yield [(epoch, index) for index in batch.tolist()]


def steps_per_epoch(num_items: int, global_batch_size: int) -> int:
    """Returns the number of whole batches in one pass over the data."""
    if num_items < global_batch_size:
        raise ValueError(
            f"There are {num_items} clips to learn from, fewer than one batch of {global_batch_size}: lower "
            "--per_device_train_batch_size or --gradient_accumulation_steps, start fewer processes, or give more."
        )
    return num_items // global_batch_size


def derive_seed(*numbers: int) -> int:
    """Mixes numbers (a seed, an epoch, a step, ...) into one seed: other numbers, an unrelated seed."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
