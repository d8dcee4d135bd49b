"""The report: its data and its text in Python, its behaviour in a headless Chromium."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_vad import Bags, DDLAnomalyDetector, FrameLabels, MILRankingAnomalyDetector
from sklearn_vad import report as make_report
from sklearn_vad.metrics import (
    _find_hits,
    evaluate,
    false_alarm_rate,
    frame_roc_auc_score,
    runs_of,
)
from sklearn_vad.postprocessing import find_events
from sklearn_vad.preprocessing import BagTransformer

ROOT = Path(__file__).parents[1]
MIL = MILRankingAnomalyDetector
HOSTILE = [
    "</script><img src=x onerror='window.canary=1'><script>window.canary=1</script>",
    "<!--<script>",
    "{{js}} &amp; \u2028 \u202e \ud800",
    "javascript:window.canary=1",
    "' onmouseover='window.canary=1' \"><svg/onload=window.canary=1>",
]
FILES = ("report.html", "report.css", "report.js")


class Scripts(HTMLParser):
    """Collect the contents of script elements, by id, "" for the page's own code."""

    def __init__(self, text):
        super().__init__()
        self.scripts, self.inside, self.tags, self.policy = {}, None, [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.inside = attrs.get("id", "") if tag == "script" else None
        if attrs.get("http-equiv") == "Content-Security-Policy":
            self.policy = attrs["content"]

    def handle_data(self, data):
        if self.inside is not None:
            self.scripts[self.inside] = self.scripts.get(self.inside, "") + data

    def handle_endtag(self, tag):
        self.inside = None


def read(path):
    """Return the page's data, and its arrays flat."""
    scripts = Scripts(Path(path).read_text(encoding="utf-8")).scripts
    data = json.loads(scripts["data"])
    kinds = {"scores": data["dtype"], "video-scores": "f8", "true-events": "u4"}
    return data, {
        name: np.frombuffer(base64.b64decode(scripts.get(name, "")), f"<{kind}")
        for name, kind in kinds.items()
    }


def make_videos(n, length=16.0, low=3, high=30, seed=0):
    """Return frame labels and scores that follow them, some of them equal."""
    rng = np.random.default_rng(seed)
    masks, scores = [], []
    for i in range(n):
        n_snippets = rng.integers(low, high)
        mask = np.zeros(
            max(round((n_snippets + rng.uniform(-1.1, 1.1)) * length), 2), bool
        )
        for _ in range(rng.integers(1, 4) if i % 3 == 0 else 0):
            first = rng.integers(len(mask))
            mask[first : first + rng.integers(1, len(mask))] = True
        frames = np.minimum(np.arange(n_snippets) * length, len(mask) - 1)
        raw = rng.beta(1, 6, size=n_snippets) + 0.5 * mask[frames.astype(int)]
        scores.append(np.round(np.minimum(raw, 1), 2).astype(np.float32))
        masks.append(mask)
    return FrameLabels(masks, length, ids=[f"video_{i}" for i in range(n)]), scores


# --------------------------------------------------------------------------
# What is embedded
# --------------------------------------------------------------------------
def test_embeds_what_the_detector_says(small, tmp_path):
    bags, y = small
    est = DDLAnomalyDetector(max_epochs=1, random_state=0).fit(bags, y)
    path = make_report(est, bags, y, tmp_path / "page.html", fps=25, threshold=None)
    data, arrays = read(path)
    scores = est.score_snippets(bags)
    assert path == tmp_path / "page.html"
    assert np.array_equal(arrays["scores"], np.concatenate(scores))
    videos = arrays["video-scores"]  # DDL's are no maxima
    np.testing.assert_array_equal(videos, est.predict_proba(bags)[:, 1])
    assert data["threshold"] == est.threshold_
    assert data["detector"] == "DDLAnomalyDetector"
    assert data["ids"] == bags.ids.tolist()
    assert data["n_snippets"] == bags.lengths.tolist()
    assert data["n_frames"] == y.n_frames.tolist()
    assert (data["snippet_length"], data["fps"], data["media"]) == (16, 25, None)
    events = [runs_of(mask) for mask in y.masks]
    assert data["n_true"] == [len(own) for own in events]
    assert np.array_equal(arrays["true-events"], np.concatenate(events).ravel())
    assert data["metrics"][0] == [
        "frame AUC",
        evaluate(y, scores)["frame_roc_auc_score"],
    ]
    for i, auc in enumerate(data["auc"]):
        if y[i]:
            assert auc == frame_roc_auc_score([y.masks[i]], [scores[i]])
        else:
            assert auc is None


def test_scores_alone_and_any_estimator_around_a_detector(small, tmp_path):
    bags, y = small
    pipe = make_pipeline(
        BagTransformer(StandardScaler()),
        MIL(max_epochs=1, random_state=0),
    )
    search = GridSearchCV(pipe, {"milrankinganomalydetector__lr": [1e-3]}, cv=2)
    search.fit(bags, y)
    scores = search.best_estimator_[-1].score_snippets(
        search.best_estimator_[0].transform(bags)
    )
    _, scored = read(make_report(search, bags, None, tmp_path / "a.html"))
    given, same = read(
        make_report(search, bags, path=tmp_path / "b.html", scores=scores)
    )
    bare, alone = read(
        make_report(None, None, path=tmp_path / "c.html", scores=[np.float64([2, 0.1])])
    )
    assert np.array_equal(scored["scores"], np.concatenate(scores))
    assert np.array_equal(scored["video-scores"], same["video-scores"])
    assert (given["detector"], given["n_true"]) == ("MILRankingAnomalyDetector", None)
    assert (bare["ids"], bare["dtype"], bare["range"]) == (["video 0"], "f8", [0, 2])
    assert (alone["scores"].tolist(), bare["n_frames"]) == ([2, 0.1], [32])


def test_text_from_files_is_escaped_and_policy_names_own_code(tmp_path):
    labels = FrameLabels([[0, 1, 1, 0]] * 5, 2, ids=HOSTILE)
    path = make_report(
        None,
        None,
        labels,
        tmp_path / "page.html",
        scores=[[0.1, 0.9]] * 5,
        categories=HOSTILE,
        title=HOSTILE[0],
    )
    page = Scripts(path.read_text(encoding="utf-8"))
    assert json.loads(page.scripts["data"])["ids"] == HOSTILE
    assert not set("<>&") & set(page.scripts["data"])
    assert "img" not in page.tags
    assert "svg" not in page.tags
    assert page.tags.count("script") == 5
    digest = hashlib.sha256(page.scripts[""].encode()).digest()
    assert f"script-src 'sha256-{base64.b64encode(digest).decode()}';" in page.policy
    assert page.policy.startswith("default-src 'none';")
    assert "http" not in page.policy
    assert "unsafe" not in page.policy


def test_appears_whole_or_not_at_all_and_the_same_each_time(tmp_path, monkeypatch):
    labels, scores = make_videos(3)
    path = make_report(None, None, labels, tmp_path / "page.html", scores=scores)
    before = path.read_bytes()

    def fail(file):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="disk full"):
            make_report(None, None, labels, path, scores=scores[::-1], threshold=0.1)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before
    make_report(None, None, labels, str(path), scores=scores)
    assert path.read_bytes() == before


