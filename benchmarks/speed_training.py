"""Cases of speed.py: training steps and epochs."""

import os

import numpy as np
import straightforward
import torch
from speed_data import (
    WIDTH,
    files_and_store,
    halves,
    make_features,
    source,
    train_lengths,
)
from speed_rounds import (
    Probe,
    check_equal,
    compare,
    in_process,
    peak_of,
    products,
    take_turns,
    values_row,
)

from sklearn_vad import Bags, DAMAnomalyDetector, DDLAnomalyDetector
from sklearn_vad._batching import collate
from sklearn_vad._products import product
from sklearn_vad.datasets import make_bags
from sklearn_vad.detectors._dam import weighted_ranking_loss_terms
from sklearn_vad.functional import criss_cross_attention
from sklearn_vad.metrics import frame_roc_auc_score

HIDDEN = 512


# --------------------------------------------------------------------------
# DDL
# --------------------------------------------------------------------------
def lanet_flops(lengths, width, training):
    """Return the multiplications and additions that no formulation can leave out.

    Those of matrix products, of real snippets only; the prior is added to the
    softmax before the product with the values. Backward, a layer takes twice as much,
    but the first ones need no gradient of their inputs.
    """
    n, pairs = sum(lengths), sum(int(t) ** 2 for t in lengths)
    first = 3 * n * width * HIDDEN
    attention = 2 * pairs * HIDDEN
    rest = n * (HIDDEN * width + width * 512 + 512 * 128 + 10 * 128)
    if training:
        return 2 * (2 * first + 3 * (attention + rest))
    return 2 * (first + attention + rest)


def _batch(settings):
    """Return a training batch of DDL as a list of bags, and its labels."""
    rng = np.random.default_rng(0)
    n = settings.size(128, 8)
    lengths = np.minimum(rng.permutation(train_lengths(settings))[:n], 200)
    width = settings.size(WIDTH, 128)
    return list(make_features(lengths, width)), halves(n).astype(np.float32)


def our_step(bags, y, precision="float32", **params):
    """Return a net and the function that trains it on one batch."""
    est = DDLAnomalyDetector.as_published(precision=precision, **params)
    net = est._new_net(bags[0].shape[1], seed=0)
    batch = collate(bags), torch.from_numpy(y)

    def step():
        net.history.new_epoch()
        net.history.new_batch()
        return net.train_step(batch)["loss"]

    return net, step


def plain_step(bags, y, weights=None, p=0.1):
    """Return the straightforward net and the function that trains it on one batch."""
    torch.manual_seed(0)
    net = straightforward.LANet(bags[0].shape[1], p=p)
    if weights is not None:
        net.load_state_dict(weights)
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-4)
    (x, mask), labels = straightforward.pad(bags), torch.from_numpy(y)
    return net, lambda: straightforward.train_step(net, optimizer, x, mask, labels)


def check_step(bags, y):
    """Return how much the losses and the gradients of both differ, at most."""
    ours, our = our_step(bags, y, dropout=0.0)
    weights = {name: w.clone() for name, w in ours.module_.state_dict().items()}
    theirs, their = plain_step(bags, y, weights, p=0.0)
    found, expected = our().item(), their().item()
    loss = check_equal("loss", [found], [expected])
    grads = dict(theirs.named_parameters())
    pairs = [(p.grad, grads[name].grad) for name, p in ours.module_.named_parameters()]
    largest = max(g.abs().max() for _, g in pairs)
    gradient = check_equal(
        "gradients",
        [(a / largest).numpy() for a, _ in pairs],
        [(b / largest).numpy() for _, b in pairs],
    )
    return {"loss_differs_by": loss, "gradient_differs_by": gradient}


STEPS = {
    "straightforward": plain_step,
    "ours": our_step,
    "ours, bfloat16": lambda bags, y: our_step(bags, y, "bfloat16"),
}


def _step(way, settings):
    return STEPS[way](*_batch(settings))[1]


def step_peak(way, settings):
    """Return what a training step adds to the memory of a fresh process, MiB."""
    return peak_of(_step, way, settings)


def ddl_step(settings):
    bags, y = _batch(settings)
    lengths = [len(bag) for bag in bags]
    differences = check_step(bags, y)
    flops = lanet_flops(lengths, bags[0].shape[1], training=True)
    shape = min(sum(lengths), 8192), bags[0].shape[1], HIDDEN
    row = compare(
        "a step",
        {way: make(bags, y)[1] for way, make in STEPS.items()},
        settings.rounds,
        floors={
            "ours": products(flops, *shape),
            "ours, bfloat16": products(flops, *shape, "bfloat16"),
        },
        **differences,
        peak_mib={way: in_process(step_peak, way, settings) for way in STEPS},
        n_snippets=sum(lengths),
        n_padded=len(lengths) * max(lengths),
        gflop=flops / 1e9,
    )
    return {"rows": [row], "lengths": source(settings)}


