"""The papers' equations as slow loops over unpadded bags, in float64.

Written from the printed equations, one bag, one snippet and one sum at a time,
so that each line can be read beside the paper. `bags` is always a list with one
array per video: scores ``(T_i,)``, features ``(T_i, C)``, snippets with inner steps
``(T_i, steps, C)``, queries, keys and values ``(heads, T_i, d)``.
"""

import math

import numpy as np


def scaled(scaling, x):
    """A network's first step on a snippet: L2 norm, then shift and scale."""
    shift, scale = (b.double().numpy() for b in (scaling.shift, scaling.scale))
    x = np.array(x, dtype=np.float64)
    for row in x.reshape(-1, x.shape[-1]):
        norm = math.sqrt(sum(row**2))
        if scaling.l2_normalize and norm > 0:
            row /= norm
        for k in range(len(row)):
            row[k] = (row[k] - shift[k]) / scale[k]
    return x


def locality_prior(n_snippets, sigma):
    """DDL Eq. 2: exp(-|i - j|^2 / (2 sigma))."""
    prior = np.empty((n_snippets, n_snippets))
    for i in range(n_snippets):
        for j in range(n_snippets):
            prior[i, j] = math.exp(-(abs(i - j) ** 2) / (2 * sigma))
    return prior


def locality_aware_attention(queries, keys, values, sigma, where="after"):
    """DDL Eqs. 1-4: rows of A + G, times V, for each bag and head.

    Or, with G "before" the softmax, rows of softmax(Q K^T + G), times V.
    """
    bags = []
    for query, key, value in zip(queries, keys, values, strict=True):
        query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
        n_heads, n_snippets, _ = value.shape
        prior = np.zeros((n_snippets, n_snippets))
        if sigma is not None:
            prior = locality_prior(n_snippets, sigma)
        out = np.zeros_like(value)
        for head in range(n_heads):
            for i in range(n_snippets):
                relation = [float(query[head, i] @ row) for row in key[head]]
                if where == "before":
                    relation = [r + g for r, g in zip(relation, prior[i], strict=True)]
                highest = max(relation)  # any shift leaves Eq. 1 as it is
                weight = [math.exp(r - highest) for r in relation]
                total = sum(weight)
                for n in range(n_snippets):
                    attention = weight[n] / total
                    if where == "after":
                        attention += prior[i, n]
                    out[head, i] += attention * value[head, n]
        bags.append(out)
    return bags


def topk_mean(bags, k):
    """Mean of the k highest scores, or of all where there are fewer."""
    counts = [k] * len(bags) if isinstance(k, int) else k
    means = []
    for scores, count in zip(bags, counts, strict=True):
        highest = sorted(map(float, scores), reverse=True)[: int(count)]
        means.append(sum(highest) / len(highest))
    return np.array(means)


def _k(scores, label):
    """Return k of the k-max approach, which counts the snippets of the bag."""
    return math.floor(len(scores) / 16 + 1) if label == 1 else 1


def mil_bce_loss(bags, y):
    """DDL Eq. 6 with the term of the normal videos."""
    total = 0.0
    for scores, label in zip(bags, y, strict=True):
        (p,) = topk_mean([scores], _k(scores, label))
        total += -math.log(p) if label == 1 else -math.log(1 - p)
    return total / len(bags)


def _mean_over_pairs(bags, y, loss_of_pair):
    """Mean of a loss over all (anomalous, normal) pairs; 0 without a pair."""
    losses = [
        loss_of_pair(anomalous, normal)
        for anomalous, label in zip(bags, y, strict=True)
        for normal, other in zip(bags, y, strict=True)
        if label == 1 and other == 0
    ]
    return sum(losses) / len(losses) if losses else 0.0


def _score_dynamics(scores):
    return [
        abs(float(scores[t]) - float(scores[t + 1])) for t in range(len(scores) - 1)
    ]


def dynamics_ranking_loss(bags, y, margin=0.0):
    """DDL Eqs. 7-8, averaged over the pairs."""

    def energy(scores, label):
        dynamics = sorted(_score_dynamics(scores), reverse=True)
        k = _k(scores, label)
        return sum(delta**2 for delta in dynamics[:k]) / k

    return _mean_over_pairs(
        bags, y, lambda a, n: max(0.0, margin - energy(a, 1) + energy(n, 0))
    )


