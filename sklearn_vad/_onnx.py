"""A fitted detector as an ONNX file: scores without torch, and without this package.

The graph holds the whole way of `score_snippets`, from the features of snippets to
their scores: scaling, pooling into segments where the detector scores these, the
network, the way back to snippets, and `video_weight`. Modules whose fast code has no
counterpart in ONNX swap it by ``make_portable()`` for plain code, which stands next
to it and gives the same numbers.
"""

import copy
import io
import json
import os
import warnings

import numpy as np
import torch
from torch import nn

from . import __version__
from ._batching import collate
from ._whole_file import write_whole

FORMAT = 1
_OPSET = 17
_TRACED = (3, 5, 2)  # snippets of the bags that the graph is traced with
# Those that it is tried on: alone and padded, fewer and many more than traced.
_TRIED = ((1,), (1, 3), (33, 2, 7, 1), (200,))
_TOLERANCE = 1e-5


class OnnxMixin:
    """Give a detector ``to_onnx``."""

    def to_onnx(self, path):
        """Write the fitted detector as an ONNX file, for other runtimes.

        The graph takes "X", float32 of shape (batch, snippets, n_features), or
        (batch, snippets, n_steps, n_features) as in `fit`, and for a
        `MultiCropDetector` with crops as third axis; and "mask", bool of shape
        (batch, snippets), true for real snippets, which come before the padding.
        It gives "scores", float32 of shape (batch, snippets), those of
        `score_snippets`, and 0 for padding. Batch, snippets and crops may be of
        any number.

        All that `score_snippets` does is inside: scaling, segments and
        `video_weight`. What stands before the detector in a `Pipeline` is not. The
        graph computes in float32, also where `precision` is "bfloat16"; only the
        attention of `STAAnomalyDetector` needs a runtime with float64. That of
        `DDLAnomalyDetector` takes memory that grows with the square of the snippets.

        The graph is run before the file appears, and compared with torch. The
        file appears whole or not at all; its metadata has, as JSON under
        "sklearn_vad", class, versions, `classes_`, `threshold_`, and how scores
        of snippets make the score of a video.

        Parameters
        ----------
        path : str or path-like
            Such as "detector.onnx"; a file that is there is replaced.

        Raises
        ------
        ImportError
            Without onnx and onnxruntime.
        sklearn.exceptions.NotFittedError
            Before `fit`.
        RuntimeError
            Where the graph's scores differ from torch's by more than 1e-5.

        Examples
        --------
        >>> import tempfile
        >>> import numpy as np
        >>> import onnxruntime
        >>> from sklearn_vad import MILRankingAnomalyDetector
        >>> from sklearn_vad.datasets import make_bags
        >>> bags, y = make_bags(n_bags=20, random_state=0)
        >>> est = MILRankingAnomalyDetector(max_epochs=2, random_state=0).fit(bags, y)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     est.to_onnx(f"{folder}/detector.onnx")
        ...     session = onnxruntime.InferenceSession(f"{folder}/detector.onnx")
        >>> X = bags[0][None]  # a batch of one video, without padding
        >>> scores = session.run(None, {"X": X, "mask": np.ones(X.shape[:2], bool)})[0]
        >>> np.allclose(scores[0], est.score_snippets(bags)[0], atol=1e-5)
        True
        """
        onnx, onnxruntime = _import_packages()
        scorer = self._on_cpu()
        graph = _Graph(scorer)
        model = onnx.load_from_string(_trace(graph, _batch(graph, _TRACED)))
        onnx.helper.set_model_props(model, {"sklearn_vad": _describe(self, graph)})
        onnx.checker.check_model(model)
        data = model.SerializeToString()
        _verify(data, onnxruntime, scorer, graph)
        write_whole(os.fsdecode(path), data)


def _import_packages():
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise ImportError(
            f"to_onnx: {error}; pip install 'sklearn_vad[onnx]'"
        ) from error
    return onnx, onnxruntime


# --------------------------------------------------------------------------
# The graph
# --------------------------------------------------------------------------
def _segments_of(mask, n_segments):
    """Return which segments show which snippets, as `timeline.pool_segments` does.

    Returns
    -------
    shown : float32 Tensor of shape (B, n_segments, T)
        1 where a segment covers the snippet or, empty, stands for it.
    """
    number = torch.arange(n_segments + 1)
    bounds = number * mask.sum(dim=1, keepdim=True) // n_segments  # (B, S + 1)
    first = bounds[:, :-1, None]
    last = torch.maximum(bounds[:, 1:, None], first + 1)
    snippet = torch.arange(mask.shape[1])
    return ((snippet >= first) & (snippet < last)).float()


