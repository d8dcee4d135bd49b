"""What notebooks show of a detector: its summary, its diagram, its progress bars."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_vad import (
    DAMAnomalyDetector,
    DDLAnomalyDetector,
    EnsembleAnomalyDetector,
    MILRankingAnomalyDetector,
    MultiCropDetector,
    RTFMAnomalyDetector,
    STAAnomalyDetector,
    load,
)
from sklearn_vad.preprocessing import BagTransformer

MIL = MILRankingAnomalyDetector(hidden_dims=(5, 3), max_epochs=2, random_state=0)
DDL = DDLAnomalyDetector(hidden_dim=8, mlp_dims=(8, 4), max_epochs=2, random_state=0)
DAM = DAMAnomalyDetector(n_hidden=8, max_epochs=1, random_state=0)
RTFM = RTFMAnomalyDetector(hidden_dims=(5, 3), max_epochs=1, random_state=0)
STA = STAAnomalyDetector(n_components=4, max_epochs=1, random_state=0)


def table_of(text):
    """Return the rows of a summary as (layer, shapes, number)."""
    rows = [re.split("  +", line.strip()) for line in text.splitlines()[2:]]
    return [(row[0], *row[2:]) for row in rows[:-1]], rows[-1]


def test_lines_of_a_perceptron(small, tmp_path):
    est = MIL.fit(*small)
    expected = (
        "MILRankingAnomalyDetector: 6 features, 57 parameters, epoch 2 of 2\n"
        "layer    kind          parameters  number\n"
        "scaling  InputScaling  [2 (6)]          0\n"
        "mlp.0    Linear        5 x 6 + 5       35\n"
        "mlp.3    Linear        3 x 5 + 3       18\n"
        "mlp.5    Linear        1 x 3 + 1        4\n"
        "total                                  57"
    )
    assert est.summary() == expected
    est.save(tmp_path / "est")
    assert load(tmp_path / "est").summary() == expected


@pytest.mark.parametrize(
    "est", [DDL, DAM, RTFM, STA], ids=lambda est: type(est).__name__
)
def test_lines_add_up(est, small):
    rows, (_, total) = table_of(est.fit(*small).summary())
    numbers = [int(row[-1].replace(",", "")) for row in rows]
    assert sum(numbers) == int(total.replace(",", ""))
    module = est.net_.module_
    assert sum(numbers) == sum(p.numel() for p in module.parameters())
    for (name, shapes, _), number in zip(rows, numbers, strict=True):
        if number:  # "2 (8 x 6) + 8" is a sum that Python can do
            trained = shapes.replace(" (", " * (").replace("x", "*")
            assert eval(trained) == number
        assert name in dict(module.named_modules())


def test_shapes_of_a_recurrent_layer(small):
    rows, _ = table_of(STA.fit(*small).summary())
    shapes = dict(row[:2] for row in rows)
    assert shapes["scaling"] == "[6 + 4 + 6 x 4]"
    assert shapes["rnn"] == "2 (64 x 4) + 4 (64 x 64) + 8 (64) + 2 (64 x 128)"


def test_detectors_of_detectors(small):
    bags, y = small
    crops = [bag[:, None] for bag in bags]
    first, *rest = MultiCropDetector(MIL).fit(crops, y).summary().splitlines()
    assert first == "MultiCropDetector: mean over crops of"
    assert rest == MIL.fit(bags, y).summary().splitlines()
    est = EnsembleAnomalyDetector([MIL, DDL], weights=[1, 3]).fit(bags, y)
    n_ddl = sum(p.numel() for p in est.estimators_[1].net_.module_.parameters())
    assert est.summary().splitlines() == [
        "EnsembleAnomalyDetector: 2 members",
        f"0  weight 0.250  {rest[0]}",
        f"1  weight 0.750  DDLAnomalyDetector: 6 features, {n_ddl} parameters,"
        " epoch 2 of 2",
    ]


@pytest.mark.parametrize(
    "est",
    [
        MILRankingAnomalyDetector(),
        MultiCropDetector(DDLAnomalyDetector()),
        EnsembleAnomalyDetector([DDLAnomalyDetector()]),
    ],
    ids=lambda est: type(est).__name__,
)
def test_unfitted(est):
    with pytest.raises(NotFittedError):
        est.summary()


# Notebooks ----------------------------------------------------------------
def test_diagram_names_all_parts_and_links_to_nothing_broken(small):
    members = EnsembleAnomalyDetector([("a", MIL), ("b", DDL)], random_state=0)
    pipeline = make_pipeline(BagTransformer(StandardScaler()), members)
    search = GridSearchCV(pipeline, {"ensembleanomalydetector__a__lr": [0.003]}, cv=2)
    for est in (search, search.fit(*small)):
        page = est._repr_html_()
        for name in (MIL, DDL, members, BagTransformer(StandardScaler())):
            assert type(name).__name__ in page
        links = re.findall('href="([^"]*)"', page)
        assert not [link for link in links if "sklearn_vad" in link or "vad" in link]
        assert all(link.startswith("https://scikit-learn.org/") for link in links)


def test_diagram_shows_the_parameters():
    page = MILRankingAnomalyDetector(margin=0.625)._repr_html_()
    assert "margin" in page
    assert "0.625" in page


def test_bars_without_ipywidgets_do_not_warn():
    """As in a kernel of Jupyter; tqdm looks for it by the names of modules."""
    code = """if True:
        import sys, types
        class ZMQInteractiveShell: pass
        shell = types.ModuleType("IPython")
        shell.get_ipython = ZMQInteractiveShell
        sys.modules["IPython"] = shell
        sys.modules["ipykernel.zmqshell"] = types.ModuleType("zmqshell")
        sys.modules["ipywidgets"] = None
        from sklearn_vad._progress import tqdm
        for _ in tqdm(range(3), "counting"): pass
    """
    env = {k: v for k, v in os.environ.items() if k != "QT_API" and "SPYDER" not in k}
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", code],
        cwd=Path(__file__).parents[1],
        env=env,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "counting: 100%" in done.stderr
    assert "Warning" not in done.stderr
