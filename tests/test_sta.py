"""STA: the network against Eqs. 1-3 in numpy, its losses, and the paper's settings."""

import itertools
import math

import naive
import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.testing import assert_close

from sklearn_vad import Bags, STAAnomalyDetector, datasets
from sklearn_vad._batching import collate
from sklearn_vad.detectors._sta import CrissCrossNet, sta_loss_terms
from sklearn_vad.functional import mutual_cosine_embedding_loss
from sklearn_vad.layers import initialise
from sklearn_vad.metrics import frame_roc_auc_score

LENGTHS = [1, 3, 8, 20, 5]
Y = [1, 0, 1, 0, 1]
N_FEATURES = 5
OPTIONS = {
    "n_channels": 4,
    "n_passes": 2,
    "temperature": 1.0,
    "l2_normalize": False,
    "regressor": "rnn",
    "hidden_dim": 6,
    "fc_dims": (7, 4),
}
regressors = pytest.mark.parametrize("regressor", ["rnn", "fc"])
resolutions = pytest.mark.parametrize("resolution", ["segment", "snippet"])


def make_net(seed=0, **options):
    """A network in eval mode whose scores differ well."""
    net = CrissCrossNet(N_FEATURES, **(OPTIONS | options))
    initialise(net, torch.Generator().manual_seed(seed))
    net.regressor[-1].weight.data *= 4
    return net.eval()


def make_bags(lengths=LENGTHS, seed=0):
    """Features as a network's, after ReLU, with a snippet of zeros in long bags."""
    rng = np.random.default_rng(seed)
    bags = [np.float32(rng.normal(size=(n, N_FEATURES))).clip(0) for n in lengths]
    for bag in bags:
        bag[5:6] = 0
    return bags


def detector(**params):
    """A detector that trains within a second."""
    small = {
        "n_channels": 4,
        "hidden_dim": 6,
        "fc_dims": (7, 4),
        "n_segments": 6,
        "max_epochs": 1,
        "random_state": 0,
    }
    return STAAnomalyDetector(**(small | params))


def equal(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


# --------------------------------------------------------------------------
# The mutual cosine embedding loss, beside tests/test_functional.py
# --------------------------------------------------------------------------
def mce(bags, y, margin=0.4):
    batch = collate([np.asarray(bag, np.float32) for bag in bags])
    X = batch["X"].double()
    return mutual_cosine_embedding_loss(X, torch.tensor(y), batch["mask"], margin)


BENT = [[3.0, 0.0], [0.0, 0.5], [2.0, 2.0]]  # cosines 0, sqrt(1/2), sqrt(1/2)
ALIKE = [[1.0, 1.0], [7.0, 7.0]]
OPPOSITE = [[1.0, 0.0], [-2.0, 0.0]]
HALF = math.sqrt(0.5)


@pytest.mark.parametrize(
    ("bags", "y", "margin", "expected"),
    [
        ([BENT], [0], 0.4, 1 - 2 * HALF / 3),
        ([BENT], [1], 0.4, 0.8 / 3),
        ([BENT], [1], 0.9, 2 * HALF / 3),
        ([BENT], [1], -0.5, -0.5),
        ([OPPOSITE], [1], 0.4, -1.0),
        ([OPPOSITE], [0], 0.4, 2.0),
        ([BENT, BENT], [0, 1], 0.4, 1 - 2 * HALF / 3 + 0.8 / 3),
        # Averages of videos, not of all pairs:
        ([BENT, ALIKE], [0, 0], 0.4, 1 - (2 * HALF / 3 + 1) / 2),
        ([BENT, OPPOSITE], [1, 1], 0.4, (0.8 / 3 - 1) / 2),
        # Videos of one snippet have no pair and do not count:
        ([BENT, [[5.0, 5.0]]], [0, 0], 0.4, 1 - 2 * HALF / 3),
        ([BENT, [[5.0, 5.0]]], [0, 1], 0.4, 1 - 2 * HALF / 3),
        ([[[5.0, 5.0]], OPPOSITE], [0, 1], 0.4, -1.0),
        ([[[5.0, 5.0]], [[1.0, 0.0]]], [0, 1], 0.4, 0.0),
        # A row of zeros has cosine 0:
        ([[[0.0, 0.0], [3.0, 4.0]]], [0], 0.4, 1.0),
        ([[[0.0, 0.0], [3.0, 4.0]]], [1], 0.4, 0.0),
        ([[[0.0, 0.0], [0.0, 0.0]]], [1], -0.5, -0.5),
    ],
)
def test_mutual_cosine_by_hand(bags, y, margin, expected):
    assert mce(bags, y, margin).item() == pytest.approx(expected, rel=1e-12, abs=1e-12)
    found = naive.mutual_cosine_embedding_loss(bags, y, margin)
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_mutual_cosine_does_not_see_the_scale_of_features(scale):
    bags = [np.float64(bag) for bag in make_bags([6, 9, 4], seed=1)]
    value = mce([scale * bag for bag in bags], [0, 1, 1])
    assert value.item() == pytest.approx(mce(bags, [0, 1, 1]).item(), rel=1e-6)


def test_mutual_cosine_keeps_apart_only_what_is_not_above_the_margin():
    """Of the pairs of three rows, the first is above it and passes no gradient."""
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.1], [-1.0, 1.0]], dtype=torch.float64)
    rows.requires_grad_()
    mutual_cosine_embedding_loss(rows[None], torch.tensor([1])).backward()
    copy = rows.detach().clone().requires_grad_()
    below = [torch.cosine_similarity(copy[i], copy[2], dim=0) for i in (0, 1)]
    (sum(below) / 3).backward()
    assert rows.grad[:, 1].abs().min() > 0.01
    assert_close(rows.grad, copy.grad, rtol=1e-12, atol=1e-12)
    above = rows[:2].detach().requires_grad_()
    mutual_cosine_embedding_loss(above[None], torch.tensor([1])).backward()
    assert (above.grad == 0).all()
    # In a normal video all pairs count.
    mutual_cosine_embedding_loss(above[None], torch.tensor([0])).backward()
    assert above.grad[:, 1].abs().min() > 0.01


