"""What the study runs: tables of settings, each a method with its parameters."""

from typing import NamedTuple

from torch import nn

from sklearn_vad import (
    DAMAnomalyDetector,
    DDLAnomalyDetector,
    MILRankingAnomalyDetector,
    RTFMAnomalyDetector,
    STAAnomalyDetector,
)
from sklearn_vad.functional import mutual_cosine_embedding_loss

# How an epoch is chosen, in every table: on videos kept for it.
SELECTION = {"validation_score": "balanced_frame_roc_auc", "patience": 5}
LR_FACTORS = (0.3, 3.0)


# --------------------------------------------------------------------------
# Beyond the papers: a term of one in the loss of another
# --------------------------------------------------------------------------
class DDLWithMutualCosine(DDLAnomalyDetector):
    """DDL and STA's mutual cosine loss, on DDL's features."""

    def _loss_terms(self):
        own = super()._loss_terms()

        def terms(output, y, mask):
            mce = mutual_cosine_embedding_loss(output["features"], y, mask)
            return {**own(output, y, mask), "mutual_cosine": 0.02 * mce}

        return terms


class MILWithMutualCosine(MILRankingAnomalyDetector):
    """MIL ranking and STA's mutual cosine loss, on the first hidden layer."""

    def _make_module(self, n_features):
        module = super()._make_module(n_features)

        def forward(X, mask):
            hidden = module.mlp[:2](module.scaling(X))
            logits = module.mlp[2:](hidden).squeeze(-1)
            return {"scores": nn.functional.sigmoid(logits), "features": hidden}

        module.forward = forward
        return module

    def _loss_terms(self):
        own = super()._loss_terms()

        def terms(output, y, mask):
            mce = mutual_cosine_embedding_loss(output["features"], y, mask)
            return {**own(output, y, mask), "mutual_cosine": 0.02 * mce}

        return terms


CLASSES = {
    "DDL": DDLAnomalyDetector,
    "DAM": DAMAnomalyDetector,
    "RTFM": RTFMAnomalyDetector,  # in no table yet
    "STA": STAAnomalyDetector,
    "MIL ranking": MILRankingAnomalyDetector,
    "DDL + mutual cosine": DDLWithMutualCosine,
    "MIL + mutual cosine": MILWithMutualCosine,
}


# --------------------------------------------------------------------------
# Settings
# --------------------------------------------------------------------------
class Setting(NamedTuple):
    """One row of a table: a detector on a data set."""

    name: str
    dataset: str
    method: str
    params: dict = {}
    published: bool = False
    tuned: bool = False  # learning rate chosen on the select videos too
    fixed: bool = False  # all epochs, on the train and the select videos
    traced: bool = False  # all epochs, on the train videos, each one measured

    def make(self, seed, **params):
        """Return the unfitted detector."""
        cls = CLASSES[self.method]
        params = {**self.params, **params}
        made = cls.as_published(**params) if self.published else cls(**params)
        chosen = {} if self.fixed or self.traced else {**SELECTION, **self.params}
        return made.set_params(random_state=seed, **chosen)


def methods(dataset, steps=None, **special):
    """Return the rows of all methods; `special` are parameters by method."""
    dam = steps or dataset
    return [
        Setting("MIL ranking", dataset, "MIL ranking", special.get("mil", {})),
        Setting("DDL", dataset, "DDL", special.get("ddl", {})),
        Setting("DAM (Dist)", dam, "DAM", special.get("dam", {})),
        Setting("STA", dataset, "STA", special.get("sta", {})),
    ]


def without(name, *parts):
    return Setting(name, "c3d", "DAM", dict.fromkeys(parts, False))


def swaying(name, **params):
    return Setting(name, "swaying_steps", "DAM", {**_SWAY, **params})


_NO_LOSSES = {"ranking_weight": 0.0, "alignment_weight": 0.0}
_SMALL_DAM = {"n_hidden": 256, "lr": 3e-4}
_NARROW = {"sigma": 1.0, "kernel_size": 3}  # segments are few and long
# A small set needs more epochs, and begins at chance: all are trained.
_ALL_EPOCHS = {"max_epochs": 60, "patience": 60}
_SWAY = {"n_hidden": 64, "lr": 1e-3, **_ALL_EPOCHS}
_NO_ATTENTION = {"channel_attention": False, "clip_attention": False}

