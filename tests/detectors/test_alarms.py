"""Thresholds keep the rate that they promise, at any stopping time, whatever scores are like."""

import numpy as np
import pytest
from scipy.stats import beta

from adapterprobe.detectors.alarms import Monitor, fixed_threshold, needed_benign
from adapterprobe.errors import ConfigError, DataError


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_the_fewest_that_can_promise_a_rate(rate):
    least = needed_benign(rate)
    scores = np.random.default_rng(0).random(least)
    fixed = fixed_threshold(scores, rate)
    assert fixed.value == scores.max() and fixed.alarms == 0 and fixed.upper <= rate
    with pytest.raises(DataError, match=f"at least {least} are needed, 1 more"):
        fixed_threshold(scores[1:], rate)


def test_the_rate_is_kept_in_95_of_100_calibrations():
    """Of normal scores the true rate above a threshold is known; with heavy ties it is lower still."""
    from scipy.stats import norm

    rng = np.random.default_rng(1)
    kept, rates = 0, []
    for _ in range(2000):
        fixed = fixed_threshold(rng.normal(size=300), 0.05)
        true = norm.sf(fixed.value)
        kept += true <= 0.05
        rates.append(true)
        assert fixed.upper == pytest.approx(beta.ppf(0.95, fixed.alarms + 1, 300 - fixed.alarms))
    assert 0.935 < kept / 2000 < 0.975 and 0.02 < np.mean(rates) < 0.05
    tied = [fixed_threshold(np.round(rng.normal(size=300), 0), 0.05) for _ in range(300)]
    assert all(norm.sf(fixed.value + 0.5) <= 0.05 + 0.02 for fixed in tied)


def test_a_monitor_keeps_its_rate_wherever_one_stops():
    """Turns of one conversation hang together, conversations are of any length, and the user stops at the worst moment; a threshold for
    single turns breaks its promise there, the monitor's does not."""
    rng = np.random.default_rng(2)

    def conversations(count):
        lengths = rng.integers(1, 30, count)
        return [rng.normal() + 0.7 * rng.normal(size=length) for length in lengths]

    rate, false, single = 0.1, [], []
    for _ in range(150):
        benign = conversations(200)
        threshold = fixed_threshold(np.array([c.max() for c in benign]), rate).value
        turn = fixed_threshold(np.array([rng.choice(c) for c in benign]), rate).value
        new = conversations(300)
        alarms = []
        for scores in new:
            monitor = Monitor(threshold)
            alarms.append(any([monitor.update(score) for score in scores]))
            assert monitor.alarm == alarms[-1] and monitor.highest == scores.max()
        false.append(np.mean(alarms))
        single.append(np.mean([(c > turn).any() for c in new]))
    assert np.mean(np.array(false) <= rate) > 0.85 and np.mean(false) < rate
    assert np.mean(single) > 1.5 * rate


def test_bad_input():
    for rate in (0, 1, -0.1, float("nan")):
        with pytest.raises(ConfigError, match="a rate of false alarms"):
            fixed_threshold(np.zeros(9), rate)
    with pytest.raises(DataError, match="1 of 3 benign scores are no numbers"):
        fixed_threshold(np.array([0.1, np.nan, 0.2]), 0.5)
    with pytest.raises(DataError, match="0 benign inputs"):
        fixed_threshold(np.empty(0), 0.1)
    assert not Monitor(0.5).alarm
