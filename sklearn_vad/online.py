"""One snippet at a time: scores that arrive while the camera runs."""

import numpy as np
import torch

from . import _engine
from ._scoring import score_pairs
from ._storage import as_array, as_bag

__all__ = ["SnippetStream", "push_together"]


class SnippetStream:
    """The score of one video, snippet by snippet.

    Made by ``estimator.stream()``. It keeps the last snippet and nothing else:
    time and memory per snippet are constant, and streams of one detector do
    not know of each other.

    Parameters
    ----------
    estimator : fitted detector
        One whose scores need no later snippet.
    state : ndarray, default=None
        A `state` of an earlier stream, to go on from there.

    Attributes
    ----------
    state : ndarray or None
        The last snippet; None before the first. Keep it (`numpy.save`) to go
        on later, in another process.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_vad import MILRankingAnomalyDetector
    >>> from sklearn_vad.datasets import make_bags
    >>> bags, y = make_bags(n_bags=10, random_state=0)
    >>> est = MILRankingAnomalyDetector(max_epochs=1, random_state=0).fit(bags, y)
    >>> stream = est.stream()
    >>> pushed = [stream.push(snippet) for snippet in bags[0]]
    >>> np.allclose(pushed, est.score_snippets(bags)[0], atol=1e-6)
    True
    """

    def __init__(self, estimator, state=None):
        self._net = estimator.net_
        steps = [] if estimator._n_steps is None else [estimator._n_steps]
        self._shape = (*steps, estimator.n_features_in_)
        self._n_jobs = estimator.n_jobs
        self.state = None if state is None else self._check(state, "state")

    def _check(self, snippet, name="snippet"):
        """Return a copy in float32, or raise."""
        array = as_array(snippet, name)
        checked = as_bag(np.atleast_1d(array)[None], name)[0]
        if array.shape != self._shape:
            raise ValueError(
                f"{name} has shape {array.shape}, expected {self._shape} as in the bags"
                " of fit"
            )
        return checked.astype(np.float32, order="C")

    def _before_first(self, snippet):
        """Return the snippet that scaling turns into zeros."""
        shift = self._net.module_.scaling.shift.cpu().numpy()
        return np.broadcast_to(shift, snippet.shape)

    def push(self, snippet):
        """Score the next snippet.

        Parameters
        ----------
        snippet : array-like of shape (n_features,) or (n_steps, n_features)

        Returns
        -------
        score : float
            In [0, 1]; what `score_snippets` gives of the whole bag, to float32
            rounding.

        Raises
        ------
        ValueError, TypeError
            For a snippet unlike those of the bags of `fit`; the stream stays
            as it was.
        """
        return push_together([self], [snippet])[0]


def push_together(streams, snippets):
    """Score the next snippet of many streams of one detector, in one pass.

    Parameters
    ----------
    streams : sequence of SnippetStream
        All different, all made by one fitted detector.
    snippets : sequence of array-like
        One for each stream.

    Returns
    -------
    scores : list of float

    Raises
    ------
    ValueError, TypeError
        For snippets unlike those of the bags of `fit`, or streams of different
        detectors; all streams stay as they were.
    """
    streams, snippets = list(streams), list(snippets)
    if len(streams) != len(snippets):
        raise ValueError(
            f"got {len(snippets)} snippets for {len(streams)} streams, expected one for"
            " each"
        )
    if len({id(stream) for stream in streams}) != len(streams):
        raise ValueError("a stream is there twice, expected one snippet for each")
    if len({id(stream._net) for stream in streams}) > 1:
        raise ValueError("the streams belong to different detectors, expected one")
    current = [s._check(x) for s, x in zip(streams, snippets, strict=True)]
    if not current:
        return []
    previous = [
        s._before_first(x) if s.state is None else s.state
        for s, x in zip(streams, current, strict=True)
    ]
    with _engine.cpu_threads(streams[0]._n_jobs):
        scores = score_pairs(
            streams[0]._net,
            torch.from_numpy(np.stack(current)),
            torch.from_numpy(np.stack(previous)),
        )
    for stream, snippet in zip(streams, current, strict=True):
        stream.state = snippet
    return scores