def test_mutual_cosine_of_rows_of_zeros_has_finite_gradients():
    bag = np.zeros((4, 3), dtype=np.float32)
    bag[1] = [1, 2, 2]
    for y in ([0], [1]):
        X = torch.from_numpy(bag)[None].clone().requires_grad_()
        mutual_cosine_embedding_loss(X, torch.tensor(y)).backward()
        assert X.grad.isfinite().all()


def test_mutual_cosine_descends_to_alike_normal_and_differing_anomalous_snippets():
    X = torch.from_numpy(np.stack(make_bags([6, 6], seed=2))).requires_grad_()
    y = torch.tensor([0, 1])
    optimizer = torch.optim.Adam([X], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        mutual_cosine_embedding_loss(X, y).backward()
        optimizer.step()
    unit = nn.functional.normalize(X.detach(), dim=2)
    normal, anomalous = (unit @ unit.mT)[:, *torch.triu_indices(6, 6, 1)]
    assert normal.min() > 0.95
    assert anomalous.mean() < 0


# --------------------------------------------------------------------------
# The network
# --------------------------------------------------------------------------
def naive_sta(net, bag, **options):
    """Section 2 for one unpadded bag, in float64; (scores, features)."""
    options = OPTIONS | options
    weight = {name: p.detach().double().numpy() for name, p in net.named_parameters()}
    assert net.scaling.l2_normalize == options["l2_normalize"]
    features = naive.scaled(net.scaling, bag)
    for _ in range(options["n_passes"]):
        (features,) = naive.criss_cross_attention(
            [features],
            weight["query.weight"][:, 0],
            weight["query.bias"],
            weight["key.weight"][:, 0],
            weight["key.bias"],
            options["temperature"],
        )
    states = features
    if options["regressor"] == "rnn":
        order = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        layers = [
            [
                [weight[f"rnn.{part}_l{i}{direction}"] for part in order]
                for direction in ("", "_reverse")
            ]
            for i in (0, 1)
        ]
        states = naive.bidirectional_rnn(features, layers)
    layers = [name[:-7] for name in weight if name.startswith("regressor.")][::2]
    for layer in layers:
        states = states @ weight[f"{layer}.weight"].T + weight[f"{layer}.bias"]
        if layer != layers[-1]:
            states = np.maximum(states, 0)
    return naive.sigmoid(states[:, 0]), features


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)]
)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"regressor": "fc"},
        {"n_passes": 0},
        {"n_passes": 1, "temperature": 0.5},
        {"n_passes": 3, "regressor": "fc", "temperature": 0.3},
        {"l2_normalize": True},
        {"l2_normalize": True, "regressor": "fc", "n_channels": 1},
        {"regressor": "fc", "fc_dims": (3,), "n_channels": 10},
    ],
    ids=str,
)
def test_network_equals_the_printed_equations(options, dtype, tolerance):
    net, bags = make_net(**options).to(dtype), make_bags()
    batch = collate(bags)
    with torch.no_grad():
        output = net(batch["X"].to(dtype), batch["mask"])
    assert output.keys() == {"scores", "features"}
    for i, bag in enumerate(bags):
        scores, features = naive_sta(net, bag, **options)
        for name, expected in (("features", features), ("scores", scores)):
            got = output[name][i, : len(bag)]
            allowed = tolerance * max(1, np.abs(expected).max())
            np.testing.assert_allclose(got, expected, rtol=0, atol=allowed)
            assert got.dtype == dtype
        if len(bag) > 3:
            assert np.ptp(scores) > 0.01


