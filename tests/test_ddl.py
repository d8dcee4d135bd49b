"""DDL: the network against Eqs. 1-5 in numpy, its loss, and the paper's settings."""

import math

import naive
import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from torch import nn
from torch.testing import assert_close

from sklearn_vad import Bags, DDLAnomalyDetector
from sklearn_vad._batching import collate
from sklearn_vad.detectors._ddl import LANet, ddl_loss_terms
from sklearn_vad.layers import Dropout, Linear, initialise

LENGTHS = [1, 3, 16, 40, 9]
N_FEATURES = 8


def make_net(
    seed=0, *, n_heads=4, hidden_dim=24, sigma=16.0, prior="after", kernel_size=10
):
    """A network in eval mode whose norm and biases are no identity either."""
    net = LANet(
        N_FEATURES, n_heads, hidden_dim, sigma, prior, (12, 6), kernel_size, 0.1
    )
    generator = torch.Generator().manual_seed(seed)
    initialise(net, generator)
    for parameter in net.norm.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5, generator=generator)
    for layer in (net.query, net.key):
        layer.weight.data *= 3  # attention that is far from uniform
    return net.eval()


def make_bags(lengths=LENGTHS, seed=0):
    rng = np.random.default_rng(seed)
    return [np.float32(rng.normal(size=(n, N_FEATURES))) for n in lengths]


def detector(**params):
    """A detector that trains within a second."""
    small = {"hidden_dim": 8, "mlp_dims": (8, 4), "max_epochs": 1, "random_state": 0}
    return DDLAnomalyDetector(**(small | params))


# --------------------------------------------------------------------------
# The network
# --------------------------------------------------------------------------
def naive_lanet(net, bag):
    """Eqs. 1-5 for one unpadded bag, in float64; (scores, features)."""
    weight = {name: p.detach().double().numpy() for name, p in net.named_parameters()}
    x = naive.scaled(net.scaling, bag)
    n_snippets = len(x)
    # Eq. 1-3, per head
    query, key, value = (
        x @ weight[f"{name}.weight"].T for name in ("query", "key", "value")
    )
    heads = []
    prior = np.zeros((n_snippets, n_snippets))
    if net.sigma is not None:
        prior = naive.locality_prior(n_snippets, net.sigma)
    for columns in np.split(np.arange(query.shape[1]), net.n_heads):
        logits = query[:, columns] @ key[:, columns].T
        weights = np.exp(logits + prior if net.prior == "before" else logits)
        attention = weights / weights.sum(axis=1, keepdims=True)
        if net.prior == "after":
            attention = attention + prior
        heads.append(attention @ value[:, columns])
    # Eq. 4
    out = np.concatenate(heads, axis=1) @ weight["out.weight"].T + x
    mean, var = out.mean(axis=1, keepdims=True), out.var(axis=1, keepdims=True)
    out = (out - mean) / np.sqrt(var + 1e-5)
    out = out * weight["norm.weight"] + weight["norm.bias"]
    # Section 2.3: two layers, GELU after both
    for layer in ("mlp.0", "mlp.3"):
        out = out @ weight[f"{layer}.weight"].T + weight[f"{layer}.bias"]
        out = out * 0.5 * (1 + np.vectorize(math.erf)(out / math.sqrt(2)))
    # Eq. 5: the snippet itself and the K - 1 before it, zeros before the first
    kernel = weight["regressor.weight"][0]  # (channels, K), the present one last
    size = kernel.shape[1]
    scores = np.empty(n_snippets)
    for t in range(n_snippets):
        logit = weight["regressor.bias"][0]
        for back in range(min(size, t + 1)):
            logit += kernel[:, size - 1 - back] @ out[t - back]
        scores[t] = 1 / (1 + math.exp(-logit))
    return scores, out


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)]
)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sigma": 6.0, "kernel_size": 5},
        {"sigma": None, "kernel_size": 1},
        {"n_heads": 1, "sigma": 0.5},
        {"hidden_dim": 8, "n_heads": 8},
        {"prior": "before"},
        {"prior": "before", "sigma": None},
    ],
    ids=str,
)
def test_network_equals_the_printed_equations(options, dtype, tolerance):
    net, bags = make_net(**options).to(dtype), make_bags()
    batch = collate(bags)
    with torch.no_grad():
        output = net(batch["X"].to(dtype), batch["mask"])
    for i, bag in enumerate(bags):
        scores, features = naive_lanet(net, bag)
        for name, expected in (("features", features), ("scores", scores)):
            got = output[name][i, : len(bag)]
            np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)
            assert got.dtype == dtype


