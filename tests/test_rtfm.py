"""RTFM: the network against numpy, its loss by hand, and the paper's settings."""

import naive
import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from sklearn_vad import MILRankingAnomalyDetector, RTFMAnomalyDetector
from sklearn_vad import datasets as vad_datasets
from sklearn_vad._batching import collate
from sklearn_vad.detectors._rtfm import RTFMNet, rtfm_loss_terms
from sklearn_vad.functional import feature_magnitude_loss, magnitude_bce_loss
from sklearn_vad.layers import Dropout, Linear, initialise
from sklearn_vad.metrics import frame_roc_auc_score
from sklearn_vad.timeline import pool_segments

LENGTHS = [1, 3, 16, 40, 5]
N_FEATURES = 8
Y = [1, 0, 1, 0, 1]
WEIGHTS = {
    "k": 3,
    "margin": 4.0,
    "magnitude_weight": 0.5,
    "smoothness": 3.0,
    "sparsity": 0.2,
}


def make_net(n_features=N_FEATURES, seed=0):
    net = RTFMNet(n_features, (12, 6), 0.7)
    initialise(net, torch.Generator().manual_seed(seed))
    for layer in (net.query, net.key, net.value, net.out):
        layer.weight.data *= 3  # attention that counts
    return net.eval()


def make_bags(lengths=LENGTHS, seed=0, n_features=N_FEATURES):
    rng = np.random.default_rng(seed)
    return [np.float32(rng.normal(size=(n, n_features))) for n in lengths]


def detector(**params):
    """A detector that trains within a second."""
    small = {"hidden_dims": (8, 4), "max_epochs": 1, "random_state": 0}
    return RTFMAnomalyDetector(**(small | params))


# --------------------------------------------------------------------------
# The network
# --------------------------------------------------------------------------
def naive_rtfm(net, bag):
    """The network for one unpadded bag, one snippet at a time; (scores, features)."""
    weight = {name: p.detach().double().numpy() for name, p in net.named_parameters()}

    def dense(name, x):
        return weight[f"{name}.weight"] @ x + weight[f"{name}.bias"]

    x = naive.scaled(net.scaling, bag)
    n_snippets, n_features = x.shape
    branches = []
    for i, step in enumerate((1, 2, 4)):  # the pyramid: t - step, t, t + step
        kernel, rows = weight[f"pyramid.{i}.weight"], []
        for t in range(n_snippets):
            out = weight[f"pyramid.{i}.bias"].copy()
            for place in range(3):
                seen = t + (place - 1) * step
                if 0 <= seen < n_snippets:
                    out += kernel[:, :, place] @ x[seen]
            rows.append(np.maximum(out, 0))
        branches.append(rows)
    reduced = [np.maximum(dense("reduce", row), 0) for row in x]
    attended = []
    for t in range(n_snippets):
        query, mean = dense("query", reduced[t]), 0
        for other in reduced:
            weight_of = query @ dense("key", other)
            mean = mean + weight_of * dense("value", other) / n_snippets
        attended.append(dense("out", mean) + reduced[t])
    features = np.concatenate([*branches, attended], axis=1)
    features[:, :n_features] += x  # zeros beyond, where D is no multiple of 4
    scores = []
    for row in features:
        hidden = np.maximum(dense("classifier.0", row), 0)
        hidden = np.maximum(dense("classifier.3", hidden), 0)
        scores.append(naive.sigmoid(dense("classifier.6", hidden)[0]))
    return np.array(scores), features


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("n_features", [1, 3, 8, 13])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)]
)
def test_network_equals_the_naive_one(dtype, tolerance, n_features, portable):
    net = make_net(n_features).to(dtype)
    if portable:
        net.make_portable()
    bags = make_bags(n_features=n_features)
    batch = collate(bags)
    with torch.no_grad():
        output = net(batch["X"].to(dtype), batch["mask"])
    for i, bag in enumerate(bags):
        scores, features = naive_rtfm(net, bag)
        for name, expected in (("features", features), ("scores", scores)):
            got = output[name][i, : len(bag)]
            np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)
            assert got.dtype == dtype