@regressors
def test_scores_do_not_depend_on_padding_or_company(regressor):
    net, bags = make_net(regressor=regressor), make_bags()
    batch = collate(bags)
    wide = torch.full((len(bags), 40, N_FEATURES), torch.nan)
    wide[:, : max(LENGTHS)] = batch["X"].where(batch["mask"][..., None], torch.nan)
    mask = torch.arange(40) < torch.tensor(LENGTHS)[:, None]
    with torch.no_grad():
        together, padded = net(**batch), net(wide, mask)
        for i, bag in enumerate(bags):
            alone = net(**collate([bag]))
            for name, values in alone.items():
                for many in (together, padded):
                    found = many[name][i, : len(bag)]
                    assert_close(found, values[0], rtol=1e-5, atol=1e-6)


@regressors
def test_weights_get_the_same_gradient_under_more_padding(regressor):
    y, gradients = torch.tensor(Y), []
    for company in ([], make_bags([50], seed=1)):
        net = make_net(regressor=regressor)
        batch = collate(make_bags() + company)
        output = {name: x[: len(Y)] for name, x in net(**batch).items()}
        terms = loss_terms(output, y, batch["mask"][: len(Y)])
        sum(terms.values()).backward()
        gradients.append([p.grad for p in net.parameters()])
    for tight, wide in zip(*gradients, strict=True):
        assert tight.any()
        assert_close(wide, tight, rtol=1e-4, atol=1e-6)


def moved(net):
    """Snippets whose scores change when one value of snippet 14 does."""
    X, mask = collate(make_bags([20])).values()
    changed = X.clone()
    changed[0, 14, 0] += 1
    with torch.no_grad():
        before, after = (
            net.double()(x.double(), mask)["scores"][0] for x in (X, changed)
        )
    return (before != after).nonzero().ravel().tolist()


def test_what_a_score_depends_on():
    """The perceptron sees a snippet; attention and the RNN see the whole video."""
    assert moved(make_net(n_passes=0, regressor="fc")) == [14]
    assert moved(make_net(n_passes=1, regressor="fc")) == list(range(20))
    around = moved(make_net(n_passes=0))
    assert min(around) < 12
    assert max(around) > 16


def test_scores_stay_in_float32_under_autocast():
    for regressor in ("rnn", "fc"):
        net, bags = make_net(regressor=regressor), make_bags()
        with torch.no_grad():
            expected = net(**collate(bags))["scores"]
            with torch.autocast("cpu", torch.bfloat16):
                scores = net(**collate(bags))["scores"]
            nn.init.constant_(net.regressor[-1].bias, 12.0)
            with torch.autocast("cpu", torch.bfloat16):
                high = net(**collate(bags))["scores"]
        mask = collate(bags)["mask"]
        assert scores.dtype == torch.float32
        assert not torch.equal(scores, expected)
        assert_close(scores[mask], expected[mask], rtol=0, atol=0.05)
        assert (high[mask] < 1).all()  # a bfloat16 sigmoid returns exactly 1


