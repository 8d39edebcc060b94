"""Micro-batches against the whole batch: losses and gradients, in one process and in two, in every precision.

Axes: N pairs, B pairs of a micro-batch, T frames, M mel bins.
"""

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from mbt_speech.training.accumulation import backpropagate_mean, backpropagate_views
from mbt_speech.training.loop import synchronize_batch_norm
from modeling_mbt import MBTConfig, MBTForPreTraining
from modeling_mbt.named_objectives_mbt import OBJECTIVES
from tests.support.processes import run_in_two_processes

NUM_PAIRS, NUM_FRAMES, NUM_MELS = 24, 12, 16
# W-MSE whitens 8 dimensions only; SIGReg draws directions unless it is given a seed; the clips have 6 frames, of which
# CPC predicts 4 and 5 ahead.
SETTINGS = {
    "wmse": {"projector_sizes": [20, 8]},
    "sigreg": {"objective_kwargs": {"seed": 3}},
    "cpc": {"context_size": 8, "prediction_steps": 2},
}


pytestmark = pytest.mark.usefixtures("fresh_accelerator")


def build(objective="bt", *, batch_norm=False, dtype=torch.float64, **settings) -> MBTForPreTraining:
    torch.manual_seed(0)
    settings = {"projector_sizes": [20, 40], **SETTINGS.get(objective, {}), **settings}
    model = MBTForPreTraining(
        MBTConfig(
            num_mel_bins=NUM_MELS,
            hidden_sizes=[4, 6],
            depths=[1, 1],
            time_strides=[2, 1],
            frequency_strides=[2, 2],
            frame_hidden_sizes=[10],
            objective=objective,
            **settings,
        )
    )
    if not batch_norm:
        for name, module in list(model.named_modules()):
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                model.set_submodule(name, nn.Identity())
    return model.to(dtype).train()


def make_views(dtype=torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    view_a, noise = torch.randn(
        2, NUM_PAIRS, NUM_FRAMES, NUM_MELS, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    return view_a.to(dtype), (view_a + noise).to(dtype)


def micro_batches(sizes, views):
    return list(zip(*(view.split(sizes) for view in views), strict=True))


def losses_and_gradients(accelerator, network, batches):
    output = backpropagate_views(accelerator, network, batches)
    losses = torch.stack([output.loss, output.invariance_loss, output.redundancy_loss]).detach()
    return losses, {name: p.grad.clone() for name, p in network.named_parameters()}


def compare(sizes, model, *, tolerance, dtype=torch.float64, reference=None):
    accelerator = Accelerator(cpu=True)
    whole = reference or losses_and_gradients(accelerator, model, micro_batches([NUM_PAIRS], make_views(dtype)))
    model.zero_grad()
    losses, gradients = losses_and_gradients(accelerator, model, micro_batches(sizes, make_views(dtype)))
    torch.testing.assert_close(losses, whole[0], rtol=tolerance, atol=tolerance)
    scale = max(float(gradient.abs().max()) for gradient in whole[1].values())
    assert scale > 0
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, whole[1][name], rtol=0, atol=tolerance * scale, msg=name)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("sizes", [[12, 12], [6] * 4, [1] * 24, [10, 13, 1]])
def test_micro_batches_give_loss_and_gradient_of_the_whole_batch(objective, sizes):
    compare(sizes, build(objective), tolerance=1e-9)


@pytest.mark.parametrize("kind", ["layer", "whitening", "l2"])
def test_so_they_do_under_every_normalization_that_looks_along_the_batch(kind):
    compare([6] * 4, build("bt", latent_normalization=kind), tolerance=1e-9)


def test_so_they_do_in_float32():
    # Sums in another order differ by 4e-7; the statistics of each micro-batch alone would by more than 1.
    compare([6] * 4, build("mbt", dtype=torch.float32), dtype=torch.float32, tolerance=1e-4)


def one_graph(model, sizes, views):
    """Keeps the graphs of all micro-batches: what two passes must equal, whatever happens inside of a micro-batch."""
    outputs = [model(*pair, return_loss=False) for pair in micro_batches(sizes, views)]
    objective = model.compare(*(torch.cat([o[name] for o in outputs]) for name in ("projections", "projections_b")))
    objective.loss.backward()
    return torch.stack(objective).detach(), {name: p.grad.clone() for name, p in model.named_parameters()}


def test_batch_norm_is_of_each_micro_batch_and_sees_every_clip_once():
    model, sizes = build(batch_norm=True), [8, 8, 8]
    initial = {name: buffer.clone() for name, buffer in model.named_buffers()}
    reference = one_graph(model, sizes, make_views())
    expected = {name: buffer.clone() for name, buffer in model.named_buffers()}
    for name, buffer in model.named_buffers():
        buffer.copy_(initial[name])
    compare(sizes, model, tolerance=1e-9, reference=reference)
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(buffer, expected[name], rtol=0, atol=1e-12)


def test_both_passes_drop_the_same_units_and_the_next_step_others():
    model, sizes = build(hidden_dropout_prob=0.4), [8, 8, 8]
    torch.manual_seed(5)
    reference = one_graph(model, sizes, make_views())
    model.zero_grad()
    torch.manual_seed(5)
    compare(sizes, model, tolerance=1e-9, reference=reference)
    model.zero_grad()
    again = losses_and_gradients(Accelerator(cpu=True), model, micro_batches(sizes, make_views()))
    assert not torch.isclose(again[0][0], reference[0][0])


def test_bfloat16_autocast_gives_what_one_graph_under_it_gives():
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    model, sizes = build(dtype=torch.float32), [12, 12]
    with torch.autocast("cpu", torch.bfloat16):
        reference = one_graph(model, sizes, make_views(torch.float32))
    model.zero_grad()
    losses, gradients = losses_and_gradients(
        accelerator, accelerator.prepare(model), micro_batches(sizes, make_views(torch.float32))
    )
    torch.testing.assert_close(losses, reference[0], rtol=1e-4, atol=0)
    for name, gradient in gradients.items():  # autocast adds the gradients of one graph up in bfloat16
        rounding = torch.finfo(torch.bfloat16).eps * float(gradient.abs().max())
        torch.testing.assert_close(gradient, reference[1][name], rtol=0, atol=4 * rounding)
    full = build(dtype=torch.float32)(*make_views(torch.float32)).loss.detach()
    assert abs(float(losses[0] - full)) > 1e-6 * float(full)  # the network really ran in bfloat16


def test_a_mean_over_clips_is_the_mean_over_batches_of_any_size():
    accelerator, layer = Accelerator(cpu=True), nn.Linear(3, 1)
    clips = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))

    def forward(batch):
        return {"loss": layer(batch[0]).square().mean(), "size": torch.tensor(float(len(batch[0])))}

    whole = backpropagate_mean(accelerator, layer, [(clips,)], 12, forward)
    gradient = layer.weight.grad.clone()
    layer.zero_grad()
    parts = backpropagate_mean(accelerator, layer, ((part,) for part in clips.split(9)), 12, forward)
    torch.testing.assert_close(parts["loss"], whole["loss"])
    torch.testing.assert_close(layer.weight.grad, gradient)
    assert float(parts["size"]) == (9 * 9 + 3 * 3) / 12  # a mean over clips, not over batches


