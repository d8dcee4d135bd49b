"""The training engine: a skorch net, seeded without the global generators.

Nothing else imports skorch. `build_net` makes a net and `train` trains it, both of
plain modules: ``module(X, mask) -> dict`` with "scores" of shape (B, T), and
``loss_terms(output, y, mask) -> dict`` of named scalars, the sum of which is
minimised.
"""

import contextlib
import copy
import functools
import math
import os
import threading
import warnings

import joblib
import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping, EpochTimer
from torch import nn

from ._progress import tqdm
from ._tensor_file import check_tensors
from .layers import Dropout, initialise

OPTIMIZERS = {  # Adam in one pass over the weights: unfused, a third of a DAM step
    "adam": functools.partial(torch.optim.Adam, fused=True),
    "adamw": functools.partial(torch.optim.AdamW, fused=True),
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
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
        return torch.device(device)
    except (RuntimeError, TypeError, AssertionError) as error:
        raise ValueError(f"device={device!r} can't be used: {error}") from error


_setting_threads = threading.Lock()


@contextlib.contextmanager
def cpu_threads(n_jobs):
    """Set torch's CPU threads in the calling thread, and restore them on exit.

    Detectors in several threads don't disturb each other: torch keeps a number for
    each thread that has computed something.

    Parameters
    ----------
    n_jobs : int or None
        -1 means all cores; None changes nothing.
    """
    if n_jobs is None:
        yield
        return
    n_threads = n_jobs if n_jobs > 0 else max(1, joblib.cpu_count() + 1 + n_jobs)
    found = _swap_threads(n_threads)
    try:
        yield
    finally:
        if found != n_threads:
            torch.set_num_threads(found)


def _swap_threads(n_threads):
    """Set torch's CPU threads in the calling thread only; return what was there."""
    with _setting_threads:
        found = torch.get_num_threads()
        if found != n_threads:
            torch.set_num_threads(n_threads)
            # It is now the number of threads to come as well, and a thread keeps
            # what it once has. Another thread gives that back.
            other = threading.Thread(target=torch.set_num_threads, args=(found,))
            other.start()
            other.join()
    return found


# --------------------------------------------------------------------------
# Callbacks
# --------------------------------------------------------------------------
class _Losses(Callback):
    """Record the mean over the epoch's bags of the loss and of each of its terms."""

    def on_epoch_end(self, net, **kwargs):
        batches = net.history[-1]["batches"]
        weights = [batch["train_batch_size"] for batch in batches]
        for name in [name for name in batches[0] if name != "train_batch_size"]:
            values = [batch[name] for batch in batches]
            net.history.record(name, float(np.average(values, weights=weights)))


class _FiniteGuard(Callback):
    """Stop before an optimiser's step that would spoil the weights."""

    def on_epoch_begin(self, net, **kwargs):
        weights = net.module_.state_dict().items()
        self.kept_ = {name: weight.clone() for name, weight in weights}

    def on_grad_computed(self, net, named_parameters, **kwargs):
        gradients = (p.grad for _, p in named_parameters if p.grad is not None)
        if not _all_finite(gradients):
            raise _NotFiniteError("the gradient is not finite")

    def on_epoch_end(self, net, **kwargs):
        if not _all_finite(net.module_.state_dict().values()):
            raise _NotFiniteError("the weights have overflowed")

    def mend(self, net):
        """Go back to the weights of the epoch's begin where a step spoilt them."""
        if not _all_finite(net.module_.state_dict().values()):
            net.module_.load_state_dict(self.kept_)


def _all_finite(tensors):
    # A sum is finite where all entries are; one number each crosses to the CPU.
    sums = [tensor.detach().sum() for tensor in tensors]
    return bool(torch.stack(sums).isfinite().all())


class _Saving(Callback):
    """Keep the training in its checkpoint after every epoch."""

    def __init__(self, checkpoint, stop):
        self.checkpoint = checkpoint
        self.stop = stop

    def on_epoch_end(self, net, **kwargs):
        try:
            self.checkpoint.write(net, self.stop)
        except KeyboardInterrupt as interrupt:  # see `Net.notify`
            raise _InterruptedError from interrupt


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

    def __init__(self, n_done):
        self.n_done = n_done

    def on_train_begin(self, net, X=None, **kwargs):
        total, initial = len(X) * net.max_epochs, len(X) * self.n_done
        self.bar_ = tqdm(total=total, initial=initial, unit="batch")

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


class _InterruptedError(Exception):
    """A user's own Ctrl-C, where one of a callback would be understood."""


class _NotFiniteError(_StopTrainingError):
    """The end of training since it can't go on; says why."""


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
        return [("epoch_timer", EpochTimer()), ("losses", _Losses())]

    def attach_generator(self):
        """Give the dropout layers a generator on the network's device."""
        device = torch.device(self.device)
        dropout = self.generator
        self.generators = [self.generator]
        if device.type != "cpu":
            dropout = torch.Generator(device).manual_seed(self.generator.initial_seed())
            self.generators.append(dropout)
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
        loss = functools.reduce(torch.add, terms.values())
        if not torch.isfinite(loss):
            raise _NotFiniteError(f"the loss is {loss.item()}")
        return loss

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


def check_same_network(module, make_module):
    """Raise unless a module is what `make_module` makes, but for its weights.

    Parameters
    ----------
    module : nn.Module
    make_module : callable

    Raises
    ------
    ValueError
        Names the first setting that differs.
    """
    with torch.device("meta"):
        expected = dict(make_module().named_modules())
    found = dict(module.named_modules())
    for name in sorted(found.keys() | expected.keys()):
        ours, theirs = (_settings(each.get(name)) for each in (found, expected))
        for key in sorted(ours.keys() | theirs.keys()):
            if ours.get(key) != theirs.get(key):
                raise ValueError(
                    f"parameters were changed since fit: {key} of the network"
                    f"{'.' * bool(name)}{name} is {ours.get(key)!r}, by the parameters"
                    f" it would be {theirs.get(key)!r}; set them back, or fit again"
                )


def _settings(layer):
    """Return the plain attributes of a layer, those that are no tensors."""
    plain = (bool, int, float, str, tuple, type(None))
    settings = {} if layer is None else vars(layer)
    return {
        name: value
        for name, value in settings.items()
        if isinstance(value, plain) and name not in ("training", "generator")
    }


def _check_callbacks(callbacks):
    """Return skorch callbacks, or pairs of a name and one, as a list."""
    callbacks = list(callbacks or [])
    for given in callbacks:
        pair = isinstance(given, tuple) and len(given) == 2
        callback = given[1] if pair else given
        kind = callback if isinstance(callback, type) else type(callback)
        if not issubclass(kind, Callback):
            raise TypeError(
                f"callbacks hold {given!r}, expected skorch callbacks, or pairs of a"
                " name and one"
            )
    return callbacks


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
        callbacks=_check_callbacks(callbacks),
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
    net,
    batches,
    *,
    lr,
    lr_decay=None,
    validate=None,
    patience=None,
    progress=False,
    checkpoint=None,
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
    checkpoint : Checkpoint, default=None
        Keeps the training after every epoch. A net that was built with the
        weights in it goes on from where they come from.

    Warns
    -----
    ConvergenceWarning
        Where a loss, a gradient or a weight is not finite. Training stops, and the
        last finite weights stay.
    """
    stop = None if validate is None else _early_stopping(net.max_epochs, patience)
    saved = checkpoint and checkpoint.saved
    n_done = len(saved.values["history"]) if saved else 0
    finished = saved and saved.values["finished"]
    if saved and progress:
        some = f"{n_done} of {net.max_epochs} epochs are"
        what = "the whole training is" if finished else some
        tqdm.write(f"{what} in {str(checkpoint.path)!r}")
    if finished:
        checkpoint.restore(net, stop)
        net.module_.eval()
        return
    guard = _FiniteGuard()
    extra = {
        "progress": _Progress(n_done) if progress else None,
        "lr_decay": _CosineDecay(lr, net.max_epochs) if lr_decay == "cosine" else None,
        "guard": guard,
        "early_stopping": stop,
        "saving": _Saving(checkpoint, stop) if checkpoint else None,
    }
    set_lr(net, lr)
    lasting = net.callbacks_
    net.callbacks_ = lasting + [(n, cb.initialize()) for n, cb in extra.items() if cb]
    try:
        net.notify("on_train_begin", X=batches)
        if saved:
            checkpoint.restore(net, stop)
        failed = _run_epochs(net, batches, validate, net.max_epochs - n_done, guard)
        net.notify("on_train_end", X=batches)
    finally:
        net.callbacks_ = lasting
    net.module_.eval()
    if failed:
        _warn_of_failure(net, batches, failed, stop)
    elif checkpoint:
        checkpoint.write(net, stop, finished=True)


def _early_stopping(max_epochs, patience):
    return EarlyStopping(
        monitor="valid_score",
        lower_is_better=False,
        threshold=0,
        patience=patience or max_epochs + 1,
        load_best=True,
        sink=_silent,
    )


def _run_epochs(net, batches, validate, n_epochs, guard):
    """Return why training had to stop, or None; `net` has finite weights."""
    try:
        net.fit_loop(batches, validate, n_epochs)
    except _NotFiniteError as error:
        guard.mend(net)
        return str(error)
    except _InterruptedError as error:
        raise KeyboardInterrupt from error
    except _StopTrainingError:
        pass
    return None


def _warn_of_failure(net, batches, reason, stop):
    """Say where training stopped, and forget the epoch that has no end."""
    epoch = net.history.pop()
    kept = "the last finite weights are kept"
    if stop is not None and stop.best_model_weights_ is not None:
        kept = f"the weights of epoch {stop.best_epoch_}, the best one, are kept"
    warnings.warn(
        f"training stopped in epoch {epoch['epoch']}, batch {len(epoch['batches'])} of"
        f" {len(batches)}: {reason}; {kept}. A smaller lr may help.",
        ConvergenceWarning,
        stacklevel=2,
    )


def _silent(message):
    """Take skorch's printed remarks; the history holds the same."""