@regressors
def test_default_network_has_the_papers_shapes(regressor):
    with torch.device("meta"):
        net = STAAnomalyDetector(regressor=regressor)._make_module(1024)
    shapes = {name: tuple(p.shape) for name, p in net.named_parameters()}
    expected = {f"{n}.weight": (10, 1) for n in ("query", "key")}
    expected |= {f"{n}.bias": (10,) for n in ("query", "key")}
    if regressor == "rnn":
        for layer, width in (("l0", 1024), ("l1", 128)):
            for name in (layer, f"{layer}_reverse"):
                expected |= {
                    f"rnn.weight_ih_{name}": (64, width),
                    f"rnn.weight_hh_{name}": (64, 64),
                    f"rnn.bias_ih_{name}": (64,),
                    f"rnn.bias_hh_{name}": (64,),
                }
        widths = [128, 1]
    else:
        widths = [1024, 512, 32, 1]
    for i, pair in enumerate(itertools.pairwise(widths)):
        expected[f"regressor.{2 * i}.weight"] = pair[::-1]
        expected[f"regressor.{2 * i}.bias"] = pair[1:]
    assert shapes == expected
    assert (net.n_passes, net.temperature, net.scaling.l2_normalize) == (2, 1.0, False)


# --------------------------------------------------------------------------
# The loss
# --------------------------------------------------------------------------
def loss_terms(output, y, mask, **changed):
    """The terms under weights that let all of them show."""
    weights = {
        "mce_weight": 0.7,
        "mce_margin": 0.3,
        "margin": 0.9,
        "smoothness": 0.4,
        "sparsity": 0.2,
    }
    return sta_loss_terms(output, y, mask, **(weights | changed))


def test_loss_is_eq_6_with_the_papers_weights():
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(n, N_FEATURES)) for n in LENGTHS]
    scores = [rng.random(n) for n in LENGTHS]
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    output = {
        "scores": torch.zeros(mask.shape, dtype=torch.float64),
        "features": torch.zeros(*mask.shape, N_FEATURES, dtype=torch.float64),
    }
    output["scores"][mask] = torch.tensor(np.concatenate(scores))
    output["features"][mask] = torch.tensor(np.concatenate(features))
    terms = STAAnomalyDetector()._loss_terms()(output, torch.tensor(Y), mask)
    hinge = naive.mil_ranking_loss(scores, Y, 1.0, 0, 0)
    smooth = naive.mil_ranking_loss(scores, Y, 1.0, 1, 0) - hinge
    sparse = naive.mil_ranking_loss(scores, Y, 1.0, 0, 1) - hinge
    ranking = hinge + 2e-4 * smooth + 4e-5 * sparse
    mutual = 2e-2 * naive.mutual_cosine_embedding_loss(features, Y, 0.4)
    assert terms.keys() == {"ranking", "mutual_cosine"}
    assert terms["ranking"].item() == pytest.approx(ranking, rel=1e-12)
    assert terms["mutual_cosine"].item() == pytest.approx(mutual, rel=1e-12)
    total = sum(terms.values()).item()
    assert total == pytest.approx(ranking + mutual, rel=1e-12)


@regressors
def test_loss_of_the_network_equals_the_loops(regressor):
    net, bags = make_net(regressor=regressor), make_bags()
    batch = collate(bags)
    with torch.no_grad():
        terms = loss_terms(net(**batch), torch.tensor(Y), batch["mask"])
    outputs = (naive_sta(net, bag, regressor=regressor) for bag in bags)
    scores, features = zip(*outputs, strict=True)
    ranking = naive.mil_ranking_loss(scores, Y, 0.9, 0.4, 0.2)
    mutual = 0.7 * naive.mutual_cosine_embedding_loss(features, Y, 0.3)
    assert terms["ranking"].item() == pytest.approx(ranking, rel=1e-5)
    assert terms["mutual_cosine"].item() == pytest.approx(mutual, rel=1e-5)


def test_detector_hands_its_weights_to_the_loss():
    est = STAAnomalyDetector(
        mce_weight=2, mce_margin=0.5, margin=3, smoothness=4, sparsity=5
    )
    assert est._loss_terms().keywords == {
        "mce_weight": 2,
        "mce_margin": 0.5,
        "margin": 3,
        "smoothness": 4,
        "sparsity": 5,
    }


def segments_by_hand(bag, n_segments=6):
    """The mean over snippets floor(i n / 6) to floor((i + 1) n / 6)."""
    segments = []
    for i in range(n_segments):
        start, stop = i * len(bag) // n_segments, (i + 1) * len(bag) // n_segments
        rows = bag[start : max(stop, start + 1)].astype(np.float64)
        segments.append(np.float32(rows.mean(axis=0)))
    return np.stack(segments)


