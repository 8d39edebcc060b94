"""Shares of the labels."""

import numpy as np
import pytest

from mbt_speech.data.label_fractions import select_label_fraction


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
