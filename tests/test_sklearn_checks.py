"""scikit-learn's own estimator checks, in full, on every detector."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_vad import (
    DAMAnomalyDetector,
    DDLAnomalyDetector,
    EnsembleAnomalyDetector,
    MILRankingAnomalyDetector,
    RTFMAnomalyDetector,
    STAAnomalyDetector,
)

# The whole list of checks that may fail, with the reasons.
EXPECTED_FAILURES = {
    "DDLAnomalyDetector": {
        "check_methods_subset_invariance": (
            "a batch of another size rounds differently in float32: up to 3e-7, and"
            " the check allows 1e-7 (at some widths it passes)"
        )
    },
    "EnsembleAnomalyDetector": {
        "check_methods_subset_invariance": (
            "so does a batch for its members, and where many scores of the training"
            " are near each other, levels differ by more than scores do"
        )
    },
}


@parametrize_with_checks(
    [
        # Of 1024 it takes minutes; 64 need a higher rate to learn in 20 epochs.
        DAMAnomalyDetector(n_hidden=64, lr=1e-3),
        DDLAnomalyDetector(),
        EnsembleAnomalyDetector([("mil", MILRankingAnomalyDetector())]),
        MILRankingAnomalyDetector(),
        RTFMAnomalyDetector(),
        STAAnomalyDetector(),
    ],
    expected_failed_checks=lambda est: EXPECTED_FAILURES.get(type(est).__name__, {}),
    xfail_strict=False,
)
def test_check(estimator, check):
    check(estimator)


def test_at_most_two_failures_are_expected():
    assert sum(map(len, EXPECTED_FAILURES.values())) <= 2
