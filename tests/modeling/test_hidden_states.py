"""Hidden states of the layers, and gradient checkpointing.

Axes: B clips, T frames, M mel bins.
"""

import copy
import pickle

import pytest
import torch
from transformers import Trainer, TrainingArguments

from modeling_mbt import MBTConfig, MBTForPreTraining, MBTForSequenceClassification, MBTModel
from tests.support.models import SMALL_BOTTLENECK, SMALL_MAX_POOL, TINY, stir

SETTINGS = {"plain": TINY, "bottleneck": SMALL_BOTTLENECK, "max_pool": SMALL_MAX_POOL}
EVERY_ENCODER = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
SHAPES = {  # of 40 frames: of each stage, of each linear layer but the last, of the last hidden state
    "plain": [(20, 4 * 8), (20, 8 * 4), (20, 12)],
    "bottleneck": [(10, 8 * 9), (5, 16 * 5), (5, 16)],
    "max_pool": [(20, 4 * 8), (10, 6 * 4), (10, 12), (10, 24 + 10)],
}


def clips(settings, count=3, frames=40):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(count, frames, settings["num_mel_bins"], generator=generator)
    mask = (torch.arange(frames) < torch.tensor([[40], [29], [12]])).long()
    return features, mask


@pytest.mark.parametrize("name", SETTINGS)
def test_every_stage_and_linear_layer_has_its_hidden_state_and_padding_is_zero(name):
    model = stir(MBTModel(MBTConfig(**SETTINGS[name])))
    features, mask = clips(SETTINGS[name])
    output = model(features, mask, output_hidden_states=True)
    assert isinstance(output.hidden_states, tuple)
    assert [tuple(hidden.shape[1:]) for hidden in output.hidden_states] == SHAPES[name]
    assert output.hidden_states[-1] is output.last_hidden_state
    alone = model(features[1:2, :29], output_hidden_states=True)
    for hidden, own in zip(output.hidden_states, alone.hidden_states, strict=True):
        torch.testing.assert_close(hidden[1, : own.shape[1]], own[0], rtol=1e-4, atol=1e-5)
        assert not hidden[1, own.shape[1] :].any()
    plain = model(features, mask)
    assert plain.hidden_states is None
    assert torch.equal(plain.pooler_output, output.pooler_output)


def test_the_heads_pass_hidden_states_on_and_the_config_can_ask_for_them():
    features, mask = clips(TINY)
    classifier = stir(MBTForSequenceClassification(MBTConfig(**TINY, output_hidden_states=True)))
    expected = classifier.mbt(features, mask).hidden_states
    for given, own in zip(classifier(features, mask).hidden_states, expected, strict=True):
        assert torch.equal(given, own)
    assert classifier(features, mask, output_hidden_states=False).hidden_states is None
    assert len(classifier(features, mask, return_dict=False)) == 2
    model = stir(MBTForPreTraining(MBTConfig(**TINY)))
    output = model(features, features + 1, mask, mask, output_hidden_states=True)
    assert torch.equal(output.hidden_states_b[-1], model.mbt(features + 1, mask).last_hidden_state)
    assert model(features, features + 1, mask, mask).hidden_states is None


def enable(model, kwargs):
    """Under the name of the installed transformers."""
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)(kwargs)


def step(model, features, mask):
    """Returns loss, gradients and running statistics of one step."""
    output = model(features, features.flip(0), mask, mask)
    output.loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return output.loss.detach(), gradients, dict(model.named_buffers())


@EVERY_ENCODER
@pytest.mark.parametrize("kwargs", [None, {"use_reentrant": True}], ids=["default", "reentrant"])
def test_checkpointing_changes_neither_loss_nor_gradients_nor_running_statistics(settings, kwargs):
    features, mask = clips(settings)
    results = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = MBTForPreTraining(MBTConfig(**settings, hidden_dropout_prob=0.2)).train()
        if checkpointing:
            enable(model, kwargs)
        calls = []
        convolution = next(one for one in model.mbt.encoder.layers[0].modules() if isinstance(one, torch.nn.Conv2d))
        convolution.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        torch.manual_seed(1)
        results.append(step(model, features, mask))
        assert len(calls) == (4 if checkpointing else 2), "two views, computed once or twice"
        assert all(one.momentum == 0.1 for one in model.modules() if isinstance(one, torch.nn.BatchNorm2d))
    (loss, gradients, buffers), (again, gradients_again, buffers_again) = results
    assert torch.equal(loss, again)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradients_again[name], gradient, rtol=1e-5, atol=1e-6)
    assert {int(value) for name, value in buffers.items() if name.endswith("tracked")} == {2}
    for name, buffer in buffers.items():
        assert torch.equal(buffers_again[name], buffer), name


def test_a_copy_with_checkpointing_counts_its_own_batches_once_and_can_be_pickled():
    features, mask = clips(TINY)
    model = MBTForPreTraining(MBTConfig(**TINY)).train()
    enable(model, None)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        _, _, buffers = step(copied, features, mask)
        assert {int(value) for name, value in buffers.items() if name.endswith("tracked")} == {2}


def test_the_trainers_flag_trains_the_same_network(tmp_path):
    features, _ = clips(TINY)
    data = [{"input_features": features[i % 3], "labels": i % 2} for i in range(8)]
    weights = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = MBTForSequenceClassification(MBTConfig(**TINY))
        has_new_name = hasattr(TrainingArguments, "activation_checkpointing")
        flag = {"activation_checkpointing" if has_new_name else "gradient_checkpointing": checkpointing}
        arguments = TrainingArguments(
            str(tmp_path), max_steps=2, per_device_train_batch_size=4, report_to="none", use_cpu=True,
            save_strategy="no", disable_tqdm=True, **flag,
        )  # fmt: skip
        Trainer(model, arguments, train_dataset=data).train()
        assert model.mbt.encoder.layers[0].gradient_checkpointing == checkpointing
        weights.append(model.state_dict())
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-5, atol=1e-6)


# torch's compiler reads what it warns of itself.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.filterwarnings("ignore:<class 'torch.autograd.function.Function'> should not be instantiated")
@pytest.mark.slow
@EVERY_ENCODER
def test_a_compiled_model_can_be_checkpointed(settings):
    features, mask = clips(settings)
    results = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = MBTForPreTraining(MBTConfig(**settings)).train()
        if checkpointing:
            enable(model, None)
        network = torch.compile(model, backend="aot_eager") if checkpointing else model
        output = network(features, features.flip(0), mask, mask)
        output.loss.backward()
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        results.append((output.loss.detach(), gradients, dict(model.named_buffers())))
    (loss, gradients, buffers), (again, gradients_again, buffers_again) = results
    torch.testing.assert_close(again, loss)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradients_again[name], gradient, rtol=1e-3, atol=1e-4)
    for name, buffer in buffers.items():
        torch.testing.assert_close(buffers_again[name], buffer)