@pytest.mark.parametrize("prior", ["after", "before"])
def test_scores_do_not_depend_on_padding_or_company(prior):
    net, bags = make_net(prior=prior), make_bags()
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
    y = torch.tensor([1, 0, 1, 0, 1])
    gradients = []
    for company in ([], make_bags([70], seed=1)):
        net = make_net()
        batch = collate(make_bags() + company)
        output = net(**batch)
        output = {name: x[: len(LENGTHS)] for name, x in output.items()}
        terms = loss_terms(output, y, batch["mask"][: len(LENGTHS)])
        sum(terms.values()).backward()
        gradients.append([p.grad for p in net.parameters()])
    for tight, wide in zip(*gradients, strict=True):
        assert tight.any()
        assert_close(wide, tight, rtol=1e-4, atol=1e-6)


def scores_of(net, bag):
    with torch.no_grad():
        return net(**collate([bag]))["scores"][0]


def test_attention_looks_ahead():
    """So a score needs the snippets that follow: not for online use."""
    net, (bag,) = make_net(), make_bags([40])
    changed = bag.copy()
    changed[30, 0] += 1
    moved = scores_of(net, changed) != scores_of(net, bag)
    assert moved[:30].all()


def test_regressor_looks_back_only():
    net, (bag,) = make_net(kernel_size=5), make_bags([40])
    nn.init.zeros_(net.out.weight)  # leave attention out
    changed = bag.copy()
    changed[20, 0] += 1
    moved = scores_of(net, changed) != scores_of(net, bag)
    assert moved.nonzero().ravel().tolist() == [20, 21, 22, 23, 24]


@pytest.mark.parametrize("prior", ["after", "before"])
def test_scores_stay_in_float32_under_autocast(prior):
    net, bags = make_net(prior=prior), make_bags()
    nn.init.constant_(net.regressor.bias, 12.0)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = net(**collate(bags))
    assert output["features"].dtype == torch.bfloat16
    assert output["scores"].dtype == torch.float32
    assert (output["scores"] < 1).all()  # a bfloat16 sigmoid returns exactly 1


def test_dropout_follows_both_layers_of_the_perceptron():
    mlp = make_net().mlp
    assert [type(layer) for layer in mlp] == [Linear, nn.GELU, Dropout] * 2
    assert (mlp[2].p, mlp[5].p) == (0.1, 0.1)


# --------------------------------------------------------------------------
# The loss
# --------------------------------------------------------------------------
def loss_terms(output, y, mask, **changed):
    weights = {
        "ranking_weight": 2.0,
        "alignment_weight": 0.5,
        "margin": 0.3,
        "eps": 1e-7,
    }
    return ddl_loss_terms(output, y, mask, **(weights | changed))


def naive_terms(scores, features, y, margin=0.3, eps=1e-7):
    return (
        naive.mil_bce_loss(scores, y),
        naive.dynamics_ranking_loss(scores, y, margin),
        naive.dynamics_alignment_loss(scores, features, eps),
    )


@pytest.mark.parametrize(
    ("changed", "weights"),
    [
        ({}, (1, 2.0, 0.5)),
        ({"ranking_weight": 0.0}, (1, 0, 0.5)),
        ({"alignment_weight": 0.0}, (1, 2.0, 0)),
        ({"ranking_weight": 0.0, "alignment_weight": 0.0}, (1, 0, 0)),
    ],
)
def test_loss_is_eq_11(changed, weights):
    bags, y = make_bags(), [1, 0, 1, 0, 1]
    net = make_net()
    batch = collate(bags)
    with torch.no_grad():
        terms = loss_terms(net(**batch), torch.tensor(y), batch["mask"], **changed)
    scores, features = zip(*(naive_lanet(net, bag) for bag in bags), strict=True)
    expected = np.multiply(weights, naive_terms(scores, features, y))
    assert [term.item() for term in terms.values()] == pytest.approx(
        expected[np.nonzero(weights)], rel=1e-4, abs=1e-6
    )
    assert sum(terms.values()).item() == pytest.approx(expected.sum(), rel=1e-4)


def test_detector_hands_its_weights_to_the_loss():
    est = DDLAnomalyDetector(ranking_weight=3, alignment_weight=4, margin=5, eps=6)
    assert est._loss_terms().keywords == {
        "ranking_weight": 3,
        "alignment_weight": 4,
        "margin": 5,
        "eps": 6,
    }


