"""MIL ranking: the perceptron against numpy, segments, and the video score."""

import math

import naive
import numpy as np
import pytest
import torch
from torch import nn

from sklearn_vad import MILRankingAnomalyDetector
from sklearn_vad._batching import collate
from sklearn_vad.detectors._mil_ranking import RankingMLP, ranking_loss_terms
from sklearn_vad.layers import Dropout, Linear, initialise

LENGTHS = [1, 5, 32, 40]
N_FEATURES = 6


def make_net(l2_normalize=False):
    net = RankingMLP(N_FEATURES, (9, 4), 0.6, l2_normalize)
    initialise(net, torch.Generator().manual_seed(0))
    return net.eval()


def make_bags(lengths=LENGTHS, seed=0):
    rng = np.random.default_rng(seed)
    return [np.float32(rng.normal(size=(n, N_FEATURES))) for n in lengths]


def naive_mlp(net, bag):
    """Three layers, ReLU after the first only, and a sigmoid; one snippet at a time."""
    weight = {name: p.detach().double().numpy() for name, p in net.named_parameters()}
    scores = []
    for x in naive.scaled(net.scaling, bag):
        x = np.maximum(weight["mlp.0.weight"] @ x + weight["mlp.0.bias"], 0)
        x = weight["mlp.3.weight"] @ x + weight["mlp.3.bias"]
        (logit,) = weight["mlp.5.weight"] @ x + weight["mlp.5.bias"]
        scores.append(1 / (1 + math.exp(-logit)))
    return np.array(scores)


def naive_segments(bag, n_segments):
    """Means from snippet floor(i n / S) on; an empty segment is that snippet."""
    segments = []
    for i in range(n_segments):
        start = math.floor(i * len(bag) / n_segments)
        end = math.floor((i + 1) * len(bag) / n_segments)
        segments.append(np.mean(bag[start : max(end, start + 1)], axis=0))
    return np.array(segments)


# --------------------------------------------------------------------------
# The network and its loss
# --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)]
)
@pytest.mark.parametrize("l2_normalize", [False, True])
def test_network_equals_the_naive_one(l2_normalize, dtype, tolerance):
    net, bags = make_net(l2_normalize).to(dtype), make_bags()
    bags[1][2] = 0  # a row of zeros stays one
    bags[2] *= 5
    batch = collate(bags)
    with torch.no_grad():
        scores = net(batch["X"].to(dtype), batch["mask"])["scores"]
    for row, bag in zip(scores, bags, strict=True):
        np.testing.assert_allclose(row[: len(bag)], naive_mlp(net, bag), rtol=tolerance)


@pytest.mark.parametrize("l2_normalize", [False, True])
def test_l2_norm_makes_the_length_of_a_snippet_irrelevant(l2_normalize):
    net, (bag,) = make_net(l2_normalize), make_bags([20])
    with torch.no_grad():
        scores, scaled = (net(**collate([x]))["scores"] for x in (bag, 7 * bag))
    assert torch.allclose(scores, scaled, atol=1e-6) == l2_normalize


def test_relu_follows_the_first_layer_only():
    kinds = [type(layer) for layer in make_net().mlp]
    assert kinds == [Linear, nn.ReLU, Dropout, Linear, Dropout, Linear]


def test_scores_stay_in_float32_under_autocast():
    net = make_net()
    nn.init.constant_(net.mlp[-1].bias, 12.0)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        scores = net(**collate(make_bags()))["scores"]
    assert scores.dtype == torch.float32
    assert (scores < 1).all()  # a bfloat16 sigmoid returns exactly 1


def test_loss_is_the_ranking_loss():
    bags, y = make_bags(), [1, 0, 0, 1]
    net = make_net()
    batch = collate(bags)
    weights = {"margin": 0.9, "smoothness": 3.0, "sparsity": 0.2}
    with torch.no_grad():
        terms = ranking_loss_terms(
            net(**batch), torch.tensor(y), batch["mask"], **weights
        )
    (loss,) = terms.values()
    scores = [naive_mlp(net, bag) for bag in bags]
    expected = naive.mil_ranking_loss(scores, y, **weights)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_detector_hands_its_weights_to_the_loss():
    est = MILRankingAnomalyDetector(margin=2, smoothness=3, sparsity=4)
    expected = {"margin": 2, "smoothness": 3, "sparsity": 4}
    assert est._loss_terms().keywords == expected


