"""Calls with any arguments, made by hypothesis, and what they may end in.

`tests/test_fuzz.py` makes some hundreds, `benchmarks/fuzz.py` as many as asked for.
The right outcomes of a call are two:

- "fine": a result that passes the check of its case: shapes, finite scores in [0, 1];
- "refused": a ValueError or TypeError that this package raises itself, or
  scikit-learn's checks of parameters and arrays, with a message.

All else is wrong, a ValueError of numpy or torch too: nobody knows what to do with
"operands could not be broadcast together".
"""

import linecache
import traceback
import warnings
from typing import NamedTuple

import numpy as np
import torch
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.preprocessing import StandardScaler

from sklearn_vad import (
    Bags,
    DAMAnomalyDetector,
    DDLAnomalyDetector,
    EnsembleAnomalyDetector,
    FrameLabels,
    MILRankingAnomalyDetector,
    MultiCropDetector,
    RTFMAnomalyDetector,
    STAAnomalyDetector,
    datasets,
    metrics,
    postprocessing,
    preprocessing,
    timeline,
)
from sklearn_vad.bags import check_bags

_OURS = ("/sklearn_vad/", "/sklearn/utils/", "/sklearn/base.py")


class Case(NamedTuple):
    """A call: `run()` returns what `check` looks at, which raises if it is wrong."""

    name: str
    run: object
    check: object
    said: str

    def __repr__(self):
        return f"{self.name}({self.said})"


# --------------------------------------------------------------------------
# Values: mostly good, sometimes broken
# --------------------------------------------------------------------------
_ODD = st.sampled_from(
    [
        *(None, 0, -1, 1.5, "text", b"bytes", object, [], {}, set(), (), float("nan")),
        *(
            True,
            10**30,
            -(10**30),
            1j,
            [None],
            [[]],
            [[[]]],
            ["a"],
            [{}],
            [[1, 2], [3]],
        ),
        *(
            np.float64("nan"),
            np.array(3),
            np.array([]),
            np.zeros((0, 3)),
            "a\0b",
            1e400,
        ),
        *(np.array(["a"]), np.array([None]), np.zeros((1, 1, 1, 1)), float("inf")),
        *(np.array(["2020"], "M8[s]"), np.zeros(3, "f4,f4"), np.ma.masked_all((2, 2))),
        *(
            torch.zeros(2),
            torch.zeros(2, 2),
            np.array([1, "a", None], object),
            range(3),
        ),
    ]
)
_DTYPES = st.sampled_from(
    ["f4", "f4", "f4", "f8", "f2", ">f4", "i8", "u1", "?", "f16", "c8", "U3", "O"]
)