# --------------------------------------------------------------------------
# The detector
# --------------------------------------------------------------------------
PAPER = {  # Section 3.2, UCF-Crime
    "n_heads": 4,
    "hidden_dim": 512,
    "sigma": 16,
    "prior": "after",
    "mlp_dims": (512, 128),
    "kernel_size": 10,
    "dropout": 0.1,
    "max_snippets": 200,
    "ranking_weight": 1,
    "alignment_weight": 1,
    "margin": 0,
    "eps": 1e-7,
    "optimizer": "adam",
    "weight_decay": 0,
    "balanced_batches": True,
    "batch_size": 128,
    "max_epochs": 50,
    "lr": 5e-4,
    "lr_decay": "cosine",
    "input_scaling": None,
    "video_weight": 0,
}
XD_VIOLENCE = PAPER | {
    "hidden_dim": 128,
    "sigma": 6,
    "kernel_size": 5,
    "ranking_weight": 2,
}


@pytest.mark.parametrize(
    ("est", "setting"),
    [
        (DDLAnomalyDetector.as_published(), PAPER),
        (
            DDLAnomalyDetector.as_published(lr=1e-3, input_scaling="standard"),
            PAPER | {"lr": 1e-3, "input_scaling": "standard"},
        ),
        (DDLAnomalyDetector.for_xd_violence(), XD_VIOLENCE),
        (
            DDLAnomalyDetector.for_xd_violence(sigma=7.0, batch_size=2),
            XD_VIOLENCE | {"sigma": 7, "batch_size": 2},
        ),
    ],
    ids=["UCF-Crime", "UCF-Crime, changed", "XD-Violence", "XD-Violence, changed"],
)
def test_settings_of_the_paper(est, setting):
    """All that is not in the paper is as by default."""
    assert est.get_params() == DDLAnomalyDetector().get_params() | setting


def test_defaults_differ_from_the_paper_in_training_alone():
    params = DDLAnomalyDetector().get_params()
    training = {
        "batch_size": 32,
        "max_epochs": 20,
        "lr": 1e-4,
        "input_scaling": "uniform",
    }
    assert {name: params[name] for name in PAPER} == PAPER | training


def test_default_network_has_the_papers_shapes():
    net = DDLAnomalyDetector()._make_module(1024)
    shapes = {name: tuple(p.shape) for name, p in net.named_parameters()}
    assert shapes == {
        "query.weight": (512, 1024),
        "key.weight": (512, 1024),
        "value.weight": (512, 1024),
        "out.weight": (1024, 512),
        "norm.weight": (1024,),
        "norm.bias": (1024,),
        "mlp.0.weight": (512, 1024),
        "mlp.0.bias": (512,),
        "mlp.3.weight": (128, 512),
        "mlp.3.bias": (128,),
        "regressor.weight": (1, 128, 10),
        "regressor.bias": (1,),
    }
    assert (net.n_heads, net.sigma, net.prior) == (4, 16.0, "after")


class Recording(DDLAnomalyDetector):
    """Keep the batches that the network sees in training."""

    def _make_module(self, n_features):
        net = super()._make_module(n_features)
        net.register_forward_pre_hook(
            lambda net, args, batch: type(self).batches.append(batch), with_kwargs=True
        )
        return net


@pytest.mark.parametrize(
    ("max_snippets", "expected"),
    [
        (200, {450: np.floor(np.linspace(0, 449, 200)), 200: np.arange(200)}),
        (None, {450: np.arange(450), 200: np.arange(200)}),
    ],
)
def test_training_samples_long_bags_and_scoring_does_not(max_snippets, expected):
    Recording.batches = []
    small = {"hidden_dim": 8, "mlp_dims": (8, 4), "max_epochs": 1, "random_state": 0}
    est = Recording(**small, max_snippets=max_snippets)
    # Features that count the snippets, and tell the bags apart by their sign.
    counters = {n: np.arange(n, dtype=np.float32) for n in (450, 200, 7)}
    bags = [np.stack([c, c[::-1]], axis=1) for c in counters.values()]
    est.fit(bags, [1, 0, 0])
    seen = {}
    for batch in est.batches:
        for row, mask in zip(batch["X"], batch["mask"], strict=True):
            last = int(row[mask].max())
            seen[last + 1] = row[mask][:, 0].numpy()
    assert seen.keys() == {450, 200, 7}
    for n, rows in {**expected, 7: np.arange(7)}.items():
        np.testing.assert_array_equal(seen[n], rows)
    est.batches.clear()
    assert [len(s) for s in est.score_snippets(bags)] == [450, 200, 7]
    assert sorted(n for b in est.batches for n in b["mask"].sum(1)) == [7, 200, 450]