def ddl_epoch(settings):
    lengths = np.minimum(train_lengths(settings), 400)
    if not settings.full:
        lengths = lengths[:: settings.size(3, 80)]
    width, y = settings.size(WIDTH, 128), halves(len(lengths))
    seen = np.minimum(lengths, 200)
    flops = lanet_flops(seen, width, training=True)
    shape = min(seen.sum(), 8192), width, HIDDEN
    with files_and_store(lengths, width) as (paths, store):

        def fit(precision):
            est = DDLAnomalyDetector.as_published(max_epochs=1, precision=precision)
            est.set_params(random_state=0).fit(Bags.open(store), y)

        def plain():
            net = straightforward.LANet(width)
            optimizer = torch.optim.Adam(net.parameters(), lr=5e-4)
            straightforward.train_epoch(net, optimizer, paths, y, 128)

        row = compare(
            "an epoch",
            {
                "straightforward": plain,
                "ours": lambda: fit("float32"),
                "ours, bfloat16": lambda: fit("bfloat16"),
            },
            min(settings.rounds, 3),
            floors={
                "ours": products(flops, *shape),
                "ours, bfloat16": products(flops, *shape, "bfloat16"),
            },
            warm_up=settings.quick,  # minutes otherwise, of much the same
            n_videos=len(lengths),
            n_snippets=int(seen.sum()),
        )
    return {"rows": [row], "lengths": source(settings)}


def compile(settings):
    """A step of the straightforward form as it is, and by `torch.compile`."""
    bags, y = _batch(settings)
    net, plain = plain_step(bags, y)
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-4)
    compiled = torch.compile(net, dynamic=True)  # batches have many lengths

    def step(longest=None):
        x, mask = straightforward.pad([bag[:longest] for bag in bags])
        labels = torch.from_numpy(y)
        straightforward.train_step(compiled, optimizer, x, mask, labels)

    lengths = {"first_batch": None, "batch_of_another_length": 100}
    first = {
        name: take_turns({name: lambda n=n: step(n)}, 1, warm_up=False)[name][0]
        for name, n in lengths.items()
    }
    ways = {"straightforward": plain, "straightforward, compiled": step}
    ways["ours"] = our_step(bags, y)[1]
    row = compare("a step", ways, min(settings.rounds, 3), **first)
    return {"rows": [row], "lengths": source(settings)}


# --------------------------------------------------------------------------
# What bfloat16 does to what is learned
# --------------------------------------------------------------------------
def bfloat16(settings):
    """Frame AUC of held-out videos after training in either precision."""
    rows, sizes = [], {"max_epochs": settings.size(5, 1), "hidden_dim": 128}
    for seed in range(settings.size(4, 2)):
        bags, labels, held_out = _with_truth(settings, seed)
        found = {}
        for precision in ("float32", "bfloat16"):
            est = DDLAnomalyDetector(precision=precision, random_state=seed, **sizes)
            est.fit(bags[~held_out], labels[~held_out])
            scores = est.score_snippets(bags[held_out])
            found[precision] = frame_roc_auc_score(labels[held_out], scores)
        rows.append(values_row(f"seed {seed}", **found))
    change = [r["values"]["bfloat16"] - r["values"]["float32"] for r in rows]
    values = {
        "float32": np.mean([r["values"]["float32"] for r in rows]),
        "bfloat16": np.mean([r["values"]["bfloat16"] for r in rows]),
        "change": np.mean(change),
        "sd_of_change": np.std(change, ddof=1),
    }
    kind = "made up" if settings.data is None else "X3D features of UCF-Crime"
    return {"rows": [values_row("mean", **values), *rows], "lengths": kind}


def _with_truth(settings, seed):
    """Return videos, their frame labels, and which fifth is held out."""
    if settings.data is None:
        n = settings.size(300, 20)
        bags, labels = make_bags(n, n_features=256, difficulty=0.6, random_state=seed)
        return bags, labels, np.arange(n) % 5 == 0
    from study_data import split, x3d

    videos = x3d(settings.data, None, seed)
    held_out = np.zeros(len(videos.bags), dtype=bool)
    held_out[split(videos.labels, videos.groups, seed).select] = True
    return videos.bags, videos.labels, held_out


# --------------------------------------------------------------------------
# DAM
# --------------------------------------------------------------------------
N_VIDEOS, N_SEGMENTS, N_STEPS = 20, 16, 7


