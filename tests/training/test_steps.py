"""A step of pre-training: its two views, its number, its gradient and its rates."""

import pytest
import torch
from accelerate import Accelerator

import run_pretrain
from feature_extraction import MBTAugmentation
from mbt_speech.arguments import PretrainArguments
from mbt_speech.presets import PRESETS
from mbt_speech.training.loop import TrainingRun, count_steps
from modeling_mbt import MBTForPreTraining

PRESET = PRESETS["tiny"]


def waveforms(count):
    return 0.1 * torch.randn(count, 8_000, generator=torch.Generator().manual_seed(1))


def views(step=0, seed=0):
    """Both views of four crops."""
    args = PretrainArguments(output_dir="x", train_dir="x", seed=seed)
    batches, extractor, augmentation = [{"waveforms": waveforms(4)}], PRESET.extractor(), PRESET.augmenter()
    (found,) = run_pretrain.distort(args, Accelerator(cpu=True), batches, extractor, augmentation, step)
    return found


def test_both_views_of_a_step_are_distorted_anew_and_follow_from_seed_and_step():
    view_a, view_b = views()
    assert all(torch.equal(*pair) for pair in zip((view_a, view_b), views(), strict=True))
    for other in (view_b, *views(step=1), *views(seed=1)):
        assert (view_a - other).abs().mean() > 0.05


def test_of_two_crops_each_becomes_a_view():
    crops, extractor = waveforms(8).split(4), PRESET.extractor()
    batch = dict(zip(("waveforms", "second_waveforms"), crops, strict=True))
    found = run_pretrain.make_views(Accelerator(cpu=True), batch, extractor, MBTAugmentation(), 0)
    for view, crop in zip(found, crops, strict=True):
        expected = extractor(crop, sampling_rate=extractor.sampling_rate, return_tensors="pt")["input_features"]
        torch.testing.assert_close(view, expected)


def test_a_step_is_clipped_and_has_the_rates_and_decays_of_the_arguments(tmp_path, fresh_accelerator):
    args = PretrainArguments(
        output_dir=str(tmp_path), train_dir="x", learning_rate=0.1, weight_decay=0.3, layerwise_lr_decay=0.5,
        warmup_steps=2, max_grad_norm=0.5,
    )  # fmt: skip
    model, seen = MBTForPreTraining(PRESET.config()), []
    run = TrainingRun(args, Accelerator(cpu=True), model, PRESET.extractor(), 20, "")

    def look(optimizer, *_):
        norm = torch.nn.utils.get_total_norm([one.grad for one in model.parameters() if one.grad is not None])
        seen.append((float(norm), max(group["lr"] for group in optimizer.param_groups)))

    run.state.optimizer.register_step_pre_hook(look)
    for _ in range(3):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        run.update({"loss": torch.tensor(1.0)})
    assert seen == [(pytest.approx(0.5, rel=1e-4), rate) for rate in (0.0, 0.05, 0.1)]
    groups = run.state.optimizer.param_groups
    assert {group["weight_decay"] for group in groups} == {0.3, 0.0}
    assert sorted({group["lr"] for group in groups})[-2:] == [0.05, 0.1]


def test_epochs_make_steps():
    args = PretrainArguments(output_dir="x", train_dir="x", num_train_epochs=2.5, per_device_train_batch_size=4)
    assert [count_steps(args, 41, processes) for processes in (1, 2)] == [25, 12]
    args.max_steps = 7
    assert count_steps(args, 41, 1) == 7
    args.max_steps, args.num_train_epochs = -1, 0
    with pytest.raises(ValueError, match="--num_train_epochs 0 trains nothing"):
        count_steps(args, 41, 1)
