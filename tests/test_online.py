"""Streams: snippet by snippet the same scores as of whole bags, and nothing else."""

import functools
import io
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError

from sklearn_vad import (
    DAMAnomalyDetector,
    DDLAnomalyDetector,
    MILRankingAnomalyDetector,
)
from sklearn_vad.online import SnippetStream, push_together

N_FEATURES = 4
DETECTORS = {  # name -> detector, inner steps of its bags
    "dam_dist": (DAMAnomalyDetector(n_hidden=8), 3),
    "dam_cov": (DAMAnomalyDetector(n_hidden=8, variant="cov"), 3),
    "dam_scaled": (DAMAnomalyDetector(n_hidden=8, variant="cov", scaled=True), 3),
    "dam_flat": (DAMAnomalyDetector(n_hidden=8), None),
    "mil_ranking": (MILRankingAnomalyDetector(hidden_dims=(8, 8)), None),
    "mil_normalized": (
        MILRankingAnomalyDetector(hidden_dims=(8, 8), l2_normalize=True),
        None,
    ),
}
each_detector = pytest.mark.parametrize("name", DETECTORS)


def make_bags(name, lengths, seed=0):
    n_steps = DETECTORS[name][1]
    shape = (N_FEATURES,) if n_steps is None else (n_steps, N_FEATURES)
    rng = np.random.default_rng(seed)
    return [np.float32(rng.normal(size=(n, *shape))) for n in lengths]


@functools.cache
def fitted(name):
    """A detector whose scores lie far apart."""
    est = DETECTORS[name][0].set_params(max_epochs=1, random_state=0)
    est.fit(make_bags(name, [5, 9, 1, 20]), [0, 1, 0, 1])
    with torch.no_grad():
        for parameter in est.net_.module_.parameters():
            parameter *= 2.5
    return est


def push_all(stream, bag):
    return [stream.push(snippet) for snippet in bag]


# --------------------------------------------------------------------------
# The same scores
# --------------------------------------------------------------------------
@each_detector
@settings(max_examples=25, deadline=None, database=None)
@given(length=st.integers(1, 40), seed=st.integers(0, 10**6))
def test_pushing_equals_scoring_the_whole_bag(name, length, seed):
    est = fitted(name)
    (bag,) = make_bags(name, [length], seed)
    pushed = push_all(est.stream(), bag)
    assert all(type(score) is float for score in pushed)
    np.testing.assert_allclose(pushed, est.score_snippets([bag])[0], atol=1e-5)


@each_detector
def test_scores_lie_apart(name):
    """Or else the tests here would compare one number with itself."""
    (bag,) = make_bags(name, [40])
    scores = push_all(fitted(name).stream(), bag)
    assert np.ptp(scores) > 0.1


@each_detector
def test_only_dam_remembers_the_snippet_before(name):
    first, second, third = make_bags(name, [3])[0]
    est = fitted(name)
    after_first = push_all(est.stream(), [first, second])[1]
    after_third = push_all(est.stream(), [third, second])[1]
    at_once = est.stream().push(second)
    if name.startswith("dam"):
        assert len({after_first, after_third, at_once}) == 3
    else:
        assert after_first == after_third == at_once


@each_detector
@settings(max_examples=15, deadline=None, database=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=2, max_size=4),
    seed=st.integers(0, 10**6),
    order=st.randoms(use_true_random=False),
)
def test_interleaved_streams_do_not_disturb_each_other(name, lengths, seed, order):
    est, bags = fitted(name), make_bags(name, lengths, seed)
    streams = [est.stream() for _ in bags]
    turns = [i for i, n in enumerate(lengths) for _ in range(n)]
    order.shuffle(turns)
    pushed = [[] for _ in bags]
    for i in turns:
        pushed[i].append(streams[i].push(bags[i][len(pushed[i])]))
    for found, bag in zip(pushed, bags, strict=True):
        assert found == push_all(est.stream(), bag)


@each_detector
@settings(max_examples=15, deadline=None, database=None)
@given(n_streams=st.integers(1, 6), seed=st.integers(0, 10**6))
def test_pushing_together_equals_pushing_one_by_one(name, n_streams, seed):
    est, bags = fitted(name), make_bags(name, [8] * n_streams, seed)
    streams, others = ([est.stream() for _ in bags] for _ in range(2))
    for part in (streams, others):
        part[0].push(bags[-1][-1])  # one has a past, the rest begin
    together = [
        push_together(streams, snippets) for snippets in zip(*bags, strict=True)
    ]
    single = [push_all(*pair) for pair in zip(others, bags, strict=True)]
    np.testing.assert_allclose(np.transpose(together), single, atol=1e-6)
    for stream, bag in zip(streams, bags, strict=True):
        np.testing.assert_array_equal(stream.state, bag[-1])


