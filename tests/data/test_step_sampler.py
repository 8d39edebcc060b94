"""The order in which training reads its items."""

import pytest

from mbt_speech.data.step_sampler import StepSampler


def steps_of(start_step=0, max_steps=9, batch_size=4, seed=0, **kwargs):
    return list(StepSampler(22, batch_size, seed=seed, start_step=start_step, max_steps=max_steps, **kwargs))


def test_an_epoch_reads_every_item_at_most_once_each_in_its_own_order():
    steps = steps_of(max_steps=10)
    first, second = ([item for step in part for item in step] for part in (steps[:5], steps[5:]))
    assert {epoch for epoch, _ in first} == {0}
    assert {epoch for epoch, _ in second} == {1}
    assert len(set(first)) == len(set(second)) == 20
    assert [index for _, index in first] != [index for _, index in second]


def test_the_order_of_a_resumed_run_is_the_rest_of_the_whole_run():
    assert steps_of(start_step=7) == steps_of()[7:]


def test_processes_share_each_step_of_one_process():
    shares = [steps_of(batch_size=2, num_processes=2, process_index=index) for index in range(2)]
    assert [a + b for a, b in zip(*shares, strict=True)] == steps_of()


def test_micro_batches_share_each_step_of_one_batch():
    shares = [steps_of(batch_size=2, micro_batches=2)[first::2] for first in range(2)]
    assert [a + b for a, b in zip(*shares, strict=True)] == steps_of()
    both = [steps_of(batch_size=1, micro_batches=2, num_processes=2, process_index=index) for index in range(2)]
    assert [a + b for a, b in zip(both[0][::2], both[0][1::2], strict=True)] == steps_of(
        batch_size=2, num_processes=2, process_index=0
    )
    assert len(StepSampler(22, 2, seed=0, start_step=1, max_steps=4, micro_batches=2)) == 6


def test_another_seed_is_another_order_and_too_few_items_are_refused():
    assert steps_of(seed=1) != steps_of()
    with pytest.raises(ValueError, match="per_device_train_batch_size"):
        steps_of(batch_size=23)
