"""Error rates against hand-worked cases, scikit-learn, and laws."""

import numpy as np
import pytest
from sklearn.metrics import det_curve

from mbt_speech.inference.verification import cosine_scores, error_rates, read_trials


def test_a_case_worked_by_hand():
    scores, same = [0.9, 0.8, 0.4, 0.7, 0.3, 0.2], [1, 1, 1, 0, 0, 0]
    rates = error_rates(np.array(scores), np.array(same))
    # At 0.7 one of three others is accepted and one of three targets rejected.
    assert rates.equal_error()[0] == pytest.approx(1 / 3)
    assert 0.4 < rates.equal_error()[1] <= 0.7
    # Accept from 0.8: no other gets in, one of three targets is lost: 0.05 / 3 over 0.05.
    assert rates.min_detection_cost() == pytest.approx(1 / 3)
    assert rates.min_detection_cost(0.5) == pytest.approx(1 / 3)


def test_perfect_scores_have_no_errors_and_reversed_ones_nothing_else():
    scores, same = np.arange(10.0), np.arange(10) >= 5
    assert error_rates(scores, same).equal_error()[0] == 0
    assert error_rates(scores, same).min_detection_cost() == 0
    assert error_rates(-scores, same).equal_error()[0] == pytest.approx(1)
    assert error_rates(-scores, same).min_detection_cost() == pytest.approx(1)


def test_rates_are_scikit_learns_and_errors_are_equal_where_they_cross():
    generator = np.random.default_rng(0)
    same = generator.random(400) < 0.3
    scores = np.round(generator.standard_normal(400) + 1.2 * same, 1)  # with ties
    rates = error_rates(scores, same)
    acceptances, rejections, thresholds = det_curve(same, scores)
    for threshold, acceptance, rejection in zip(thresholds, acceptances, rejections, strict=True):
        place = int(np.flatnonzero(rates.thresholds == threshold)[0])
        assert rates.false_acceptances[place] == pytest.approx(acceptance)
        assert rates.false_rejections[place] == pytest.approx(rejection)
    equal_error, threshold = rates.equal_error()
    nearest = np.abs(rates.thresholds - threshold).argmin()
    assert equal_error == pytest.approx((rates.false_acceptances + rates.false_rejections)[nearest] / 2, abs=0.03)


def test_any_growing_change_of_the_scores_leaves_the_errors_alone():
    generator = np.random.default_rng(1)
    same = generator.random(100) < 0.5
    scores = generator.standard_normal(100) + same
    rates, changed = error_rates(scores, same), error_rates(np.exp(scores), same)
    assert rates.equal_error()[0] == pytest.approx(changed.equal_error()[0])
    assert rates.min_detection_cost() == changed.min_detection_cost()


def test_pairs_of_one_kind_and_lines_of_another_form_are_refused(tmp_path):
    with pytest.raises(ValueError, match="only one kind"):
        error_rates(np.array([0.1, 0.2]), np.array([1, 1]))
    (tmp_path / "trials.txt").write_text("1 a.wav b.wav\n\nyes a.wav c.wav\n")
    with pytest.raises(ValueError, match="Line 3"):
        read_trials(tmp_path / "trials.txt")


def test_the_cosine_forgets_length_and_a_zero_scores_zero():
    first, second = np.array([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]]), np.array([[6.0, 8.0], [-2.0, 0.0], [1.0, 1.0]])
    np.testing.assert_allclose(cosine_scores(first, second), [1, -1, 0])


def test_the_threshold_lies_in_the_middle_of_a_gap():
    rates = error_rates(np.array([0.9, 0.8, 0.2, 0.1]), np.array([1, 1, 0, 0]))
    assert rates.equal_error() == (0.0, pytest.approx(0.5))
