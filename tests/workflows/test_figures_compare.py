"""Pictures of comparisons: every mean is within its axes."""

import pytest

from workflows.report.figures_compare import Spread, points


@pytest.mark.parametrize(("means", "leftmost"), [([30.0, 35.0], 0), ([3.0, -3.3], -7.5), ([-1.0], -2.0)])
def test_points_show_all_means_and_intervals_and_no_error_below_zero(means, leftmost):
    spreads = [Spread(f"arm {mean}", [], mean, (min(mean - 1, leftmost), mean + 1)) for mean in means]
    axis = points(spreads, "points").axes[0]
    left, right = axis.get_xlim()
    assert all(left <= mean <= right for mean in means)
    assert left <= leftmost
    assert left == 0 or min(means) < 0