@pytest.mark.parametrize("n_segments", [6, None])
def test_training_minimises_the_loss_of_pooled_bags(n_segments):
    """The loss in the history is that of the loops, on segments pooled by hand."""
    bags, y = make_bags([20, 6, 4, 13]), [1, 0, 0, 1]
    est = detector(
        n_segments=n_segments,
        resolution="snippet",
        lr=1e-30,
        mce_weight=0.7,
        smoothness=0.4,
        sparsity=0.2,
    )
    est.fit(bags, y)
    seen = bags if n_segments is None else [segments_by_hand(bag) for bag in bags]
    outputs = (naive_sta(est.net_.module_, bag) for bag in seen)
    scores, features = zip(*outputs, strict=True)
    ranking = naive.mil_ranking_loss(scores, y, 1.0, 0.4, 0.2)
    mutual = 0.7 * naive.mutual_cosine_embedding_loss(features, y, 0.4)
    (epoch,) = est.history_
    assert epoch["train_ranking"] == pytest.approx(ranking, rel=1e-5)
    assert epoch["train_mutual_cosine"] == pytest.approx(mutual, rel=1e-5)
    assert epoch["train_loss"] == pytest.approx(ranking + mutual, rel=1e-5)


def test_without_weight_there_is_no_mutual_cosine_term():
    bags = make_bags()
    both = detector(max_epochs=3, lr=0.01).fit(bags, Y)
    ranking = detector(max_epochs=3, lr=0.01, mce_weight=0).fit(bags, Y)
    assert all("train_mutual_cosine" in epoch for epoch in both.history_)
    assert not any("train_mutual_cosine" in epoch for epoch in ranking.history_)
    # From the same weights the first batch has the same ranking loss.
    first = both.history_[0]["train_ranking"]
    assert ranking.history_[0]["train_loss"] == pytest.approx(first, rel=1e-6)
    assert both.history_[0]["train_loss"] > first + 1e-3
    assert not equal(both.score_snippets(bags), ranking.score_snippets(bags))


# --------------------------------------------------------------------------
# The detector
# --------------------------------------------------------------------------
PAPER = {  # Section 3.1; 32 segments and 30 videos of each class are Sultani's
    "n_channels": 10,
    "n_passes": 2,
    "temperature": 1.0,
    "l2_normalize": False,
    "regressor": "rnn",
    "hidden_dim": 64,
    "fc_dims": (512, 32),
    "n_segments": 32,
    "resolution": "segment",
    "mce_weight": 2e-2,
    "mce_margin": 0.4,
    "margin": 1.0,
    "smoothness": 2e-4,
    "sparsity": 4e-5,
    "optimizer": "adam",
    "weight_decay": 0,
    "balanced_batches": True,
    "batch_size": 60,
    "max_epochs": 50,
    "lr": 1e-4,
    "lr_decay": None,
    "input_scaling": None,
    "video_weight": 0,
}


@pytest.mark.parametrize("changes", [{}, {"regressor": "fc", "lr": 1e-2}], ids=str)
def test_settings_of_the_paper(changes):
    """All that is not in the paper is as by default."""
    params = STAAnomalyDetector.as_published(**changes).get_params()
    assert params == STAAnomalyDetector().get_params() | PAPER | changes


def test_defaults_differ_from_the_paper_in_training_alone():
    params = STAAnomalyDetector().get_params()
    training = {
        "max_epochs": 20,
        "lr": 1e-3,
        "lr_decay": "cosine",
        "input_scaling": "uniform",
    }
    assert {name: params[name] for name in PAPER} == PAPER | training


class Recording(STAAnomalyDetector):
    """Keep the batches that the network sees."""

    def _make_module(self, n_features):
        net = super()._make_module(n_features)
        net.register_forward_pre_hook(
            lambda net, args, batch: type(self).batches.append(batch), with_kwargs=True
        )
        return net


@resolutions
def test_training_sees_segments_pooled_by_mean(resolution):
    Recording.batches = []
    bags = make_bags([50, 6, 4, 33])
    small = {"hidden_dim": 4, "n_segments": 6, "max_epochs": 1, "random_state": 0}
    est = Recording(**small, resolution=resolution).fit(bags, [1, 0, 0, 1])
    (batch,) = est.batches
    assert batch["mask"].shape == (4, 6)
    assert batch["mask"].all()
    seen = sorted(batch["X"].numpy().tolist())
    expected = sorted(segments_by_hand(bag).tolist() for bag in bags)
    np.testing.assert_allclose(seen, expected, rtol=1e-6)
    np.testing.assert_array_equal(segments_by_hand(bags[1]), bags[1])
    est.batches.clear()
    assert [len(s) for s in est.score_snippets(bags)] == [50, 6, 4, 33]
    lengths = sorted(n for b in est.batches for n in b["mask"].sum(1).tolist())
    assert lengths == ([6] * 4 if resolution == "segment" else [4, 6, 33, 50])


