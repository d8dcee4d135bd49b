"""The training engine: a skorch net, seeded without the global generators.

Nothing else imports skorch. `build_net` makes a net, `train` trains it,
`run_bags` runs it, all on plain modules: ``module(X, mask) -> dict`` with
"scores" of shape (B, T), and ``loss_terms(output, y, mask) -> dict`` of named
scalars, the sum of which is minimised.
"""

import contextlib
import copy
import functools
import math
import os
import threading

import joblib
import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping, EpochTimer, PassthroughScoring
from torch import nn
from tqdm.auto import tqdm

from ._batching import scoring_batches
from .layers import Dropout, initialise
from .persistence import check_tensors

OPTIMIZERS = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adagrad": torch.optim.Adagrad,
    "sgd": torch.optim.SGD,
}


# --------------------------------------------------------------------------
# Seeds, threads, devices
# --------------------------------------------------------------------------
def draw_seed(random_state):
    """Turn any `random_state` into one integer seed, touching nothing global.

    Parameters
    ----------
    random_state : None, int, numpy RandomState or Generator
        None takes fresh entropy from the operating system, not from
        ``numpy.random`` as `sklearn.utils.check_random_state` would.

    Returns
    -------
    seed : int
        In [0, 2**31).
    """
    if random_state is None:
        return int.from_bytes(os.urandom(4), "big") >> 1
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**31))
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    return int(random_state) % 2**31


def resolve_device(device):
    """Return a torch device; "auto" is CUDA where there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
        return torch.device(device)
    except (RuntimeError, TypeError, AssertionError) as error:
        raise ValueError(f"device={device!r} can't be used: {error}") from error


class _ThreadLimit:
    """Set torch's CPU threads, process-wide, for as long as anybody needs it.

    Detectors may train in several threads at once: the setting that was found
    first is restored when the last of them is done.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._users = 0
        self._found = None

    @contextlib.contextmanager
    def __call__(self, n_jobs):
        if n_jobs is None:
            yield
            return
        n_threads = n_jobs if n_jobs > 0 else max(1, joblib.cpu_count() + 1 + n_jobs)
        with self._lock:
            if self._users == 0:
                self._found = torch.get_num_threads()
            self._users += 1
            torch.set_num_threads(n_threads)
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    torch.set_num_threads(self._found)


cpu_threads = _ThreadLimit()


# --------------------------------------------------------------------------
# Callbacks
# --------------------------------------------------------------------------
class _LossTerms(Callback):
    """Record the mean of each loss term over the epoch's bags."""

    def on_epoch_end(self, net, **kwargs):
        batches = net.history[-1]["batches"]
        weights = [batch["train_batch_size"] for batch in batches]
        for name in batches[0].keys() - {"train_loss", "train_batch_size"}:
            values = [batch[name] for batch in batches]
            net.history.record(name, float(np.average(values, weights=weights)))


class _CosineDecay(Callback):
    """Let the learning rate fall from `lr` to 0 along half a cosine."""

    def __init__(self, lr, n_epochs):
        self.lr = lr
        self.n_epochs = n_epochs

    def on_train_begin(self, net, **kwargs):
        self.first_ = len(net.history)

    def on_epoch_begin(self, net, **kwargs):
        passed = (len(net.history) - 1 - self.first_) / self.n_epochs
        set_lr(net, self.lr * (1 + math.cos(math.pi * passed)) / 2)


class _Progress(Callback):
    """One bar over all epochs, with the loss and the validation score."""

    def on_train_begin(self, net, X=None, **kwargs):
        self.bar_ = tqdm(total=len(X) * net.max_epochs, unit="batch")

    def on_epoch_begin(self, net, **kwargs):
        self.bar_.set_description(f"epoch {len(net.history)}")

    def on_batch_end(self, net, **kwargs):
        self.bar_.update()

    def on_epoch_end(self, net, **kwargs):
        shown = {k: net.history[-1].get(k) for k in ("train_loss", "valid_score")}
        self.bar_.set_postfix(
            {k: f"{v:.4f}" for k, v in shown.items() if v is not None}
        )

    def on_train_end(self, net, **kwargs):
        self.bar_.close()


