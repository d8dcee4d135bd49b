"""Synthetic bags with known frame truth."""

from numbers import Integral, Real

import numpy as np
from sklearn.utils._param_validation import Interval, validate_params

from ..bags import Bags, FrameLabels

_N_SCENES = 12
_N_ANOMALY_TYPES = 4


@validate_params(
    {
        "n_bags": [Interval(Integral, 2, None, closed="left")],
        "n_features": [Interval(Integral, 2, None, closed="left")],
        "n_steps": [Interval(Integral, 1, None, closed="left"), None],
        "anomalous_fraction": [Interval(Real, 0, 1, closed="neither")],
        "min_snippets": [Interval(Integral, 1, None, closed="left")],
        "max_snippets": [Interval(Integral, 1, None, closed="left")],
        "difficulty": [Interval(Real, 0, 1, closed="both")],
        "snippet_length": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state", np.random.Generator],
    },
    prefer_skip_nested_validation=True,
)
def make_bags(
    n_bags=200,
    *,
    n_features=64,
    n_steps=None,
    anomalous_fraction=0.5,
    min_snippets=8,
    max_snippets=120,
    difficulty=0.5,
    snippet_length=16,
    random_state=None,
):
    """Make ragged, weakly labelled videos, hard in the ways real ones are.

    Every video is shot in scenes of its own, with drift and cuts from one scene
    to another; a single snippet is noisy, its neighbours help to read it.
    Anomalous videos hold one to four events of a few types, from one snippet to
    most of the video. All videos, normal ones too, hold harmless events that
    look somewhat like anomalies. Events begin and end at any frame, and the
    number of frames is no multiple of the snippet length.

    All videos of one call live in one world (scenes, types of events). Split
    the result of a single call into training and test videos; two calls with
    different seeds make two worlds.

    Parameters
    ----------
    n_bags : int, default=200
    n_features : int, default=64
    n_steps : int or None, default=None
        Inner time steps of a snippet: bags are then (n_snippets, n_steps,
        n_features), and an event sways from step to step, so that less of it
        is left in the mean over the steps. None makes no such axis.
    anomalous_fraction : float, default=0.5
        Share of anomalous videos; at least one video of each class is made.
    min_snippets, max_snippets : int, default=8 and 120
        Lengths of bags are log-uniform between the two.
    difficulty : float, default=0.5
        From 0, where anomalies stand out, to 1, where they are weak and
        harmless events resemble them.
    snippet_length : int, default=16
        Frames per snippet.
    random_state : int, RandomState, Generator or None, default=None

    Returns
    -------
    bags : Bags
        float32, with ids "video_000" and so on.
    y : FrameLabels
        Frame labels, which behave as the video labels.

    Examples
    --------
    >>> from sklearn_vad.datasets import make_bags
    >>> bags, y = make_bags(n_bags=6, random_state=0)
    >>> bags
    Bags(n_bags=6)
    >>> int(y.video_labels.sum()), len(y.masks[0]) // 16 == int(bags.lengths[0])
    (3, True)
    """
    if min_snippets > max_snippets:
        raise ValueError(f"min_snippets={min_snippets} exceeds {max_snippets=}")
    n_steps = None if n_steps is None else int(n_steps)  # numpy refuses True
    snippet_length = int(snippet_length)
    rng = _generator(random_state)
    world = _World(n_features, n_steps, difficulty, rng)
    n_anomalous = min(max(round(n_bags * anomalous_fraction), 1), n_bags - 1)
    anomalous = rng.permutation(np.arange(n_bags) < n_anomalous)
    span = np.log([min_snippets, max_snippets + 1])
    lengths = np.exp(rng.uniform(*span, size=n_bags)).astype(int)
    lengths = np.clip(lengths, min_snippets, max_snippets)
    arrays, masks = [], []
    for length, has_anomaly in zip(lengths, anomalous, strict=True):
        video, mask = world.film(length, has_anomaly, snippet_length)
        arrays.append(video)
        masks.append(mask)
    ids = [f"video_{i:03d}" for i in range(n_bags)]
    return Bags.from_list(arrays, ids), FrameLabels(masks, snippet_length)


