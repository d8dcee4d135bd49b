"""DAM: the network against Eqs. 1-5 in numpy, its loss, and the paper's settings."""

import naive
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from torch import nn
from torch.testing import assert_close

from sklearn_vad import Bags, DAMAnomalyDetector
from sklearn_vad._batching import collate
from sklearn_vad.detectors._dam import (
    DissimilarityAttention,
    weighted_ranking_loss_terms,
)
from sklearn_vad.layers import Dropout, Linear, initialise

LENGTHS = [1, 3, 16, 40, 9]
Y = [1, 0, 1, 0, 1]
N_STEPS, N_FEATURES = 3, 5
PARTS = ("lstm", "channel_attention", "clip_attention")
ABLATIONS = [  # Table 1's rows first
    (),
    ("lstm",),
    ("lstm", "channel_attention"),
    PARTS,
    ("lstm", "clip_attention"),
    ("channel_attention", "clip_attention"),
    ("channel_attention",),
    ("clip_attention",),
]
variants = pytest.mark.parametrize("variant", ["dist", "cov"])


def make_net(variant="dist", *, scaled=True, parts=PARTS, n_hidden=6, seed=0):
    """A network in eval mode with attention that is far from uniform."""
    switches = [part in parts for part in PARTS]
    net = DissimilarityAttention(
        N_FEATURES, n_hidden, variant, scaled, *switches, (8, 4), 0.2
    )
    initialise(net, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter *= 3
    return net.eval()


def make_bags(lengths=LENGTHS, n_steps=N_STEPS, seed=0):
    rng = np.random.default_rng(seed)
    shape = (N_FEATURES,) if n_steps is None else (n_steps, N_FEATURES)
    return [np.float32(rng.normal(size=(n, *shape))) for n in lengths]


def detector(**params):
    """A detector that trains within a second."""
    small = {"n_hidden": 8, "mlp_dims": (8,), "max_epochs": 1, "random_state": 0}
    return DAMAnomalyDetector(**(small | params))


def equal(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


# --------------------------------------------------------------------------
# The network
# --------------------------------------------------------------------------
def naive_dam(net, bag):
    """Section 3.3 and D of one bag, in float64; (D, Clip_A)."""
    weight = {name: p.detach().double().numpy() for name, p in net.named_parameters()}

    def lstm(name, rows):
        order = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        return naive.lstm(rows, *(weight[f"{name}.{part}"] for part in order))

    bag = naive.scaled(net.scaling, bag)
    previous = np.zeros_like(bag[0])
    if bag.ndim == 2:
        bag, previous = bag[:, None], previous[None]
    detections, attentions = [], []
    for current in bag:
        n_steps = len(current)
        encoded = current.mean(axis=0)
        if net.feature_lstm is not None:
            encoded = lstm("feature_lstm", current)
        attention = 0.0
        if net.channel_attention or net.clip is not None:
            # Eqs. 1-3
            d_n, d_t = naive.dissimilarities(current, previous, net.variant)
            if net.scaled:
                most_n, most_t = naive_largest(current, previous, net.variant)
                d_n, d_t = d_n / most_n, d_t / most_t
            state = lstm("attention_lstm", [d_t[j] * d_n for j in range(n_steps)])
            if net.channel_attention:  # Eq. 4
                channel = np.exp(state) / np.exp(state).sum()
                channel = channel * len(channel) if net.scaled else channel
                encoded = channel * encoded + encoded
            if net.clip is not None:  # Eq. 5
                logit = weight["clip.weight"][0] @ np.tanh(state)
                attention = naive.sigmoid(logit + weight["clip.bias"][0])
        # Section 3.4: ReLU between the layers, sigmoid at the end
        layers = [name[:-7] for name in weight if name.startswith("mlp.")][::2]
        for layer in layers:
            encoded = weight[f"{layer}.weight"] @ encoded + weight[f"{layer}.bias"]
            if layer != layers[-1]:
                encoded = np.maximum(encoded, 0)
        detections.append(naive.sigmoid(encoded[0]))
        attentions.append(attention)
        previous = current
    return np.array(detections), np.array(attentions)


def naive_largest(current, previous, variant):
    """What D_n and D_t could be at most, on average over their entries."""
    n_steps, n_channels = current.shape
    most_n, most_t = [], []
    for k in range(n_channels):
        a, b = current[:, k], previous[:, k]
        if variant == "dist":
            most_n.append(sum(abs(a)) + sum(abs(b)))
        else:
            most_n.append(n_steps * a.std() * b.std())
    for j in range(n_steps):
        a, b = current[j], previous[j]
        if variant == "dist":
            most_t.append(sum(abs(a)) + sum(abs(b)))
        else:
            most_t.append(n_channels * a.std() * b.std())
    # The first snippet has no covariance with zeros, and nothing is divided by.
    return np.mean(most_n) or 1.0, np.mean(most_t) or 1.0


@variants
def test_scaled_attention_does_not_see_the_scale_of_features(variant):
    current, previous = (
        torch.from_numpy(bag[:2]).double() for bag in make_bags((2, 2))
    )
    net = make_net(variant, scaled=True).double()
    small, large = (
        net._attention_state(current * f, previous * f) for f in (1e-3, 1e3)
    )
    torch.testing.assert_close(small, large)
    assert small.std() > 1e-3


def assert_output(output, net, bags, tolerance):
    """Compare D, Clip_A and wD = D Clip_A + D with the loops, and demand variety."""
    for i, bag in enumerate(bags):
        detections, attentions = naive_dam(net, bag)
        expected = {
            "scores": detections,
            "clip_attention": attentions,
            "weighted_scores": detections * attentions + detections,
        }
        for name, values in expected.items():
            got = output[name][i, : len(bag)].numpy()
            np.testing.assert_allclose(got, values, rtol=tolerance, atol=tolerance)
            assert (output[name][i, len(bag) :] == 0).all()
        if len(bag) > 8:
            assert np.ptp(detections) > 0.01
            assert np.ptp(attentions) > 0.01 or net.clip is None


@variants
@pytest.mark.parametrize("scaled", [True, False], ids=["scaled", "printed"])
@pytest.mark.parametrize("parts", ABLATIONS, ids=lambda parts: "+".join(parts) or "mlp")
def test_network_equals_the_printed_equations(variant, scaled, parts):
    net = make_net(variant, scaled=scaled, parts=parts).double()
    bags = make_bags()
    batch = collate(bags)
    with torch.no_grad():
        output = net(batch["X"].double(), batch["mask"])
    assert output.keys() == {"scores", "clip_attention", "weighted_scores"}
    assert_output(output, net, bags, 1e-10)


@variants
def test_network_in_float32(variant):
    net, bags = make_net(variant), make_bags()
    with torch.no_grad():
        output = net(**collate(bags))
    assert output["scores"].dtype == torch.float32
    assert_output(output, net, bags, 1e-5)


@pytest.mark.parametrize("n_steps", [None, 1, 7])
def test_network_takes_any_number_of_steps(n_steps):
    net, bags = make_net().double(), make_bags(n_steps=n_steps)
    batch = collate(bags)
    with torch.no_grad():
        output = net(batch["X"].double(), batch["mask"])
    assert_output(output, net, bags, 1e-10)


@variants
@pytest.mark.parametrize("scaled", [True, False])
def test_still_pictures_make_no_nan(variant, scaled):
    """No change, no variance: there is nothing to divide by."""
    net = make_net(variant, scaled=scaled)
    bags = [np.zeros((3, N_STEPS, N_FEATURES)), np.full((4, N_STEPS, N_FEATURES), 0.1)]
    with torch.no_grad():
        output = net(**collate(bags))
    assert all(values.isfinite().all() for values in output.values())
    # The same pictures after the first have the same scores.
    assert_close(output["scores"][1, 2:], output["scores"][1, 1:3])


def test_network_without_lstm_has_the_width_of_the_features():
    net = make_net(parts=("channel_attention", "clip_attention"), n_hidden=9)
    assert net.feature_lstm is None
    assert net.attention_lstm.hidden_size == N_FEATURES
    assert net.mlp[1].in_features == N_FEATURES


@pytest.mark.parametrize("parts", [(), ("lstm",)])
def test_network_without_attention_has_no_weights_for_it(parts):
    weights = make_net(parts=parts).named_parameters()
    names = {name.split(".")[0] for name, _ in weights}
    assert names == {"mlp", *(f"feature_{part}" for part in parts)}


@variants
def test_scores_do_not_depend_on_padding_or_company(variant):
    net, bags = make_net(variant), make_bags()
    batch = collate(bags)
    wide = torch.full((len(bags), 60, N_STEPS, N_FEATURES), torch.nan)
    keep = batch["mask"][..., None, None]
    wide[:, : max(LENGTHS)] = batch["X"].where(keep, torch.nan)
    mask = torch.arange(60) < torch.tensor(LENGTHS)[:, None]
    with torch.no_grad():
        together, padded = net(**batch), net(wide, mask)
        for i, bag in enumerate(bags):
            alone = net(**collate([bag]))
            for name, values in alone.items():
                for many in (together, padded):
                    found = many[name][i, : len(bag)]
                    assert_close(found, values[0], rtol=1e-5, atol=1e-6)


def test_weights_get_the_same_gradient_under_more_padding():
    y = torch.tensor(Y)
    gradients = []
    for company in ([], make_bags([70], seed=1)):
        net = make_net()
        batch = collate(make_bags() + company)
        output = net(**batch)
        output = {name: x[: len(LENGTHS)] for name, x in output.items()}
        loss_of(output, y, batch["mask"][: len(LENGTHS)]).backward()
        gradients.append([p.grad for p in net.parameters()])
    for tight, wide in zip(*gradients, strict=True):
        assert tight.any()
        assert_close(wide, tight, rtol=1e-4, atol=1e-6)


@variants
@pytest.mark.parametrize("name", ["scores", "clip_attention"])
def test_network_looks_one_snippet_back_and_never_ahead(variant, name):
    net, (bag,) = make_net(variant), make_bags([30])
    changed = bag.copy()
    changed[20, 0] += 1
    with torch.no_grad():
        before, after = (net(**collate([b]))[name][0] for b in (bag, changed))
    assert (before != after).nonzero().ravel().tolist() == [20, 21]


def test_scores_stay_in_float32_under_autocast():
    net, bags = make_net(), make_bags()
    with torch.no_grad():
        expected = net(**collate(bags))
        with torch.autocast("cpu", torch.bfloat16):
            output = net(**collate(bags))
        for name, values in output.items():
            assert values.dtype == torch.float32
            assert not torch.equal(values, expected[name])
            assert_close(values, expected[name], rtol=0, atol=0.1)
        nn.init.constant_(net.mlp[5].bias, 12.0)
        nn.init.constant_(net.clip.bias, 12.0)
        with torch.autocast("cpu", torch.bfloat16):
            output = net(**collate(bags))
    # A bfloat16 sigmoid returns exactly 1.
    assert (output["scores"] < 1).all()
    assert (output["clip_attention"] < 1).all()


def test_number_of_weights():
    """The paper's 29 M less the 12.3 M of its I3D network."""
    with torch.device("meta"):
        net = DAMAnomalyDetector()._make_module(1024)
    count = sum(p.numel() for p in net.parameters())
    lstm = 4 * 1024 * (1024 + 1024 + 2)
    assert count == 2 * lstm + (1024 + 1) + (1024 * 96 + 96) + (96 + 1)
    assert 16.5e6 < count < 17.2e6


def test_default_network_has_the_papers_shapes():
    with torch.device("meta"):
        net = DAMAnomalyDetector()._make_module(1024)
    shapes = {name: tuple(p.shape) for name, p in net.named_parameters()}
    lstm = {
        "weight_ih_l0": (4096, 1024),
        "weight_hh_l0": (4096, 1024),
        "bias_ih_l0": (4096,),
        "bias_hh_l0": (4096,),
    }
    assert shapes == {
        **{f"feature_lstm.{name}": shape for name, shape in lstm.items()},
        **{f"attention_lstm.{name}": shape for name, shape in lstm.items()},
        "clip.weight": (1, 1024),
        "clip.bias": (1,),
        "mlp.1.weight": (96, 1024),
        "mlp.1.bias": (96,),
        "mlp.3.weight": (1, 96),
        "mlp.3.bias": (1,),
    }
    assert [type(layer) for layer in net.mlp] == [
        Dropout,
        Linear,
        nn.ReLU,
        Linear,
    ]
    assert net.mlp[0].p == 0.2


# --------------------------------------------------------------------------
# The loss
# --------------------------------------------------------------------------
def loss_of(output, y, mask, smoothness=0.3, sparsity=0.2):
    terms = weighted_ranking_loss_terms(
        output, y, mask, margin=1.0, smoothness=smoothness, sparsity=sparsity
    )
    assert list(terms) == ["ranking"]
    return terms["ranking"]


@variants
@pytest.mark.parametrize("parts", [PARTS, ("lstm",)], ids=["attention", "none"])
def test_loss_is_eq_7_summed_over_anomalous_bags(variant, parts):
    net, bags = make_net(variant, parts=parts), make_bags()
    batch = collate(bags)
    with torch.no_grad():
        loss = loss_of(net(**batch), torch.tensor(Y), batch["mask"])
    detections, attentions = zip(*(naive_dam(net, bag) for bag in bags), strict=True)
    expected = naive.weighted_ranking_loss(detections, attentions, Y, 0.3, 0.2)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    unweighted = naive.mil_ranking_loss(detections, Y, 1.0, 0.3, 0.2, "sum")
    assert (abs(expected - unweighted) > 0.1) == (net.clip is not None)


def test_detector_hands_its_weights_to_the_loss():
    est = DAMAnomalyDetector(margin=2, smoothness=3, sparsity=4)
    assert est._loss_terms().keywords == {"margin": 2, "smoothness": 3, "sparsity": 4}


def segments_by_hand(bag, n_segments=16):
    """The maximum over snippets floor(i n / 16) to floor((i + 1) n / 16)."""
    segments = []
    for i in range(n_segments):
        start, stop = i * len(bag) // n_segments, (i + 1) * len(bag) // n_segments
        segments.append(bag[start : max(stop, start + 1)].max(axis=0))
    return np.stack(segments)


@variants
@pytest.mark.parametrize("n_segments", [16, None])
def test_training_minimises_the_loss_of_pooled_bags(variant, n_segments):
    """The loss in the history is that of the loops, on segments pooled by hand."""
    bags, y = make_bags([50, 16, 5, 33]), [1, 0, 0, 1]
    est = detector(
        variant=variant,
        n_segments=n_segments,
        dropout=0.0,
        lr=1e-30,
        smoothness=0.3,
        sparsity=0.2,
    )
    est.fit(bags, y)
    seen = bags if n_segments is None else [segments_by_hand(bag) for bag in bags]
    net = est.net_.module_
    detections, attentions = zip(*(naive_dam(net, bag) for bag in seen), strict=True)
    expected = naive.weighted_ranking_loss(detections, attentions, y, 0.3, 0.2)
    assert est.history_[0]["train_loss"] == pytest.approx(expected, rel=1e-5)


# --------------------------------------------------------------------------
# The detector
# --------------------------------------------------------------------------
PAPER = {  # Section 4.1; the perceptron's widths and dropout are the authors' code's
    "variant": "dist",
    "n_hidden": 1024,
    "scaled": False,
    "lstm": True,
    "channel_attention": True,
    "clip_attention": True,
    "mlp_dims": (96,),
    "dropout": 0.2,
    "n_segments": 16,
    "margin": 1.0,
    "smoothness": 8e-5,
    "sparsity": 8e-5,
    "optimizer": "adam",
    "weight_decay": 0,
    "balanced_batches": True,
    "batch_size": 20,
    "max_epochs": 50,
    "lr": 1e-4,
    "lr_decay": None,
    "input_scaling": None,
    "video_weight": 0,
}


@pytest.mark.parametrize("changes", [{}, {"variant": "cov", "max_epochs": 2}], ids=str)
def test_settings_of_the_paper(changes):
    """All that is not in the paper is as by default."""
    params = DAMAnomalyDetector.as_published(**changes).get_params()
    assert params == DAMAnomalyDetector().get_params() | PAPER | changes


def test_defaults_differ_from_the_paper_in_training_alone():
    params = DAMAnomalyDetector().get_params()
    training = {"max_epochs": 20, "lr_decay": "cosine", "input_scaling": "uniform"}
    assert {name: params[name] for name in PAPER} == PAPER | training


class Recording(DAMAnomalyDetector):
    """Keep the batches that the network sees."""

    def _make_module(self, n_features):
        net = super()._make_module(n_features)
        net.register_forward_pre_hook(
            lambda net, args, batch: type(self).batches.append(batch), with_kwargs=True
        )
        return net


def test_training_sees_16_segments_pooled_by_maximum_and_scoring_does_not():
    Recording.batches = []
    bags = make_bags([50, 16, 5, 33])
    small = {"n_hidden": 4, "mlp_dims": (4,), "max_epochs": 1, "random_state": 0}
    est = Recording(**small).fit(bags, [1, 0, 0, 1])
    (batch,) = est.batches
    assert batch["mask"].shape == (4, 16)
    assert batch["mask"].all()
    seen = sorted(batch["X"].numpy().tolist())
    assert seen == sorted(segments_by_hand(bag).tolist() for bag in bags)
    # A bag of 16 snippets is its own segments; of 50, the first three are one.
    np.testing.assert_array_equal(segments_by_hand(bags[1]), bags[1])
    np.testing.assert_array_equal(segments_by_hand(bags[0])[0], bags[0][:3].max(axis=0))
    est.batches.clear()
    assert [len(s) for s in est.score_snippets(bags)] == [50, 16, 5, 33]
    assert sorted(n for b in est.batches for n in b["mask"].sum(1)) == [5, 16, 33, 50]


@variants
def test_fitted_detector_scores_as_its_equations_say(variant):
    bags = make_bags()
    est = detector(variant=variant, max_epochs=3, lr=0.01).fit(bags, Y)
    attention = est.attend(bags)
    scores = est.score_snippets(bags)
    assert attention.keys() == {"clip_attention", "weighted_scores"}
    for i, bag in enumerate(bags):
        detections, attentions = naive_dam(est.net_.module_, bag)
        weighted = detections * attentions + detections
        np.testing.assert_allclose(scores[i], detections, rtol=1e-5)
        np.testing.assert_allclose(
            attention["clip_attention"][i], attentions, rtol=1e-5
        )
        np.testing.assert_allclose(attention["weighted_scores"][i], weighted, rtol=1e-5)
        assert attention["weighted_scores"][i].shape == (len(bag),)
    np.testing.assert_array_equal(
        est.predict_proba(bags)[:, 1], [s.max() for s in scores]
    )


def test_attention_stays_in_range_for_huge_features():
    bags = make_bags()
    est = detector(scaled=False).fit(bags, Y)
    with torch.no_grad():
        for parameter in est.net_.module_.parameters():
            parameter *= 50
    found = est.attend([1e3 * bag for bag in bags])
    clip = np.concatenate(found["clip_attention"])
    weighted = np.concatenate(found["weighted_scores"])
    assert clip.min() == pytest.approx(0, abs=1e-6)
    assert clip.max() == pytest.approx(1, abs=1e-6)
    assert 0 <= weighted.min() < 1 < weighted.max() <= 2


def test_attend_without_clip_attention():
    bags = make_bags()
    est = detector(clip_attention=False).fit(bags, Y)
    found = est.attend(bags)
    assert all((clip == 0).all() for clip in found["clip_attention"])
    assert equal(found["weighted_scores"], est.score_snippets(bags))


def test_attend_on_unfitted():
    with pytest.raises(NotFittedError):
        detector().attend(make_bags())


@pytest.mark.parametrize(
    "params",
    [{"variant": "cov"}, {"scaled": True}, {"channel_attention": False}],
    ids=str,
)
def test_detector_hands_its_switches_to_the_network(params):
    bags = make_bags()
    est = detector(**params).fit(bags, Y)
    for name, value in params.items():
        assert getattr(est.net_.module_, name) == value
    default = detector().fit(bags, Y)
    assert not equal(est.score_snippets(bags), default.score_snippets(bags))


# Kinds of bags ------------------------------------------------------------
def test_bags_of_one_step_may_leave_the_axis_out():
    bags = make_bags(n_steps=None)
    flat = detector().fit(bags, Y).score_snippets(bags)
    bags = [bag[:, None] for bag in bags]
    assert equal(detector().fit(bags, Y).score_snippets(bags), flat)


def test_4d_array_is_bags_of_equal_length():
    X = np.stack(make_bags([12] * 5))
    expected = detector().fit(list(X), Y).score_snippets(list(X))
    assert equal(detector().fit(X, Y).score_snippets(X), expected)
    stored = Bags.from_list(X)
    assert equal(detector().fit(stored, Y).score_snippets(stored), expected)


@pytest.mark.parametrize("n_steps", [None, 1])
def test_covariances_of_one_step_are_refused(n_steps):
    bags = make_bags(n_steps=n_steps)
    with pytest.raises(ValueError, match=r"2 or more inner time steps.*is zero"):
        detector(variant="cov").fit(bags, Y)
    with pytest.raises(ValueError, match="2 or more inner time steps"):
        detector(variant="cov").partial_fit(bags, Y)
    with pytest.raises(ValueError, match="2 or more inner time steps"):
        detector(variant="cov").fit(np.ones((6, 3)), [0, 1] * 3)


@pytest.mark.parametrize("n_steps", [None, 3])
def test_bags_of_another_number_of_axes_are_refused_after_fit(n_steps):
    bags, other = make_bags(n_steps=n_steps), make_bags(n_steps=None if n_steps else 3)
    est = detector().fit(bags, Y)
    expected = est.score_snippets(bags)
    axes = other[0].ndim, bags[0].ndim
    message = rf"{axes[0]} axes, but DAM.* fitted on bags of {axes[1]}.*\[video\]"
    for method in (est.predict, est.score_snippets, est.attend, est.decision_function):
        with pytest.raises(ValueError, match=message):
            method(other)
    with pytest.raises(ValueError, match=message):
        est.partial_fit(other, Y)
    with pytest.raises(ValueError, match=message):
        clone(est).fit(bags, Y, validation=(other, Y))
    assert equal(est.score_snippets(bags), expected)
    est.fit(other, Y)  # a new fit may see anything
    assert [len(s) for s in est.score_snippets(other)] == LENGTHS


@pytest.mark.parametrize("n_axes", [4, 5])
def test_bags_of_more_axes_are_refused(n_axes):
    bags = [np.ones((4, *[2] * (n_axes - 1)))] * 4
    with pytest.raises(ValueError, match=f"{n_axes} axes, DAMAnomalyDetector takes"):
        detector().fit(bags, [0, 1, 0, 1])


def test_one_video_is_refused_with_the_remedy():
    bags = make_bags()
    est = detector().fit(bags, Y)
    with pytest.raises(ValueError, match=r"\[video\]"):
        est.score_snippets(bags[3])
    assert len(est.score_snippets([bags[3]])[0]) == LENGTHS[3]


@pytest.mark.parametrize(
    "params",
    [
        {"variant": "dot"},
        {"n_hidden": 0},
        {"scaled": "yes"},
        {"lstm": 1.5},
        {"mlp_dims": ()},
        {"mlp_dims": (3, 0)},
        {"dropout": 1.0},
        {"n_segments": 0},
        {"smoothness": -1},
        {"sparsity": -1},
    ],
    ids=str,
)
def test_bad_parameters(params):
    (name,) = params
    with pytest.raises(ValueError, match=name):
        detector(**params).fit(make_bags(), Y)


def test_predict_needs_the_steps_of_fit():
    est = detector(variant="cov").fit(make_bags(n_steps=3), Y)
    with pytest.raises(ValueError, match=r"1 inner time steps.*fitted on 3"):
        est.score_snippets(make_bags(n_steps=1))
