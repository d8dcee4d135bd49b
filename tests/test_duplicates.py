"""Groups of videos that belong together, and the page that tells how to use them."""

import hashlib
import re
import weakref
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_distances
from sklearn.model_selection import StratifiedGroupKFold

from sklearn_vad import Bags
from sklearn_vad.datasets import _duplicates as module
from sklearn_vad.datasets import (
    find_duplicates,
    merge_groups,
    source_groups,
)

PAGE = Path(__file__).parents[1] / "docs" / "leak_free_selection.md"


def slow_groups(n, together):
    """Join videos, all pairs again and again, and number them as they come."""
    groups = list(range(n))
    for _ in range(n):
        for i in range(n):
            for j in range(n):
                if together(i, j):
                    groups[i] = groups[j] = min(groups[i], groups[j])
    return [sorted(set(groups)).index(g) for g in groups]


# --------------------------------------------------------------------------
# Equal bags
# --------------------------------------------------------------------------
@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=3), min_size=1))
def test_equal_bags(values):
    arrays = [np.array(v, dtype=np.float32)[:, None] for v in values]
    groups = find_duplicates(Bags.from_list(arrays))
    assert groups.tolist() == slow_groups(
        len(values), lambda i, j: values[i] == values[j]
    )


def test_every_bag_alone(small):
    bags, _ = small
    groups = find_duplicates(bags)
    assert groups.dtype.kind == "i"
    assert groups.tolist() == list(range(len(bags)))
    assert find_duplicates(bags, tolerance=1e-3).tolist() == groups.tolist()


def test_bytes_in_the_dtype_of_all(tmp_path):
    """Files of float16 and float32 that hold the same numbers."""
    video = np.arange(6).reshape(3, 2)
    for name, dtype in {"a": np.float16, "b": np.float32, "c": np.int64}.items():
        np.save(tmp_path / f"{name}.npy", video.astype(dtype))
    np.save(tmp_path / "d.npy", np.nextafter(video.astype("f4"), 9, dtype="f4"))
    bags = Bags.from_files(sorted(tmp_path.glob("*.npy")))
    assert find_duplicates(bags).tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("shape", [(4, 3), (4, 2, 3), (4, 2, 2, 3)])
def test_crops_and_steps(shape):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, *shape))
    c = a.copy()
    c[(-1,) * len(shape)] += 1e-3
    bags = [a, b, a.copy(order="F"), c, a[:3]]
    assert find_duplicates(bags).tolist() == [0, 1, 0, 2, 3]
    assert find_duplicates(bags, tolerance=1e-5).tolist() == [0, 1, 0, 0, 2]


def test_only_bags_of_a_shared_length_are_read(tmp_path):
    paths = [tmp_path / f"{i}.npy" for i in range(4)]
    for path, length in zip(paths, [3, 5, 3, 4], strict=True):
        np.save(path, np.ones((length, 2)))
    bags = Bags.from_files(paths)
    assert bags.lengths.tolist() == [3, 5, 3, 4]
    paths[1].unlink()  # of a length of its own
    assert find_duplicates(bags).tolist() == [0, 1, 0, 2]
    paths[2].unlink()
    with pytest.raises(ValueError, match=r"bag 2 \(id '2'\).*changed on disk"):
        find_duplicates(bags)


def test_one_bag_in_memory_at_a_time(tmp_path, monkeypatch):
    paths = [tmp_path / f"{i}.npy" for i in range(6)]
    for i, path in enumerate(paths):
        np.save(path, np.full((2, 3), i % 5))
    read, digest = [], module._digest

    def watch(bag, dtype):
        assert all(earlier() is None for earlier in read)
        read.append(weakref.ref(bag))
        return digest(bag, dtype)

    monkeypatch.setattr(module, "_digest", watch)
    assert find_duplicates(Bags.from_files(paths)).tolist() == [0, 1, 2, 3, 4, 0]
    assert len(read) == 6


