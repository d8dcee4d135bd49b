"""The methods as one would write them down from the papers, in plain PyTorch.

Padded batches, a T x T softmax and a prior made anew in each call, `torch.nn`'s own
layers, Adam as it comes: what the package's speed is measured against. Modules take
the package's weights by `load_state_dict`, so that results can be compared.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset

from sklearn_vad.timeline import pool_segments, spread_segments


class Scaling(nn.Module):
    """What is learned of the features' scale; the weights are loaded."""

    def __init__(self, n_features):
        super().__init__()
        self.register_buffer("shift", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))

    def forward(self, x):
        return (x - self.shift) / self.scale


# --------------------------------------------------------------------------
# DDL
# --------------------------------------------------------------------------
class LANet(nn.Module):
    """Locality-aware attention over a padded batch, MLP, causal convolution."""

    def __init__(self, n_features, n_heads=4, hidden=512, sigma=16.0, kernel=10, p=0.1):
        super().__init__()
        self.n_heads, self.sigma, self.kernel = n_heads, sigma, kernel
        self.scaling = Scaling(n_features)
        self.query = nn.Linear(n_features, hidden, bias=False)
        self.key = nn.Linear(n_features, hidden, bias=False)
        self.value = nn.Linear(n_features, hidden, bias=False)
        self.out = nn.Linear(hidden, n_features, bias=False)
        self.norm = nn.LayerNorm(n_features)
        self.mlp = nn.Sequential(
            nn.Linear(n_features, 512),
            nn.GELU(),
            nn.Dropout(p),
            nn.Linear(512, 128),
            nn.GELU(),
            nn.Dropout(p),
        )
        self.regressor = nn.Conv1d(128, 1, kernel)

    def heads(self, x):
        return x.view(*x.shape[:2], self.n_heads, -1).transpose(1, 2)

    def forward(self, x, mask):
        x = self.scaling(x)
        query, key = self.heads(self.query(x)), self.heads(self.key(x))
        value = self.heads(self.value(x) * mask.unsqueeze(2))
        logits = query @ key.transpose(2, 3)  # (B, heads, T, T)
        weights = logits.masked_fill(~mask[:, None, None, :], -torch.inf).softmax(3)
        step = torch.arange(x.shape[1])
        prior = torch.exp(-((step[:, None] - step) ** 2) / (2 * self.sigma))
        attended = (weights + prior) @ value
        x = self.norm(self.out(attended.transpose(1, 2).flatten(2)) + x)
        features = self.mlp(x)
        past = F.pad(features.transpose(1, 2), (self.kernel - 1, 0))
        return torch.sigmoid(self.regressor(past).squeeze(1)), features


def ddl_loss(scores, features, y, lengths):
    """Return DDL's loss, video by video."""
    means, energies, aligned = [], [], []
    for own, rows, label, n in zip(scores, features, y, lengths, strict=True):
        own, rows = own[:n], rows[:n]
        k = n // 16 + 1 if label else 1
        means.append(own.topk(min(k, n)).values.mean())
        steps = own[1:] - own[:-1]
        if n == 1:
            energies.append(own.sum() * 0)
            aligned.append(own.sum() * 0)
            continue
        energies.append((steps**2).topk(min(k, n - 1)).values.mean())
        turned = 1 - F.cosine_similarity(rows[1:], rows[:-1])
        aligned.append(-(steps.abs() * torch.log(turned + 1e-7)).mean())
    energies, anomalous = torch.stack(energies), y.bool()
    hinge = F.relu(-energies[anomalous][:, None] + energies[~anomalous][None])
    bce = F.binary_cross_entropy(torch.stack(means), y)
    return bce + hinge.mean() + torch.stack(aligned).mean()


def pad(bags):
    """Return a padded batch and its mask."""
    lengths = torch.tensor([len(bag) for bag in bags])
    x = nn.utils.rnn.pad_sequence([torch.as_tensor(b) for b in bags], batch_first=True)
    return x, torch.arange(x.shape[1]) < lengths[:, None]


class Files(Dataset):
    """One .npy of features per video, uniformly sampled."""

    def __init__(self, paths, y, max_snippets=200):
        self.paths, self.y, self.max_snippets = paths, y, max_snippets

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        bag = np.load(self.paths[i])
        if len(bag) > self.max_snippets:
            rows = np.linspace(0, len(bag) - 1, self.max_snippets).astype(int)
            bag = bag[rows]
        return torch.from_numpy(bag), float(self.y[i])


def train_step(net, optimizer, x, mask, y):
    """Train on one batch; return the loss."""
    optimizer.zero_grad()
    loss = ddl_loss(*net(x, mask), y, mask.sum(1).tolist())
    loss.backward()
    optimizer.step()
    return loss


def train_epoch(net, optimizer, paths, y, batch_size):
    """Go once through the files."""

    def collate(samples):
        bags, labels = zip(*samples, strict=True)
        return (*pad(bags), torch.tensor(labels))

    loader = DataLoader(
        Files(paths, y), batch_size=batch_size, shuffle=True, collate_fn=collate
    )
    net.train()
    for batch in loader:
        train_step(net, optimizer, *batch)


def score_with_lanet(net, bag):
    x = torch.from_numpy(bag)[None]
    return net(x, torch.ones(x.shape[:2], dtype=torch.bool))[0][0]