def spread_by_hand(scores, n_snippets):
    """Each snippet's mean over the segments of which it is a part or the whole."""
    out = []
    for t in range(n_snippets):
        shown = []
        for i, score in enumerate(scores):
            start = i * n_snippets // len(scores)
            stop = (i + 1) * n_snippets // len(scores)
            if start <= t < max(stop, start + 1):
                shown.append(float(score))
        out.append(sum(shown) / len(shown))
    return np.array(out)


@regressors
def test_snippets_get_the_scores_of_their_segments(regressor):
    bags = make_bags([1, 3, 5, 6, 7, 13, 40])  # fewer and more than 6 segments
    est = detector(regressor=regressor, max_epochs=3, lr=0.01)
    est.fit(bags, [1, 0, 1, 0, 1, 0, 1])
    by_segment = est.score_snippets(bags)
    videos = est.decision_function(bags)
    est.set_params(resolution="snippet")
    segments = est.score_snippets([segments_by_hand(bag) for bag in bags])
    for bag, found, scores in zip(bags, by_segment, segments, strict=True):
        assert found.dtype == np.float32
        expected = spread_by_hand(scores, len(bag))
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    most = [scores.max() for scores in by_segment]
    np.testing.assert_allclose(videos, np.array(most) - 0.5, rtol=1e-5)
    by_snippet = est.score_snippets(bags)
    assert np.abs(by_segment[6] - by_snippet[6]).max() > 1e-3
    np.testing.assert_allclose(by_segment[3], by_snippet[3], rtol=1e-5)


@pytest.mark.parametrize(
    "params",
    [{}, {"regressor": "fc"}, {"n_passes": 1}, {"temperature": 0.4}],
    ids=str,
)
def test_fitted_detector_scores_as_its_equations_say(params):
    bags = make_bags()
    est = detector(**params, resolution="snippet", max_epochs=3, lr=0.01).fit(bags, Y)
    for bag, scores in zip(bags, est.score_snippets(bags), strict=True):
        expected, _ = naive_sta(est.net_.module_, bag, **params)
        np.testing.assert_allclose(scores, expected, rtol=1e-5)
    np.testing.assert_array_equal(
        est.predict_proba(bags)[:, 1], [s.max() for s in est.score_snippets(bags)]
    )


@regressors
@pytest.mark.parametrize(
    "params",
    [
        {"resolution": "segment"},
        {"resolution": "snippet"},
        {"resolution": "snippet", "n_segments": None},
    ],
    ids=str,
)
def test_scores_of_a_video_do_not_depend_on_the_others(regressor, params):
    bags = make_bags([1, 30, 7, 16, 2])
    est = detector(regressor=regressor, max_epochs=2, lr=0.01, **params).fit(bags, Y)
    together = est.score_snippets(bags)
    for i, bag in enumerate(bags):
        (alone,) = est.score_snippets([bag])
        np.testing.assert_allclose(together[i], alone, rtol=1e-5, atol=1e-6)
    backwards = est.score_snippets(bags[::-1])[::-1]
    for found, expected in zip(backwards, together, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "params",
    [
        {"n_passes": 0},
        {"n_passes": 1},
        {"n_passes": 3},
        {"temperature": 0.3},
        {"l2_normalize": True},
    ],
    ids=str,
)
def test_detector_hands_its_switches_to_the_network(params):
    """Of the same initial weights, so that only the switch tells them apart."""
    bags = make_bags()
    default = detector(lr=1e-30).fit(bags, Y)
    est = detector(lr=1e-30, **params).fit(bags, Y)
    for name, value in params.items():
        owner = "scaling" if name == "l2_normalize" else ""
        assert getattr(est.net_.module_.get_submodule(owner), name) == value
    weights = (e.net_.module_.parameters() for e in (default, est))
    assert all(torch.equal(*pair) for pair in zip(*weights, strict=True))
    differ = (
        np.abs(a - b).max()
        for a, b in zip(
            default.score_snippets(bags), est.score_snippets(bags), strict=True
        )
    )
    assert max(differ) > 1e-4