def test_progress_goes_to_stderr(capsys, small):
    bags, _ = small
    find_duplicates([bags[0], bags[0]], progress=True, tolerance=0.1)
    out, err = capsys.readouterr()
    assert out == ""
    assert "hashing" in err
    find_duplicates([bags[0], bags[0]])
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "params", [{"tolerance": -0.1}, {"tolerance": 0.5}, {"progress": 2}], ids=str
)
def test_bad_parameters(params):
    with pytest.raises(ValueError, match=next(iter(params))):
        find_duplicates([np.ones((2, 2))], **params)


def test_bad_bags():
    with pytest.raises(ValueError, match="no bags"):
        find_duplicates([])
    with pytest.raises(ValueError, match="bag 1 contains NaN"):
        find_duplicates([np.ones((2, 2)), np.full((2, 2), np.nan)])


# --------------------------------------------------------------------------
# Close bags
# --------------------------------------------------------------------------
def variants(rng, n_sources, shape, noise):
    """Return bags in threes: a video, one close to it, one not quite so close."""
    bags = []
    for _ in range(n_sources):
        video = rng.normal(size=shape)
        bags += [video, *(video + s * rng.normal(size=shape) for s in noise)]
    return bags


@pytest.mark.parametrize("shape", [(3, 4), (20, 5), (40, 30)])
def test_close_bags_are_those_of_all_pairs(shape):
    rng = np.random.default_rng(0)
    bags = variants(rng, 20, shape, noise=[0.1, 0.6])
    far = cosine_distances([bag.ravel() for bag in bags])
    for tolerance in (1e-6, 0.01, 0.05, 0.2, 0.4):
        expected = slow_groups(60, lambda i, j, t=tolerance: far[i, j] <= t)
        groups = find_duplicates(bags, tolerance=tolerance)
        assert groups.tolist() == expected
    assert len(set(expected)) < 40


def test_few_pairs_are_compared_in_full(monkeypatch):
    calls = []
    unit = module._unit
    monkeypatch.setattr(module, "_unit", lambda bag: calls.append(1) or unit(bag))
    rng = np.random.default_rng(0)
    bags = variants(rng, 100, (40, 60), noise=[0.05])
    groups = find_duplicates(bags, tolerance=0.03)
    assert groups.tolist() == np.repeat(np.arange(100), 2).tolist()
    assert len(calls) == 200 + 2 * 100  # signatures, then the true pairs only
    # Equal bags are compared once, by their bytes.
    calls.clear()
    find_duplicates([bags[0]] * 50 + bags[2:4], tolerance=0.01)
    assert len(calls) == 3 + 2
    # What others have joined is not compared again.
    calls.clear()
    cluster = [bags[0] + 1e-4 * rng.normal(size=(40, 60)) for _ in range(50)]
    assert find_duplicates(cluster, tolerance=0.01).max() == 0
    assert len(calls) == 50 + 50


def test_near_misses_are_found_by_signatures():
    """Differences in a single snippet, a single feature, a single value."""
    rng = np.random.default_rng(0)
    video = rng.normal(size=(30, 40))
    size = np.linalg.norm(video)
    changed = []
    for where in (np.s_[7], np.s_[:, 3], np.s_[7, 3], np.s_[:5, :2], np.s_[:]):
        change = np.zeros_like(video)
        change[where] = 1
        step = np.sqrt(2 * 0.009) * size / np.linalg.norm(change)
        changed.append(video + step * change)
    far = cosine_distances([bag.ravel() for bag in [video, *changed]])[0, 1:]
    assert far.min() > 0.008
    assert far.max() < 0.01
    for bag in changed:
        assert find_duplicates([video, bag], tolerance=0.01).tolist() == [0, 0]
        assert find_duplicates([video, bag], tolerance=0.008).tolist() == [0, 1]
    # Waves: each is a single entry of the cosine transform.
    time = np.arange(video.size).reshape(video.shape) + 0.5
    waves = [np.cos(np.pi * time * k / video.size) for k in range(1, 200)]
    steps = [np.sqrt(2 * 0.009) * size / np.linalg.norm(wave) for wave in waves]
    moved = [video + s * w for s, w in zip(steps, waves, strict=True)]
    assert find_duplicates([video, *moved], tolerance=0.01).max() == 0