def test_pushing_nothing_together():
    assert push_together([], []) == []


@each_detector
@pytest.mark.parametrize("stop", [0, 1, 7])
def test_saved_state_goes_on_as_if_nothing_happened(name, stop):
    est, (bag,) = fitted(name), make_bags(name, [12])
    expected = push_all(est.stream(), bag)
    stream = est.stream()
    assert push_all(stream, bag[:stop]) == expected[:stop]
    state = stream.state
    if stop:
        file = io.BytesIO()
        np.save(file, state, allow_pickle=False)
        file.seek(0)
        state = np.load(file, allow_pickle=False)
    later = pickle.loads(pickle.dumps(est)).stream(state)
    assert push_all(later, bag[stop:]) == expected[stop:]


@each_detector
def test_later_snippets_change_no_score(name):
    est, (bag,) = fitted(name), make_bags(name, [30])
    changed = bag.copy()
    changed[20:] = make_bags(name, [10], seed=1)[0]
    pushed = [push_all(est.stream(), b) for b in (bag, changed)]
    assert pushed[0][:20] == pushed[1][:20]
    assert pushed[0][20] != pushed[1][20]
    whole = [est.score_snippets([b])[0] for b in (bag, changed)]
    np.testing.assert_array_equal(whole[0][:20], whole[1][:20])
    assert (whole[0][20:] != whole[1][20:]).all()
    shorter = est.score_snippets([bag[:20]])[0]
    np.testing.assert_allclose(shorter, whole[0][:20], atol=1e-6)


@each_detector
def test_memory_is_one_snippet(name):
    stream, (bag,) = fitted(name).stream(), make_bags(name, [50])
    assert stream.state is None
    kept = []
    for snippet in bag:
        stream.push(snippet)
        arrays = [x for x in vars(stream).values() if isinstance(x, np.ndarray)]
        kept.append(sum(x.nbytes for x in arrays))
        np.testing.assert_array_equal(stream.state, snippet)
        # No view of a larger array either.
        assert stream.state.base is None or stream.state.base.size == snippet.size
    assert set(kept) == {4 * bag[0].size}
    assert not [x for x in vars(stream).values() if isinstance(x, (list, dict))]


def test_snippet_may_be_overwritten_after_it_was_pushed():
    """As in a camera's one buffer."""
    est, (bag,) = fitted("dam_dist"), make_bags("dam_dist", [10])
    stream, buffer, pushed = est.stream(), np.empty_like(bag[0]), []
    for snippet in bag:
        buffer[:] = snippet
        pushed.append(stream.push(buffer))
    assert pushed == push_all(est.stream(), bag)


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x.tolist(),
        lambda x: x.astype(np.float64),
        lambda x: x.astype(">f4"),
        lambda x: np.asfortranarray(x),
        lambda x: torch.tensor(x, requires_grad=True),
        lambda x: x.astype(object),
    ],
    ids=["list", "float64", "big-endian", "fortran", "tensor", "objects"],
)
def test_snippets_of_any_kind(convert):
    est, (bag,) = fitted("dam_scaled"), make_bags("dam_scaled", [5])
    expected = push_all(est.stream(), bag)
    assert push_all(est.stream(), [convert(snippet) for snippet in bag]) == expected


def test_bfloat16_snippets():
    est, (bag,) = fitted("dam_dist"), make_bags("dam_dist", [5])
    half = torch.tensor(bag).bfloat16()
    expected = push_all(est.stream(), half.float())
    assert push_all(est.stream(), half) == expected


@each_detector
def test_bfloat16_precision(name):
    est = pickle.loads(pickle.dumps(fitted(name)))
    est.net_.precision = "bfloat16"
    (bag,) = make_bags(name, [20])
    pushed = push_all(est.stream(), bag)
    np.testing.assert_allclose(pushed, est.score_snippets([bag])[0], atol=1e-2)
    assert pushed != push_all(fitted(name).stream(), bag)


def test_n_jobs_is_set_inside_and_restored():
    est = pickle.loads(pickle.dumps(fitted("mil_ranking")))
    before, found = torch.get_num_threads(), []
    score = est.net_.module_.score

    def spy(*args):
        found.append(torch.get_num_threads())
        return score(*args)

    est.net_.module_.score = spy
    est.set_params(n_jobs=before + 1).stream().push(np.zeros(N_FEATURES))
    assert found == [before + 1]
    assert torch.get_num_threads() == before


def test_stream_after_training_left_the_network_in_training_mode():
    """Dropout never acts on a stream."""
    est, (bag,) = fitted("dam_dist"), make_bags("dam_dist", [5])
    expected = push_all(est.stream(), bag)
    est.net_.module_.train()
    assert push_all(est.stream(), bag) == expected


