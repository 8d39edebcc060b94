"""What the scripts are made of: data order, schedules, label shares, linear heads, recipes, tables."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from PIL import Image
from sklearn.linear_model import LogisticRegression

import run_pretrain
from mbt_speech.arguments import PRESET_NAMES, FinetuneArguments, PretrainArguments
from mbt_speech.command_line import parse_arguments
from mbt_speech.data.label_fractions import select_label_fraction
from mbt_speech.data.step_sampler import StepSampler
from mbt_speech.experiments.demo import METHOD_NAMES, to_markdown
from mbt_speech.presets import PRESETS
from mbt_speech.probing.embeddings import cached_arrays
from mbt_speech.probing.linear_head import fit_linear_head
from mbt_speech.reports.pictures import draw_accuracies, draw_cross_correlations, draw_losses
from mbt_speech.training.optimization import create_optimizer, create_scheduler
from modeling_mbt import MBTForSequenceClassification

ACCELERATE_CONFIGS = sorted((Path(run_pretrain.__file__).parent / "recipes" / "accelerate").glob("*.yaml"))
RECIPES = sorted((Path(run_pretrain.__file__).parent / "recipes").glob("*.yaml"))


def steps_of(start_step=0, max_steps=9, batch_size=4, seed=0, **kwargs):
    return list(StepSampler(22, batch_size, seed=seed, start_step=start_step, max_steps=max_steps, **kwargs))


def test_an_epoch_reads_every_item_at_most_once_and_the_next_in_another_order():
    steps = steps_of(max_steps=10)
    first, second = ([item for step in part for item in step] for part in (steps[:5], steps[5:]))
    assert {epoch for epoch, _ in first} == {0}
    assert {epoch for epoch, _ in second} == {1}
    assert len(set(first)) == len(set(second)) == 20
    assert [index for _, index in first] != [index for _, index in second]


def test_the_order_of_a_resumed_run_is_the_rest_of_the_whole_run():
    assert steps_of(start_step=7) == steps_of()[7:]


def test_processes_share_each_step_of_one_process_with_the_same_global_batch():
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


def test_label_shares_are_stratified_nested_seeded_and_leave_no_class_out():
    labels = np.repeat([0, 1, 2], [100, 20, 3])
    shares = {fraction: select_label_fraction(labels, fraction, seed=4) for fraction in (0.01, 0.1, 0.5, 1.0)}
    assert np.bincount(labels[shares[0.1]]).tolist() == [10, 2, 1]
    assert np.bincount(labels[shares[0.01]]).tolist() == [1, 1, 1]
    assert len(shares[1.0]) == len(labels)
    for smaller, larger in ((0.01, 0.1), (0.1, 0.5), (0.5, 1.0)):
        assert set(shares[smaller]) < set(shares[larger])
    assert not np.array_equal(shares[0.1], select_label_fraction(labels, 0.1, seed=5))


@pytest.mark.parametrize("fraction", [0, -0.1, 1.5])
def test_a_share_outside_its_range_is_refused(fraction):
    with pytest.raises(ValueError, match="label_fraction"):
        select_label_fraction(np.zeros(4, int), fraction, 0)


@pytest.mark.parametrize("num_classes", [2, 4])
def test_the_linear_head_is_the_logistic_regression_that_validation_prefers(num_classes):
    generator = np.random.default_rng(0)
    labels = np.arange(240) % num_classes
    features = 5 + generator.normal(size=(num_classes, 10))[labels] + 2 * generator.standard_normal((240, 10))
    train, validation, test = slice(0, 80), slice(80, 160), slice(160, 240)
    head = fit_linear_head(features[train], labels[train], features[validation], labels[validation], num_classes)
    mean, scale = features[train].mean(0), features[train].std(0)
    reference = LogisticRegression(C=head.inverse_strength, max_iter=5000, tol=1e-8)
    reference.fit((features[train] - mean) / scale, labels[train])
    expected = reference.predict((features[test] - mean) / scale)
    assert (head.predict(features[test]) == expected).mean() > 0.97
    best = (head.predict(features[validation]) == labels[validation]).mean()
    for strength in (0.001, 0.01, 0.1):
        other = LogisticRegression(C=strength, max_iter=5000).fit((features[train] - mean) / scale, labels[train])
        assert best >= other.score((features[validation] - mean) / scale, labels[validation]) - 0.03


def test_a_class_without_a_training_clip_is_never_predicted_and_one_class_alone_is_refused():
    features, labels = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2 * 2
    head = fit_linear_head(features, labels, features, labels, 3)
    assert set(head.predict(100 * features)) == {0, 2}
    with pytest.raises(ValueError, match="two classes"):
        fit_linear_head(features, 0 * labels, features, labels, 3)


def test_biases_and_norms_do_not_decay_and_the_schedule_warms_up_then_falls_to_zero():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2, bias=False))
    optimizer = create_optimizer(model, 0.5, 0.1)
    decayed, plain = optimizer.param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert [tuple(p.shape) for p in decayed["params"]] == [(4, 3), (2, 4)]
    assert [tuple(p.shape) for p in plain["params"]] == [(4,), (4,), (4,)]
    scheduler, rates = create_scheduler(optimizer, 5, 100), []
    for _ in range(100):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert rates[0] == 0
    assert max(rates) == rates[5] == 0.5
    assert scheduler.get_last_lr()[0] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_names_existing_arguments_that_differ_from_the_defaults(recipe):
    values = yaml.safe_load(recipe.read_text())
    pretraining = "label_fraction" not in values
    arguments_class = PretrainArguments if pretraining else FinetuneArguments
    words = [str(recipe), *(() if "output_dir" in values else ("--output_dir", "x"))]
    args = parse_arguments(arguments_class, words if pretraining else [*words, "--model_name_or_path", "m"])
    defaults = {f.name: f.default for f in fields(arguments_class)}
    for name, value in values.items():
        assert getattr(args, name) == value
        assert value != defaults[name], f"{recipe.name}: {name} is the default"


def test_an_unknown_argument_in_a_recipe_is_refused_with_the_nearest_right_one(tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text("learning_rat: 1")
    with pytest.raises(SystemExit):
        parse_arguments(PretrainArguments, [str(tmp_path / "recipe.yaml")])
    assert "unknown argument learning_rat: did you mean learning_rate?" in capsys.readouterr().err


@pytest.mark.parametrize("path", ACCELERATE_CONFIGS, ids=lambda path: path.stem)
def test_accelerate_reads_every_configuration_without_a_warning(path):
    config = load_config_from_file(str(path))
    assert config.num_processes >= config.num_machines >= 1
    assert config.use_cpu == path.stem.startswith("cpu")


def test_what_help_names_is_what_there_is():
    assert sorted(PRESET_NAMES) == sorted(PRESETS)


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_a_layer_learns_slower_than_the_layer_above_it(decay):
    model = MBTForSequenceClassification(PRESETS["tiny"].config())
    optimizer = create_optimizer(model, 1e-2, 0.1, layerwise_lr_decay=decay)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    layers = [*model.mbt.encoder.layers, *model.mbt.encoder.frame_layers, model.classifier]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    for distance, layer in enumerate(reversed(layers)):
        for parameter in layer.parameters():
            assert rates[id(parameter)] == pytest.approx(1e-2 * decay**distance)


def test_lars_scales_weights_by_their_norms_and_leaves_biases_and_norms_to_plain_steps():
    model = torch.nn.Linear(3, 2)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = create_optimizer(model, 0.2, 1e-6, optim="lars")
    model(torch.ones(4, 3)).square().sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    optimizer.step()
    weight, gradient = before["weight"], gradients["weight"]
    trust = 1e-3 * weight.norm() / (gradient.norm() + 1e-6 * weight.norm())
    torch.testing.assert_close(model.weight.detach(), weight - 0.2 * trust * (gradient + 1e-6 * weight))
    torch.testing.assert_close(model.bias.detach(), before["bias"] - 0.0048 * gradients["bias"])


def test_representations_are_computed_once_for_each_key(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    calls = []

    def compute():
        calls.append(1)
        return {"frames": np.arange(6.0).reshape(2, 3), "counts": np.array([2])}

    for key in ({"model": 1}, {"model": 1}, {"model": 2}):
        arrays = cached_arrays(key, compute)
        assert arrays["frames"].tolist() == [[0, 1, 2], [3, 4, 5]]
        assert arrays["counts"].tolist() == [2]
    assert len(calls) == 2
    assert not list(tmp_path.rglob("*.partial"))


@pytest.fixture
def table():
    rows = [
        {"task": task, "method": method, "accuracy": 0.5 + 0.1 * seed, "chance": 0.25, "seed": seed}
        for task in ("speaker", "gender", "keyword")
        for method in METHOD_NAMES.values()
        for seed in (0, 1, 2)
    ]
    table = pd.DataFrame(rows)
    table["method"] = pd.Categorical(table["method"], list(METHOD_NAMES.values()), ordered=True)
    return table


def test_the_table_gives_mean_and_spread_of_every_method_and_task(table):
    lines = to_markdown(table).splitlines()
    assert lines[2] == "| chance | 25.0 | 25.0 | 25.0 |"
    assert lines[3:] == [f"| {name} | " + " | ".join(["60.0 ± 10.0"] * 3) + " |" for name in METHOD_NAMES.values()]


def test_pictures_are_drawn_from_what_was_measured(table, tmp_path):
    log = [
        {"step": step, "loss": 10 / step, "invariance_loss": 8 / step, "redundancy_loss": 9.0} for step in (1, 2, 3)
    ]
    draw_losses(tmp_path / "a.png", {"BT": log, "MBT": log}, "title")
    draw_cross_correlations(tmp_path / "b.png", {"before": np.eye(5), "after": np.eye(5), "third": np.eye(5)}, "title")
    draw_accuracies(tmp_path / "c.png", table, "title")
    for name in "abc":
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert min(picture.size) > 200
            assert len(set(np.asarray(picture.convert("L")).ravel())) > 10