def _dam_steps(settings, precision):
    """Return the training steps of both, and how much their losses differ."""
    n, width = settings.size(N_VIDEOS, 4), settings.size(WIDTH, 64)
    x = np.stack(list(make_features([N_SEGMENTS] * n, N_STEPS, width)))
    x, y = torch.from_numpy(x), torch.from_numpy(halves(n).astype(np.float32))
    mask = torch.ones(x.shape[:2], dtype=torch.bool)
    est = DAMAnomalyDetector.as_published(precision=precision, n_hidden=width)
    net = est._new_net(width, seed=0)
    plain = straightforward.DAM(width, width)
    plain.load_state_dict(net.module_.state_dict())
    with torch.no_grad():
        terms = {"margin": 1.0, "smoothness": 8e-5, "sparsity": 8e-5}
        output = net.module_.eval()(x, mask)
        ours = weighted_ranking_loss_terms(output, y, mask, **terms)["ranking"]
        theirs = straightforward.dam_loss(*plain.eval()(x), y)
    difference = check_equal("loss of DAM", [ours], [theirs])
    plain.train()
    optimizer = torch.optim.Adam(plain.parameters(), lr=1e-4)
    batch = {"X": x, "mask": mask}, y

    def our():
        net.history.new_epoch()
        net.history.new_batch()
        net.train_step(batch)

    def their():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            scores, clip = plain(x)
        straightforward.dam_loss(scores.float(), clip.float(), y).backward()
        optimizer.step()

    return {"straightforward": their, "ours": our}, difference


def dam_products(settings, precision):
    """Return the products of one step of DAM and nothing else.

    In products of (rows, n) with (n, 4n), rows = videos x segments: forward, the
    features take 7 from the inputs and 6 from the states, the attention 1 and 6;
    backward, the same for the gradients of the weights, and 6 + 6 for those of the
    states.
    """
    dtype = getattr(torch, precision)
    rows, width = settings.size(N_VIDEOS, 4) * N_SEGMENTS, settings.size(WIDTH, 64)
    states, gates = torch.randn(rows, width), torch.randn(rows, 4 * width)
    inputs = torch.randn(rows * N_STEPS, width)
    many = torch.randn(rows * N_STEPS, 4 * width)
    weight = torch.randn(4 * width, width)
    states, gates, inputs, many, weight = (
        x.to(dtype) for x in (states, gates, inputs, many, weight)
    )
    back, later = weight.t().contiguous(), slice(rows, None)

    def run():
        product(inputs, weight)
        product(states, weight)
        product(many.t(), inputs.t())
        product(gates.t(), states.t())
        for _ in range(2):  # both LSTMs
            product(many[later].t(), inputs[later].t())
            for _ in range(N_STEPS - 1):
                product(states, weight)
                product(gates, back)

    return run


def dam_step(settings):
    rows = []
    for precision in ("float32", "bfloat16"):
        ways, difference = _dam_steps(settings, precision)
        floor = [Probe(dam_products(settings, precision), 1)]
        floors = {"ours": floor}
        row = compare(
            precision, ways, settings.rounds, floors=floors, loss_differs_by=difference
        )
        rows.append(row)
    return {"rows": rows}


# --------------------------------------------------------------------------
# Criss-cross attention
# --------------------------------------------------------------------------
CRISS_CROSS = {"straightforward": straightforward.criss_cross}
CRISS_CROSS["ours"] = criss_cross_attention


def _map(width):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 32, width, generator=generator, requires_grad=True)
    bias = [torch.randn(10, generator=generator, requires_grad=True) for _ in range(4)]
    return x, *bias


def _there_and_back(way, width):
    """Return the function of a forward and a backward pass."""
    attention = CRISS_CROSS[way]
    attention(*_map(8)).sum().backward()  # what libraries need at first use
    inputs = _map(width)

    def call():
        attention(*inputs).sum().backward()

    return call


def criss_cross_peak(way, width):
    return peak_of(_there_and_back, way, width)


def criss_cross(settings):
    rows = []
    for width in settings.size((256, 1024, 4096), (32, 64)):
        inputs = _map(width)
        ways, peaks = list(CRISS_CROSS), {}
        # In float32, about 7 values of each affinity are kept.
        if 7 * 4 * 32 * width * (32 + width) > 0.8 * _free_memory():
            ways.remove("straightforward")
        else:
            results = [CRISS_CROSS[way](*inputs).detach().numpy() for way in ways]
            check_equal("criss-cross attention", results[1:], results[:1], 1e-4)
        peaks = {way: in_process(criss_cross_peak, way, width) for way in ways}
        calls = {way: _there_and_back(way, width) for way in ways}
        n_rounds = settings.rounds if width < 2000 else min(settings.rounds, 2)
        row = compare(f"C = {width}", calls, n_rounds, peak_mib=peaks, width=width)
        rows.append(row)
    return {"rows": rows}


def _free_memory():
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