class _Graph(nn.Module):
    """From features of snippets to the scores of `score_snippets`.

    Parameters
    ----------
    scorer : detector, or MultiCropDetector of one
        Fitted, on the CPU.
    """

    def __init__(self, scorer):
        super().__init__()
        self.detector = getattr(scorer, "estimator_", scorer)
        self.crops = self.detector is not scorer
        self.n_segments = self.detector._n_scored_segments()
        self.network = copy.deepcopy(self.detector.net_.module_).eval()
        if hasattr(self.network, "make_portable"):
            self.network.make_portable()

    def _score(self, X, mask):
        if self.n_segments is None:
            scores = self.network(X, mask)["scores"]
        else:
            shown = _segments_of(mask, self.n_segments)
            segments = shown @ X / shown.sum(dim=2, keepdim=True)
            scores = self.network(segments, shown[:, :, 0] >= 0)["scores"]
            total = (scores.unsqueeze(1) @ shown).squeeze(1)  # (B, T)
            scores = total / shown.sum(dim=1).clamp(min=1)
        return scores.masked_fill(~mask, 0)

    def _score_crops(self, X, mask):
        n_videos, _, n_crops = X.shape[:3]
        mask = mask.unsqueeze(1).expand(-1, n_crops, -1)
        scores = self._score(X.transpose(1, 2).flatten(0, 1), mask.flatten(0, 1))
        return scores.view(n_videos, n_crops, -1).mean(dim=1)

    def forward(self, X, mask):
        # Padding may hold anything.
        X = X.masked_fill(~mask.view(*mask.shape, *[1] * (X.ndim - 2)), 0)
        scores = (self._score_crops if self.crops else self._score)(X, mask)
        weight = self.detector.video_weight
        if weight:
            videos = self.detector._graph_video_scores(scores, mask).unsqueeze(1)
            scores = ((scores + weight * videos) / (1 + weight)).masked_fill(~mask, 0)
        return scores


def _trace(graph, batch):
    """Return the graph as ONNX, in bytes."""
    axes = {0: "batch", 1: "snippets"}
    crops = {2: "crops"} if graph.crops else {}
    file = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # It is deprecated, says so, and warns of every Python number that it meets:
        # `_verify` finds those that matter.
        warnings.simplefilter("ignore")
        # The other exporter (dynamo=True) makes a constant of the length of STA's RNN.
        # It takes ten times as long, prints, and needs one package more. Should this
        # one go, `torch.onnx.ops.symbolic` (torch 2.8) can write an RNN there.
        torch.onnx.export(
            graph,
            (batch["X"], batch["mask"]),
            file,
            input_names=["X", "mask"],
            output_names=["scores"],
            dynamic_axes={"X": {**axes, **crops}, "mask": axes, "scores": axes},
            opset_version=_OPSET,
            dynamo=False,
        )
    return file.getvalue()


def _describe(estimator, graph):
    """Return what the file says about itself, as JSON."""
    detector = graph.detector
    steps = [] if detector._n_steps is None else ["n_steps"]
    crops = ["crops"] if graph.crops else []
    description = {
        "format": FORMAT,
        "class": type(estimator).__name__,
        "detector": type(detector).__name__,
        "versions": {"sklearn_vad": __version__, "torch": str(torch.__version__)},
        "classes": detector.classes_.tolist(),
        "threshold": float(detector.threshold_),
        "n_features": int(detector.n_features_in_),
        "n_steps": None if detector._n_steps is None else int(detector._n_steps),
        "axes": {
            "X": ["batch", "snippets", *crops, *steps, "n_features"],
            "mask": ["batch", "snippets"],
            "scores": ["batch", "snippets"],
        },
        "mask": "true for real snippets, which come first; padding gets score 0",
        "snippets": "in order of time; a score of 1 is anomalous, of 0 normal",
        "scored": "snippets"
        if graph.n_segments is None
        else f"means of {graph.n_segments} segments of the snippets, in the graph",
        "video_weight": float(detector.video_weight),
        "video_score": detector._video_score_rule,
        "decision": "classes[1], anomalous, where the video score is above threshold",
    }
    return json.dumps(description)


# --------------------------------------------------------------------------
# Does it say what torch says?
# --------------------------------------------------------------------------
def _likely_bags(graph, lengths):
    """Return bags with features of the mean and the scale of the training's."""
    detector, scaling = graph.detector, graph.network.scaling
    steps = [] if detector._n_steps is None else [detector._n_steps]
    generator = torch.Generator().manual_seed(0)
    bags = []
    for length in lengths:
        shape = (length, *[2] * graph.crops, *steps, scaling.n_out)
        rows = torch.randn(shape, generator=generator) * scaling.scale
        rows = rows if scaling.axes is None else rows @ scaling.axes.T
        bags.append((rows + scaling.shift).numpy())
    return bags


def _batch(graph, lengths):
    return collate(_likely_bags(graph, lengths))


def _verify(data, onnxruntime, scorer, graph):
    """Raise unless ONNX's own runtime gives the scores of the detector."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        data, options, providers=["CPUExecutionProvider"]
    )
    for lengths in _TRIED:
        bags = _likely_bags(graph, lengths)
        batch = {name: tensor.numpy() for name, tensor in collate(bags).items()}
        found = session.run(["scores"], batch)[0]
        for row, expected in zip(found, scorer.score_snippets(bags), strict=True):
            padded = np.pad(expected, (0, len(row) - len(expected)))
            difference = np.abs(row - padded).max()
            if not difference <= _TOLERANCE:
                raise RuntimeError(
                    f"the scores of the ONNX graph differ from torch's by"
                    f" {difference:.1e} for a bag of {len(expected)} snippets, expected"
                    f" {_TOLERANCE:.0e} at most; no file was written"
                )
