"""Contrastive predictive coding: its objective against a naive reference, what its network reads and predicts.

Axes: N clips, T' frames, K predictions of a frame, D dimensions of a latent.
"""

import math

import pytest
import torch
from torch import Tensor

from mbt_speech.presets import PRESETS
from modeling_mbt import MBTConfig, MBTForPreTraining, MBTModel
from modeling_mbt.cpc_mbt import clip_latents, cpc_loss
from modeling_mbt.encoder_mbt import first_unseen_step, time_stride
from modeling_mbt.named_objectives_mbt import compute_objective, validate_objective
from tests.support.models import SMALL_BOTTLENECK, SMALL_MAX_POOL, TINY, stir

CPC = {**TINY, "objective": "cpc", "context_size": 5, "prediction_steps": 2}  # predicts 4 and 5 frames ahead
NUM_CLIPS, NUM_FRAMES, NUM_PREDICTIONS, NUM_DIMS = 6, 7, 2, 4


def projections(seed: int = 0, lengths=(7, 7, 6, 7, 5, 7)) -> Tensor:
    """Returns float64 projections of clips of these many frames, predictions from 3 and 4 frames before."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), NUM_FRAMES, 1 + NUM_PREDICTIONS, NUM_DIMS)
    values = torch.randn(shape, generator=generator, dtype=torch.float64)
    exist = torch.zeros(*shape[:-1], 1, dtype=torch.float64)
    for clip, length in enumerate(lengths):
        for entry, start in enumerate((0, 3, 4)):
            exist[clip, start:length, entry] = 1
    return torch.cat([values, exist], dim=-1)


def reference(z_a: Tensor, z_b: Tensor, temperature: float = 0.1) -> Tensor:
    """Eq. 4 of arXiv 1807.03748, prediction by prediction."""
    means = []
    for z in (z_a, z_b):
        values, exist = z[..., :-1], z[..., -1]
        terms = []
        for clip, t, entry in exist[:, :, 1:].nonzero().tolist():
            prediction = values[clip, t, 1 + entry]
            candidates = [(other, t) for other in range(len(z)) if other != clip]
            candidates += [(clip, s) for s in range(z.shape[1]) if s != t]
            frames = [values[clip, t, 0], *(values[c, s, 0] for c, s in candidates if exist[c, s, 0])]
            scores = torch.stack([prediction @ f / (prediction.norm() * f.norm()) / temperature for f in frames])
            terms.append(-torch.log(scores[0].exp() / scores.exp().sum()))
        means.append(torch.stack(terms).mean())
    return torch.stack(means).mean()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("temperature", [0.1, 0.7])
def test_value_and_gradient_equal_the_reference_padding_included(temperature, dtype, tolerance):
    views = [projections(seed) for seed in (0, 1)]
    gradients, losses = [], []
    for function, kind in ((reference, torch.float64), (cpc_loss, dtype)):
        leaves = [view.to(kind).requires_grad_() for view in views]
        loss = function(*leaves, temperature=temperature)
        loss = getattr(loss, "loss", loss)
        gradients.append([gradient.double() for gradient in torch.autograd.grad(loss, leaves)])
        losses.append(loss.detach().double())
    assert losses[1] == pytest.approx(losses[0].item(), rel=tolerance)
    for found, expected in zip(*reversed(gradients), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


def test_the_objective_is_its_terms_sum_and_takes_each_view_by_itself():
    z_a, z_b = projections(0), projections(1)
    output = compute_objective("cpc", z_a, z_b, objective_kwargs={"temperature": 0.3})
    assert output.loss == output.invariance_loss + output.redundancy_loss
    alone = [cpc_loss(z, z, temperature=0.3).loss for z in (z_a, z_b)]
    assert output.loss == pytest.approx((sum(alone) / 2).item(), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_projections_are_computed_in_float32(dtype):
    z = projections().to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = cpc_loss(z, z)
    assert output.loss.dtype == torch.float32
    assert output.loss.item() == pytest.approx(cpc_loss(z.double(), z.double()).loss.item(), rel=1e-5)


def with_values(values: Tensor) -> Tensor:
    z = projections(lengths=[NUM_FRAMES] * NUM_CLIPS)
    return torch.cat([values.to(z).expand(*z.shape[:-1], -1), z[..., -1:]], dim=-1)


def test_equal_frames_score_the_logarithm_of_the_number_of_candidates():
    z = with_values(torch.ones(NUM_DIMS))
    assert cpc_loss(z, z).loss == pytest.approx(math.log(NUM_CLIPS + NUM_FRAMES - 1), rel=1e-12)


def test_predictions_that_know_more_score_better():
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(NUM_CLIPS, NUM_FRAMES, 1, 64, generator=generator, dtype=torch.float64)
    clips, times = frames.mean(1, keepdim=True), frames.mean(0, keepdim=True)

    def score(predictions: Tensor) -> float:
        z = with_values(torch.cat([frames, *[predictions.expand_as(frames)] * NUM_PREDICTIONS], dim=2))
        return cpc_loss(z, z).loss.item()

    collapsed = math.log(NUM_CLIPS + NUM_FRAMES - 1)
    assert score(frames) < score(clips) < collapsed  # who speaks, without what
    assert score(frames) < score(times) < collapsed  # what is said, without who
    assert score(frames.roll(1, 0)) > collapsed  # the frames of other clips are negatives
    assert score(frames.roll(1, 1)) > collapsed  # and so are other frames of the same clip


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_a_batch_without_any_difference_has_a_finite_gradient(value):
    z = with_values(torch.full((NUM_DIMS,), value)).float().requires_grad_()
    cpc_loss(z, z).loss.backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("name", ["strong", "tiny", "bottleneck", "max_pool"])
def test_the_first_predicted_frame_is_the_nearest_that_shares_no_input(name):
    small = {"bottleneck": SMALL_BOTTLENECK, "max_pool": SMALL_MAX_POOL}
    config = MBTConfig(**small[name]) if name in small else PRESETS[name].config()
    step, stride = first_unseen_step(config), time_stride(config)
    middle = step + 1
    features = torch.rand(16, stride * (middle + 2 * step), config.num_mel_bins, requires_grad=True)
    model = MBTModel(config).eval()
    for parameter in model.parameters():
        parameter.data = parameter.data.abs() + 0.01  # so that no ReLU is silent
    frames = model(features).last_hidden_state

    def heard(frame: int) -> set[int]:
        """Returns input frames that count in some clip; a maximum passes over those of others."""
        (gradient,) = torch.autograd.grad(frames[:, frame].sum(), features, retain_graph=True)
        return set(gradient.any(-1).any(0).nonzero().ravel().tolist())

    assert heard(middle) & heard(middle + step - 1)
    assert not heard(middle) & heard(middle + step)


def test_the_presets_predict_what_their_crops_hold():
    assert first_unseen_step(PRESETS["strong"].config()) == 3  # of 40 ms
    assert first_unseen_step(PRESETS["tiny"].config()) == 4
    for name in ("strong", "tiny"):
        model, extractor = MBTForPreTraining(PRESETS[name].config(objective="cpc")), PRESETS[name].extractor()
        crop = torch.randn(2, round(PRESETS[name].crop_seconds * extractor.sampling_rate)) * 0.1
        features = extractor(list(crop), sampling_rate=extractor.sampling_rate, return_tensors="pt")["input_features"]
        output = model(features, features)
        frames = features.shape[1] // time_stride(model.config) + 1
        assert output.projections.shape == (2, frames, 1 + 4, 256 + 1)
        assert output.loss.isfinite()


def test_a_frame_is_predicted_from_frames_that_many_before_it():
    model = stir(MBTForPreTraining(MBTConfig(**CPC)))
    frames = torch.randn(1, 12, 12, requires_grad=True)
    z = model.projector(frames)
    assert model.projector.steps == (4, 5)
    for entry, k in enumerate(model.projector.steps, 1):
        assert z[0, :, entry, -1].tolist() == [float(t >= k) for t in range(12)]
        for t in range(k, 12):
            (gradient,) = torch.autograd.grad(z[0, t, entry, :-1].sum(), frames, retain_graph=True)
            assert gradient[0].any(-1).nonzero().ravel().tolist() == list(range(t - k + 1))
    (gradient,) = torch.autograd.grad(z[0, 7, 0, :-1].sum(), frames)
    assert gradient[0].any(-1).nonzero().ravel().tolist() == [7]


def test_what_stands_in_the_padding_plays_no_part():
    model = stir(MBTForPreTraining(MBTConfig(**CPC))).double()
    views = [torch.randn(3, 24, 16, dtype=torch.float64) for _ in "ab"]
    mask = torch.arange(24) < torch.tensor([24, 17, 6])[:, None]
    noise = torch.where(mask[..., None], 0, torch.randn(3, 24, 16, dtype=torch.float64))
    once, again = (
        model(views[0] + move, views[1] + move, attention_mask=mask, attention_mask_b=mask) for move in (0, noise)
    )
    torch.testing.assert_close(once.loss, again.loss, rtol=1e-12, atol=0)
    assert abs(once.loss - model(*views).loss) > 1e-3
    assert once.projections[:, :, 0, -1].sum(1).tolist() == [12, 9, 3]
    assert once.projections[:, :, 1, -1].sum(1).tolist() == [8, 5, 0]
    torch.testing.assert_close(model.project(views[0], mask)[1:2], model.project(views[0][1:2, :17]))


def test_the_latent_of_a_clip_is_the_mean_over_its_frames():
    z = projections()
    torch.testing.assert_close(clip_latents(z)[4], z[4, :5, 0, :-1].mean(0))
    assert torch.equal(clip_latents(z[:, 0, 0]), z[:, 0, 0])


def test_a_clip_that_is_too_short_to_predict_anything_is_refused():
    model = MBTForPreTraining(MBTConfig(**CPC))
    assert model(torch.randn(2, 12, 16), torch.randn(2, 12, 16)).loss.isfinite()
    with pytest.raises(ValueError, match="predicts frames 4 to 5 ahead and was given clips of 5 frames"):
        model(torch.randn(2, 10, 16), torch.randn(2, 10, 16))
    mask = (torch.arange(12) < 6).long().expand(2, -1)
    with pytest.raises(ValueError, match="every clip is too short"):
        model(torch.randn(2, 12, 16), torch.randn(2, 12, 16), mask, mask)


def test_every_learnt_tensor_gets_a_gradient():
    model = MBTForPreTraining(MBTConfig(**CPC))
    model(torch.randn(8, 20, 16), torch.randn(8, 20, 16)).loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_a_new_context_network_on_a_saved_encoder_is_a_fresh_one(tmp_path):
    MBTModel(MBTConfig(**TINY)).save_pretrained(tmp_path)
    model = MBTForPreTraining.from_pretrained(tmp_path, objective="cpc", context_size=64)
    for parameter in model.projector.context.parameters():
        assert parameter.abs().max() <= 64**-0.5
        assert parameter.std().item() == pytest.approx(64**-0.5 / 3**0.5, rel=0.2)


# torch's compiler reads what it warns of itself.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.filterwarnings("ignore:<class 'torch.autograd.function.Function'> should not be instantiated")
@pytest.mark.slow
def test_a_compiled_model_gives_loss_and_gradient_of_the_eager_one():
    model = stir(MBTForPreTraining(MBTConfig(**CPC)))
    views, gradients = torch.randn(2, 4, 20, 16), []
    for network in (model, torch.compile(model, backend="eager")):
        model.zero_grad()
        network(*views).loss.backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for eager, compiled in zip(*gradients, strict=True):
        torch.testing.assert_close(compiled, eager, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "views", [(torch.ones(4, 8), torch.ones(4, 8)), (projections(), projections()[:, 1:]), (torch.ones(3),) * 2]
)
def test_projections_without_frames_are_refused(views):
    with pytest.raises(ValueError, match=r"both \(clips, frames, predictions, dimensions\)"):
        compute_objective("cpc", *views)


def test_a_batch_of_one_clip_is_refused():
    with pytest.raises(ValueError, match="needs at least 2"):
        cpc_loss(projections(lengths=[7]), projections(lengths=[7]))


@pytest.mark.parametrize("normalization", ["batch", "l2", "layer", "group", "whitening"])
def test_a_latent_normalization_is_refused(normalization):
    with pytest.raises(ValueError, match="leave the normalization out"):
        validate_objective("cpc", normalization)
    validate_objective("cpc", "none")