def test_zeros_and_sizes():
    video = np.arange(1.0, 7).reshape(3, 2)
    zeros, tiny = np.zeros((3, 2)), np.full((3, 2), 1e-40)
    huge = np.float64(1e30) * video
    bags = [video, zeros, -zeros, 2 * video, huge, tiny, tiny[::-1] * 2, -video]
    groups = find_duplicates(bags, tolerance=0.01)
    assert groups.tolist() == [0, 1, 1, 0, 0, 2, 2, 3]


def test_same_numbers_in_every_call_and_no_global_generator(monkeypatch):
    bags = list(np.random.default_rng(0).normal(size=(5, 4, 50)))
    signatures, graph = [], module.radius_neighbors_graph

    def watch(points, radius):
        signatures.append(points)
        return graph(points, radius)

    monkeypatch.setattr(module, "radius_neighbors_graph", watch)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    for _ in range(2):
        find_duplicates(bags, tolerance=0.1)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    np.testing.assert_array_equal(*signatures)


# --------------------------------------------------------------------------
# Groups
# --------------------------------------------------------------------------
def test_sources():
    ids = [
        "Bad.Boys.1995__#01-11-55_01-12-40_label_G-B2-B6",
        "v=wVey5JDRf_g__#00-00-00_00-01-20_label_B6-0-0__3",
        "Bad.Boys.1995__#01-33-51_01-34-37_label_A",
        "Abuse028_x264__0",
        "Abuse030_x264",
        "Abuse028_x264__9",
        "v=wVey5JDRf_g__#00-01-30_00-02-41_label_B6-0-0",
        "Abuse028_x264",
        "v=251___mEwZA__#1_label_B1-0-0",
        "v=251___other__#1_label_A",
    ]
    assert source_groups(ids).tolist() == [0, 1, 0, 2, 3, 2, 1, 2, 4, 5]
    bags = Bags.from_list([np.ones((1, 1))] * len(ids), ids=ids)
    assert source_groups(bags).tolist() == source_groups(ids).tolist()
    assert source_groups(bags.ids).tolist() == source_groups(ids).tolist()


def test_sources_by_pattern():
    cameras = source_groups(["02_0014", "01_0015", "02_001"], r"([0-9]+)_[0-9]+")
    assert cameras.tolist() == [0, 1, 0]
    assert source_groups(["a1", "b", "a1"], "a1|b").tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match=r"video 1 \(id 'x'\) does not match the pat"):
        source_groups(["02_0014", "x"], r"([0-9]+)_[0-9]+")
    with pytest.raises(ValueError, match=r"video 0 \(id 'b'\) does not match"):
        source_groups(["b"], "(a)|b")


def test_bad_ids():
    with pytest.raises(TypeError, match="a list with one id per video, got NoneType"):
        source_groups(Bags.from_list([np.ones((1, 1))]))
    with pytest.raises(TypeError, match="id 1 has type int, expected a text"):
        source_groups(["a", 7])


groupings = st.integers(0, 12).flatmap(
    lambda n: st.lists(
        st.lists(st.integers(-2, 4), min_size=n, max_size=n), min_size=1, max_size=3
    )
)


@settings(deadline=None)
@given(groupings)
def test_merged_groups(groups):
    n = len(groups[0])
    expected = slow_groups(n, lambda i, j: any(g[i] == g[j] for g in groups))
    assert merge_groups(*groups).tolist() == expected
    as_text = [[f"camera {value}" for value in g] for g in groups]
    assert merge_groups(*as_text).tolist() == expected
    assert merge_groups(*groups, *as_text[:1]).tolist() == expected