def test_pyramid_is_torchs_own_convolution():
    net = make_net()
    x = torch.from_numpy(make_bags([20])[0][None])
    with torch.no_grad():
        found = net._convolve(net._products(x))
        whole = [conv(x.mT).mT - conv.bias for conv in net.pyramid]
    assert_close(found, torch.cat(whole, dim=2), rtol=1e-4, atol=1e-6)


def test_both_orders_of_the_attention_were_compared():
    width = make_net().width
    assert min(LENGTHS) < width < max(LENGTHS)


def test_scores_do_not_depend_on_padding_or_company():
    net, bags = make_net(), make_bags()
    batch = collate(bags)
    wide = torch.full((len(bags), 60, N_FEATURES), torch.nan)
    wide[:, : max(LENGTHS)] = batch["X"].where(batch["mask"][..., None], torch.nan)
    mask = torch.arange(60) < torch.tensor(LENGTHS)[:, None]
    with torch.no_grad():
        together = net(**batch)["scores"]
        padded = net(wide, mask)["scores"]
        for i, bag in enumerate(bags):
            alone = net(**collate([bag]))["scores"][0]
            assert_close(together[i, : len(bag)], alone, rtol=1e-5, atol=1e-6)
            assert_close(padded[i, : len(bag)], alone, rtol=1e-5, atol=1e-6)


def test_weights_get_the_same_gradient_under_more_padding():
    gradients = []
    for company in ([], make_bags([70], seed=1)):
        net = make_net()
        batch = collate(make_bags() + company)
        output = {name: x[: len(LENGTHS)] for name, x in net(**batch).items()}
        mask = batch["mask"][: len(LENGTHS)]
        terms = rtfm_loss_terms(output, torch.tensor(Y), mask, **WEIGHTS)
        sum(terms.values()).backward()
        gradients.append([p.grad for p in net.parameters()])
    for tight, wide in zip(*gradients, strict=True):
        assert tight.any()
        assert_close(wide, tight, rtol=1e-4, atol=1e-6)


def test_gradients_of_the_network_are_those_of_differences():
    net = make_net(5).double()
    batch = collate(make_bags([6, 2], n_features=5))
    X = batch["X"].double().requires_grad_()
    weights = [p for p in net.parameters() if p.ndim > 1]

    def scores(X, *_):
        return net(X, batch["mask"])["scores"]

    assert torch.autograd.gradcheck(scores, (X, *weights), atol=1e-6)


@pytest.mark.parametrize("attends", [True, False])
def test_what_features_depend_on(attends):
    """Convolutions reach 4 snippets either way, attention the whole video."""
    net, (bag,) = make_net(), make_bags([40])
    for conv in net.pyramid:
        nn.init.constant_(conv.bias, 100.0)  # no ReLU hides a change
    if not attends:
        nn.init.zeros_(net.out.weight)
    changed = bag.copy()
    changed[20] += 1
    with torch.no_grad():
        one, other = (net(**collate([x]))["features"][0] for x in (bag, changed))
    moved = (one != other).any(dim=1).nonzero().ravel().tolist()
    assert moved == (list(range(40)) if attends else [16, 18, 19, 20, 21, 22, 24])


def test_scores_stay_in_float32_under_autocast():
    net, bags = make_net(), make_bags()
    nn.init.constant_(net.classifier[-1].bias, 12.0)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        scores = net(**collate(bags))["scores"]
    assert scores.dtype == torch.float32
    for row, n in zip(scores, LENGTHS, strict=True):
        assert (row[:n] < 1).all()  # a bfloat16 sigmoid returns exactly 1


def test_dropout_follows_the_hidden_layers_of_the_classifier():
    kinds = [type(layer) for layer in make_net().classifier]
    assert kinds == [Linear, nn.ReLU, Dropout] * 2 + [Linear]