# --------------------------------------------------------------------------
# MIL ranking
# --------------------------------------------------------------------------
class RankingMLP(nn.Module):
    def __init__(self, n_features, p=0.6):
        super().__init__()
        self.scaling = Scaling(n_features)
        self.mlp = nn.Sequential(
            nn.Linear(n_features, 512),
            nn.ReLU(),
            nn.Dropout(p),
            nn.Linear(512, 32),
            nn.Dropout(p),
            nn.Linear(32, 1),
        )

    def forward(self, x):
        return torch.sigmoid(self.mlp(self.scaling(x)).squeeze(-1))


def score_with_mlp(net, bag):
    return net(torch.from_numpy(bag))


# --------------------------------------------------------------------------
# DAM
# --------------------------------------------------------------------------
class DAM(nn.Module):
    """Two calls of `torch.nn.LSTM`, on all snippets of padded bags."""

    def __init__(self, n_features, hidden=1024, p=0.2):
        super().__init__()
        self.scaling = Scaling(n_features)
        self.feature_lstm = nn.LSTM(n_features, hidden, batch_first=True)
        self.attention_lstm = nn.LSTM(n_features, hidden, batch_first=True)
        self.clip = nn.Linear(hidden, 1)
        self.mlp = nn.Sequential(
            nn.Dropout(p), nn.Linear(hidden, 96), nn.ReLU(), nn.Linear(96, 1)
        )

    def forward(self, x):
        """Return D and Clip_A of every snippet of (B, T, steps, n)."""
        x = self.scaling(x)
        shape = x.shape[:2]
        previous = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)
        x, previous = x.flatten(0, 1), previous.flatten(0, 1)
        change = (x - previous).abs()
        d = change.sum(2, keepdim=True) * change.sum(1, keepdim=True)
        features = self.feature_lstm(x)[0][:, -1]
        state = self.attention_lstm(d)[0][:, -1]
        features = features * state.softmax(1) + features
        clip = torch.sigmoid(self.clip(state.tanh()).squeeze(1))
        return torch.sigmoid(self.mlp(features)).view(shape), clip.view(shape)


def dam_loss(scores, clip, y, margin=1.0, smoothness=8e-5, sparsity=8e-5):
    """Return DAM's weighted ranking loss of videos of one length."""
    weighted = scores * clip + scores
    top, anomalous = weighted.amax(1), y.bool()
    hinge = F.relu(margin - top[anomalous][:, None] + top[~anomalous][None])
    own = weighted[anomalous]
    steps = (own[:, 1:] - own[:, :-1]) ** 2
    return hinge.mean() + smoothness * steps.sum() + sparsity * own.sum()


def score_with_dam(net, bag):
    x = torch.from_numpy(bag)
    return net(x[None] if x.ndim == 3 else x[None, :, None])[0][0]


# --------------------------------------------------------------------------
# STA
# --------------------------------------------------------------------------
def criss_cross(x, query_weight, query_bias, key_weight, key_bias):
    """Criss-cross attention with a tensor of all affinities, as CCNet has it.

    Queries and keys are (B, D, N, C) maps by 1x1 convolution, normalised; the
    affinities of every pixel to the N + C - 1 cells of its row and column are in one
    tensor.
    """
    shape = (len(query_weight), 1, 1, 1)
    maps = x.unsqueeze(1)  # (B, 1, N, C)
    query = F.normalize(F.conv2d(maps, query_weight.view(shape), query_bias), dim=1)
    key = F.normalize(F.conv2d(maps, key_weight.view(shape), key_bias), dim=1)
    b, d, n, c = query.shape
    row = torch.bmm(
        query.permute(0, 2, 3, 1).reshape(b * n, c, d),
        key.permute(0, 2, 1, 3).reshape(b * n, d, c),
    )
    column = torch.bmm(
        query.permute(0, 3, 2, 1).reshape(b * c, n, d),
        key.permute(0, 3, 1, 2).reshape(b * c, d, n),
    )
    # The centre counts once: it is left to the row.
    column = column.masked_fill(torch.eye(n, dtype=torch.bool), -torch.inf)
    row, column = row.view(b, n, c, c), column.view(b, c, n, n).transpose(1, 2)
    weight = torch.cat([row, column], dim=3).softmax(dim=3)
    row = torch.bmm(weight[..., :c].reshape(b * n, c, c), x.reshape(b * n, c, 1))
    column = torch.bmm(
        weight[..., c:].transpose(1, 2).reshape(b * c, n, n),
        x.transpose(1, 2).reshape(b * c, n, 1),
    )
    return row.view(b, n, c) + column.view(b, c, n).transpose(1, 2) + x


class STA(nn.Module):
    """Criss-cross attention twice, a bidirectional RNN, one linear unit."""

    def __init__(self, n_features, n_channels=10, hidden=64):
        super().__init__()
        self.scaling = Scaling(n_features)
        self.query, self.key = nn.Linear(1, n_channels), nn.Linear(1, n_channels)
        self.rnn = nn.RNN(
            n_features,
            hidden,
            num_layers=2,
            nonlinearity="relu",
            batch_first=True,
            bidirectional=True,
        )
        self.regressor = nn.Sequential(nn.Linear(2 * hidden, 1))

    def forward(self, x):
        x = self.scaling(x)
        query, key = self.query, self.key
        for _ in range(2):
            x = criss_cross(x, query.weight, query.bias, key.weight, key.bias)
        return torch.sigmoid(self.regressor(self.rnn(x)[0]).squeeze(2))


def score_with_sta(net, bag):
    segments = torch.from_numpy(pool_segments(bag, 32))[None]
    return torch.from_numpy(spread_segments(net(segments)[0].numpy(), len(bag)))


@torch.no_grad()
def score_videos(score, net, bags):
    """Return the scores of videos, one after the other."""
    net.eval()
    return [score(net, bag).numpy() for bag in bags]