def test_bad_groups():
    with pytest.raises(ValueError, match="no groups: expected one grouping or more"):
        merge_groups()
    with pytest.raises(ValueError, match=r"grouping 1 has shape \(1,\), expected one"):
        merge_groups([0, 1], [0])
    with pytest.raises(ValueError, match=r"grouping 0 has shape \(2, 1\), expected"):
        merge_groups([[0], [1]])
    for bad in ([0.5, np.nan], [None, "a"]):
        with pytest.raises(TypeError, match=r"grouping 1 has dtype .*, expected whole"):
            merge_groups([0, 1], bad)


def test_no_group_on_both_sides(small):
    bags, y = small
    ids = [f"{name}__{crop}" for name in bags.ids for crop in range(3)]
    bags = Bags.from_list([bag for bag in bags for _ in range(3)], ids=ids)
    labels = np.repeat(y.video_labels, 3)
    groups = merge_groups(find_duplicates(bags), source_groups(bags))
    assert groups.tolist() == np.repeat(np.arange(24), 3).tolist()
    for train, test in StratifiedGroupKFold(4).split(bags, labels, groups):
        assert not {i[:-3] for i in bags.ids[train]} & {i[:-3] for i in bags.ids[test]}


@pytest.mark.parametrize(
    ("pattern", "error", "match"),
    [
        ("(", ValueError, r"pattern='\(' is no regular expression: missing \)"),
        (3, TypeError, "pattern is 3, expected a regular expression"),
        (None, TypeError, "pattern is None, expected a regular expression"),
        (b"(.+)", TypeError, "pattern is b'.*', expected a regular expression"),
        (re.compile("b.*"), ValueError, r"\(id 'a'\) does not match the pattern 'b"),
    ],
)
def test_bad_patterns(pattern, error, match):
    with pytest.raises(error, match=match):
        source_groups(["a"], pattern)


# --------------------------------------------------------------------------
# The page
# --------------------------------------------------------------------------
def test_code_of_the_page_runs(capsys):
    text = PAGE.read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL))
    large, small = (
        "Detector(random",
        "Detector(max_epochs=1, hidden_dims=(4, 2), random",
    )
    assert code.count(large) == 1
    names = {}
    exec(compile(code.replace(large, small), str(PAGE), "exec"), names)
    assert names["groups"].max() == 39
    assert names["scores"].shape == names["video_scores"].shape == (5,)
    assert np.isfinite([*names["scores"], *names["video_scores"]]).all()
    groups = names["groups"]
    assert not set(groups[names["fit"]]) & set(groups[names["validation"]])
    assert not set(groups[names["rest"]]) & set(groups[names["test"]])
    out = capsys.readouterr().out
    assert "81 videos, 40 groups" in out
    assert "['Film0__#0_label', 'Another.name'] have the labels" in out
    assert "left out of training: ['Film0__#0_label', 'Film0__#1_label']" in out


# --------------------------------------------------------------------------
# Real data
# --------------------------------------------------------------------------
def test_ucf_crime_has_videos_under_two_names(data_dir):
    with np.load(data_dir / "ucf_crime_c3d_train.npz") as archive:
        codes, scale, videos = (archive[key] for key in ("codes", "scale", "video"))
    by_hash = {}
    for name, code, factor in zip(videos, codes, scale, strict=True):
        key = hashlib.sha256(code.tobytes() + factor.tobytes()).digest()
        by_hash.setdefault(key, []).append(str(name))
    twice = sorted(names for names in by_hash.values() if len(names) > 1)
    assert len(twice) == 11
    assert ["Assault050_x264", "Robbery138_x264"] in twice

    factors = (scale / 255)[..., None].astype(np.float16)
    features = [code * factor for code, factor in zip(codes, factors, strict=True)]
    bags = Bags.from_list(features, ids=videos)
    groups = find_duplicates(bags)
    found = [
        videos[groups == g].tolist() for g in np.flatnonzero(np.bincount(groups) > 1)
    ]
    assert sorted(found) == twice
    close = find_duplicates(bags, tolerance=0.01)
    assert len(np.unique(close)) == 1481 - 21
    assert merge_groups(groups, close).tolist() == close.tolist()