# --------------------------------------------------------------------------
# The loss
# --------------------------------------------------------------------------
def test_magnitudes_by_hand():
    """Norms of 5, 1 and 3 are a mean of 4 for k = 2; of 2 and 0, one of 1."""
    features = torch.tensor(
        [
            [[3.0, 4.0], [1.0, 0.0], [0.0, 3.0]],
            [[0.0, 2.0], [0.0, 0.0], [torch.nan, torch.nan]],
        ]
    )
    y, mask = torch.tensor([1, 0]), torch.tensor([[True] * 3, [True, True, False]])
    for margin, expected in ((10.0, (6 + 1) ** 2), (1.0, (3 + 1) ** 2)):
        assert feature_magnitude_loss(features, y, mask, 2, margin) == expected
    alone = features[:1], torch.tensor([1]), mask[:1]
    assert feature_magnitude_loss(*alone) == 0  # no pair


def test_scores_of_the_largest_features_by_hand():
    """The largest norm decides, not the highest score."""
    features = torch.tensor([[[1.0], [-5.0], [2.0]], [[3.0], [1.0], [9.0]]])
    scores = torch.tensor([[0.9, 0.25, 0.75], [0.5, 0.1, 0.2]])
    mask = torch.tensor([[True] * 3, [True, True, False]])
    y = torch.tensor([1, 0])
    expected = -np.log([0.25, 0.5]).mean()  # p of 0.25, and 1 - p of 0.5
    loss = magnitude_bce_loss(scores, features, y, mask, k=1)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    expected = -np.log([0.5, 1 - 0.3]).mean()
    loss = magnitude_bce_loss(scores, features, y, mask, k=2)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_loss_of_a_batch_equals_the_naive_one():
    net, bags = make_net(), make_bags()
    batch = collate(bags)
    with torch.no_grad():
        output = net(**batch)
    terms = rtfm_loss_terms(output, torch.tensor(Y), batch["mask"], **WEIGHTS)
    scores, features = zip(*(naive_rtfm(net, bag) for bag in bags), strict=True)
    expected = {
        "mil": naive.magnitude_bce_loss(scores, features, Y, 3),
        "magnitude": 0.5 * naive.feature_magnitude_loss(features, Y, 3, 4.0),
        "smooth_sparse": naive.smooth_sparse_loss(scores, Y, 3.0, 0.2),
    }
    found = {name: term.item() for name, term in terms.items()}
    assert found == pytest.approx(expected, rel=1e-4)


def test_terms_of_weight_0_are_left_out():
    output = {"scores": torch.full((2, 3), 0.5), "features": torch.ones(2, 3, 4)}
    args = output, torch.tensor([0, 1]), torch.ones(2, 3, dtype=torch.bool)
    none = WEIGHTS | {"magnitude_weight": 0, "smoothness": 0, "sparsity": 0}
    assert list(rtfm_loss_terms(*args, **none)) == ["mil"]
    assert list(rtfm_loss_terms(*args, **(none | {"sparsity": 1}))) == [
        "mil",
        "smooth_sparse",
    ]


def test_detector_hands_its_parameters_on():
    est = RTFMAnomalyDetector(hidden_dims=(9, 7, 5), dropout=0.25, **WEIGHTS)
    assert est._loss_terms().keywords == WEIGHTS
    net = est._make_module(10)
    shapes = [tuple(p.shape) for p in net.classifier.parameters() if p.ndim == 2]
    assert shapes == [(9, 12), (7, 9), (5, 7), (1, 5)]
    assert {layer.p for layer in net.classifier if isinstance(layer, Dropout)} == {0.25}


# --------------------------------------------------------------------------
# The detector
# --------------------------------------------------------------------------
PAPER = {  # with the weights of the authors' code
    "hidden_dims": (512, 128),
    "dropout": 0.7,
    "n_segments": 32,
    "k": 3,
    "margin": 100.0,
    "magnitude_weight": 1e-4,
    "smoothness": 8e-4,
    "sparsity": 8e-3,
    "optimizer": "adam",
    "weight_decay": 5e-3,
    "balanced_batches": True,
    "batch_size": 64,
    "max_epochs": 50,
    "lr": 1e-3,
    "lr_decay": None,
    "input_scaling": None,
    "video_weight": 0,
}


def test_settings_of_the_paper():
    """All that is not in the paper is as by default."""
    params = RTFMAnomalyDetector.as_published().get_params()
    assert params == RTFMAnomalyDetector().get_params() | PAPER