def rarely(odd, usual, one_in=16):
    """Draw from `odd` once in a while, else from `usual`."""
    # Neither end of the range, which hypothesis likes.
    return st.integers(0, one_in).flatmap(lambda i: odd if i == one_in // 2 else usual)


@st.composite
def arrays(draw, shape, dtypes=_DTYPES):
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    scale = draw(rarely(st.sampled_from([0, 1e3, 1e-30, 1e30]), st.just(1)))
    values = np.asarray(rng.normal(size=shape) * scale)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = values.astype(draw(rarely(dtypes, st.just("f4"), 30)))
    if array.size and array.dtype.kind == "f" and draw(st.integers(0, 60)) == 30:
        array.flat[-1] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    how = draw(rarely(st.sampled_from(["list", "tensor", "f"]), st.none()))
    if how == "list":
        return array.tolist()
    if how == "tensor" and array.dtype in (np.float32, np.float64):
        return torch.from_numpy(array)
    return np.asfortranarray(array) if how == "f" else array


@st.composite
def bag_lists(draw, n_bags=None, tail=None):
    """Anything that may be taken for bags."""
    if draw(st.integers(0, 30)) == 15:
        return draw(_ODD)
    n_bags = draw(rarely(st.integers(0, 5), st.just(n_bags or 4)))
    usual = tail or draw(st.sampled_from([(3,), (3,), (2, 3), (1,)]))
    bags = []
    for _ in range(n_bags):
        own = draw(
            rarely(st.sampled_from([(), (2,), (0,), (3, 3), (3,)]), st.just(usual), 60)
        )
        n_snippets = draw(st.sampled_from([1, 2, 3, 5, 17, 3, 4] + [0] * (n_bags > 4)))
        bag = arrays((n_snippets, *own))
        bags.append(draw(rarely(_ODD, bag, 80)))
    return draw(
        rarely(st.sampled_from([_as_objects(bags), tuple(bags)]), st.just(bags))
    )


def _as_objects(bags):
    out = np.empty(len(bags), object)
    for i, bag in enumerate(bags):
        out[i] = bag
    return out


def labels(n=4):
    usual = st.just([0, 1] * (n // 2))
    odd = st.one_of(
        _ODD,
        st.lists(
            st.sampled_from([0, 1, 2, -1, 0.5, "a", "b", None, np.nan]), max_size=5
        ),
        st.sampled_from(
            [
                ["normal", "anomalous"] * 2,
                np.array([[0], [1], [0], [1]]),
                np.array([0, 1, 0, 1], object),
                np.array([True, False] * 2),
                np.zeros(4),
                torch.tensor([0, 1, 0, 1]),
                np.zeros((4, 2)),
                [[0, 1], [0, 1], [1], [0]],
            ]
        ),
    )
    return rarely(odd, usual, 6)


@st.composite
def masks(draw, n_videos=None, n_frames=None):
    """Anything that may be taken for frame labels."""
    if draw(st.integers(0, 30)) == 15:
        return draw(_ODD)
    n_videos = draw(rarely(st.integers(0, 4), st.just(n_videos or 3)))
    found = []
    for i in range(n_videos):
        n = n_frames[i] if n_frames and i < len(n_frames) else 32
        n = draw(rarely(st.integers(0, 300), st.just(n), 12))
        mask = np.zeros(n, draw(rarely(_DTYPES, st.just("i8"), 12)))
        if n and i % 2 and mask.dtype.kind in "biuf":
            mask[n // 2 :] = draw(rarely(st.sampled_from([2, 0, 0.5]), st.just(1), 12))
        found.append(draw(rarely(_ODD, st.just(mask), 80)))
    return found


SNIPPET_LENGTHS = rarely(
    st.one_of(_ODD, st.sampled_from([1, 0.1, 16.0, [16, 16, 16], [16, 0, 1], 1e3])),
    st.just(16),
)


@st.composite
def score_lists(draw, n_videos=3, n_snippets=2):
    if draw(st.integers(0, 30)) == 15:
        return draw(_ODD)
    n_videos = draw(rarely(st.integers(0, 4), st.just(n_videos)))
    found = []
    for _ in range(n_videos):
        n = draw(rarely(st.integers(0, 20), st.just(n_snippets), 12))
        array = arrays(draw(rarely(st.sampled_from([(n, 1), ()]), st.just((n,)), 20)))
        found.append(draw(rarely(_ODD, array, 80)))
    return found


# --------------------------------------------------------------------------
# Checks of what comes out
# --------------------------------------------------------------------------
def _ok(condition, what):
    if not condition:
        raise AssertionError(what)


def _are_bags(bags):
    _ok(isinstance(bags, Bags), f"not Bags: {type(bags)}")
    for bag, length in zip(bags, bags.lengths, strict=True):
        _ok(bag.shape == (length, *bags.snippet_shape), f"{bag.shape} of {bags}")
        _ok(np.isfinite(bag).all(), "values that are not finite")


def _are_scores(found):
    bags, scores = found
    _ok(len(bags) == len(scores), f"{len(scores)} scores")
    for n, own in zip(bags, scores, strict=True):
        _ok(own.shape == (n,), f"scores {own.shape} of {n}")
        _ok(((own >= 0) & (own <= 1)).all(), f"scores {own}")


def _is_number(value):
    values = value.values() if isinstance(value, dict) else [value]
    _ok(all(isinstance(v, float) for v in values), f"no numbers: {value!r}")


def _anything(value):
    pass


# --------------------------------------------------------------------------
# Containers
# --------------------------------------------------------------------------
IDS = rarely(
    st.one_of(
        _ODD, st.lists(st.sampled_from(["a", "b", "c", 1, None, ""]), max_size=5)
    ),
    st.just(None),
    3,
)


@st.composite
def containers(draw):
    arrays_, ids = draw(bag_lists()), draw(IDS)
    key = draw(
        st.one_of(
            st.none(),
            _ODD,
            st.slices(5),
            st.lists(st.integers(-6, 6), max_size=4),
            st.lists(st.booleans(), max_size=5),
            st.integers(-6, 6),
        )
    )

    def run():
        bags = Bags.from_list(arrays_, ids)
        if key is not None:
            part = bags[key]
            bags = part if isinstance(part, Bags) else Bags.from_list([part])
        str(bags), np.asarray(bags), bags.n_features, bags.dtype
        return bags

    return Case("Bags", run, _are_bags, f"{arrays_!r}, {ids!r}, {key!r}")


@st.composite
def frame_labels(draw):
    args = draw(masks()), draw(SNIPPET_LENGTHS), draw(IDS)
    key = draw(st.one_of(st.none(), _ODD, st.lists(st.integers(-4, 4), max_size=4)))

    def run():
        labels_ = FrameLabels(*args)
        part = labels_ if key is None else labels_[key]
        return part if isinstance(part, FrameLabels) else labels_

    def check(found):
        _ok([m.dtype for m in found.masks] == [bool] * len(found), "masks")
        _ok(np.asarray(found).tolist() == [int(m.any()) for m in found.masks], "labels")

    return Case("FrameLabels", run, check, f"{args!r}, {key!r}")


# --------------------------------------------------------------------------
# Detectors
# --------------------------------------------------------------------------
_SMALL = {"max_epochs": 1, "random_state": 0, "device": "cpu"}
_MIL = MILRankingAnomalyDetector(hidden_dims=(3, 2), n_segments=4, **_SMALL)
_DETECTORS = {
    "MIL": _MIL,
    "DDL": DDLAnomalyDetector(
        hidden_dim=4, n_heads=2, mlp_dims=(3, 2), kernel_size=2, **_SMALL
    ),
    "RTFM": RTFMAnomalyDetector(hidden_dims=(3, 2), n_segments=4, **_SMALL),
    "STA": STAAnomalyDetector(n_channels=2, hidden_dim=2, n_segments=4, **_SMALL),
    "DAM": DAMAnomalyDetector(n_hidden=4, mlp_dims=(3,), n_segments=4, **_SMALL),
    "crops": MultiCropDetector(_MIL),
    "ensemble": EnsembleAnomalyDetector([_MIL, ("b", _MIL)], random_state=0),
}
_VALUES = st.one_of(
    _ODD,
    st.sampled_from(
        [1, 2, 3, 1e-30, 1e30, 0.5, 0.999, "cpu", "cuda:9", "roc_auc", "adam", "auto"]
    ),
    st.sampled_from([(2,), (2, 2), (0, 1), (1, 1, 1), [3, 2], ("a",), -1, np.int64(2)]),
    st.sampled_from(["standard", "uniform", "bfloat16", "cosine", "max", "before"]),
)
_TOO_MUCH = ("verbose", "n_jobs")


@st.composite
def detectors(draw):
    """A detector with some parameters set, perhaps to nonsense."""
    name = draw(st.sampled_from([*_DETECTORS, "MIL", "DDL", "RTFM", "STA", "DAM"]))
    est = clone(_DETECTORS[name])
    names = sorted(set(est.get_params(deep=False)) - {*_TOO_MUCH})
    params = draw(
        rarely(
            st.dictionaries(st.sampled_from(names), _VALUES, max_size=2), st.just({}), 2
        )
    )
    params = {k: v for k, v in params.items() if not _is_slow(k, v)}
    return name, est.set_params(**params)


def _is_slow(name, value):
    """Tell whether a parameter asks for more work than a case may cost."""
    big = isinstance(value, (int, float)) and not isinstance(value, bool) and value > 99
    return big and not name.startswith("lr")


def _tail(name, draw):
    usual = {"DAM": (2, 3), "crops": (2, 3)}.get(name, (3,))
    return draw(rarely(st.sampled_from([(3,), (2, 3), (2, 2, 3)]), st.just(usual)))


def _lengths(X):
    """Return the number of scores that each video is to get."""
    if isinstance(X, Bags):
        return X.lengths.tolist()
    if isinstance(X, np.ndarray) and X.dtype != object and X.ndim == 2:
        return [1] * len(X)
    if isinstance(X, torch.Tensor) and X.ndim == 2:
        return [1] * len(X)
    rows = isinstance(X, (list, tuple)) and all(isinstance(r, (list, tuple)) for r in X)
    if rows and all(np.isscalar(value) for row in X for value in row):
        return [1] * len(X)
    return [len(bag) for bag in X]


@st.composite
def fits(draw):
    name, est = draw(detectors())
    tail = _tail(name, draw)
    X, y = draw(bag_lists(4, tail)), draw(labels())
    validation = None
    if draw(st.integers(0, 5)) == 1:
        valid_y = labels() if draw(st.booleans()) else masks(4)
        validation = draw(rarely(_ODD, st.tuples(bag_lists(4, tail), valid_y)))
        if isinstance(validation, tuple) and len(validation) == 2:
            found = _frame_labels_or_none(validation[1])
            validation = (validation[0], validation[1] if found is None else found)
    other = draw(rarely(bag_lists(4), st.just(None), 3))
    how = draw(
        st.sampled_from(["score", "score", "predict", "frames", "partial", "stream"])
    )
    n_frames = draw(
        rarely(st.one_of(_ODD, st.lists(st.integers(-1, 300))), st.none(), 3)
    )
    length = draw(SNIPPET_LENGTHS)

    def run():
        if how == "partial" and hasattr(est, "partial_fit"):
            est.partial_fit(X, y, classes=draw_classes)
            est.partial_fit(X, y)
        else:
            est.fit(X, y, validation=validation)
        asked = X if other is None else other
        if how == "predict":
            labels_ = est.predict(asked)
            _ok(set(labels_) <= set(est.classes_), f"labels {labels_}")
            proba = est.predict_proba(asked)
            return [2] * len(proba), list(proba)
        if how == "frames":
            scores = est.score_frames(asked, n_frames, snippet_length=length)
            return [len(own) for own in scores], scores
        if how == "stream":
            stream = est.stream()
            score = stream.push(check_bags(asked)[0][0])
            return [1], [np.array([score])]
        scores = est.score_snippets(asked)
        return _lengths(asked), scores

    draw_classes = draw(rarely(_ODD, st.sampled_from([None, [0, 1]])))
    said = f"{est!r}, {X!r}, {y!r}, {validation!r}, {other!r}, {how}, {n_frames!r}"
    return Case(
        f"fit {name}", run, _are_scores, f"{said}, {length!r}, {draw_classes!r}"
    )


def _frame_labels_or_none(values):
    try:
        return FrameLabels(values)
    except (ValueError, TypeError):
        return None


# --------------------------------------------------------------------------
# Functions
# --------------------------------------------------------------------------
_METRICS = [
    *("frame_roc_auc_score", "balanced_frame_roc_auc_score", "score_gap", "evaluate"),
    *("frame_average_precision_score", "false_alarm_rate", "anomalous_roc_auc_score"),
    *("category_roc_auc_score", "event_average_precision_score"),
    "mean_event_average_precision",
]


@st.composite
def events(draw):
    event = st.tuples(*[rarely(_ODD, st.integers(-1, 60), 40)] * 2, st.floats(0, 1))
    usual = st.lists(st.lists(event, max_size=3), min_size=3, max_size=3)
    return draw(rarely(_ODD, usual))


@st.composite
def metric_calls(draw):
    name = draw(st.sampled_from(_METRICS))
    truth = draw(masks())
    wrapped = _frame_labels_or_none(truth) if draw(st.booleans()) else None
    truth = truth if wrapped is None else wrapped
    kwargs = {"snippet_length": draw(SNIPPET_LENGTHS)}
    if "event" in name:
        args = [truth, draw(events())]
        if draw(st.integers(0, 3)) == 1:
            kwargs["ious" if name.startswith("mean") else "iou"] = draw(_VALUES)
    else:
        args = [truth, draw(score_lists())]
    if name.startswith("category"):
        words = st.lists(st.sampled_from(["A", ("A", "B"), "", 3]), max_size=4)
        args.append(draw(rarely(st.one_of(_ODD, words), st.just(["A", "B", "C"]))))
    for keyword, function in (
        ("threshold", "false_alarm_rate"),
        ("interpolation", "frame_average_precision_score"),
        ("negatives", "category_roc_auc_score"),
    ):
        if name == function and draw(st.integers(0, 3)) == 1:
            kwargs[keyword] = draw(_VALUES)

    def run():
        return getattr(metrics, name)(*args, **kwargs)

    return Case(name, run, _is_number, f"{args!r}, {kwargs!r}")


@st.composite
def scores_to_frames(draw):
    name = draw(st.sampled_from(["expand_scores", "find_events", "smooth_scores"]))
    args, kwargs = [draw(score_lists())], {}
    if name == "smooth_scores":
        args.append(draw(rarely(_VALUES, st.sampled_from([1, 3, 5, 99]))))
        kwargs["causal"] = draw(rarely(_ODD, st.booleans()))
    else:
        usual = st.sampled_from([None, [32, 32, 32], [30, 33, 40]])
        args.append(draw(rarely(st.one_of(_ODD, masks()), usual)))
        kwargs["snippet_length"] = draw(SNIPPET_LENGTHS)
    if name == "find_events":
        for keyword in ("threshold", "min_frames", "merge_frames"):
            if draw(st.integers(0, 3)) == 1:
                kwargs[keyword] = draw(_VALUES)
    module = timeline if name == "expand_scores" else postprocessing

    def run():
        return getattr(module, name)(*args, **kwargs)

    def check(found):
        _ok(isinstance(found, list), "no list")
        _ok(all(own.ndim == 1 for own in found), "no 1-D arrays")

    return Case(name, run, check, f"{args!r}, {kwargs!r}")


_FITTED = []


def _fitted():
    if not _FITTED:
        bags, y = datasets.make_bags(6, n_features=3, max_snippets=8, random_state=0)
        _FITTED.append(clone(_MIL).fit(bags, y))
    return _FITTED[0]


@st.composite
def scorer_calls(draw):
    name = draw(st.sampled_from(["tune", "roc", "both"]))
    X, truth = draw(bag_lists(3, (3,))), draw(masks())
    wrapped = _frame_labels_or_none(truth) if draw(st.booleans()) else None
    truth = truth if wrapped is None else wrapped
    length = draw(SNIPPET_LENGTHS)
    far = draw(rarely(_VALUES, st.just(0.1)))

    def run():
        est = _fitted()
        if name == "tune":
            return postprocessing.tune_threshold(
                est, X, truth, far=far, snippet_length=length
            )
        scorer = (
            metrics.frame_scorers if name == "both" else metrics.frame_roc_auc_scorer
        )
        return scorer(est, X, truth, snippet_length=length)

    said = f"{X!r}, {truth!r}, {length!r}, {far!r}"
    return Case(f"scorer {name}", run, _is_number, said)


@st.composite
def transforms(draw):
    kinds = {
        "BagTransformer": preprocessing.BagTransformer(StandardScaler()),
        "SegmentPooling": preprocessing.SegmentPooling(3),
        "UniformSampler": preprocessing.UniformSampler(3),
        "SnippetNormalizer": preprocessing.SnippetNormalizer(),
    }
    name = draw(st.sampled_from(list(kinds)))
    est = kinds[name]
    params = st.dictionaries(st.sampled_from(sorted(est.get_params(False))), _VALUES)
    params = draw(rarely(params, st.just({}), 3))
    est.set_params(**{k: v for k, v in params.items() if not _is_slow(k, v)})
    X, other = draw(bag_lists()), draw(rarely(bag_lists(), st.none(), 3))

    def run():
        return est.fit(X).transform(X if other is None else other)

    return Case(name, run, _are_bags, f"{est!r}, {X!r}, {other!r}")


@st.composite
def data_calls(draw):
    name = draw(
        st.sampled_from(["Annotations", "find_duplicates", "groups", "make_bags"])
    )
    if name == "Annotations":
        columns = [["a", "b"], [["A"], ["N"]], [1, 0], [[[2, 4]], []], [5, 3]]
        columns = [draw(rarely(_ODD, st.just(column))) for column in columns]
        asked = draw(rarely(_ODD, st.just(["x/b.npy", "a__1.npy"])))
        kwargs = {"snippet_length": draw(SNIPPET_LENGTHS)}
        if draw(st.booleans()):
            kwargs["n_frames"] = draw(st.one_of(_ODD, st.just([5, 5])))

        def run():
            found = datasets.Annotations(*columns)
            return found.align(asked).frame_labels(**kwargs)

        return Case(name, run, _anything, f"{columns!r}, {asked!r}, {kwargs!r}")
    if name == "find_duplicates":
        X, tolerance = draw(bag_lists()), draw(rarely(_VALUES, st.just(0.0), 3))

        def run():
            return datasets.find_duplicates(X, tolerance=tolerance)

        return Case(name, run, _anything, f"{X!r}, {tolerance!r}")
    if name == "groups":
        ids = draw(rarely(_ODD, st.just(["a__1", "a__2"])))
        groups = [draw(rarely(_ODD, st.just([0, 1]))) for _ in range(2)]
        pattern = draw(
            rarely(_ODD, st.sampled_from([r"(.+)__.", "(", "x", r"(a)|(b)"]))
        )

        def run():
            return datasets.merge_groups(datasets.source_groups(ids, pattern), *groups)

        return Case(name, run, _anything, f"{ids!r}, {pattern!r}, {groups!r}")
    names = ["n_features", "n_steps", "anomalous_fraction", "min_snippets"]
    names += ["max_snippets", "difficulty", "snippet_length", "random_state"]
    params = draw(st.dictionaries(st.sampled_from(names), _VALUES, max_size=3))
    params = {k: v for k, v in params.items() if not _is_slow(k, v)}

    def run():
        return datasets.make_bags(4, **params)[0]

    return Case(name, run, _are_bags, f"{params!r}")


KINDS = {
    "containers": containers(),
    "frame labels": frame_labels(),
    "fit": fits(),
    "metrics": metric_calls(),
    "scores": scores_to_frames(),
    "scorers": scorer_calls(),
    "transformers": transforms(),
    "datasets": data_calls(),
}


# --------------------------------------------------------------------------
# Outcomes
# --------------------------------------------------------------------------
def judge(case):
    """Run a case; return (outcome, what is wrong with it or None)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = case.run()
            case.check(found)
    except Exception as error:
        wrong = why_unexplained(error)
        return "wrong" if wrong else "refused", wrong
    return "fine", None


def why_unexplained(error):
    """Say why an error is none of ours, None for one that is."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{frame.filename}:{frame.lineno}"
    said = f"{type(error).__name__}: {str(error)[:300]} [{where}]"
    if not isinstance(error, (ValueError, TypeError, IndexError)) or not str(error):
        return said
    if isinstance(error, IndexError) and "bags.py" not in frame.filename:
        return said
    raised = linecache.getline(frame.filename, frame.lineno).strip().startswith("raise")
    ours = any(part in frame.filename for part in _OURS)
    return None if raised and ours else said
