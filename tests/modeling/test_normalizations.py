"""The normalizations of latents against references, and what leads from one to another.

Axes: N samples, D dimensions.
"""

import pytest
import torch
from torch import Tensor

from modeling_mbt import normalizations_mbt
from modeling_mbt.normalizations_mbt import LATENT_NORMALIZATIONS, NUM_GROUPS, WHITENING_SHRINKAGE
from modeling_mbt.objectives_mbt import barlow_twins_loss, modified_barlow_twins_loss
from tests.support.objectives import (
    REFERENCES,
    WIDE,
    assert_same,
    by_name,
    latents,
    reference_bt,
    reference_correlation_loss,
    run,
    standardized,
    unit,
)


def reference_layer(z: Tensor) -> Tensor:
    return (z - z.mean(1, keepdim=True)) / z.std(1, unbiased=False, keepdim=True)


def reference_group(z: Tensor) -> Tensor:
    return torch.cat([reference_layer(group) for group in z.chunk(NUM_GROUPS, dim=1)], dim=1)


def reference_whitening(z: Tensor) -> Tensor:
    z = standardized(z)
    shrunk = (1 - WHITENING_SHRINKAGE) * z.T @ z / len(z) + WHITENING_SHRINKAGE * torch.eye(z.shape[1], dtype=z.dtype)
    eigenvalues, vectors = torch.linalg.eigh(shrunk)
    return z @ vectors @ torch.diag(eigenvalues**-0.5) @ vectors.T


NORMALIZATION_REFERENCES = {
    "none": lambda z: z,
    "batch": standardized,
    "l2": lambda z: standardized(unit(z)),
    "layer": lambda z: standardized(reference_layer(z)),
    "group": lambda z: standardized(reference_group(z)),
    "whitening": lambda z: standardized(reference_whitening(z)),
}


@pytest.mark.parametrize("shape", [(40, 24), (60, 32)])
@pytest.mark.parametrize("normalization", LATENT_NORMALIZATIONS)
@pytest.mark.parametrize("name", ["bt", "vicreg", "hsic"])
def test_normalized_latents_equal_the_reference(name, normalization, shape):
    normalize = NORMALIZATION_REFERENCES[normalization]
    bare = reference_correlation_loss if name == "bt" else REFERENCES[name]
    z_a, z_b = latents(*shape)
    expected = run(lambda a, b: bare(normalize(a), normalize(b)), z_a, z_b)
    assert_same(run(by_name(name, latent_normalization=normalization), z_a, z_b), expected, 1e-10)
    assert_same(run(by_name(name, latent_normalization=normalization), z_a, z_b, torch.float32), expected, 1e-4)


def test_whitening_by_the_gram_matrix_equals_the_large_matrix():
    z, _ = latents(6, 10)
    torch.testing.assert_close(normalizations_mbt._zca_whitened(z, [6]), reference_whitening(z))
    # The large matrix has equal eigenvalues, which the gradient of `eigh` divides by: finite differences instead.
    assert torch.autograd.gradcheck(lambda z: normalizations_mbt._zca_whitened(z, [6]), z.requires_grad_())


@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
def test_the_strength_leads_from_bt_to_mbt(strength):
    def reference(z_a, z_b):
        return reference_bt(*(z / (z**2).sum(1, keepdim=True) ** (strength / 2) for z in (z_a, z_b)))

    z_a, z_b = latents(*WIDE)
    settings = {"latent_normalization": "l2", "latent_normalization_strength": strength}
    expected = run(reference, z_a, z_b)
    assert_same(run(by_name("bt", **settings), z_a, z_b), expected, 1e-10)
    assert_same(run(by_name("mbt", **settings), z_a, z_b), expected, 1e-10)
    if strength in (0, 1):
        end = barlow_twins_loss if strength == 0 else modified_barlow_twins_loss
        assert_same(run(end, z_a, z_b), expected, 1e-10)