# --------------------------------------------------------------------------
# The net
# --------------------------------------------------------------------------
class _StopTrainingError(Exception):
    """No error but a callback's wish: the end of training."""


class _Criterion(nn.Module):
    """The loss terms as the module that skorch expects."""

    def __init__(self, loss_terms):
        super().__init__()
        self.loss_terms = loss_terms

    def forward(self, output, y, mask):
        return self.loss_terms(output, y, mask)


class Net(NeuralNet):
    """A skorch net for dict batches, with its own generators and autocast."""

    def __init__(self, *args, precision="float32", generator=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.precision = precision
        self.generator = generator

    def get_default_callbacks(self):
        train_loss = PassthroughScoring(name="train_loss", on_train=True)
        return [
            ("epoch_timer", EpochTimer()),
            ("train_loss", train_loss),
            ("loss_terms", _LossTerms()),
        ]

    def attach_generator(self):
        """Give the dropout layers a generator on the network's device."""
        device = torch.device(self.device)
        dropout = self.generator
        if device.type != "cpu":
            dropout = torch.Generator(device).manual_seed(self.generator.initial_seed())
        for layer in self.module_.modules():
            if isinstance(layer, Dropout):
                layer.generator = dropout

    def get_split_datasets(self, X, y=None, **kwargs):
        return X, y  # batches, and a validation score or None: see `train`

    def get_iterator(self, dataset, training=False):
        return dataset

    def infer(self, x, **kwargs):
        with self.autocast():
            return super().infer(x, **kwargs)

    def autocast(self):
        return torch.autocast(
            torch.device(self.device).type,
            torch.bfloat16,
            enabled=self.precision == "bfloat16",
        )

    def get_loss(self, y_pred, y_true, X=None, training=False):
        mask, y = X["mask"].to(self.device), y_true.to(self.device)
        terms = self.criterion_(y_pred, y, mask)
        if len(terms) > 1:
            for name, term in terms.items():
                self.history.record_batch(f"train_{name}", term.item())
        return functools.reduce(torch.add, terms.values())

    def run_single_epoch(self, iterator, training, prefix, step_fn, **kwargs):
        if training or iterator is None:
            return super().run_single_epoch(
                iterator, training, prefix, step_fn, **kwargs
            )
        self.history.record("valid_score", float(iterator(self)))

    def __setstate__(self, state):
        super().__setstate__(state)
        self.attach_generator()

    def notify(self, method_name, **kwargs):
        # skorch's EarlyStopping raises KeyboardInterrupt to end the training;
        # a user's own Ctrl-C must not be swallowed as one of these.
        try:
            super().notify(method_name, **kwargs)
        except KeyboardInterrupt as stop:
            raise _StopTrainingError from stop


def _empty_module(make_module):
    """Build a module without drawing a number for its weights."""
    with torch.device("meta"):
        module = make_module()
    return module.to_empty(device="cpu")


def _loaded_module(make_module, weights):
    """Build a module of given weights, once they are known to fit."""
    with torch.device("meta"):  # a damaged size takes no memory
        module = make_module()
    check_tensors(weights, module.state_dict())
    module.load_state_dict(weights, assign=True)
    return module


def build_net(
    make_module,
    loss_terms,
    *,
    seed,
    optimizer,
    lr,
    weight_decay,
    max_epochs,
    device,
    precision,
    callbacks,
    weights=None,
):
    """Return a net, initialised from `seed` and ready to train.

    Parameters
    ----------
    make_module : callable
        Returns the module; its weights are filled by `initialise`.
    loss_terms : callable
        ``(output, y, mask) -> dict`` of named scalar tensors.
    seed : int
        Of the one generator behind initialisation, batches and dropout.
    optimizer : {"adam", "adamw", "adagrad", "sgd"}
    lr, weight_decay : float
        Weight decay applies to weights, not to biases and norms.
    max_epochs : int
    device : str or torch.device
    precision : {"float32", "bfloat16"}
    callbacks : list of skorch callbacks or None
    weights : dict of Tensor, default=None
        Every parameter and buffer of the module, instead of the initialisation.

    Returns
    -------
    net : Net

    Raises
    ------
    ValueError
        For weights that are not those of the module.
    """
    generator = torch.Generator().manual_seed(seed)
    if weights is None:
        module = _empty_module(make_module)
        initialise(module, generator)
    else:
        module = _loaded_module(make_module, weights)
    net = Net(
        module,
        _Criterion(loss_terms),
        optimizer=OPTIMIZERS[optimizer],
        optimizer__weight_decay=weight_decay,
        optimizer__param_groups=[("*bias", {"weight_decay": 0.0})],
        lr=lr,
        max_epochs=max_epochs,
        train_split=None,
        callbacks=list(callbacks or []),
        device=str(resolve_device(device)),
        precision=precision,
        generator=generator,
        verbose=1,  # for callbacks that print; nothing else does
    )
    net.initialize()
    net.attach_generator()
    return net


def on_cpu(net):
    """Return a net with a copy of the module, to run on the CPU in float32."""
    twin = object.__new__(type(net))  # `copy` would write out the optimiser, too
    module = copy.deepcopy(net.module_).cpu()
    vars(twin).update(vars(net), module_=module, device="cpu", precision="float32")
    return twin


def set_lr(net, lr):
    """Set the learning rate of every parameter group."""
    for group in net.optimizer_.param_groups:
        group["lr"] = lr


def train(
    net, batches, *, lr, lr_decay=None, validate=None, patience=None, progress=False
):
    """Train `net` for its `max_epochs`.

    Parameters
    ----------
    net : Net
    batches : TrainingBatches
    lr_decay : {"cosine", None}
    lr : float
        Learning rate at the beginning, and all along without decay.
    validate : callable, default=None
        ``net -> float``, higher is better, called after every epoch. The
        weights of the best epoch are the ones that stay.
    patience : int, default=None
        Stop after so many epochs without a better validation score.
    progress : bool, default=False
    """
    extra = [("progress", _Progress())] if progress else []
    set_lr(net, lr)
    if lr_decay == "cosine":
        extra.append(("lr_decay", _CosineDecay(lr, net.max_epochs)))
    if validate is not None:
        stop = EarlyStopping(
            monitor="valid_score",
            lower_is_better=False,
            threshold=0,
            patience=patience or net.max_epochs + 1,
            load_best=True,
            sink=_silent,
        )
        extra.append(("early_stopping", stop))
    lasting = net.callbacks_
    net.callbacks_ = lasting + [(name, cb.initialize()) for name, cb in extra]
    try:
        net.notify("on_train_begin", X=batches)
        with contextlib.suppress(_StopTrainingError):
            net.fit_loop(batches, validate)
        net.notify("on_train_end", X=batches)
    finally:
        net.callbacks_ = lasting
    net.module_.eval()


def _silent(message):
    """Take skorch's printed remarks; the history holds the same."""


@torch.inference_mode()
def run_bags(net, bags, names, progress=False, view=None):
    """Return outputs of the network for every bag, unpadded.

    Bags of similar length go through the network together, the longest first.

    Parameters
    ----------
    net : Net
    bags : Bags
    names : sequence of str
        Of outputs of shape (B, T).
    progress : bool
    view : callable, default=None
        From a bag to what the network sees of it; None for whole bags.

    Returns
    -------
    outputs : dict of list of float32 ndarray of shape (n_snippets_i,)
        As many snippets as the view has.
    """
    net.module_.eval()
    found = {name: [None] * len(bags) for name in names}
    bar = tqdm(
        total=len(bags), desc="scoring", unit="bag", leave=False, disable=not progress
    )
    with bar:
        for positions, batch in scoring_batches(bags, view=view):
            output = net.infer(batch)
            lengths = batch["mask"].sum(dim=1).tolist()
            for name in names:
                rows = output[name].float().cpu().numpy()
                for i, row, length in zip(positions, rows, lengths, strict=True):
                    found[name][i] = row[:length].copy()
            bar.update(len(positions))
    return found


@torch.inference_mode()
def score_pairs(net, current, previous):
    """Return the scores of snippets, given the ones before them.

    Parameters
    ----------
    net : Net
        Of a module with ``score(current, previous)``.
    current, previous : Tensor of shape (M, ...)

    Returns
    -------
    scores : list of float
    """
    net.module_.eval()
    with net.autocast():
        scores = net.module_.score(current.to(net.device), previous.to(net.device))[0]
    return scores.float().tolist()
