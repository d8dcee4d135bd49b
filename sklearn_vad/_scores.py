"""From the scores of snippets to those of frames and videos, and to decisions."""

import warnings

import numpy as np
from sklearn.base import ClassifierMixin

from .timeline import expand_scores


class SnippetScoresMixin(ClassifierMixin):
    """Classify videos, and score frames, by the scores of snippets.

    All that follows from ``score_snippets``, and from what `fit` leaves:
    ``threshold_`` and ``classes_``.
    """

    def score_frames(self, X, n_frames=None, *, snippet_length=16):
        """Score every frame of every bag: the score of the frame's snippet.

        Parameters
        ----------
        X : Bags, sequence of arrays, object array or array
        n_frames : sequence of int, default=None
            Frames of each video; None gives ``n_snippets * snippet_length``.
            Frames past the last snippet take the last score.
        snippet_length : float or sequence of float, default=16
            Frames per snippet, for all videos or for each.

        Returns
        -------
        scores : list of ndarray of shape (n_frames_i,)

        Raises
        ------
        ValueError
            As `score_snippets`, and where frames and snippets don't fit.
        """
        return expand_scores(
            self.score_snippets(X), n_frames, snippet_length=snippet_length
        )

    def decision_function(self, X):
        """Video-level score minus `threshold_`; above 0 means anomalous.

        Parameters
        ----------
        X : Bags, sequence of arrays, object array or array

        Returns
        -------
        decision : ndarray of shape (n_bags,)
        """
        return self._video_scores(self.score_snippets(X)) - self.threshold_

    def predict_proba(self, X):
        """Video-level scores as two columns; they are not calibrated.

        Parameters
        ----------
        X : Bags, sequence of arrays, object array or array

        Returns
        -------
        proba : ndarray of shape (n_bags, 2)
            Columns in the order of `classes_`; rows add up to 1.
        """
        scores = self._video_scores(self.score_snippets(X))
        return np.column_stack([1 - scores, scores])

    def predict(self, X):
        """Tell normal from anomalous videos.

        Parameters
        ----------
        X : Bags, sequence of arrays, object array or array

        Returns
        -------
        labels : ndarray of shape (n_bags,)
            Of `classes_`.
        """
        decision = self.decision_function(X)
        return self.classes_[(decision > 0).astype(int)]

    def _video_score(self, scores):
        """Return a video's score, given the scores of its snippets."""
        return scores.max()

    def _video_scores(self, scores):
        return np.array([self._video_score(s.astype(np.float64)) for s in scores])

    def _check_classes(self, y):
        classes = np.unique(y)
        if len(classes) == 1:
            raise ValueError(
                f"y holds one class only, {classes[0]}; expected two classes, of which"
                " the larger is anomalous (partial_fit takes both as classes=)"
            )
        if str(classes[-1]).lower() == "normal":
            warnings.warn(
                f"of the labels {classes.tolist()} the larger one, {classes[-1]!s}, is"
                " taken as anomalous; use 1 for anomalous and 0 for normal videos",
                stacklevel=4,
            )
        if len(classes) > 2:
            raise ValueError(
                f"Only binary classification is supported: y holds {len(classes)}"
                f" classes ({classes[:5]}), expected two: normal and anomalous"
            )
        return classes

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.non_deterministic = False
        return tags