@pytest.mark.parametrize("n_snippets", [1, 15, 16, 33, 250])
def test_video_score_is_the_mean_of_the_highest(n_snippets):
    est = detector()
    bags = make_bags([n_snippets, 5])
    est.fit(make_bags([20, 30]), [0, 1])
    expected = [
        np.sort(scores.astype(float))[::-1][: len(scores) // 16 + 1].mean()
        for scores in est.score_snippets(bags)
    ]
    np.testing.assert_allclose(est.predict_proba(bags)[:, 1], expected, rtol=1e-12)
    np.testing.assert_allclose(
        est.decision_function(bags), np.array(expected) - 0.5, rtol=1e-9
    )


@pytest.mark.parametrize("prior", ["after", "before"])
def test_fitted_detector_scores_as_its_equations_say(prior):
    bags = make_bags()
    est = detector(max_epochs=3, prior=prior).fit(bags, [1, 0, 1, 0, 1])
    for bag, scores in zip(bags, est.score_snippets(bags), strict=True):
        expected, _ = naive_lanet(est.net_.module_, bag)
        np.testing.assert_allclose(scores, expected, rtol=1e-5)


@pytest.mark.parametrize(("sigma", "same"), [(16.0, False), (None, True)])
def test_where_the_prior_is_added_changes_scores_if_there_is_one(sigma, same):
    bags, y = make_bags(), [1, 0, 1, 0, 1]
    after, before = (
        np.concatenate(
            detector(sigma=sigma, prior=prior).fit(bags, y).score_snippets(bags)
        )
        for prior in ("after", "before")
    )
    assert np.allclose(after, before, rtol=0, atol=1e-4) == same


def test_unknown_prior_is_refused():
    with pytest.raises(ValueError, match="'prior' parameter of DDLAnomalyDetector"):
        detector(prior="log").fit(make_bags(), [1, 0, 1, 0, 1])


def test_history_records_the_terms_of_the_loss():
    est = detector(max_epochs=2, ranking_weight=3.0)
    est.fit(Bags.from_list(make_bags()), [1, 0, 1, 0, 1])
    for epoch in est.history_:
        terms = [
            epoch[f"train_{name}"]
            for name in ("mil", "dynamics_ranking", "dynamics_alignment")
        ]
        assert sum(terms) == pytest.approx(epoch["train_loss"], rel=1e-5)


def test_hidden_dim_must_be_shared_evenly():
    with pytest.raises(ValueError, match="hidden_dim=10 is no multiple of n_heads=4"):
        detector(hidden_dim=10).fit(make_bags(), [1, 0, 1, 0, 1])


# --------------------------------------------------------------------------
# The attention map
# --------------------------------------------------------------------------
def naive_attention_map(net, bag, sigma):
    """Eqs. 1-3 in float64 loops: what attention makes of the unit vectors."""
    x = naive.scaled(net.scaling, bag)
    heads = []
    for layer in (net.query, net.key):
        flat = x @ layer.weight.detach().double().numpy().T
        heads.append(np.stack(np.split(flat, net.n_heads, axis=1)))
    units = np.stack([np.eye(len(bag))] * net.n_heads)
    arguments = [[value] for value in (*heads, units)]
    return naive.locality_aware_attention(*arguments, sigma, net.prior)[0]


@pytest.mark.parametrize("n_snippets", [1, 7])
@pytest.mark.parametrize("prior", ["after", "before"])
def test_attention_map(prior, n_snippets):
    est = detector(prior=prior, sigma=3.0)
    net = est.fit(make_bags(), [0, 1, 0, 1, 1]).net_.module_
    for layer in (net.query, net.key):
        layer.weight.data *= 3  # far from uniform
    (bag,) = make_bags([n_snippets], seed=1)
    for with_prior, sigma in ((True, 3.0), (False, None)):
        found = est.attention_map(bag, with_prior=with_prior)
        assert found.dtype == np.float32
        expected = naive_attention_map(net, bag, sigma)
        np.testing.assert_allclose(found, expected, rtol=2e-5)


def test_attention_map_has_limits():
    est = detector(memory_limit=1e-6).fit(make_bags([4] * 5), [0, 1, 0, 1, 1])
    with pytest.raises(ValueError, match=r"map of 40 snippets takes .* GiB, memory"):
        est.attention_map(np.ones((40, N_FEATURES)))
    with pytest.raises(ValueError, match=r"5 features.*expecting 8"):
        est.attention_map(np.ones((4, 5)))
    with pytest.raises(NotFittedError):
        detector().attention_map(np.ones((4, 5)))
