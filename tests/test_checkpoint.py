"""A training that is killed goes on: to the same bits, or with a reason why not."""

import os
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback

import sklearn_vad._tensor_file as tensor_file
from sklearn_vad import (
    Bags,
    DAMAnomalyDetector,
    DDLAnomalyDetector,
    EnsembleAnomalyDetector,
    FrameLabels,
    MILRankingAnomalyDetector,
    MultiCropDetector,
    RTFMAnomalyDetector,
    STAAnomalyDetector,
)
from sklearn_vad._checkpoint import key_of
from sklearn_vad.datasets import make_bags
from sklearn_vad.metrics import frame_roc_auc_scorer

COMMON = {"max_epochs": 4, "batch_size": 8, "random_state": 0, "n_jobs": 1}
DAM = DAMAnomalyDetector(n_hidden=16, mlp_dims=(16,), **COMMON)
DDL = DDLAnomalyDetector(hidden_dim=16, mlp_dims=(16, 8), **COMMON)
MIL = MILRankingAnomalyDetector(hidden_dims=(16, 8), **COMMON)
RTFM = RTFMAnomalyDetector(hidden_dims=(16, 8), **COMMON)
STA = STAAnomalyDetector(hidden_dim=8, **COMMON)
each_detector = pytest.mark.parametrize(
    "detector",
    [DAM, DDL, MIL, RTFM, STA],
    ids=["dam", "ddl", "mil_ranking", "rtfm", "sta"],
)


@pytest.fixture(scope="module")
def videos():
    return make_bags(24, n_features=8, max_snippets=12, random_state=0)


class KilledError(Exception):
    pass


class KillAt(Callback):
    """Fail before a batch of the whole training, counted from 0."""

    def __init__(self, batch):
        self.batch = batch
        self.seen = 0

    def on_batch_begin(self, net, **kwargs):
        if self.seen == self.batch:
            raise KilledError
        self.seen += 1


def state_of(est):
    """Return all bits that training leaves, and all that its going on needs."""
    optimizer = est.net_.optimizer_.state_dict()
    history = [{k: v for k, v in row.items() if k != "dur"} for row in est.history_]
    tensors = [*est.net_.module_.state_dict().values(), est.net_.generator.get_state()]
    for _, entries in sorted(optimizer["state"].items()):
        tensors += [value for _, value in sorted(entries.items()) if value is not None]
    bits = [tensor.numpy().tobytes() for tensor in tensors]
    lr = [group["lr"] for group in optimizer["param_groups"]]
    return bits, lr, history, est.best_epoch_, est.threshold_


def kill_and_resume(detector, batch, folder, videos, **fit_params):
    """Fit, die before a batch, and fit again with the same call."""
    dying = clone(detector).set_params(callbacks=[KillAt(batch)])
    with pytest.raises(KilledError):
        dying.fit(*videos, checkpoint=folder, **fit_params)
    return clone(detector).fit(*videos, checkpoint=folder, **fit_params)


def only_file(folder):
    (path,) = folder.glob("*/training.safetensors")
    return path


# --------------------------------------------------------------------------
# The same bits
# --------------------------------------------------------------------------
@each_detector
@pytest.mark.parametrize("batch", [0, 1, 5, 11])
def test_resumed_is_uninterrupted(detector, batch, videos, tmp_path):
    whole = clone(detector).fit(*videos)
    resumed = kill_and_resume(detector, batch, tmp_path, videos)
    assert state_of(resumed) == state_of(whole)