def _generator(random_state):
    """Return a numpy Generator for any random_state; None draws fresh entropy."""
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(2**31 - 1, size=4))
    return np.random.default_rng(random_state)


class _World:
    """Scenes, anomalies and harmless events that all videos share."""

    def __init__(self, n_features, n_steps, difficulty, rng):
        self.rng = rng
        self.n_features = n_features
        self.n_steps = n_steps
        self.scenes = rng.normal(size=(_N_SCENES, n_features))
        self.anomalies = self._directions()
        likeness = 0.2 + 0.6 * difficulty
        self.harmless = likeness * self.anomalies
        self.harmless += np.sqrt(1 - likeness**2) * self._directions()
        self.strength = 9.0 - 6.5 * difficulty

    def _directions(self):
        raw = self.rng.normal(size=(_N_ANOMALY_TYPES, self.n_features))
        return raw / np.linalg.norm(raw, axis=1, keepdims=True)

    def film(self, n_snippets, has_anomaly, snippet_length):
        """Return the features of one video, and its frame labels."""
        rng = self.rng
        n_frames = n_snippets * snippet_length + rng.integers(snippet_length)
        video = self._background(n_snippets)
        for _ in range(rng.integers(0, 4)):
            event = self._event(n_frames, snippet_length)
            self._show(video, event, self.harmless, snippet_length, sway=0.0)
        mask = np.zeros(n_frames, dtype=bool)
        n_events = 1 + rng.choice(4, p=[0.5, 0.3, 0.15, 0.05])
        for _ in range(n_events if has_anomaly else 0):
            event = self._event(n_snippets * snippet_length, snippet_length)
            self._show(video, event, self.anomalies, snippet_length, sway=1.0)
            mask[event] = True
        return video.astype(np.float32), mask

    def _background(self, n_snippets):
        """Return scenes with cuts, drift and noise."""
        rng = self.rng
        n_cuts = min(rng.integers(0, 4), n_snippets - 1)
        cuts = np.sort(rng.choice(np.arange(1, n_snippets), n_cuts, replace=False))
        shot = np.searchsorted(cuts, np.arange(n_snippets), side="right")
        places = rng.choice(_N_SCENES, size=n_cuts + 1)
        drift = rng.normal(scale=0.1, size=(n_snippets, self.n_features)).cumsum(axis=0)
        noise = rng.normal(size=(n_snippets, self.n_features))
        video = self.scenes[places][shot] + drift + noise
        if self.n_steps is None:
            return video
        steps = rng.normal(size=(n_snippets, self.n_steps, self.n_features))
        return video[:, None] + steps

    def _event(self, n_frames, snippet_length):
        """Return the frames of an event: from one snippet to 0.8 of the video."""
        longest = max(0.8 * n_frames, snippet_length)
        span = np.log([snippet_length, longest])
        length = round(np.exp(self.rng.uniform(*span)))
        start = self.rng.integers(n_frames - length + 1)
        return slice(start, start + length)

    def _show(self, video, event, directions, snippet_length, sway):
        """Add an event to the snippets, as far as it covers each of them.

        With inner steps, `sway` is the share of it that oscillates within a
        snippet, twice, beginning anywhere.
        """
        inside = np.zeros(len(video) * snippet_length)
        inside[event] = 1.0
        cover = inside.reshape(len(video), snippet_length).mean(axis=1)
        size = self.strength * self.rng.uniform(0.7, 1.3)
        kind = self.rng.integers(_N_ANOMALY_TYPES)
        shown = size * cover[:, None] * directions[kind]
        if self.n_steps is not None:
            turn = 4 * np.pi * np.arange(self.n_steps) / self.n_steps
            phase = self.rng.uniform(0, 2 * np.pi, size=(len(video), 1))
            course = 1 - 0.7 * sway + sway * np.sin(turn + phase)  # (n_snippets, steps)
            shown = course[..., None] * shown[:, None]
        video += shown
