"""Losses and validation scores over the epochs of a training."""

from numbers import Real

import numpy as np
from sklearn.utils.validation import check_is_fitted

from .._storage import as_list
from ..metrics import unwrap
from ._drawing import NEUTRAL, draw_curve, legend_above, make_axes

_NO_LOSS = ("train_loss", "train_batch_count")


class TrainingHistoryDisplay:
    """The loss, each of its terms, and the validation score over epochs.

    Make one with `from_estimator` or `from_history`. Where terms are of different
    sizes, ``display.ax_.set_yscale("log")`` shows all of them.

    Parameters
    ----------
    losses : dict of str to ndarray of shape (n_epochs,)
        By name, "loss" first, the terms that add up to it after.
    valid_score : ndarray of shape (n_epochs,), default=None
        Drawn on an axis of its own, at the right.
    best_epoch : int, default=None
        From 1; marked where there is a validation score.
    name : str, default=None
        Of the detector, above the legend.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Of the losses.
    score_ax_ : matplotlib Axes or None
        Of the validation score.
    figure_ : matplotlib Figure
    lines_ : dict of str to matplotlib Line2D
        The losses and "validation score".

    Examples
    --------
    >>> from sklearn_vad.display import TrainingHistoryDisplay
    >>> history = [{"train_loss": 0.7, "train_mil": 0.5, "train_ranking": 0.2},
    ...            {"train_loss": 0.4, "train_mil": 0.3, "train_ranking": 0.1}]
    >>> display = TrainingHistoryDisplay.from_history(history)
    >>> {name: line.get_ydata().tolist() for name, line in display.lines_.items()}
    {'loss': [0.7, 0.4], 'mil': [0.5, 0.3], 'ranking': [0.2, 0.1]}
    """

    def __init__(self, *, losses, valid_score=None, best_epoch=None, name=None):
        self.losses = losses
        self.valid_score = valid_score
        self.best_epoch = best_epoch
        self.name = name

    @classmethod
    def from_estimator(cls, estimator, *, name=None, ax=None):
        """Plot the history of a fitted detector.

        Parameters
        ----------
        estimator : fitted detector, alone, in a Pipeline or in a search
        name : str, default=None
            The estimator's class by default.
        ax : matplotlib Axes, default=None

        Returns
        -------
        display : TrainingHistoryDisplay

        Raises
        ------
        ValueError, TypeError
            For a detector without a history: one that is not fitted, or an ensemble.
        """
        detector, _ = unwrap(estimator)
        kind = type(detector).__name__
        check_is_fitted(detector)
        if not hasattr(detector, "history_"):
            raise TypeError(
                f"{kind} has no history of its own; its members have: pass one of"
                " est.estimators_"
            )
        return cls.from_history(
            detector.history_,
            best_epoch=detector.best_epoch_,
            name=kind if name is None else name,
            ax=ax,
        )

    @classmethod
    def from_history(cls, history, *, best_epoch=None, name=None, ax=None):
        """Plot a given history.

        Parameters
        ----------
        history : list of dict
            One per epoch, as ``est.history_``: "train_loss", "train_<term>" and
            "valid_score" are drawn. Where an epoch lacks one, the line has a gap.
        best_epoch : int, default=None
            From 1; None marks the highest validation score.
        name : str, default=None
            Of the detector, above the legend.
        ax : matplotlib Axes, default=None

        Returns
        -------
        display : TrainingHistoryDisplay

        Raises
        ------
        ValueError, TypeError
            For anything but a list with a dict for each epoch, each with "train_loss",
            and for a best epoch that is not among them.
        """
        _check_history(history)
        names = dict.fromkeys(key for epoch in history for key in epoch)
        terms = [n for n in names if n.startswith("train_") and n not in _NO_LOSS]
        losses = {"loss": _column(history, "train_loss")}
        losses |= {n.removeprefix("train_"): _column(history, n) for n in terms}
        score = _column(history, "valid_score")
        known = np.isfinite(score).any()
        if best_epoch is None and known:
            best_epoch = int(np.nanargmax(score)) + 1
        if best_epoch is not None and not 1 <= best_epoch <= len(history):
            raise ValueError(
                f"best_epoch={best_epoch!r}, expected one from 1 to {len(history)}"
            )
        display = cls(
            losses=losses,
            valid_score=score if known else None,
            best_epoch=best_epoch,
            name=name,
        )
        return display.plot(ax=ax)

    def plot(self, ax=None):
        """Draw into `ax`, or into a new figure.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Empty ones: of one training.

        Returns
        -------
        self : TrainingHistoryDisplay
        """
        ax = make_axes(ax, (6, 3.4))
        from matplotlib.ticker import MaxNLocator

        epochs = np.arange(1, len(self.losses["loss"]) + 1)
        style = {"marker": "o" if len(epochs) <= 30 else None, "markersize": 3}
        self.lines_ = {}
        for name, values in self.losses.items():
            kwargs = {"linewidth": 2.2 if name == "loss" else 1.4, **style}
            self.lines_[name] = draw_curve(ax, epochs, values, name, kwargs)
        ax.set(xlabel="epoch", ylabel="training loss")
        ax.set_xlim(0.5, len(epochs) + 0.5)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        handles = list(self.lines_.values())
        self.score_ax_ = None
        if self.valid_score is not None:
            handles += self._draw_score(ax, epochs)
        legend_above(ax, handles, self.name)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _draw_score(self, ax, epochs):
        """Draw the validation score at the right; return what the legend names."""
        right = ax.twinx()
        color = ax.yaxis.label.get_color()  # that of texts, in any theme
        (line,) = right.plot(
            epochs,
            self.valid_score,
            color=color,
            linewidth=1.2,
            marker="D" if len(epochs) <= 30 else None,
            markersize=3.5,
            label="validation score",
        )
        right.set_ylabel("validation score")
        self.lines_["validation score"] = line
        self.score_ax_ = right
        handles = [line]
        if self.best_epoch is not None:
            best = right.axvline(
                self.best_epoch,
                color=NEUTRAL,
                linewidth=0.9,
                linestyle="--",
                zorder=1,
                label=f"best epoch, {self.best_epoch}",
            )
            handles.append(best)
        return handles


def _check_history(history):
    history = as_list(history, "history", "a list with one dict per epoch")
    if not history:
        raise ValueError("history is empty: expected one dict per epoch")
    for i, epoch in enumerate(history, 1):
        if not isinstance(epoch, dict):
            raise TypeError(
                f"epoch {i} of the history is {type(epoch).__name__}, expected a dict"
            )
        if "train_loss" not in epoch:
            raise ValueError(
                f'epoch {i} of the history has no "train_loss", but {sorted(epoch)}'
            )


def _column(history, name):
    """Return what each epoch has under a name, NaN where it has nothing."""
    values = [epoch.get(name, np.nan) for epoch in history]
    for i, value in enumerate(values, 1):
        if not isinstance(value, Real):
            raise TypeError(f"{name!r} of epoch {i} is {value!r}, expected a number")
    return np.array(values, dtype=float)