# --------------------------------------------------------------------------
# Errors
# --------------------------------------------------------------------------
BAD = {  # for snippets of shape (3, 4): value, error, message
    "flat": (np.ones(4), ValueError, r"shape \(4,\), expected \(3, 4\)"),
    "bag": (np.ones((2, 3, 4)), ValueError, r"shape \(2, 3, 4\), expected \(3, 4\)"),
    "width": (np.ones((3, 5)), ValueError, r"shape \(3, 5\), expected \(3, 4\)"),
    "number": (1.0, ValueError, r"shape \(\), expected \(3, 4\)"),
    "empty": (np.ones((0, 4)), ValueError, "no features"),
    "ragged": ([[1.0, 2.0], [3.0]], ValueError, "rectangular"),
    "NaN": (np.full((3, 4), np.nan), ValueError, "NaN"),
    "infinity": (np.full((3, 4), -np.inf), ValueError, "infinity"),
    "huge": (np.full((3, 4), 1e39), ValueError, "too large"),
    "masked": (np.ma.masked_equal(np.eye(3, 4), 1.0), ValueError, "masked"),
    "text": ("snippet", TypeError, "dtype <U7"),
    "texts": ([["a"] * 4] * 3, TypeError, "dtype <U1"),
    "complex": (np.ones((3, 4)) * 1j, TypeError, "dtype complex128"),
    "None": (None, TypeError, "NoneType"),
}
bad_snippets = pytest.mark.parametrize(
    ("snippet", "error", "message"), list(BAD.values()), ids=list(BAD)
)


@bad_snippets
@pytest.mark.parametrize("n_pushed", [0, 2])
def test_bad_snippet_leaves_the_stream_as_it_was(snippet, error, message, n_pushed):
    est, (bag,) = fitted("dam_dist"), make_bags("dam_dist", [4])
    expected = push_all(est.stream(), bag)
    stream = est.stream()
    pushed = push_all(stream, bag[:n_pushed])
    with pytest.raises(error, match=f"snippet.*{message}"):
        stream.push(snippet)
    assert pushed + push_all(stream, bag[n_pushed:]) == expected


@bad_snippets
def test_bad_snippet_leaves_all_streams_as_they_were(snippet, error, message):
    est, bags = fitted("dam_dist"), make_bags("dam_dist", [3, 3])
    expected = [push_all(est.stream(), bag) for bag in bags]
    streams = [est.stream(), est.stream()]
    push_together(streams, [bag[0] for bag in bags])
    with pytest.raises(error, match=message):
        push_together(streams, [bags[0][1], snippet])
    for i in (0, 1):
        np.testing.assert_array_equal(streams[i].state, bags[i][0])
        assert push_all(streams[i], bags[i][1:]) == pytest.approx(expected[i][1:])


@pytest.mark.parametrize("name", ["dam_flat", "mil_ranking"])
@pytest.mark.parametrize("shape", [(3, 4), (5,), (1, 4), ()])
def test_bad_snippet_of_bags_without_steps(name, shape):
    with pytest.raises(ValueError, match=r"expected \(4,\)"):
        fitted(name).stream().push(np.ones(shape))


def test_number_of_steps_is_that_of_fit():
    stream = fitted("dam_dist").stream()
    with pytest.raises(ValueError, match=r"\(2, 4\), expected \(3, 4\)"):
        stream.push(np.ones((2, 4)))


@pytest.mark.parametrize(
    "state", [np.ones(4), np.ones((3, 5)), np.full((3, 4), np.nan)]
)
def test_bad_state(state):
    with pytest.raises(ValueError, match="state"):
        fitted("dam_dist").stream(state)


def test_streams_that_can_not_go_together():
    est, other = fitted("dam_dist"), fitted("dam_cov")
    stream, snippet = est.stream(), np.ones((3, 4))
    with pytest.raises(ValueError, match="a stream is there twice"):
        push_together([stream, stream], [snippet] * 2)
    with pytest.raises(ValueError, match="different detectors"):
        push_together([stream, other.stream()], [snippet] * 2)
    with pytest.raises(ValueError, match="got 3 snippets for 1 streams"):
        push_together([stream], [snippet] * 3)
    assert stream.state is None


def test_detector_that_looks_ahead_has_no_stream():
    est = DDLAnomalyDetector(
        hidden_dim=8, mlp_dims=(8, 4), max_epochs=1, random_state=0
    ).fit(make_bags("mil_ranking", [5, 9]), [0, 1])
    with pytest.raises(TypeError, match=r"DDL.*attention looks at.*later snippets"):
        est.stream()


@pytest.mark.parametrize(
    "est", [DAMAnomalyDetector(), MILRankingAnomalyDetector(), DDLAnomalyDetector()]
)
def test_unfitted(est):
    with pytest.raises(NotFittedError):
        est.stream()


def test_stream_is_made_by_the_detector():
    assert isinstance(fitted("dam_dist").stream(), SnippetStream)