@pytest.mark.parametrize(
    "params",
    [
        {"optimizer": "sgd", "lr": 0.01},
        {"optimizer": "adagrad", "lr": 0.01, "lr_decay": "cosine"},
        {"optimizer": "adamw", "weight_decay": 0.01, "n_components": 4},
        {"validation_fraction": 0.3},
        {"validation_fraction": 0.3, "patience": 1, "max_epochs": 6},
        {"precision": "bfloat16", "balanced_batches": False},
    ],
    ids=lambda params: "-".join(f"{k}={v}" for k, v in params.items()),
)
def test_resumed_is_uninterrupted_with(params, videos, tmp_path):
    detector = clone(DDL).set_params(**params)
    whole = clone(detector).fit(*videos)
    n_batches = sum(row["train_batch_count"] for row in whole.history_)
    for batch in (n_batches // 2, n_batches - 1):
        folder = tmp_path / str(batch)
        resumed = kill_and_resume(detector, batch, folder, videos)
        assert state_of(resumed) == state_of(whole)


def test_best_epoch_survives_the_kill(videos, tmp_path):
    """Weights of an epoch before the kill are the best ones after it."""
    validation = videos[0][:8], 1 - videos[1][:8]  # ever worse while it learns
    detector = clone(MIL).set_params(lr=0.01, max_epochs=6)
    whole = clone(detector).fit(*videos, validation=validation)
    assert whole.best_epoch_ < 4
    resumed = kill_and_resume(detector, 14, tmp_path, videos, validation=validation)
    assert state_of(resumed) == state_of(whole)


def test_going_on_after_the_end(videos, tmp_path):
    """A finished training is loaded, and partial_fit goes on as it would have."""
    whole = clone(DDL).fit(*videos, checkpoint=tmp_path)
    loaded = clone(DDL).set_params(callbacks=[KillAt(0)])
    with pytest.warns(UserWarning, match="the state of the callbacks"):
        loaded.fit(*videos, checkpoint=tmp_path)  # trains no batch
    assert state_of(loaded) == state_of(whole)
    loaded.net_.callbacks_ = whole.net_.callbacks_
    assert state_of(loaded.partial_fit(*videos)) == state_of(whole.partial_fit(*videos))


def test_checkpoint_changes_nothing(videos, tmp_path):
    assert state_of(clone(DDL).fit(*videos, checkpoint=tmp_path)) == state_of(
        clone(DDL).fit(*videos)
    )


def test_fresh_entropy_takes_over_the_seed(videos, tmp_path):
    detector = clone(DDL).set_params(random_state=None, validation_fraction=0.3)
    resumed = kill_and_resume(detector, 4, tmp_path, videos)
    again = clone(detector).fit(*videos, checkpoint=tmp_path)
    assert state_of(again) == state_of(resumed)
    assert state_of(clone(detector).fit(*videos)) != state_of(resumed)


@pytest.mark.parametrize("rest", ["crops", "ensemble"])
def test_detectors_of_detectors(rest, videos, tmp_path):
    bags, y = videos
    if rest == "crops":
        bags = [np.stack([bag, bag[:, ::-1]], axis=1) for bag in bags]
        detector, n_trainings = MultiCropDetector(clone(MIL)), 1
    else:
        detector = EnsembleAnomalyDetector(
            [("ddl", clone(DDL)), ("mil", clone(MIL))], random_state=0, n_seeds=2
        )
        n_trainings = 4
    whole = clone(detector).fit(bags, y)
    clone(detector).fit(bags, y, checkpoint=tmp_path)
    assert len(list(tmp_path.glob("*/training.safetensors"))) == n_trainings
    resumed = clone(detector).fit(bags, y, checkpoint=tmp_path)
    for one, other in zip(
        whole.score_snippets(bags), resumed.score_snippets(bags), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_a_search_shares_the_folder(videos, tmp_path):
    bags, labels = videos
    search = GridSearchCV(
        MIL, {"lr": [0.01, 0.001]}, cv=2, scoring=frame_roc_auc_scorer, n_jobs=2
    )
    first = clone(search).fit(bags, labels, checkpoint=tmp_path)
    files = sorted(tmp_path.glob("*/training.safetensors"))
    assert len(files) == 2 * 2 + 1  # and the best one on all videos
    times = [path.stat().st_mtime_ns for path in files]
    second = clone(search).fit(bags, labels, checkpoint=tmp_path)
    assert [path.stat().st_mtime_ns for path in files] == times  # nothing was trained
    for name in ("split0_test_score", "split1_test_score"):
        np.testing.assert_array_equal(first.cv_results_[name], second.cv_results_[name])


# --------------------------------------------------------------------------
# Which training a checkpoint is of
# --------------------------------------------------------------------------
def test_key_knows_parameters_and_data(videos, tmp_path):
    bags, y = videos
    base = key_of(MIL, 0, (bags, y))
    changed = [bag.copy() for bag in bags]
    changed[3][0, 0] += 1e-6
    shorter = [bags[0][:-1], *list(bags)[1:]]
    others = [
        (clone(MIL).set_params(lr=0.5), 0, (bags, y)),
        (STA, 0, (bags, y)),
        (MIL, 1, (bags, y)),
        (MIL, None, (bags, y)),
        (MIL, 0, (bags, 1 - y)),
        (MIL, 0, (Bags.from_list(changed), y)),
        (MIL, 0, (Bags.from_list(shorter), y)),
        (MIL, 0, (bags, y, bags, y)),
        (MIL, 0, (bags[::-1], y)),
    ]
    assert len({base, *(key_of(*each) for each in others)}) == len(others) + 1
    same = clone(MIL).set_params(verbose=1, callbacks=[KilledError], warm_start=True)
    bags.save(tmp_path / "store")
    for data in ((bags, y), (Bags.open(tmp_path / "store"), y), (bags, y, None)[:2]):
        assert key_of(same, 0, data) == base


def test_frame_labels_of_validation_are_data(videos):
    bags, _ = videos
    masks = [np.arange(len(bag) * 16) > 20 for bag in bags]
    one = key_of(MIL, 0, (bags, FrameLabels(masks)))
    masks[2] = ~masks[2]
    assert key_of(MIL, 0, (bags, FrameLabels(masks))) != one


# --------------------------------------------------------------------------
# What is refused
# --------------------------------------------------------------------------
@pytest.fixture
def half_done(videos, tmp_path):
    dying = clone(MIL).set_params(callbacks=[KillAt(8)])
    with pytest.raises(KilledError):
        dying.fit(*videos, checkpoint=tmp_path)
    return only_file(tmp_path)


@pytest.mark.parametrize("package", ["sklearn_vad", "torch", "numpy", "scikit-learn"])
def test_other_versions(package, half_done, videos, monkeypatch):
    ours = tensor_file.versions()
    monkeypatch.setattr(tensor_file, "versions", lambda: {**ours, package: "0.0.1"})
    match = f"it was made with {package} {re.escape(ours[package])}, this is 0.0.1;"
    with pytest.raises(ValueError, match=match):
        clone(MIL).fit(*videos, checkpoint=half_done.parents[1])


def test_other_device(half_done, videos):
    rewrite(half_done, device="cuda")
    with pytest.raises(ValueError, match="it was made with device cuda, this is cpu"):
        clone(MIL).fit(*videos, checkpoint=half_done.parents[1])


def rewrite(path, **changes):
    """Change what a file holds, with a checksum that fits."""
    content, tensors, _ = tensor_file.read(str(path), "checkpoint", 1)
    for name, value in changes.items():
        (tensors if isinstance(value, torch.Tensor) else content)[name] = value
    tensor_file.write(str(path), "checkpoint", 1, content, tensors)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"history": None}, "history has type NoneType"),
        ({"seed": "0"}, "seed has type str"),
        ({"lr": []}, "shorter|zip"),
        ({"stop": {"misses": 0}}, "values of early stopping are"),
        ({"more": 1}, "values are"),
    ],
)
def test_entries_that_lie(changes, match, half_done, videos):
    rewrite(half_done, **changes)
    with pytest.raises(ValueError, match=match) as error:
        clone(MIL).fit(*videos, checkpoint=half_done.parents[1])
    assert str(half_done) in str(error.value)
    assert "delete it to start anew" in str(error.value)


