"""Each distortion of features by the formula it stands for."""

import numpy as np
import pytest
import torch
from torch import Tensor

from feature_extraction.augmentation import FEATURE_DISTORTIONS


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def distort(name: str, features: Tensor, seed: int = 0, **strengths) -> Tensor:
    return FEATURE_DISTORTIONS[name](features, seeded(seed), **strengths)


@pytest.mark.parametrize("seed", range(4))
def test_a_random_resize_crop_reads_a_plane_at_evenly_spaced_points(seed):
    """Linear interpolation of a plane is exact: the crop of a plane is the plane of stretched axes."""
    time, band = torch.arange(90.0)[:, None], torch.arange(40.0)
    crops = {"time_scale": [0.5, 0.5], "frequency_scale": [0.7, 0.7], "time_canvas": 1.0}
    rows = distort("random_resize_crop", (time + 0 * band)[None], seed, **crops)[0]
    columns = distort("random_resize_crop", (0 * time + band)[None], seed, **crops)[0]
    inside = (slice(2, -2), slice(2, -2))
    steps = rows.diff(dim=0)[inside]
    torch.testing.assert_close(steps, torch.full_like(steps, 0.5), atol=1e-4, rtol=0)
    steps = columns.diff(dim=1)[inside]
    torch.testing.assert_close(steps, torch.full_like(steps, 0.7), atol=1e-4, rtol=0)
    assert rows.diff(dim=1)[inside].abs().max() < 1e-4
    assert rows[2:-2].min() >= 0
    assert rows.max() <= 89


def test_a_band_equalizer_adds_one_curve_within_its_gain_to_every_frame():
    features = torch.randn(200, 12, 40)
    curves = distort("band_equalizer", features, gain=1.5, num_knots=5) - features
    torch.testing.assert_close(curves, curves[:, :1].expand_as(curves), atol=1e-5, rtol=0)
    assert 1.4 < curves.abs().max() <= 1.5 + 1e-5
    bends = curves[:, 0].diff(n=2).abs() > 1e-4
    assert bends.any(0).sum() <= 2 * 3  # straight between the five knots; the three inner ones bend two steps each
    assert (curves[0, 0] - curves[1, 0]).abs().max() > 0.1


def test_a_larger_canvas_of_random_resize_crop_has_the_mean_level_around():
    features = torch.ones(200, 60, 8)
    crops = {"time_scale": [1.5, 1.5], "frequency_scale": [1, 1], "time_canvas": 1.5}
    cropped = distort("random_resize_crop", features, **crops)
    assert (cropped[:, :8] == 0).all()
    assert (cropped[:, -8:] == 0).all()
    torch.testing.assert_close(cropped[:, 14:-14, 2:-2], torch.ones(200, 32, 4))


def test_a_shrinking_crop_averages_so_that_fine_detail_does_not_fold():
    features = torch.tensor([1.0, -1.0]).repeat(48)[None, :, None].expand(1, -1, 8).contiguous()
    crops = {"time_scale": [2, 2], "frequency_scale": [1, 1], "time_canvas": 2}
    assert distort("random_resize_crop", features, **crops)[:, 28:-28].abs().max() < 0.05


def test_crops_span_their_bounds_of_scale_and_place():
    ramp = torch.arange(100.0)[None, :, None].expand(500, -1, 8).contiguous()
    crops = {"time_scale": [0.5, 0.9], "frequency_scale": [1, 1], "time_canvas": 1}
    cropped = distort("random_resize_crop", ramp, **crops)[:, 2:-2, 4]
    scales = cropped.diff(dim=1).median(dim=1).values
    assert 0.5 <= scales.min() + 1e-4 < 0.52
    assert 0.88 < scales.max() < 0.9 + 1e-4
    assert cropped.min() < 3
    assert cropped.max() > 96


@pytest.mark.parametrize("ratio", [0.0, 0.2, 0.4, 1.0])
def test_mixup_is_the_logarithm_of_mixed_exponentials(ratio):
    features = torch.randn(2, 30, 8, generator=seeded(), dtype=torch.float64)
    mixed = distort("mixup", features, ratio=[ratio, ratio])
    x = features.numpy()
    np.testing.assert_allclose(mixed, np.log((1 - ratio) * np.exp(x) + ratio * np.exp(x[::-1])), atol=1e-6)


def test_mixup_takes_every_other_clip_of_the_batch_and_never_itself():
    features = torch.arange(5.0)[:, None, None].expand(-1, 3, 2).contiguous()
    partners = torch.stack([distort("mixup", features, s, ratio=[1, 1])[:, 0, 0] for s in range(60)])
    for clip in range(5):
        assert set(partners[:, clip].tolist()) == {0.0, 1.0, 2.0, 3.0, 4.0} - {float(clip)}


def test_mixup_leaves_a_lonely_clip_alone():
    features = torch.randn(1, 30, 8, generator=seeded())
    assert torch.equal(distort("mixup", features), features)


def test_feature_noise_mixes_exponentials_with_normal_numbers():
    features = torch.full((4, 200, 64), 0.7)
    pure = distort("noise", features, ratio=[1, 1])
    assert float(pure.mean()) == pytest.approx(0, abs=0.02)
    assert float(pure.std()) == pytest.approx(1, abs=0.02)
    mixed = distort("noise", features, ratio=[0.3, 0.3])
    torch.testing.assert_close(mixed, (0.7 * features.exp() + 0.3 * pure.exp()).log())


def test_the_fader_adds_a_straight_line_over_time():
    features = torch.randn(500, 40, 8, generator=seeded(3))
    added = distort("fader", features, gain=2.0) - features
    assert added.diff(dim=2).abs().max() < 1e-5
    assert added.diff(n=2, dim=1).abs().max() < 1e-5
    for end in (added[:, 0, 0], added[:, -1, 0]):
        assert -2 <= end.min() < -1.9
        assert 1.9 < end.max() <= 2


@pytest.mark.parametrize(("name", "axis"), [("time_mask", 1), ("frequency_mask", 2)])
def test_a_mask_sets_one_stretch_of_bounded_width_to_the_mean_level(name, axis):
    masked = distort(name, torch.ones(300, 80, 60), width=0.25) == 0
    along = masked.any(dim=3 - axis)
    assert torch.equal(along, masked.all(dim=3 - axis))
    widths = along.sum(1)
    size = along.shape[1]
    assert 0.25 * size - 3 < widths.max() <= 0.25 * size + 1
    assert widths.min() <= 1
    edges = torch.nn.functional.pad(along.int(), (1, 1)).diff(dim=1).abs().sum(1)
    assert edges.max() == 2
    assert along.any(dim=0).all()