# --------------------------------------------------------------------------
# The detector
# --------------------------------------------------------------------------
PAPER = {  # with the weight decay of the authors' code
    "hidden_dims": (512, 32),
    "dropout": 0.6,
    "n_segments": 32,
    "l2_normalize": False,
    "margin": 1.0,
    "smoothness": 8e-5,
    "sparsity": 8e-5,
    "optimizer": "adagrad",
    "weight_decay": 2e-3,
    "balanced_batches": True,
    "batch_size": 60,
    "max_epochs": 50,
    "lr": 0.01,
    "lr_decay": None,
    "input_scaling": None,
    "video_weight": 0,
}


@pytest.mark.parametrize("changes", [{}, {"l2_normalize": True, "lr": 0.1}], ids=str)
def test_settings_of_the_paper(changes):
    """All that is not in the paper is as by default."""
    params = MILRankingAnomalyDetector.as_published(**changes).get_params()
    assert params == MILRankingAnomalyDetector().get_params() | PAPER | changes


def test_defaults_differ_from_the_paper_in_training_alone():
    params = MILRankingAnomalyDetector().get_params()
    training = {"max_epochs": 20, "input_scaling": "uniform"}
    assert {name: params[name] for name in PAPER} == PAPER | training


def test_default_network_has_the_papers_shapes():
    net = MILRankingAnomalyDetector()._make_module(4096)
    shapes = [tuple(p.shape) for p in net.parameters()]
    assert shapes == [(512, 4096), (512,), (32, 512), (32,), (1, 32), (1,)]


def fit_recording(bags, y, **params):
    """Return a detector, and the batches that its network saw in training."""
    batches = []

    class Recording(MILRankingAnomalyDetector):
        def _make_module(self, n_features):
            net = super()._make_module(n_features)
            net.register_forward_pre_hook(
                lambda net, args, batch: batches.append(batch), with_kwargs=True
            )
            return net

    small = {"hidden_dims": (8, 4), "max_epochs": 1, "random_state": 0}
    est = Recording(**(small | params)).fit(bags, y)
    return est, list(batches)


@pytest.mark.parametrize("n_segments", [32, 4])
@pytest.mark.parametrize("n_snippets", [1, 3, 31, 32, 33, 64, 100, 517])
def test_training_sees_segments(n_snippets, n_segments):
    bags = make_bags([n_snippets, 2 * n_snippets])
    _, (batch,) = fit_recording(bags, [1, 0], n_segments=n_segments)
    assert batch["mask"].all()
    assert batch["X"].shape == (2, n_segments, N_FEATURES)
    for row, bag in zip(batch["X"], bags, strict=True):  # the anomalous one first
        expected = naive_segments(bag.astype(float), n_segments)
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-6)


def test_training_without_segments_sees_the_snippets():
    bags = make_bags([5, 9])
    _, (batch,) = fit_recording(bags, [1, 0], n_segments=None)
    for row, mask, bag in zip(batch["X"], batch["mask"], bags, strict=True):
        np.testing.assert_array_equal(row[mask], bag)


def test_scores_are_of_snippets_and_the_video_score_is_the_highest():
    bags = make_bags([1, 20, 300])
    est, _ = fit_recording(bags, [0, 1, 1])
    scores = est.score_snippets(bags)
    for got, bag in zip(scores, bags, strict=True):
        expected = naive_mlp(est.net_.module_, bag)
        np.testing.assert_allclose(got, expected, rtol=1e-5)
    highest = [max(s) for s in scores]
    np.testing.assert_array_equal(est.predict_proba(bags)[:, 1], highest)
    decision = est.decision_function(bags)
    np.testing.assert_allclose(decision, np.array(highest) - 0.5, rtol=1e-12)