def dynamics_alignment_loss(bags, features, eps=1e-7):
    """DDL Eqs. 9-10; the cosine with a row of zeros is 0."""
    total = 0.0
    for scores, rows in zip(bags, features, strict=True):
        rows = np.asarray(rows, np.float64)
        score_dynamics = _score_dynamics(scores)
        inside = 0.0
        for t, score_step in enumerate(score_dynamics):
            norms = np.linalg.norm(rows[t]) * np.linalg.norm(rows[t + 1])
            cosine = rows[t] @ rows[t + 1] / norms if norms > 0 else 0.0
            inside += -score_step * math.log(max(1 - cosine, 0.0) + eps)
        if score_dynamics:
            total += inside / len(score_dynamics)
    return total / len(bags)


def mil_ranking_loss(
    bags, y, margin=1.0, smoothness=8e-5, sparsity=8e-5, reduction="mean"
):
    """MIL ranking: hinge of maxima over pairs, plus smoothness and sparsity."""
    loss = _mean_over_pairs(
        bags, y, lambda a, n: max(0.0, margin - float(max(a)) + float(max(n)))
    )
    return loss + smooth_sparse_loss(bags, y, smoothness, sparsity, reduction)


def smooth_sparse_loss(bags, y, smoothness=8e-5, sparsity=8e-5, reduction="mean"):
    """The smoothness and sparsity terms of MIL ranking, of anomalous bags."""
    penalties = []
    for scores, label in zip(bags, y, strict=True):
        if label == 1:
            smooth = sum(delta**2 for delta in _score_dynamics(scores))
            sparse = sum(map(float, scores))
            penalties.append(smoothness * smooth + sparsity * sparse)
    if not penalties:
        return 0.0
    return sum(penalties) / (len(penalties) if reduction == "mean" else 1)


def dissimilarities(current, previous, kind):
    """DAM Eqs. 1-2 of one snippet and the one before it, each (steps, channels).

    Neither sum is divided by anything, and covariances keep their sign.
    """
    n_steps, n_channels = current.shape
    d_n, d_t = np.zeros(n_channels), np.zeros(n_steps)
    if kind == "dist":
        for j in range(n_steps):
            for k in range(n_channels):
                change = abs(float(current[j, k]) - float(previous[j, k]))
                d_n[k] += change
                d_t[j] += change
        return d_n, d_t
    for k in range(n_channels):  # of each channel, over the steps
        mean, mean_before = current[:, k].mean(), previous[:, k].mean()
        for j in range(n_steps):
            d_n[k] += (current[j, k] - mean) * (previous[j, k] - mean_before)
    for j in range(n_steps):  # of each step, over the channels
        mean, mean_before = current[j].mean(), previous[j].mean()
        for k in range(n_channels):
            d_t[j] += (current[j, k] - mean) * (previous[j, k] - mean_before)
    return d_n, d_t


def dissimilarity_map(bags, kind):
    """DAM Eqs. 1-3: both inflated and multiplied; before the first, zeros."""
    maps = []
    for snippets in bags:
        out = np.empty(snippets.shape)
        previous = np.zeros(snippets.shape[1:])
        for i, current in enumerate(np.asarray(snippets, np.float64)):
            d_n, d_t = dissimilarities(current, previous, kind)
            for j in range(len(d_t)):
                for k in range(len(d_n)):
                    out[i, j, k] = d_t[j] * d_n[k]
            previous = current
        maps.append(out)
    return maps


def lstm(rows, weight_ih, weight_hh, bias_ih, bias_hh):
    """Hidden state of an LSTM after the last of `rows`; gates in torch's order."""
    size = weight_hh.shape[1]
    hidden, cell = np.zeros(size), np.zeros(size)
    for row in rows:
        gates = weight_ih @ row + bias_ih + weight_hh @ hidden + bias_hh
        i, f, g, o = np.split(gates, 4)
        cell = cell * sigmoid(f) + sigmoid(i) * np.tanh(g)
        hidden = sigmoid(o) * np.tanh(cell)
    return hidden


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def weighted_ranking_loss(detections, attentions, y, smoothness=8e-5, sparsity=8e-5):
    """DAM Eq. 7 of the scores wD = D Clip_A + D.

    The hinge is the mean over pairs, the other terms are sums over the batch.
    """
    weighted = [
        [float(d) * float(a) + float(d) for d, a in zip(*bag, strict=True)]
        for bag in zip(detections, attentions, strict=True)
    ]
    loss = _mean_over_pairs(weighted, y, lambda a, n: max(0.0, 1 - max(a) + max(n)))
    for scores, label in zip(weighted, y, strict=True):
        if label == 1:
            for i in range(len(scores) - 1):
                loss += smoothness * (scores[i] - scores[i + 1]) ** 2
            for score in scores:
                loss += sparsity * score
    return loss