def test_media_are_urls_relative_to_the_page(tmp_path):
    for name in ("a b#?.mp4", "0.PNG", "1.jpg"):
        (tmp_path / name).touch()
    pages = tmp_path / "pages"
    pages.mkdir()
    labels, scores = make_videos(3)
    files = [tmp_path / "0.PNG", str(tmp_path / "a b#?.mp4"), tmp_path / "1.jpg"]
    media = {"video_0": files, "video_2": tmp_path / "1.jpg", "of another set": "x"}
    path = make_report(
        None, None, labels, pages / "page.html", scores=scores, media=media
    )
    assert read(path)[0]["media"] == [
        {"video": "../a%20b%23%3F.mp4", "images": ["../0.PNG", "../1.jpg"]},
        {"video": None, "images": []},
        {"video": None, "images": ["../1.jpg"]},
    ]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"est": None, "scores": None}, TypeError, "fitted detector, or scores="),
        ({"est": "a name", "bags": None, "scores": None}, TypeError, "bags are None"),
        ({"est": MIL()}, NotFittedError, "not fitted"),
        ({"scores": []}, ValueError, "no scores"),
        ({"scores": [[0.5]]}, ValueError, "scores of 1 videos for 2 bags"),
        ({"scores": [[0.5], [np.nan]]}, ValueError, "scores of video 1 contain NaN"),
        ({"frame_labels": [[0, 1]]}, ValueError, "labels of 1 videos for 2 bags"),
        (
            {"frame_labels": [[0] * 16, [1] * 99], "scores": [[0.1], [0.2]]},
            ValueError,
            r"video 1 \(id 'two'\) has 1 snippets",
        ),
        ({"snippet_length": [1, 2, 3]}, ValueError, "3 snippet lengths for 2"),
        ({"threshold": np.nan}, ValueError, "threshold"),
        ({"min_frames": 0}, ValueError, "min_frames"),
        ({"fps": [25, 0]}, ValueError, r"bag 1 \(id 'two'\).*got fps 0"),
        ({"fps": [25]}, ValueError, "fps of 1 videos for 2 bags"),
        ({"fps": {"three": 25}}, ValueError, "'three', but none of the bags'"),
        ({"bags": None, "fps": {"two": 25}}, ValueError, "bags have no ids"),
        ({"categories": ["a", 5]}, TypeError, r"bag 1 \(id 'two'\): expected a text"),
        ({"categories": ["a", [5]]}, TypeError, r"bag 1 \(id 'two'\).*got 5"),
        ({"media": [None, "x.txt"]}, ValueError, r"bag 1 \(id 'two'\): expected a vi"),
        ({"media": [None, 5]}, TypeError, r"bag 1 \(id 'two'\)"),
        ({"media": [[5], None]}, TypeError, r"bag 0 \(id 'one'\).*got 5"),
        ({"media": [None, "no.mp4"]}, FileNotFoundError, r"bag 1 \(id 'two'\): there"),
        ({"media": [["a.mp4", "b.mp4"], None]}, ValueError, r"bag 0.*at most one"),
        ({"path": "nowhere/page.html"}, FileNotFoundError, "no such folder"),
        ({"path": "."}, IsADirectoryError, "expected a file"),
    ],
)
def test_errors_say_which_bag(change, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", "b.mp4"):
        Path(name).touch()
    bags = Bags.from_list([np.zeros((1, 2)), np.ones((1, 2))], ids=["one", "two"])
    given = {"est": None, "bags": bags, "scores": [[0.1], [0.2]], **change}
    with pytest.raises(error, match=message):
        make_report(given.pop("est"), given.pop("bags"), **given)
    assert not Path("report.html").exists()


def test_files_of_the_page_are_installed(tmp_path):
    command = [sys.executable, "setup.py", "-q", "build_py", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    installed = tmp_path / "sklearn_vad" / "_report"
    assert sorted(path.name for path in installed.iterdir()) == sorted(FILES)


# --------------------------------------------------------------------------
# In the browser
# --------------------------------------------------------------------------
@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """The system's Chromium without a window, or a skip that says what is missing."""
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("no chromium or no chromedriver: the report is not tried out")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    profile = tmp_path_factory.mktemp("profile")
    for option in (
        "headless",
        "no-sandbox",  # which root would need
        "disable-gpu",
        "disable-dev-shm-usage",
        "disable-quic",
        "disable-sync",
        "disable-background-networking",
        "disable-component-update",
        "no-first-run",
        "window-size=1280,900",
        f"user-data-dir={profile}",
    ):
        options.add_argument(f"--{option}")
    options.set_capability(
        "goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"}
    )
    # Named, so that Selenium looks for none, and downloads none.
    service = webdriver.ChromeService(executable_path=driver)
    window = webdriver.Chrome(options=options, service=service)
    yield window
    window.quit()
    service.stop()


@pytest.fixture
def browser(chromium):
    """The browser; afterwards the page must not have complained or gone online."""
    for kind in ("browser", "performance"):
        chromium.get_log(kind)
    yield chromium
    assert chromium.get_log("browser") == []
    for entry in chromium.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        sent = message["params"] if message["method"].endswith("BeSent") else {}
        if sent.get("documentURL", "").startswith("file:"):
            assert sent["request"]["url"].startswith(("file:", "data:"))
    chromium.get("about:blank")


def open_page(browser, path):
    browser.get(Path(path).as_uri())
    return browser.execute_script(
        "return performance.getEntriesByName('ready')[0].startTime"
    )


def text(browser, name):
    return browser.execute_script(
        "return document.getElementById(arguments[0]).textContent.toWellFormed()", name
    )


def press(browser, *keys, on="list"):
    browser.find_element(By.ID, on).send_keys(*keys)


def listed(browser):
    """Return the ids of the rows in sight, from the top."""
    return browser.execute_script(
        "return [...document.querySelectorAll('.row')].filter((row) => !row.hidden)"
        ".sort((a, b) => a.dataset.index - b.dataset.index)"
        ".map((row) => row.querySelector('.id').textContent.toWellFormed())"
    )


def set_threshold(browser, value, control="threshold"):
    """Move a control; return the milliseconds until the page has been painted."""
    return browser.execute_async_script(
        """
        const [name, value, done] = arguments, control = document.getElementById(name);
        const begin = performance.now();
        control.value = value;
        control.dispatchEvent(new Event("input", { bubbles: true }));
        requestAnimationFrame(() => setTimeout(() => done(performance.now() - begin)));
        """,
        control,
        repr(value),
    )


def shown_counts(browser):
    values = browser.execute_script(
        """
        const counts = {};
        for (const node of document.querySelectorAll("#counts data")) {
          counts[node.id.slice(6)] = Number(node.value);
          for (const [name, value] of Object.entries(node.dataset)) {
            counts[name] = Number(value);
          }
        }
        return counts;
        """
    )
    return values


def expected_counts(labels, scores, threshold, **settings):
    """Count with the package's own functions, and with slow loops over frames."""
    given = {"threshold": threshold, "snippet_length": labels.snippet_length}
    events = find_events(scores, labels, **given, **settings)
    alarms = find_events(scores, labels, **given)
    counts = {"found": 0, "matched": 0, "false-events": 0}
    for mask, own, runs in zip(labels.masks, events, alarms, strict=True):
        covered = np.zeros(len(mask), dtype=bool)
        for event in own:
            covered[event["first"] : event["last"]] = True
            counts["false-events"] += not mask[event["first"] : event["last"]].any()
        counts["found"] += sum(covered[a:b].any() for a, b in runs_of(mask))
        flat = np.array([tuple(event) for event in own], dtype=float).reshape(-1, 3)
        counts["matched"] += _find_hits(runs_of(mask), flat, 0.5).sum()
        assert len(runs) >= len(own)
    detected = np.array([float(own.max()) > threshold for own in scores])
    return {
        **counts,
        "events": sum(map(len, events)),
        "hits": np.sum(detected & (labels.video_labels == 1)),
        "false-videos": np.sum(detected & (labels.video_labels == 0)),
        "false-alarm-rate": false_alarm_rate(labels, scores, threshold=threshold),
        "above": sum((own >= threshold).sum() for own in scores),
    }


@pytest.mark.filterwarnings("ignore:no score reaches the threshold")
def test_two_thousand_videos_open_fast_and_count_as_the_metrics(browser, tmp_path):
    labels, scores = make_videos(2000, low=20, high=200)
    path = make_report(
        None, None, labels, tmp_path / "page.html", scores=scores, fps=25
    )
    opened = open_page(browser, path)
    assert (
        browser.execute_script("return document.querySelectorAll('.row').length") < 40
    )
    # 0.7 is no number in float32; what float32 scores are equal to is its neighbour.
    times = []
    for threshold in (0.5, 0.7, 0.001, 1.0, 0.25, 0.0, 0.41):
        times.append(set_threshold(browser, threshold))
        expected = expected_counts(labels, scores, threshold)
        assert shown_counts(browser) == pytest.approx(expected, rel=1e-15, abs=0)
    print(
        f"\n2,000 videos open in {opened:.0f} ms; the slider answers in"
        f" {np.median(times):.0f} ms, at most {max(times):.0f} ms"
    )
    assert opened < 2000
    assert np.median(times) < 100


@pytest.mark.parametrize("length", [165 / 7, 3.7, 0.6])
def test_counts_of_fractional_snippets_and_merged_events(browser, tmp_path, length):
    labels, scores = make_videos(60, length, low=9, high=90, seed=1)
    scores = [np.float64(own) * 3 - 1 for own in scores]
    settings = {"min_frames": 9, "merge_frames": 12}
    path = make_report(
        None, None, labels, tmp_path / "page.html", scores=scores, **settings
    )
    open_page(browser, path)
    for threshold in (-0.4, float(scores[7][2]), 1.1):
        set_threshold(browser, threshold, "threshold-number")
        expected = expected_counts(labels, scores, threshold, **settings)
        assert shown_counts(browser) == pytest.approx(expected, rel=1e-15, abs=0)


def test_without_truth(browser, tmp_path):
    _, scores = make_videos(30)
    path = make_report(None, None, path=tmp_path / "page.html", scores=scores)
    open_page(browser, path)
    set_threshold(browser, 0.3)
    counts = shown_counts(browser)
    assert counts["detected"] == sum(float(own.max()) > 0.3 for own in scores)
    assert counts["events"] == sum(map(len, find_events(scores, threshold=0.3)))
    frames = sum(16 * np.sum(own >= np.float32(0.3)) for own in scores)
    assert counts["frames"] == frames
    browser.find_element(By.ID, "kind-detected").click()
    assert text(browser, "shown") == f"{counts['detected']:.0f} of 30 videos"


def test_sort_and_filter(browser, tmp_path):
    labels, scores = make_videos(40)
    categories = [("Arson", "Theft") if y else () for y in labels]
    path = make_report(
        None,
        None,
        labels,
        tmp_path / "page.html",
        scores=scores,
        categories=categories,
    )
    open_page(browser, path)
    ids = labels.ids
    videos = np.array([own.max() for own in scores])
    order = np.argsort(-videos, kind="stable")
    n = len(listed(browser))
    assert listed(browser) == ids[order][:n].tolist()

    def sort_by(name):
        browser.execute_script(
            "const sort = document.getElementById('sort'); sort.value = arguments[0];"
            "sort.dispatchEvent(new Event('change'));",
            name,
        )
        return listed(browser)

    place = {name: i for i, name in enumerate(ids)}
    assert sort_by("id") == ids[:n].tolist()  # 2 before 10
    lengths = labels.n_frames[[place[name] for name in sort_by("length")]]
    assert lengths.tolist() == sorted(labels.n_frames, reverse=True)[:n]
    events = [len(own) for own in find_events(scores, labels)]
    by_events = [events[place[name]] for name in sort_by("events")]
    assert by_events == sorted(events, reverse=True)[:n]
    auc = read(path)[0]["auc"]
    known = sorted(value for value in auc if value is not None)
    by_auc = [auc[place[name]] for name in sort_by("auc")]
    assert by_auc[: len(known)] == known[:n]  # the worst first, undefined ones last
    errors = [
        np.mean(
            (np.repeat(s, 16)[np.minimum(np.arange(len(m)), 16 * len(s) - 1)] >= 0.5)
            != m
        )
        for s, m in zip(scores, labels.masks, strict=True)
    ]
    by_errors = [errors[place[name]] for name in sort_by("wrong")]
    assert by_errors == pytest.approx(sorted(errors, reverse=True)[:n])
    browser.find_element(By.ID, "direction").click()
    by_errors = [errors[place[name]] for name in listed(browser)]
    assert by_errors == pytest.approx(sorted(errors)[:n])

    detected, anomalous = videos > 0.5, labels.video_labels == 1
    for kind, chosen in {
        "anomalous": anomalous,
        "normal": ~anomalous,
        "detected": detected,
        "missed": ~detected & anomalous,
        "alarm": detected & ~anomalous,
        "all": videos >= 0,
    }.items():
        browser.find_element(By.ID, f"kind-{kind}").click()
        assert set(listed(browser)) <= set(ids[chosen])
        assert text(browser, f"kind-{kind}").endswith(str(chosen.sum()))
        some = f"{chosen.sum()} of 40 videos" if kind != "all" else "40 videos"
        assert text(browser, "shown") == some
    press(browser, "THEFT _3", on="filter")
    assert sorted(listed(browser)) == [
        "video_3",
        "video_30",
        "video_33",
        "video_36",
        "video_39",
    ]


def test_keys(browser, tmp_path):
    scores = [[0.9, 0.1, 0.2, 0.8], [0.3] * 40, [0.6, 0.2]]
    labels = FrameLabels([[0] * 16 * len(s) for s in scores], ids=["a", "b", "c"])
    path = make_report(None, None, labels, tmp_path / "p.html", scores=scores, fps=16)
    open_page(browser, path)
    assert text(browser, "name") == "a"
    press(browser, Keys.ARROW_DOWN)
    assert text(browser, "name") == "c"
    press(browser, Keys.END)
    assert text(browser, "name") == "b"
    press(browser, Keys.ARROW_UP, "k", Keys.ARROW_UP)
    assert text(browser, "name") == "a"
    press(browser, Keys.ARROW_RIGHT)
    assert text(browser, "readout") == "frame 16 · 0:01.0 · score 0.100 · normal"
    press(browser, "n")
    assert text(browser, "readout") == "frame 48 · 0:03.0 · score 0.800 · normal"
    press(browser, "p", Keys.ARROW_LEFT, on="timeline")
    assert text(browser, "readout").startswith("frame 0 ")
    timeline = browser.find_element(By.ID, "timeline")
    assert timeline.get_attribute("aria-valuetext").startswith("frame 0 ")
    assert not browser.find_element(By.ID, "map").is_displayed()
    press(browser, "+")
    assert browser.find_element(By.ID, "map").is_displayed()
    press(browser, "0")
    assert not browser.find_element(By.ID, "map").is_displayed()
    press(browser, ".")
    assert browser.find_element(By.ID, "threshold").get_attribute("value") == "0.51"
    press(browser, "/")
    assert browser.switch_to.active_element.get_attribute("id") == "filter"
    press(browser, "c", Keys.ARROW_DOWN, on="filter")
    assert (listed(browser), text(browser, "name")) == (["c"], "a")
    press(browser, Keys.ARROW_DOWN)
    assert text(browser, "name") == "c"
    press(browser, "?")
    assert browser.find_element(By.ID, "help").is_displayed()
    webdriver.ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    assert not browser.find_element(By.ID, "help").is_displayed()
    theme = browser.find_element(By.TAG_NAME, "html").get_attribute("data-theme")
    press(browser, "t")
    html = browser.find_element(By.TAG_NAME, "html")
    assert {theme, html.get_attribute("data-theme")} == {"light", "dark"}


def test_pointer_seeks_and_zooms(browser, tmp_path):
    labels, scores = make_videos(1, low=100, high=101)
    path = make_report(None, None, labels, tmp_path / "page.html", scores=scores)
    open_page(browser, path)
    timeline = browser.find_element(By.ID, "timeline")
    webdriver.ActionChains(browser).move_to_element(timeline).click().perform()
    frame = int(timeline.get_attribute("aria-valuenow"))
    assert (
        abs(frame / labels.n_frames[0] - 0.48) < 0.03
    )  # labels take 40 px on the left
    origin = webdriver.common.actions.wheel_input.ScrollOrigin.from_element(timeline)
    for _ in range(8):
        webdriver.ActionChains(browser).scroll_from_origin(origin, 0, -120).perform()
    assert browser.find_element(By.ID, "map").is_displayed()
    right = webdriver.ActionChains(browser).move_to_element_with_offset(
        timeline, 300, 0
    )
    right.click().perform()
    moved = int(timeline.get_attribute("aria-valuenow")) - frame
    assert 0 < moved < 100


def test_hostile_texts_run_nothing(browser, tmp_path):
    labels = FrameLabels([[0, 1, 1, 0]] * 5, 2, ids=HOSTILE)
    path = make_report(
        None,
        None,
        labels,
        tmp_path / "page.html",
        scores=[[0.1, 0.9 - i / 10] for i in range(5)],
        categories=HOSTILE,
        title=HOSTILE[0],
    )
    open_page(browser, path)
    assert browser.title == " ".join(HOSTILE[0].split())
    assert text(browser, "title") == HOSTILE[0]
    # A lone surrogate does not pass the driver.
    ids = [name.replace("\ud800", "\ufffd") for name in HOSTILE]
    assert listed(browser) == ids
    for name in ids:
        assert text(browser, "name") == name
        press(browser, Keys.ARROW_DOWN)
    press(browser, HOSTILE[4], on="filter")
    assert listed(browser) == HOSTILE[4:]
    assert browser.execute_script("return window.canary") is None
    assert browser.find_elements(By.CSS_SELECTOR, "img, svg") == []


def test_video_and_pictures(browser, tmp_path):
    av = pytest.importorskip("av", reason="the extra 'video' makes the test's video")
    video = tmp_path / "<img src=x onerror='window.canary=1'>#1 %41?.webm"
    with av.open(str(video), "w") as container:
        stream = container.add_stream("libvpx", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(32):
            pixels = np.full((48, 64, 3), 8 * i, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(stream.encode())
    pictures = [tmp_path / f"{i}.svg" for i in range(4)]
    for picture in pictures:
        picture.write_text(
            "<svg xmlns='http://www.w3.org/2000/svg' width='8' height='6'/>"
        )
    media = [[video, *pictures], None]
    path = make_report(
        None,
        None,
        path=tmp_path / "page.html",
        scores=[[0.1, 0.9, 0.1, 0.1], [0.0]],
        snippet_length=8,
        media=media,
    )
    open_page(browser, path)
    wait = WebDriverWait(browser, 10)
    wait.until(
        lambda _: browser.execute_script(
            "return document.querySelector('video').duration > 3"
        )
    )
    press(browser, Keys.ARROW_RIGHT)  # frame 8 of 32, of 4 seconds
    time = browser.execute_script("return document.querySelector('video').currentTime")
    assert time == pytest.approx(4 * 8.5 / 32, abs=0.1)
    assert [
        b.get_attribute("aria-current")
        for b in browser.find_elements(By.CLASS_NAME, "picture")
    ] == ["false", "true", "false", "false"]
    browser.find_elements(By.CLASS_NAME, "picture")[3].click()
    assert text(browser, "readout").startswith("frame 24 ")
    loaded = "return [...document.images].filter((image) => image.naturalWidth).length"
    wait.until(lambda _: browser.execute_script(loaded) == 4)
    press(browser, Keys.ARROW_DOWN)
    assert browser.find_elements(By.CSS_SELECTOR, "video, img") == []
    assert browser.execute_script("return window.canary") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_a_phone_in_both_themes(browser, tmp_path, scheme):
    labels, scores = make_videos(300)
    path = make_report(
        None, None, labels, tmp_path / "page.html", scores=scores, fps=25
    )
    size = {"width": 375, "height": 812, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    try:
        open_page(browser, path)
        html = browser.find_element(By.TAG_NAME, "html")
        assert html.get_attribute("data-theme") == scheme
        too_wide = browser.execute_script(
            "return [...document.querySelectorAll('body *')].filter((node) =>"
            " node.getBoundingClientRect().right > 375.5).map((node) => node.outerHTML)"
        )
        assert too_wide == []
        assert browser.execute_script("return window.innerWidth") == 375
        ratio = browser.execute_script(CONTRAST)
        assert min(ratio.values()) >= 4.5, ratio
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


# WCAG's contrast between every text in sight and what it stands on.
CONTRAST = """
const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => {
  const [x, y, z] = [r, g, b].map((c) => {
    c /= 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
};
const ratios = {};
for (const node of document.querySelectorAll("body *")) {
  const own = [...node.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  if (!own || !node.offsetParent || node.disabled) continue;
  let back = node;
  const behind = () => getComputedStyle(back).backgroundColor;
  while (numbers(behind())[3] === 0) back = back.parentNode;
  const a = light(numbers(getComputedStyle(node).color));
  const b = light(numbers(behind()));
  const name = `${node.tagName}.${node.className}#${node.id}`;
  ratios[name] = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}
return ratios;
"""