# Name -> rows. The first row is the baseline of the differences.
TABLES = {
    "c3d": [
        Setting("MIL ranking, as published", "c3d", "MIL ranking", published=True),
        *methods("c3d"),
        Setting("DDL, as published", "c3d", "DDL", published=True),
        Setting("DAM (Dist), as published", "c3d", "DAM", published=True),
        Setting("STA, as published", "c3d", "STA", published=True),
    ],
    "ddl_prior": [
        Setting("LA-Net without prior", "c3d", "DDL", {"sigma": None, **_NO_LOSSES}),
        Setting("LA-Net, prior after softmax (paper)", "c3d", "DDL", _NO_LOSSES),
        Setting(
            "LA-Net, prior before softmax",
            "c3d",
            "DDL",
            {"prior": "before", **_NO_LOSSES},
        ),
    ],
    "ddl_losses": [
        Setting("L_MIL", "c3d", "DDL", _NO_LOSSES),
        Setting("L_MIL + L_DR", "c3d", "DDL", {"alignment_weight": 0.0}),
        Setting("L_MIL + L_DA", "c3d", "DDL", {"ranking_weight": 0.0}),
        Setting("L_MIL + L_DR + L_DA (paper)", "c3d", "DDL"),
    ],
    "sta_parts": [
        Setting("STA (paper)", "c3d", "STA"),
        Setting("without L_MCE", "c3d", "STA", {"mce_weight": 0.0}),
        Setting("FC for the RNN", "c3d", "STA", {"regressor": "fc"}),
        Setting(
            "FC, without L_MCE", "c3d", "STA", {"regressor": "fc", "mce_weight": 0.0}
        ),
    ],
    "dam_parts": [
        without("features", "lstm", "channel_attention", "clip_attention"),
        without("+ LSTM", "channel_attention", "clip_attention"),
        without("+ Channel_A", "clip_attention"),
        Setting("+ Clip_A (paper)", "c3d", "DAM"),
    ],
    "x3d": methods("x3d", mil={"n_segments": None}),
    "beyond": [
        Setting("DDL", "c3d", "DDL"),
        Setting("DDL + L_MCE", "c3d", "DDL + mutual cosine"),
        Setting("DDL, sigma 1, kernel 3", "c3d", "DDL", _NARROW),
        Setting("MIL ranking + L_MCE", "c3d", "MIL + mutual cosine"),
    ],
    "synthetic_easy": methods("synthetic_easy", dam=_SMALL_DAM),
    "synthetic_medium": methods("synthetic_medium", dam=_SMALL_DAM),
    "synthetic_hard": methods("synthetic_hard", dam=_SMALL_DAM),
    "msl": methods("msl", "msl_steps", dam=_SMALL_DAM),
    "smap": methods("smap", "smap_steps", dam=_SMALL_DAM),
    "dam_steps": [
        Setting(
            "MIL ranking, mean over steps", "swaying_means", "MIL ranking", _ALL_EPOCHS
        ),
        swaying("features", **_NO_ATTENTION, lstm=False),
        swaying("+ LSTM", **_NO_ATTENTION),
        swaying("+ Channel_A, Dist", clip_attention=False),
        swaying("+ Clip_A, Dist"),
        swaying("+ Channel_A, Cov", clip_attention=False, variant="cov"),
        swaying("+ Clip_A, Cov", variant="cov"),
    ],
    "c3d_fixed": [
        Setting("MIL ranking, as published", "c3d", "MIL ranking", published=True),
        *(s._replace(fixed=True) for s in methods("c3d")),
        Setting("DDL, sigma 1, kernel 3", "c3d", "DDL", _NARROW, fixed=True),
        Setting("DDL, as published", "c3d", "DDL", published=True, fixed=True),
    ],
    # No table: every epoch on the select and on the report videos, for what agrees.
    "traces": [
        Setting(name, "c3d", name, {"max_epochs": 12}, published, traced=True)
        for name in ("MIL ranking", "DDL")
        for published in (False, True)
    ],
    "c3d_tuned": [
        Setting("MIL ranking, as published", "c3d", "MIL ranking", published=True),
        *(s._replace(name=f"{s.name}, tuned", tuned=True) for s in methods("c3d")),
    ],
}