def run_process(rank, results):
    """Runs in two processes, each with two micro-batches of other sizes than its neighbor's."""
    accelerator = Accelerator(cpu=True)
    views = [view.split([14, 10])[rank] for view in make_views()]
    for objective in OBJECTIVES:
        network = nn.parallel.DistributedDataParallel(build(objective))
        sizes = ([9, 5], [4, 6])[rank]
        losses, gradients = losses_and_gradients(accelerator, network, micro_batches(sizes, views))
        results[rank, objective] = losses, {name.removeprefix("module."): g for name, g in gradients.items()}


@pytest.mark.slow
def test_two_processes_with_micro_batches_equal_one_with_the_whole_batch():
    results = run_in_two_processes(run_process)
    for objective in OBJECTIVES:
        model = build(objective)
        losses, gradients = losses_and_gradients(
            Accelerator(cpu=True), model, micro_batches([NUM_PAIRS], make_views())
        )
        scale = max(float(gradient.abs().max()) for gradient in gradients.values())
        for rank in range(2):
            torch.testing.assert_close(results[rank, objective][0], losses, rtol=1e-9, atol=1e-9)
            for name, gradient in results[rank, objective][1].items():
                torch.testing.assert_close(gradient, gradients[name], rtol=0, atol=1e-9 * scale, msg=objective + name)


def test_batch_norm_is_synchronized_on_several_gpus_only():
    plain = build(batch_norm=True)
    names = list(plain.state_dict())
    for device, processes in (("cpu", 2), ("cuda", 1)):
        synchronize_batch_norm(plain, torch.device(device), processes)
        assert not any(isinstance(module, nn.SyncBatchNorm) for module in plain.modules())
    parameters = dict(plain.named_parameters())
    synchronize_batch_norm(plain, torch.device("cuda"), 2)
    kinds = [type(module) for module in plain.modules() if isinstance(module, nn.modules.batchnorm._NormBase)]
    assert kinds
    assert set(kinds) == {nn.SyncBatchNorm}
    assert list(plain.state_dict()) == names
    assert all(parameter is parameters[name] for name, parameter in plain.named_parameters())