def cosine(a, b):
    """The cosine of two vectors; 0 where one is zeros."""
    norms = math.sqrt(sum(float(x) ** 2 for x in a) * sum(float(x) ** 2 for x in b))
    return float(a @ b) / norms if norms > 0 else 0.0


def criss_cross_attention(
    maps, query_weight, query_bias, key_weight, key_bias, temperature=1.0
):
    """STA Eqs. 1-3 of maps (T_i, C): one pass, each cell in its own cross once."""
    parameters = query_weight, query_bias, key_weight, key_bias
    w_q, b_q, w_k, b_k = (np.asarray(p, np.float64) for p in parameters)
    attended = []
    for cells in maps:
        cells = np.asarray(cells, np.float64)
        n_snippets, n_features = cells.shape
        out = np.empty_like(cells)
        for i in range(n_snippets):
            for j in range(n_features):
                cross = [(m, j) for m in range(n_snippets)]
                cross += [(i, n) for n in range(n_features) if n != j]
                query = cells[i, j] * w_q + b_q
                total = weighted = 0.0
                for cell in cross:
                    key = cells[cell] * w_k + b_k
                    weight = math.exp(cosine(query, key) / temperature)  # Eqs. 1, 2
                    total += weight
                    weighted += weight * cells[cell]
                out[i, j] = weighted / total + cells[i, j]  # Eq. 3
        attended.append(out)
    return attended


def mutual_cosine_embedding_loss(bags, y, margin=0.4):
    """STA Eq. 4: of pairs in a video, then of the videos of a class that have some."""
    averages = {0: [], 1: []}
    for rows, label in zip(bags, y, strict=True):
        rows = np.asarray(rows, np.float64)
        cosines = [
            cosine(rows[i], rows[j])
            for i in range(len(rows))
            for j in range(i + 1, len(rows))
        ]
        if label == 1:
            cosines = [min(c, margin) for c in cosines]
        if cosines:
            averages[label].append(sum(cosines) / len(cosines))
    loss = 0.0
    if averages[0]:
        loss += 1 - sum(averages[0]) / len(averages[0])
    if averages[1]:
        loss += sum(averages[1]) / len(averages[1])
    return loss


def _largest(rows, k):
    """Return (norm, t) of the k snippets of largest norm."""
    norms = [math.sqrt(sum(float(x) ** 2 for x in row)) for row in rows]
    return sorted(zip(norms, range(len(rows)), strict=True), reverse=True)[:k]


def feature_magnitude_loss(features, y, k=3, margin=100.0):
    """RTFM: (|m - g(X^a)| + g(X^n))^2, g the mean of the k largest norms (Eq. 2)."""

    def g(rows):
        norms = [norm for norm, _ in _largest(rows, k)]
        return sum(norms) / len(norms)

    return _mean_over_pairs(features, y, lambda a, n: (abs(margin - g(a)) + g(n)) ** 2)


def magnitude_bce_loss(bags, features, y, k=3):
    """RTFM: cross-entropy of the mean score where the norms are largest."""
    total = 0.0
    for scores, rows, label in zip(bags, features, y, strict=True):
        chosen = [float(scores[t]) for _, t in _largest(rows, k)]
        p = sum(chosen) / len(chosen)
        total += -math.log(p) if label == 1 else -math.log(1 - p)
    return total / len(bags)


def relu_rnn(rows, weight_ih, weight_hh, bias_ih, bias_hh):
    """States of Elman's RNN with ReLU after each of `rows`."""
    state, states = np.zeros(len(weight_hh)), []
    for row in rows:
        state = np.maximum(weight_ih @ row + bias_ih + weight_hh @ state + bias_hh, 0)
        states.append(state)
    return np.array(states)


def bidirectional_rnn(rows, layers):
    """States of both directions side by side; weights (ahead, back) of each layer."""
    for ahead, back in layers:
        states = relu_rnn(rows, *ahead), relu_rnn(rows[::-1], *back)[::-1]
        rows = np.concatenate(states, axis=1)
    return rows


def level(score, quantiles):
    """Share of an ensemble member's training snippets below a score."""
    n = len(quantiles)
    knots = [0.0, *map(float, quantiles), 1.0]
    at = {}
    for i, knot in enumerate(knots):
        at.setdefault(knot, []).append(i / (n + 1))
    if score in at:
        return sum(at[score]) / len(at[score])
    below = max(knot for knot in at if knot < score)
    above = min(knot for knot in at if knot > score)
    low, high = sum(at[below]) / len(at[below]), sum(at[above]) / len(at[above])
    return low + (score - below) / (above - below) * (high - low)
