"""The site's sources: every public name has a page, links lead on, code runs."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import sklearn_vad
from sklearn_vad.datasets import make_bags

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
GENERATED = ("_build", "auto_examples", "generated")
# GENERATED pages have names of their own, which the build checks.
PAGES = sorted(
    path
    for path in DOCS.rglob("*.md")
    if path.relative_to(DOCS).parts[0] not in GENERATED
)
# Their code runs in tests of their own.
ELSEWHERE = {"cluster.md", "leak_free_selection.md"}
WITH_CODE = [
    page
    for page in PAGES
    if page.name not in ELSEWHERE and "```python\n" in page.read_text(encoding="utf-8")
]


def name_of(page):
    return page.relative_to(DOCS).as_posix()


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --------------------------------------------------------------------------
# Names
# --------------------------------------------------------------------------
def test_every_public_name_is_in_the_reference_once():
    pytest.importorskip("sphinx")
    public = load(DOCS / "_ext" / "public_names.py").public_names()
    listed, module = [], None
    for line in (DOCS / "reference.rst").read_text(encoding="utf-8").splitlines():
        if line.startswith(".. currentmodule::"):
            module = line.split()[-1]
        elif re.fullmatch(r"   \w+", line):
            listed.append(f"{module}.{line.strip()}")
    assert sorted(listed) == sorted(public)
    assert len(public) >= 60


def test_pages_are_in_a_table_of_contents():
    entries = set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for tree in re.findall(r"```\{toctree\}\n(.*?)```", text, re.DOTALL):
            for entry in re.findall(r"^(?!:)(?:.*<)?([^\s<>]+)>?$", tree, re.MULTILINE):
                entries.add((page.parent / entry).resolve())
    lost = {page.with_suffix("") for page in PAGES} - entries - {DOCS / "index"}
    assert {path.name for path in lost} == set()


# --------------------------------------------------------------------------
# Links
# --------------------------------------------------------------------------
def anchors_of(page):
    """Return the anchors of a page's headings, as GitHub and MyST make them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}


def source_of(target):
    """Return the file behind a page or picture of the gallery, or the path itself."""
    found = re.search(
        r"auto_examples/(?:images/sphx_glr_)?(plot_\w+?)(_\d+\.png|\.rst)", target
    )
    if found:
        return ROOT / "examples" / f"{found[1]}.py"
    return (
        ROOT / "examples" / "GALLERY_HEADER.rst" if "auto_examples" in target else None
    )


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = source_of(path) or (page.parent / path if path else page)
        assert target.exists(), link
        assert not anchor or anchor in anchors_of(target), link


def test_broken_links_of_a_built_site_are_found(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.html").write_text('<p id="here"><img src="b.png">')
    (tmp_path / "sub" / "b.png").touch()
    good = '<a href="sub/a.html#here"><a href="#top"><a href="https://a.org/x">'
    bad = '<a href="sub/a.html#there"><img src="c.png"><script src="//a.org/x.js">'
    (tmp_path / "index.html").write_text(good + bad)
    command = [sys.executable, ROOT / ".ci" / "links.py", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout.splitlines()[:-1] == [
        "index.html: //a.org/x.js is fetched from another site",
        "index.html: c.png is not there",
        "index.html: sub/a.html#there is not there",
    ]
    (tmp_path / "index.html").write_text(good)
    assert subprocess.run(command, capture_output=True).returncode == 0


# --------------------------------------------------------------------------
# Code
# --------------------------------------------------------------------------
@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder as the pages suppose it: features, crops, labels and annotations."""
    folder = tmp_path_factory.mktemp("site")
    bags, y = make_bags(16, n_features=12, max_snippets=20, random_state=0)
    (folder / "features").mkdir()
    (folder / "ten_crops").mkdir()
    labels, events = ["video,label"], ["video,label,start,end"]
    for name, bag, mask in zip(bags.ids, bags, y.masks, strict=True):
        np.save(folder / "features" / f"{name}.npy", bag)
        np.save(folder / "ten_crops" / f"{name}.npy", np.stack([bag] * 10, axis=1))
        labels.append(f"{name},{int(mask.any())}")
        changes = np.flatnonzero(np.diff(np.r_[0, mask, 0])).reshape(-1, 2)
        events += [f"{name}.mp4,1,{first},{end}" for first, end in changes]
        events += [f"{name}.mp4,0,,"] * (not mask.any())
    (folder / "labels.csv").write_text("\n".join(labels))
    (folder / "annotations.csv").write_text("\n".join(events))
    return folder


@pytest.mark.parametrize("page", WITH_CODE, ids=name_of)
def test_code_of_the_page_runs(page, files, tmp_path, monkeypatch, capsys):
    """All blocks of a page are one program; ```python no-test is none of them."""
    for path in files.iterdir():
        if page.name != "tutorial.md":  # which makes its own
            (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    names = {"__name__": "page"}
    exec(compile("\n".join(blocks), page.name, "exec"), names)
    if page.name == "tutorial.md":
        assert (tmp_path / "timeline.png").stat().st_size > 10_000
        assert roc_of(names) > 0.7


def roc_of(names):
    from sklearn.metrics import roc_auc_score

    bags, y, test = names["bags"], names["y"], names["test"]
    return roc_auc_score(y[test], names["again"].decision_function(bags[test]))


def test_method_pages_exist():
    """Every published method has its page, and its figure."""
    guide = (DOCS / "guide" / "index.md").read_text(encoding="utf-8")
    pages = [page.read_text(encoding="utf-8") for page in DOCS.glob("guide/*.md")]
    for name in sklearn_vad.__all__:
        if hasattr(getattr(sklearn_vad, name), "as_published"):
            own = [text for text in pages if f"{name}.as_published()" in text]
            assert len(own) == 1, name
            assert "auto_examples/images/" in own[0], name
    assert guide.count(".md)") >= 4