@resolutions
def test_validation_scores_are_those_of_the_resolution(resolution):
    bags, y = datasets.make_bags(12, n_features=N_FEATURES, random_state=0)
    est = detector(resolution=resolution).fit(bags[:6], y[:6], (bags[6:], y[6:]))
    expected = frame_roc_auc_score(y[6:], est.score_snippets(bags[6:]))
    assert est.history_[0]["valid_score"] == pytest.approx(expected, rel=1e-12)


def test_initial_weights_come_from_the_seed_alone():
    bags = make_bags()

    def weights(**params):
        est = detector(lr=1e-30, **params).fit(bags, Y)
        return [p.detach() for p in est.net_.module_.parameters()]

    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = weights()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert all(map(torch.equal, weights(), first))
    other = weights(random_state=1)
    assert not any(map(torch.equal, other, first))
    # torch's own rule for a fan-in of 1, biases too
    many = torch.cat([p.ravel() for p in weights(n_channels=500)[:4]])
    assert -1 <= many.min() < -0.99
    assert 0.99 < many.max() <= 1
    assert abs(many.mean()) < 0.1


@pytest.mark.parametrize(
    ("params", "least"),
    [({"random_state": 1}, 0.8), ({"regressor": "fc"}, 0.85)],
    ids=["rnn", "fc"],
)
def test_learns_to_find_anomalies_in_unseen_videos(params, least):
    bags, y = datasets.make_bags(
        160, n_features=16, max_snippets=40, difficulty=0.0, random_state=1
    )
    est = STAAnomalyDetector(hidden_dim=16, lr=2e-3, max_epochs=20, n_jobs=1)
    est.set_params(**({"random_state": 0} | params)).fit(bags[:120], y[:120])
    assert frame_roc_auc_score(y[120:], est.score_snippets(bags[120:])) > least
    assert roc_auc_score(y[120:], est.decision_function(bags[120:])) > least


def test_stored_bags_give_the_same_scores():
    bags = make_bags()
    expected = detector().fit(bags, Y).score_snippets(bags)
    stored = Bags.from_list(bags)
    assert equal(detector().fit(stored, Y).score_snippets(stored), expected)


# Errors -------------------------------------------------------------------
def test_streams_are_refused():
    est = detector().fit(make_bags(), Y)
    with pytest.raises(TypeError, match="STAAnomalyDetector can't score a stream"):
        est.stream()


def test_segments_need_a_number():
    message = 'resolution="segment" needs n_segments, got None'
    est = detector(n_segments=None, resolution="segment")
    for fit in (est.fit, est.partial_fit):
        with pytest.raises(ValueError, match=message):
            fit(make_bags(), Y)
    assert not hasattr(est, "net_")
    est.set_params(resolution="snippet").fit(make_bags(), Y)


@pytest.mark.parametrize(
    "fit", [STAAnomalyDetector.fit, STAAnomalyDetector.partial_fit]
)
def test_inner_steps_or_crops_are_refused(fit):
    bags = [np.ones((4, 2, 6))] * 4
    with pytest.raises(ValueError, match=r"bags have 3 axes.*MultiCropDetector"):
        fit(detector(), bags, [0, 1, 0, 1])


def test_what_fit_saw_predict_must_see():
    bags = make_bags()
    est = detector().fit(bags, Y)
    with pytest.raises(ValueError, match=r"\[video\]"):
        est.score_snippets(bags[3])
    with pytest.raises(ValueError, match=r"4 features.*expecting 5"):
        est.score_snippets([bags[3][:, :4]])


@pytest.mark.parametrize(
    "params",
    [
        {"n_channels": 0},
        {"n_passes": -1},
        {"n_passes": 1.5},
        {"temperature": 0.09},
        {"temperature": math.nan},
        {"l2_normalize": "yes"},
        {"regressor": "lstm"},
        {"hidden_dim": 0},
        {"fc_dims": ()},
        {"fc_dims": (3, 0)},
        {"fc_dims": 5},
        {"n_segments": 0},
        {"resolution": "frame"},
        {"mce_weight": -0.1},
        {"mce_margin": 1.1},
        {"mce_margin": -1.1},
        {"margin": "wide"},
        {"smoothness": -1},
        {"sparsity": -1},
    ],
    ids=str,
)
def test_bad_parameters(params):
    (name,) = params
    with pytest.raises(ValueError, match=name):
        detector(**params).fit(make_bags(), Y)