def test_damaged(half_done, videos):
    data = half_done.read_bytes()
    damaged = {
        "truncated": data[: len(data) // 2],
        "empty": b"",
        "flipped": data[:-3] + bytes([data[-3] ^ 4]) + data[-2:],
        "other": b"PK\x03\x04" + data,
    }
    for name, content in damaged.items():
        half_done.write_bytes(content)
        with pytest.raises(ValueError, match="cannot go on from checkpoint"):
            clone(MIL).fit(*videos, checkpoint=half_done.parents[1])
        assert half_done.read_bytes() == content, name  # nobody's file is deleted


def test_weights_of_another_network(half_done, videos):
    rewrite(half_done, **{"module/mlp.0.weight": torch.zeros(3, 3)})
    with pytest.raises(ValueError, match=r"cannot go on .*mlp.0.weight is .*delete it"):
        clone(MIL).fit(*videos, checkpoint=half_done.parents[1])


def test_no_folder(videos, tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match=r"checkpoint='.*' is no folder"):
            clone(MIL).fit(*videos, checkpoint=path)


def test_no_path(videos):
    with pytest.raises(TypeError, match="checkpoint has type int, expected the path"):
        clone(MIL).fit(*videos, checkpoint=3)


def test_says_that_it_goes_on(half_done, videos, capsys):
    est = clone(MIL).set_params(verbose=1)
    est.fit(*videos, checkpoint=half_done.parents[1])
    assert f"2 of 4 epochs are in {str(half_done)!r}" in capsys.readouterr().out
    est.fit(*videos, checkpoint=half_done.parents[1])
    assert f"the whole training is in {str(half_done)!r}" in capsys.readouterr().out


def test_warm_start(videos, tmp_path):
    est = clone(MIL).set_params(warm_start=True).fit(*videos, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="goes on from its own weights"):
        est.fit(*videos, checkpoint=tmp_path)


def test_a_crash_while_writing_keeps_the_last_good_one(half_done, videos, monkeypatch):
    before, whole = half_done.read_bytes(), clone(MIL).fit(*videos)

    def full(fd):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        clone(MIL).fit(*videos, checkpoint=half_done.parents[1])
    monkeypatch.undo()
    assert half_done.read_bytes() == before
    resumed = clone(MIL).fit(*videos, checkpoint=half_done.parents[1])
    assert state_of(resumed) == state_of(whole)


def test_ctrl_c_while_writing_is_no_end(half_done, videos, monkeypatch):
    def interrupted(fd):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        clone(MIL).fit(*videos, checkpoint=half_done.parents[1])
    monkeypatch.undo()
    resumed = clone(MIL).fit(*videos, checkpoint=half_done.parents[1])
    assert state_of(resumed) == state_of(clone(MIL).fit(*videos))


def test_stale_parts_are_removed(half_done, videos):
    stale = half_done.parent / ".training.safetensors.part-0"
    fresh = half_done.parent / ".training.safetensors.part-1"
    stale.write_bytes(b"x")
    fresh.write_bytes(b"x")
    os.utime(stale, (time.time() - 7200,) * 2)
    clone(MIL).fit(*videos, checkpoint=half_done.parents[1])
    assert not stale.exists()
    assert fresh.exists()


# --------------------------------------------------------------------------
# Killed for real
# --------------------------------------------------------------------------
def test_sigkill():
    """The short form of benchmarks/kills.py, in a process without threads."""
    script = Path(__file__).parents[1] / "benchmarks" / "kills.py"
    run = subprocess.run(
        [sys.executable, script, "--kills", "6"],
        capture_output=True,
        text=True,
        check=True,
    )
    training, saving = run.stdout.splitlines()
    assert training.startswith("training: 6 kills, ")
    assert training.endswith(" 0 different")
    assert saving.startswith("saving: 6 kills, ")
    assert " 0 lost" in saving


# --------------------------------------------------------------------------
# Losses that are not finite
# --------------------------------------------------------------------------
class Spoil(MILRankingAnomalyDetector):
    """Give a loss or a gradient that is not finite, in one batch."""

    def __init__(self, *, at=0, what="loss", hidden_dims=(16, 8), **params):
        super().__init__(hidden_dims=hidden_dims, **params)
        self.at = at
        self.what = what

    def _loss_terms(self):
        own, seen = super()._loss_terms(), []

        def terms(output, y, mask):
            found = own(output, y, mask)
            seen.append(1)
            if len(seen) - 1 == self.at and self.what == "loss":
                found["ranking"] = found["ranking"] * float("nan")
            if len(seen) - 1 == self.at and self.what == "gradient":
                zero = (output["scores"] * 0).sum()
                found["root"] = zero.sqrt()  # 0, and its gradient is not a number
            return found

        return terms


def _weights(est):
    return [w.clone() for w in est.net_.module_.parameters()]


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_stops_before_a_loss_that_is_not_finite(what, videos):
    params = {**COMMON, "lr_decay": None}
    spoilt = Spoil(at=4, what=what, **params)
    reason = "the loss is nan" if what == "loss" else "the gradient is not finite"
    match = rf"stopped in epoch 2, batch 2 of 3: {reason}; the last finite weights"
    with pytest.warns(ConvergenceWarning, match=match):
        spoilt.fit(*videos)
    kept = []

    class Keep(Callback):
        def on_batch_begin(self, net, **kwargs):
            kept.append([w.detach().clone() for w in net.module_.parameters()])

    clone(MIL).set_params(**params, callbacks=[Keep()]).fit(*videos)
    for one, other in zip(_weights(spoilt), kept[4], strict=True):
        assert torch.equal(one, other)
    assert spoilt.n_iter_ == len(spoilt.history_) == 1
    assert np.isfinite(np.concatenate(spoilt.score_snippets(videos[0]))).all()


def test_stops_in_the_first_batch(videos):
    with pytest.warns(ConvergenceWarning, match="in epoch 1, batch 1 of 3"):
        spoilt = Spoil(at=0, **COMMON).fit(*videos)
    assert (spoilt.n_iter_, spoilt.best_epoch_, spoilt.history_) == (0, 0, [])
    assert np.isfinite(np.concatenate(spoilt.score_snippets(videos[0]))).all()


def test_best_epoch_is_kept(videos):
    validation = videos[0][:8], videos[1][:8]
    with pytest.warns(ConvergenceWarning, match="the weights of epoch 1, the best one"):
        spoilt = Spoil(at=4, **COMMON).fit(*videos, validation=validation)
    one = clone(MIL).set_params(max_epochs=1, lr_decay=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one.fit(*videos, validation=validation)
    assert spoilt.best_epoch_ == 1


def test_weights_that_overflow(videos):
    detector = clone(MIL).set_params(optimizer="sgd", lr=1e38)
    with pytest.warns(ConvergenceWarning, match="stopped in epoch 1") as warned:
        detector.fit(*videos)
    assert len(warned) == 1
    assert all(torch.isfinite(w).all() for w in _weights(detector))


def test_not_finished_is_not_kept_as_finished(videos, tmp_path):
    for folder in ("0", "1"):
        with pytest.warns(ConvergenceWarning, match="in epoch 2, batch 2 of 3"):
            Spoil(at=4, **COMMON).fit(*videos, checkpoint=tmp_path / folder)
    kept, _, _ = tensor_file.read(str(only_file(tmp_path / "0")), "checkpoint", 1)
    assert kept["finished"] is False
    assert len(kept["history"]) == 1