def test_defaults_differ_from_the_paper_in_training_alone():
    params = RTFMAnomalyDetector().get_params()
    training = {"max_epochs": 20, "lr": 3e-4, "lr_decay": "cosine"}
    training["input_scaling"] = "uniform"
    assert {name: params[name] for name in PAPER} == PAPER | training


def test_default_network_has_the_papers_shapes():
    net = RTFMAnomalyDetector()._make_module(2048)
    shapes = {name: tuple(p.shape) for name, p in net.named_parameters() if p.ndim > 1}
    attention = {f"{name}.weight": (512, 512) for name in ("query", "key", "value")}
    assert shapes == attention | {
        **{f"pyramid.{i}.weight": (512, 2048, 3) for i in range(3)},
        "reduce.weight": (512, 2048),
        "out.weight": (512, 512),
        "classifier.0.weight": (512, 2048),
        "classifier.3.weight": (128, 512),
        "classifier.6.weight": (1, 128),
    }
    assert [conv.dilation for conv in net.pyramid] == [(1,), (2,), (4,)]


def fit_recording(bags, y, **params):
    """Return a detector, and the batches that its network saw in training."""
    batches = []

    class Recording(RTFMAnomalyDetector):
        def _make_module(self, n_features):
            net = super()._make_module(n_features)
            net.register_forward_pre_hook(
                lambda net, args, batch: batches.append(batch), with_kwargs=True
            )
            return net

    est = Recording(**detector(**params).get_params()).fit(bags, y)
    return est, list(batches)


def test_training_sees_segments():
    bags = make_bags([3, 40])
    _, (batch,) = fit_recording(bags, [1, 0], n_segments=5)
    for row, bag in zip(batch["X"], bags, strict=True):  # the anomalous one first
        np.testing.assert_allclose(row, pool_segments(bag, 5, "mean"), rtol=1e-6)


def test_training_without_segments_sees_the_snippets():
    bags = make_bags([5, 9])
    _, (batch,) = fit_recording(bags, [1, 0], n_segments=None)
    for row, mask, bag in zip(batch["X"], batch["mask"], bags, strict=True):
        np.testing.assert_array_equal(row[mask], bag)


def test_scores_are_of_snippets_and_the_video_score_is_the_highest():
    bags = make_bags([1, 20, 100])
    est = detector().fit(bags, [0, 1, 1])
    scores = est.score_snippets(bags)
    for got, bag in zip(scores, bags, strict=True):
        expected, _ = naive_rtfm(est.net_.module_, bag)
        np.testing.assert_allclose(got, expected, rtol=1e-4)
    highest = [max(s) for s in scores]
    np.testing.assert_array_equal(est.predict_proba(bags)[:, 1], highest)


def test_has_no_stream():
    est = detector().fit(make_bags([5, 9]), [0, 1])
    with pytest.raises(TypeError, match=r"RTFM.*later snippets"):
        est.stream()


def test_finds_anomalies_as_the_baseline_does():
    bags, y = vad_datasets.make_bags(120, n_features=16, random_state=2)
    auc = {}
    for cls in (MILRankingAnomalyDetector, RTFMAnomalyDetector):
        params = {"lr": 1e-3} if cls is RTFMAnomalyDetector else {}  # few batches
        est = cls(random_state=0, n_jobs=1, **params).fit(bags[:80], y[:80])
        auc[cls] = frame_roc_auc_score(y[80:], est.score_snippets(bags[80:]))
    assert auc[RTFMAnomalyDetector] > auc[MILRankingAnomalyDetector] - 0.05
    assert auc[RTFMAnomalyDetector] > 0.8


def test_magnitude_loss_draws_magnitudes_apart():
    bags, y = vad_datasets.make_bags(40, n_features=8, random_state=0)
    gaps = {}
    for weight in (0.0, 0.1):
        est = detector(magnitude_weight=weight, margin=10.0, max_epochs=30, lr=3e-3)
        module = est.fit(bags, y).net_.module_
        with torch.no_grad():
            features = [module(**collate([bag]))["features"][0] for bag in bags]
        top = np.array([x.norm(dim=1).topk(3).values.mean() for x in features])
        gaps[weight] = top[y.video_labels == 1].mean() - top[y.video_labels == 0].mean()
    assert gaps[0.1] > 1.5 * gaps[0.0]
