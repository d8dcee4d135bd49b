"""Feature files: what comes out, in any format and layout, and what is refused.

Files are written by numpy, scipy and h5py, or byte by byte, never by the code under
test.
"""

import builtins
import io
import os
import pickle
import random
import re
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import joblib
import numpy as np
import pytest
import scipy.io
import scipy.sparse

from sklearn_vad import Bags
from sklearn_vad.datasets import _formats, _readers, load_features

MIB = 2**20


# --------------------------------------------------------------------------
# Helpers
# --------------------------------------------------------------------------
def ramp(*shape, start=0.0, dtype=np.float32):
    """An array whose values are all different, and exact in any format."""
    return (start + np.arange(np.prod(shape)) / 4).reshape(shape).astype(dtype)


def load(source, **kwargs):
    return load_features(source, progress=False, **kwargs)


def h5py():
    return pytest.importorskip("h5py")


def write_hdf5(path, arrays, **options):
    with h5py().File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, **options)


def write_mat73(path, arrays):
    """As MATLAB does: axes reversed, behind 512 bytes of its own."""
    with h5py().File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            file[name] = array.T
        file["#refs#/a"] = np.zeros(3)  # what cells would hold
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM")


def write_text(path, arrays):
    (array,) = arrays.values()
    np.savetxt(path, array, fmt="%.6g")


def part(kind, content, order="<"):
    return (
        struct.pack(order + "II", kind, len(content))
        + content
        + b"\0" * (-len(content) % 8)
    )


def mat5_bytes(name, array, order="<", stored=None, matlab_class=6, packed=False):
    """A .mat file of version 5, from the description of the format."""
    shape = np.array(array.shape, order + "i4").tobytes()
    kinds = {"u1": 2, "i2": 3, "i4": 5, "f4": 7, "f8": 9, "S1": 16}
    stored = stored or "f8"
    body = b"".join(
        [
            part(6, struct.pack(order + "II", matlab_class, 0), order),
            part(5, shape, order),
            part(1, name.encode(), order),
            part(kinds[stored], array.astype(order + stored).tobytes("F"), order),
        ]
    )
    head = b"MATLAB 5.0 MAT-file".ljust(124)
    head += b"\0\1IM" if order == "<" else b"\1\0MI"
    variable = part(14, body, order)
    if packed:
        packed = zlib.compress(variable)
        variable = struct.pack(order + "II", 15, len(packed)) + packed
    return head + variable


# How to write {name: array}, with a suffix.
WRITERS = {
    "npy": ("npy", lambda path, arrays: np.save(path, *arrays.values())),
    "npz": ("npz", lambda path, arrays: np.savez(path, **arrays)),
    "npz packed": ("npz", lambda path, a: np.savez_compressed(path, **a)),
    "h5": ("h5", write_hdf5),
    "hdf5 packed": ("hdf5", lambda path, a: write_hdf5(path, a, compression="gzip")),
    "mat 4": ("mat", lambda path, a: scipy.io.savemat(path, a, format="4")),
    "mat 5": ("mat", scipy.io.savemat),
    "mat 7": ("mat", lambda path, a: scipy.io.savemat(path, a, do_compression=True)),
    "mat 7.3": ("mat", write_mat73),
    "txt": ("txt", write_text),
}
ONLY_2D = ("mat 4", "txt")
MANY = [kind for kind in WRITERS if kind not in ("npy", "txt")]


def write(path, array, kind="npy", name="features"):
    """Write an array; the path's suffix is that of the kind."""
    suffix, writer = WRITERS[kind]
    path = path.with_suffix(f"{path.suffix}.{suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    writer(path, {name: array})
    return path


def write_videos(folder, arrays, kind="npy"):
    """Write one array per video: {id: array}."""
    return [write(folder / name, array, kind) for name, array in arrays.items()]


def write_crops(folder, arrays, kind="npy"):
    """Write (T, n_crops, D) arrays as one file per crop."""
    return [
        write(folder / f"{name}__{i}", array[:, i], kind)
        for name, array in arrays.items()
        for i in range(array.shape[1])
    ]


def assert_holds(bags, wanted):
    """`bags` holds exactly these values under these ids, in this order."""
    assert bags.ids.tolist() == list(wanted)
    assert bags.lengths.tolist() == [len(array) for array in wanted.values()]
    assert len(bags) == len(wanted)
    for bag, array in zip(bags, wanted.values(), strict=True):
        assert bag.shape == array.shape
        np.testing.assert_array_equal(bag, array)


def two_videos(*tail):
    return {"a": ramp(5, *tail), "b": ramp(3, *tail, start=1000)}


# --------------------------------------------------------------------------
# Values
# --------------------------------------------------------------------------
@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("layout", _readers._LAYOUTS)
def test_values(tmp_path, kind, layout):
    wanted = two_videos(2) if layout == "snippets" else two_videos(4, 2)
    if layout == "crop_files":
        write_crops(tmp_path, wanted, kind)
    elif layout != "snippets" and kind in ONLY_2D:
        return
    elif layout == "crops_snippets":
        turned = {
            name: np.stack([array[:, i] for i in range(4)])
            for name, array in wanted.items()
        }
        write_videos(tmp_path, turned, kind)
    else:
        write_videos(tmp_path, wanted, kind)
    n_crops = {"n_crops": 4} if "crop" in layout else {}
    for bags in (
        load(tmp_path, layout=layout),
        load(tmp_path, layout=layout, **n_crops),
    ):
        assert_holds(bags, wanted)
        assert bags.dtype == bags[0].dtype == (np.float64 if kind == "mat 4" else "f4")
        assert bags.n_features == 2


@pytest.mark.parametrize("kind", ["npy", "npz", "h5", "mat 5", "mat 7.3"])
@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("f2", "f2"),
        ("f4", "f4"),
        ("f8", "f8"),
        ("i2", "f4"),
        ("u1", "f4"),
        (">f8", "f8"),
    ],
)
def test_dtypes(tmp_path, kind, written, read):
    if kind == "mat 5" and written == "f2":
        return  # MATLAB has no such type
    array = np.arange(6).reshape(3, 2).astype(written)
    bags = load([write(tmp_path / "a", array, kind)])
    assert_holds(bags, {"a": array})
    assert bags.dtype == bags[0].dtype == np.dtype(read)
    assert bags.dtype.isnative


@pytest.mark.parametrize("kind", ["npy", "npz", "h5"])
def test_fortran_order(tmp_path, kind):
    array = np.asfortranarray(ramp(4, 3))
    assert_holds(load([write(tmp_path / "a", array, kind)]), {"a": array})


def test_crops_of_mixed_dtypes_take_the_widest(tmp_path):
    write(tmp_path / "a__0", ramp(2, 3, dtype="f2"))
    write(tmp_path / "a__1", ramp(2, 3, dtype="f8") + 1e-9)
    bags = load(tmp_path, layout="crop_files")
    assert bags.dtype == bags[0].dtype == np.float64
    np.testing.assert_array_equal(bags[0][:, 1], ramp(2, 3, dtype="f8") + 1e-9)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("stored", ["u1", "i2", "f4", "f8"])
def test_matlab_stores_doubles_in_small_types(tmp_path, order, packed, stored):
    array = np.arange(12.0).reshape(4, 3)
    path = tmp_path / "a.mat"
    path.write_bytes(mat5_bytes("x", array, order, stored, packed=packed))
    if order == "<":  # what is written here is what scipy reads
        np.testing.assert_array_equal(scipy.io.loadmat(path)["x"], array)
    bags = load([path])
    assert_holds(bags, {"a": array})
    assert bags.dtype == bags[0].dtype == np.float64


def test_matlab_doubles_keep_all_their_digits(tmp_path):
    array = np.array([[2.0**24 + 1, -(2.0**30) - 1]])
    (tmp_path / "a.mat").write_bytes(mat5_bytes("x", array, stored="i4"))
    assert_holds(load(tmp_path), {"a": array})


def test_sultani_text(tmp_path):
    array = np.random.default_rng(0).exponential(size=(32, 4096)) / 100
    lines = [" ".join(f"{value:.6f}" for value in row) + " " for row in array]
    (tmp_path / "v_C.txt").write_text("\r\n".join(lines) + "\n\n")
    bags = load(tmp_path)
    assert bags.dtype == np.float32
    np.testing.assert_array_equal(bags[0], array.round(6).astype("f4"))


def test_text_is_liberal_in_numbers(tmp_path):
    (tmp_path / "v.txt").write_text("1 -2.5\t+3e-2\n\n  .5 1e3 0x\n".replace("0x", "7"))
    wanted = np.array([[1, -2.5, 0.03], [0.5, 1000, 7]], "f4")
    assert_holds(load(tmp_path), {"v": wanted})


# --------------------------------------------------------------------------
# Which files, which ids
# --------------------------------------------------------------------------
def test_folder_is_searched_and_sorted_by_id(tmp_path):
    names = ["b", "sub/a", "sub/deep/c", "A"]
    wanted = {Path(name).name: ramp(2, 3, start=i) for i, name in enumerate(names)}
    for name, array in zip(names, wanted.values(), strict=True):
        write(tmp_path / name, array)
    for name in ("notes.md", "model.pth", ".hidden.npy", ".cache/d.npy", "npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"no features")
    (tmp_path / "folder.npy").mkdir()
    assert_holds(load(tmp_path), dict(sorted(wanted.items())))
    assert_holds(load(str(tmp_path)), dict(sorted(wanted.items())))


def test_all_suffixes_of_a_folder_are_taken(tmp_path):
    wanted = {}
    for kind in WRITERS:
        wanted[kind.replace(" ", "").replace(".", "")] = array = ramp(3, 2)
        write(tmp_path / list(wanted)[-1], array, kind)
    (tmp_path / "npy.npy").rename(tmp_path / "npy.NPY")
    assert_holds(load(tmp_path), dict(sorted(wanted.items())))


@pytest.mark.parametrize(
    ("pattern", "ids"),
    [
        ("*.npy", ["a", "b"]),
        ("*.npz", ["c"]),
        ("train/*", ["b", "c"]),
        ("[ab].*", ["a", "b"]),
    ],
)
def test_pattern(tmp_path, pattern, ids):
    write(tmp_path / "a", ramp(2, 3))
    write(tmp_path / "train/b", ramp(2, 3))
    write(tmp_path / "train/c", ramp(2, 3), "npz")
    assert load(tmp_path, pattern=pattern).ids.tolist() == ids


def test_same_name_in_two_folders(tmp_path):
    for name in ("train/x/v1", "test/v1", "test/v2", "v3"):
        write(tmp_path / "data" / name, ramp(2, 3))
    wanted = ["test/v1", "train/x/v1", "v2", "v3"]
    assert load(tmp_path / "data").ids.tolist() == wanted
    paths = [tmp_path / f"data/{name}.npy" for name in ("train/x/v1", "test/v1")]
    assert load(paths).ids.tolist() == ["train/x/v1", "test/v1"]
    assert load(paths[:1]).ids.tolist() == ["v1"]
    assert load(tmp_path).ids.tolist() == [
        "data/test/v1",
        "data/train/x/v1",
        "v2",
        "v3",
    ]


def test_list_keeps_its_order(tmp_path):
    wanted = {"b": ramp(2, 3), "a": ramp(4, 3, start=50)}
    paths = write_videos(tmp_path, wanted)
    assert_holds(load(paths), wanted)
    assert_holds(load(map(str, paths)), wanted)
    named = dict(zip(["x", "7"], wanted.values(), strict=True))
    assert_holds(load(paths, ids=["x", 7]), named)
    twice = load([paths[0]] * 2, ids=["x", "y"])
    assert_holds(twice, {"x": wanted["b"], "y": wanted["b"]})


def test_ids_of_crop_files(tmp_path):
    """XD-Violence's names hold dots and __ themselves."""
    names = ["A.Film.2001__#00-01-45_label_A", "v=x__#1_label_B1-0-0"]
    wanted = {name: ramp(2, 5, 3, start=i) for i, name in enumerate(names)}
    paths = []
    for name, array in wanted.items():
        for i in range(5):
            paths.append(tmp_path / "rgb" / f"{name}__{i}.npy")
            paths[-1].parent.mkdir(exist_ok=True)
            np.save(paths[-1], array[:, i])
    assert_holds(load(tmp_path, layout="crop_files", n_crops=5), wanted)
    random.Random(0).shuffle(paths)
    bags = load(paths, layout="crop_files", ids=["x", "y"])
    first = next(n for n in names if paths[0].name.startswith(n))
    np.testing.assert_array_equal(bags[0], wanted[first])
    assert bags.ids.tolist() == ["x", "y"]


def test_more_than_ten_crops_stand_in_order(tmp_path):
    wanted = {"a": ramp(2, 12, 3)}
    write_crops(tmp_path, wanted)
    assert_holds(load(tmp_path, layout="crop_files"), wanted)


def test_one_crop_of_many(tmp_path):
    videos = two_videos(4, 2)
    write_crops(tmp_path, videos)
    wanted = {name: array[:, :1] for name, array in videos.items()}
    assert_holds(load(tmp_path, layout="crop_files", pattern="*__0.npy"), wanted)


def test_relative_paths_survive_a_change_of_folder(tmp_path, monkeypatch):
    write_videos(tmp_path / "data", two_videos(2))
    monkeypatch.chdir(tmp_path)
    made = [load("data"), load(["data/a.npy", "data/b.npy"])]
    monkeypatch.chdir("/")
    for bags in made:
        assert_holds(bags, two_videos(2))


# --------------------------------------------------------------------------
# Bad calls
# --------------------------------------------------------------------------
BAD_CALLS = {
    "no folder": ("{}/x", {}, ValueError, "x' is no folder"),
    "a file": ("{}/a.npy", {}, ValueError, r"a.npy' is a file.*say \[path\]"),
    "no match": ("{}", {"pattern": "*.mat"}, ValueError, r"match '\*.mat'.*found none"),
    "absolute pattern": ("{}", {"pattern": "/*"}, ValueError, "is no pattern of file"),
    "empty pattern": (
        "{}",
        {"pattern": ""},
        ValueError,
        "no pattern|no files that match ''",
    ),
    "ids": ("{}", {"ids": ["x"]}, ValueError, "ids are for a list of paths"),
    "layout": (
        "{}",
        {"layout": "crops"},
        ValueError,
        "'layout' parameter.*'crop_files'",
    ),
    "n_crops=0": ("{}", {"n_crops": 0}, ValueError, "'n_crops' parameter"),
    "n_crops": (
        "{}",
        {"n_crops": 5},
        ValueError,
        "n_crops=5 is for layouts with crops",
    ),
    "key": ("{}", {"key": 3}, ValueError, "'key' parameter"),
    "key of npy": ("{}", {"key": "x"}, ValueError, "^bag 0 .*no key, got 'x'"),
    "None": (None, {}, TypeError, "source: expected a folder or a list.*got NoneType"),
    "int": (5, {}, TypeError, "source: .*got int"),
    "no paths": ([], {}, ValueError, "no files: expected a list with at least one"),
    "array": (
        [np.ones((2, 3))],
        {},
        TypeError,
        r"source\[0\] has type ndarray.*from_li",
    ),
    "bytes": ([b"a.npy"], {}, TypeError, "type bytes"),
    "pattern of list": (["{}/a.npy"], {"pattern": "*"}, ValueError, "is for a folder"),
    "missing": (
        ["{}/a.npy", "{}/x.npy"],
        {},
        ValueError,
        "^bag 1 .id 'x'.*no such file",
    ),
    "a folder": (["{}/sub.npy"], {}, ValueError, "^bag 0 .*sub.npy': no such file"),
    "same": (
        ["{}/a.npy"] * 2,
        {},
        ValueError,
        "a.npy' and '.*a.npy' have the same name",
    ),
    "too few ids": (["{}/a.npy"], {"ids": []}, ValueError, "got 0 ids for 1 bags"),
    "csv": (
        ["{}/a.csv"],
        {},
        ValueError,
        "a.csv' is of no known format, expected .npy",
    ),
    "no suffix": (["{}/a"], {}, ValueError, "a' is of no known format"),
    "pickle": (
        ["{}/a.pkl"],
        {},
        ValueError,
        "a.pkl' is a pickle, which is never opened",
    ),
    "pt": (["{}/a.pt"], {}, ValueError, "a.pt' is a pickle, which is never opened"),
    "pth": (["{}/a.PTH"], {}, ValueError, "a.PTH' is a pickle, which is never opened"),
    "no number": (
        "{}",
        {"layout": "crop_files"},
        ValueError,
        "a.npy' has no crop number",
    ),
}


@pytest.mark.parametrize(
    ("source", "kwargs", "error", "match"), BAD_CALLS.values(), ids=BAD_CALLS.keys()
)
def test_bad_call(tmp_path, source, kwargs, error, match):
    write(tmp_path / "a", ramp(3, 2))
    (tmp_path / "sub.npy").mkdir()
    for suffix in (".csv", ".pkl", ".pt", ".PTH", ""):
        (tmp_path / f"a{suffix}").write_bytes(b"")
    if isinstance(source, str):
        source = source.format(tmp_path)
    elif isinstance(source, list):
        source = [s.format(tmp_path) if isinstance(s, str) else s for s in source]
    with pytest.raises(error, match=rf"(?s){match}"):
        load(source, **kwargs)


def test_folder_of_pickles(tmp_path):
    for name in ("a.pt", "b.pkl"):
        (tmp_path / name).write_bytes(b"")
    match = r"holds no files to read.*found .pkl, .pt \(pickles .* never opened"
    with pytest.raises(ValueError, match=match):
        load(tmp_path)
    with pytest.raises(ValueError, match=r"'a'.*a.pt' is a pickle, which is never"):
        load(tmp_path, pattern="*.p*")


def test_store_is_no_folder_of_features(tmp_path):
    Bags.from_list([ramp(2, 3)]).save(tmp_path / "store")
    with pytest.raises(ValueError, match=r"is a store: open it with Bags.open"):
        load(tmp_path / "store")


def test_two_formats_of_one_video(tmp_path):
    write(tmp_path / "a", ramp(2, 3))
    write(tmp_path / "a", ramp(2, 3), "txt")
    with pytest.raises(ValueError, match=r"a.npy' and '.*a.txt' have the same name"):
        load(tmp_path)


# --------------------------------------------------------------------------
# Layouts that don't fit
# --------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["npy", "npz", "h5", "mat 5"])
def test_three_axes_are_never_guessed(tmp_path, kind):
    write_videos(tmp_path, {"a": ramp(5, 2), "b": ramp(5, 10, 2)}, kind)
    with pytest.raises(ValueError, match=r"bag 1 \(id 'b'\): '.*/b\.") as info:
        load(tmp_path)
    message = str(info.value)
    assert r"has shape (5, 10, 2), expected (n_snippets, n_features)" in message
    assert "layout='snippets_steps', (n_snippets, n_steps, n_features)" in message
    assert "layout='snippets_crops', (n_snippets, n_crops, n_features)" in message
    assert "layout='crops_snippets', (n_crops, n_snippets, n_features)" in message


@pytest.mark.parametrize(
    ("shape", "layout", "match"),
    [
        ((5,), "snippets", r"shape \(5,\), expected \(n_snippets, n_features\)"),
        ((5,), "snippets_crops", r"shape \(5,\), expected \(n_snippets, n_crops, "),
        ((5, 2), "snippets_steps", r"\(5, 2\), .*or is it layout='snippets'"),
        ((5, 2), "crops_snippets", r"\(5, 2\), .*or is it layout='snippets'"),
        ((5, 4, 2), "crop_files", r"\(5, 4, 2\), .*or is it layout='snippets_steps'"),
        ((5, 4, 3, 2), "snippets_crops", r"\(5, 4, 3, 2\), expected"),
        ((0, 2), "snippets", r"is empty: shape \(0, 2\), expected n_snippets >= 1"),
        ((5, 0), "snippets", r"has no features"),
        ((5, 0, 2), "snippets_steps", r"has no features"),
    ],
)
def test_wrong_shape(tmp_path, shape, layout, match):
    path = write(tmp_path / "a__0", np.zeros(shape))
    with pytest.raises(
        ValueError, match=rf"^bag 0 \(id 'a.*'\): '.*a__0.npy'.*{match}"
    ):
        load([path], layout=layout)


@pytest.mark.parametrize("layout", ["snippets", "snippets_steps", "snippets_crops"])
def test_differing_features(tmp_path, layout):
    tail = () if layout == "snippets" else (4,)
    write_videos(tmp_path, {"a": ramp(5, *tail, 2), "b": ramp(3, *tail, 7)})
    match = r"^bag 1 \(id 'b'\) has 7 features .*expected 2 as in bag 0 \(id 'a'\)"
    with pytest.raises(ValueError, match=match):
        load(tmp_path, layout=layout)


def test_differing_steps(tmp_path):
    write_videos(tmp_path, {"a": ramp(5, 4, 2), "b": ramp(3, 6, 2)})
    with pytest.raises(ValueError, match=r"^bag 1 \(id 'b'\) .*expected \(3, 4, 2\)"):
        load(tmp_path, layout="snippets_steps")


@pytest.mark.parametrize("layout", ["snippets_crops", "crops_snippets", "crop_files"])
def test_number_of_crops(tmp_path, layout):
    """One-crop and ten-crop files in one folder."""
    videos = {"a": ramp(5, 10, 2), "b": ramp(3, 10, 2), "c": ramp(4, 1, 2)}
    if layout == "crop_files":
        write_crops(tmp_path, videos)
    elif layout == "snippets_crops":
        write_videos(tmp_path, videos)
    else:
        write_videos(tmp_path, {k: v.swapaxes(0, 1) for k, v in videos.items()})
    match = (
        r"^bag 2 \(id 'c'\): '.*/c(__0)?.npy' makes 4 snippets of 1 crops,"
        r" expected 10 crops as in bag 0 \(id 'a'\); pattern takes files of one kind"
    )
    with pytest.raises(ValueError, match=match):
        load(tmp_path, layout=layout)
    with pytest.raises(ValueError, match=r"'c'.* 1 crops, expected 10 crops; pattern"):
        load(tmp_path, layout=layout, n_crops=10)
    with pytest.raises(ValueError, match=r"'a'.* 10 crops, expected 5 crops; pattern"):
        load(tmp_path, layout=layout, n_crops=5)


def test_number_of_crop_files_of_equal_length(tmp_path):
    write_crops(tmp_path, {"a": ramp(32, 5, 2), "b": ramp(32, 4, 2)})
    with pytest.raises(
        ValueError, match=r"'b'.* 4 crops, expected 5 crops as .*pattern"
    ):
        load(tmp_path, layout="crop_files")


@pytest.mark.parametrize(
    ("layout", "other"),
    [("snippets_crops", "crops_snippets"), ("crops_snippets", "snippets_crops")],
)
def test_turned_layout_is_found_out(tmp_path, layout, other):
    videos = {"a": ramp(5, 10, 2), "b": ramp(3, 10, 2)}
    if other == "crops_snippets":
        videos = {name: array.swapaxes(0, 1) for name, array in videos.items()}
    write_videos(tmp_path, videos)
    match = (
        r"^bag 1 \(id 'b'\): '.*b.npy' makes 10 snippets of 3 crops, expected 5 crops"
        rf" as in bag 0 \(id 'a'\); since all have 10 snippets, .* layout='{other}'"
    )
    with pytest.raises(ValueError, match=match):
        load(tmp_path, layout=layout)
    match = rf"'a'.* 5 crops, expected 10 crops; since .* layout='{other}'"
    with pytest.raises(ValueError, match=match):
        load(tmp_path, layout=layout, n_crops=10)
    with pytest.raises(ValueError, match=match):
        load([tmp_path / "a.npy"], layout=layout, n_crops=10)
    assert load(tmp_path, layout=other, n_crops=10).lengths.tolist() == [5, 3]


def test_segments_of_equal_number_are_not_taken_for_crops(tmp_path):
    """32 segments in every file, with as many crops in all: only n_crops is wrong."""
    write_videos(tmp_path, {"a": ramp(32, 5, 2), "b": ramp(32, 5, 2)})
    assert load(tmp_path, layout="snippets_crops")[0].shape == (32, 5, 2)
    with pytest.raises(ValueError, match="5 crops, expected 10 crops; pattern"):
        load(tmp_path, layout="snippets_crops", n_crops=10)


@pytest.mark.parametrize(
    ("names", "match"),
    [
        (["a__0", "a__2"], r"'a'.*a__0.npy' .*numbers \[0, 2\], .* from 0 to 2 once"),
        (["a__1", "a__2"], r"'a'.*numbers \[1, 2\], expected .* from 0 to 2 once"),
        (["a__1"], r"'a'.*numbers \[1\], expected .* from 0 to 1 once"),
        (["a__0", "a__1", "a__01"], r"'a'.*numbers \[0, 1, 1\], expected"),
        (["a__0", "a__2", "a__02"], r"'a'.*numbers \[0, 2, 2\], expected"),
        (["a__0", "b"], "b.npy' has no crop number in its name.* video__0.npy"),
        (["a__0", "a_1"], "a_1.npy' has no crop number"),
        (["a__0", "a__x"], "a__x.npy' has no crop number"),
        (["a__0", "__1"], "__1.npy' has no crop number"),
        (["a__0", "a__0b"], "a__0b.npy' has no crop number"),
        (["a__0", "a__vggish"], "a__vggish.npy' has no crop number"),
    ],
)
def test_crop_numbers(tmp_path, names, match):
    for name in names:
        write(tmp_path / name, ramp(3, 2))
    with pytest.raises(ValueError, match=match):
        load(tmp_path, layout="crop_files")


@pytest.mark.parametrize("shape", [(4, 2), (5, 3)], ids=["length", "features"])
def test_crops_that_differ(tmp_path, shape):
    paths = write_crops(tmp_path, two_videos(3, 2))
    write(tmp_path / "a__2", ramp(*shape))
    match = (
        rf"^bag 0 \(id 'a'\): '.*a__2.npy' has shape {re.escape(str(shape))}, expected"
        r" \(5, 2\) as in '.*a__0.npy', another crop of this video"
    )
    with pytest.raises(ValueError, match=match):
        load(paths, layout="crop_files")


# --------------------------------------------------------------------------
# Several arrays in a file
# --------------------------------------------------------------------------
def write_several(folder, kind, arrays):
    suffix, writer = WRITERS[kind]
    writer(folder / f"v.{suffix}", arrays)
    return folder / f"v.{suffix}"


@pytest.mark.parametrize("kind", MANY)
def test_key(tmp_path, kind):
    arrays = {"rgb": ramp(4, 3), "flow": ramp(4, 2, start=70), "y": np.ones((1, 1))}
    path = write_several(tmp_path, kind, arrays)
    for key in arrays:
        assert_holds(load([path], key=key), {"v": arrays[key]})
    with pytest.raises(
        ValueError, match=r"v'.: .*holds 3 arrays, .* as key; found"
    ) as e:
        load([path])
    assert set(re.findall("'([a-z]+)'", str(e.value).split("found")[1])) == set(arrays)
    with pytest.raises(ValueError, match=r"v'.: .*holds no array 'audio', found '"):
        load([path], key="audio")


@pytest.mark.parametrize("kind", ["npz", "h5", "mat 5"])
def test_no_arrays_and_many(tmp_path, kind):
    path = write_several(tmp_path, kind, {})
    with pytest.raises(ValueError, match=r"holds 0 arrays, .*; found none"):
        load([path])
    path = write_several(tmp_path, kind, {f"x{i}": ramp(2, 2) for i in range(25)})
    with pytest.raises(ValueError, match=r"holds 25 arrays.* 'x\d+' and 5 more$"):
        load([path])


def test_key_in_a_group(tmp_path):
    path = tmp_path / "v.h5"
    write_hdf5(path, {"i3d/rgb": ramp(4, 3), "i3d/flow": ramp(2, 3)})
    for key in ("i3d/rgb", "/i3d/rgb"):
        assert_holds(load([path], key=key), {"v": ramp(4, 3)})
    with pytest.raises(ValueError, match="found 'i3d/flow', 'i3d/rgb'"):
        load([path], key="i3d")


def test_other_members_of_npz_are_no_arrays(tmp_path):
    path = write(tmp_path / "v", ramp(2, 3), "npz")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("readme.txt", "features")
    assert_holds(load([path]), {"v": ramp(2, 3)})


# --------------------------------------------------------------------------
# Read when needed
# --------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [kind for kind in WRITERS if kind != "txt"])
def test_only_shapes_are_read_at_the_call(tmp_path, kind):
    array = np.random.default_rng(0).normal(size=(1000, 1024))
    path = write(tmp_path / "a", array, kind)
    load([path])  # imports what it needs
    tracemalloc.start()
    try:
        bags = load([path])
        assert tracemalloc.get_traced_memory()[1] < 0.2 * MIB
        np.testing.assert_array_equal(bags[0], array)
        assert tracemalloc.get_traced_memory()[1] > array.nbytes
    finally:
        tracemalloc.stop()


def test_data_are_read_once_per_use(tmp_path, monkeypatch):
    write_videos(tmp_path, two_videos(2))
    read = []
    real = _formats.FORMATS[".npy"]["data"]
    monkeypatch.setitem(
        _formats.FORMATS[".npy"],
        "data",
        lambda path, key: read.append(Path(path).name) or real(path, key),
    )
    bags = load(tmp_path)
    part = bags[::-1]
    assert (bags.lengths.tolist(), part.n_features, str(bags.dtype)) == (
        [5, 3],
        2,
        "float32",
    )
    pickle.loads(pickle.dumps(part))
    assert read == []
    np.testing.assert_array_equal(part[0], two_videos(2)["b"])
    assert read == ["b.npy"]


def test_headers_are_read_once(tmp_path, monkeypatch):
    write_videos(tmp_path, two_videos(2))
    bags = load(tmp_path)
    monkeypatch.setitem(_formats.FORMATS[".npy"], "header", None)
    assert_holds(bags, two_videos(2))


def test_huge_file(tmp_path):
    """A terabyte, all holes: its header is all that is looked at."""
    with open(tmp_path / "a.npy", "wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (2**26, 2**12)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 2**40)
    assert load(tmp_path).lengths.tolist() == [2**26]


@pytest.mark.parametrize("kind", WRITERS)
def test_file_changed_or_removed(tmp_path, kind):
    paths = write_videos(tmp_path, two_videos(2), kind)
    bags = load(tmp_path)
    os.utime(paths[1], ns=(1, 1))
    np.testing.assert_array_equal(bags[0], two_videos(2)["a"])
    match = r"^bag 0 \(id 'b'\): '.*/b\..*' changed on disk after load_features; call"
    with pytest.raises(ValueError, match=match):
        bags[1:][0]
    paths[1].unlink()
    with pytest.raises(
        ValueError, match=r"^bag 1 .*b.*' was removed after load_features"
    ):
        bags[1]


def test_changed_crop(tmp_path):
    write_crops(tmp_path, two_videos(3, 2))
    bags = load(tmp_path, layout="crop_files")
    write(tmp_path / "a__2", ramp(7, 2))
    with pytest.raises(ValueError, match=r"'a'.*a__2.npy' changed on disk"):
        bags[0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("layout", _readers._LAYOUTS)
def test_values_are_checked_on_use(tmp_path, layout, value):
    videos = two_videos(2) if layout == "snippets" else two_videos(4, 2)
    videos["b"][2, ..., 1] = value
    file = "b"
    if layout == "crop_files":
        videos["b"][2, :3] = 0
        file = "b__3"
        write_crops(tmp_path, videos)
    elif layout == "crops_snippets":
        write_videos(tmp_path, {k: v.swapaxes(0, 1) for k, v in videos.items()})
    else:
        write_videos(tmp_path, videos)
    bags = load(tmp_path, layout=layout)
    np.testing.assert_array_equal(bags[0], videos["a"])
    kind = "NaN" if np.isnan(value) else "infinity"
    match = rf"^bag 1 \(id 'b'\): '.*{file}.npy' contains {kind} \(first in snippet 2\)"
    with pytest.raises(ValueError, match=match):
        bags[1]


def test_text_beyond_float32(tmp_path):
    (tmp_path / "v.txt").write_text("1 2\n3 1e39\n")
    with pytest.raises(ValueError, match=r"infinity \(first in snippet 1\)"):
        load(tmp_path)[0]


# --------------------------------------------------------------------------
# As bags
# --------------------------------------------------------------------------
@pytest.mark.parametrize(
    "key", [slice(None), slice(None, None, -1), [1], [1, 1, 0], [], [True, False]]
)
def test_subsets_and_pickles(tmp_path, key):
    write_crops(tmp_path, two_videos(4, 2))
    bags = load(tmp_path, layout="crop_files")
    names = np.array(["a", "b"])[key].tolist() if key != [] else []
    for part in (bags[key], pickle.loads(pickle.dumps(bags[key])), bags[key, ...]):
        assert type(part) is Bags
        assert part.ids.tolist() == names
        assert part.lengths.tolist() == [{"a": 5, "b": 3}[name] for name in names]
        for bag, name in zip(part, names, strict=True):
            np.testing.assert_array_equal(bag, two_videos(4, 2)[name])


@pytest.mark.parametrize("kind", WRITERS)
def test_pickles_as_paths(tmp_path, kind):
    videos = {"a": ramp(400, 50), "b": ramp(300, 50)}
    write_videos(tmp_path, videos, kind)
    bags = load(tmp_path)
    for part in (bags, bags[1:]):
        np.asarray(part)  # reads all
        assert len(pickle.dumps(part)) < 1500
        again = pickle.loads(pickle.dumps(part))
        assert_holds(again, {name: videos[name] for name in part.ids})
    pickled = pickle.dumps(bags)
    (tmp_path / "a").with_suffix(f".{WRITERS[kind][0]}").unlink()
    with pytest.raises(ValueError, match="was removed"):
        pickle.loads(pickled)[0]


@pytest.mark.parametrize("kind", WRITERS)
def test_bags_are_read_only(tmp_path, kind):
    write_videos(tmp_path, two_videos(2), kind)
    bag = load(tmp_path)[0]
    with pytest.raises(ValueError, match="read-only"):
        bag[0, 0] = 5


@pytest.mark.parametrize("layout", _readers._LAYOUTS)
def test_store(tmp_path, layout):
    wanted = two_videos(2) if layout == "snippets" else two_videos(4, 2)
    folder = tmp_path / "features"
    if layout == "crop_files":
        write_crops(folder, wanted)
    elif layout == "crops_snippets":
        write_videos(folder, {k: v.swapaxes(0, 1) for k, v in wanted.items()})
    else:
        write_videos(folder, wanted)
    load(folder, layout=layout).save(tmp_path / "store")
    stored = Bags.open(tmp_path / "store")
    assert_holds(stored, wanted)
    assert stored.dtype == np.float32


def _sum(bags, index):
    return float(bags[index].sum())


def test_joblib_workers(tmp_path):
    folders = {kind: tmp_path / kind for kind in WRITERS}
    for kind, folder in folders.items():
        write_videos(folder, two_videos(2), kind)
    sums = [float(array.sum()) for array in two_videos(2).values()]
    made = joblib.Parallel(n_jobs=2)(
        joblib.delayed(_sum)(load(folder), index)
        for folder in folders.values()
        for index in range(2)
    )
    assert made == sums * len(folders)


# --------------------------------------------------------------------------
# The progress bar
# --------------------------------------------------------------------------
def test_progress_bar(tmp_path, capsys):
    write_videos(tmp_path, two_videos(2))
    load_features(tmp_path)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "reading shapes" in shown.err
    assert "2/2" in shown.err or "0/2" in shown.err
    assert shown.err.endswith("\r")  # and nothing of it stays
    load_features(tmp_path, progress=False)
    assert capsys.readouterr() == ("", "")


# --------------------------------------------------------------------------
# Pickles, and files that lead elsewhere
# --------------------------------------------------------------------------
class Payload:
    """Whoever unpickles it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return builtins.open, (str(self.path), "w")


@pytest.mark.parametrize("kind", ["npy", "npz", "npz packed"])
def test_object_arrays_are_refused_unread(tmp_path, kind):
    victim = tmp_path / "victim"
    array = np.empty((2, 2), object)
    array[:] = [[Payload(victim)] * 2] * 2
    path = write(tmp_path / "a", array, kind)
    with pytest.raises(
        ValueError, match=r"a.np.' holds pickled objects \(dtype object\)"
    ):
        load([path])
    assert not victim.exists()


@pytest.mark.parametrize("suffix", [*_formats.FORMATS, *_readers._PICKLES])
def test_pickle_under_any_name(tmp_path, suffix):
    victim = tmp_path / "victim"
    path = tmp_path / f"a{suffix}"
    path.write_bytes(pickle.dumps(Payload(victim)))
    with pytest.raises(ValueError, match=rf"^bag 0 \(id 'a'\): '.*a{suffix}' is "):
        load([path])
    assert not victim.exists()


def test_file_that_becomes_a_pickle(tmp_path):
    """Size and time are those of the file that was there."""
    victim = tmp_path / "victim"
    path = write(tmp_path / "a", ramp(100, 2))
    bags = load([path])
    status = path.stat()
    path.write_bytes(pickle.dumps(Payload(victim)).ljust(status.st_size, b"\0"))
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
    with pytest.raises(ValueError, match=r"a.npy' is not a readable .npy file"):
        bags[0]
    assert not victim.exists()


def test_npz_that_becomes_a_pickle(tmp_path):
    victim = tmp_path / "victim"
    path = write(tmp_path / "a", ramp(100, 20), "npz")
    bags = load([path])
    status = path.stat()
    write(tmp_path / "a", np.array([[Payload(victim)]], object), "npz")
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b" " * (status.st_size - path.stat().st_size)
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    with pytest.raises(ValueError, match=r"a.npz' is not a readable .npz file"):
        bags[0]
    assert not victim.exists()


def test_file_that_changes_unseen(tmp_path):
    path = write(tmp_path / "a", ramp(6, 2))
    bags = load([path])
    status = path.stat()
    np.save(path, ramp(4, 3))
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
    match = r"a.npy' is damaged: it promised shape \(6, 2\), and has \(4, 3\)"
    with pytest.raises(ValueError, match=match):
        bags[0]


def test_hdf5_that_leads_elsewhere(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(ramp(4, 2).tobytes())
    other = write(tmp_path / "other", ramp(4, 2), "h5")
    with h5py().File(tmp_path / "a.h5", "w") as file:
        file["link"] = h5py().ExternalLink(str(other), "features")
        file["soft"] = h5py().SoftLink("/link")
        external = [(str(secret), 0, h5py().h5f.UNLIMITED)]
        file.create_dataset("raw", (4, 2), "f4", external=external)
        sources = h5py().VirtualLayout((4, 2), "f4")
        sources[:] = h5py().VirtualSource(str(other), "features", (4, 2))
        file.create_virtual_dataset("virtual", sources)
    for key in ("raw", "virtual"):
        with pytest.raises(ValueError, match=r"a.h5' keeps its data in other files"):
            load([tmp_path / "a.h5"], key=key)
    for key in ("link", "soft"):
        match = f"holds no array '{key}', found 'raw', 'virtual'"
        with pytest.raises(ValueError, match=match):
            load([tmp_path / "a.h5"], key=key)


# --------------------------------------------------------------------------
# What is no array of numbers
# --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (np.array([["ab"]]), "char"),
        (np.array([[ramp(2, 2)], [1]], object), "cell"),
        ({"field": ramp(2, 2)}, "struct"),
        (scipy.sparse.csc_array(np.eye(3)), "sparse"),
        (np.eye(3) * 1j, "complex"),
    ],
    ids=["char", "cell", "struct", "sparse", "complex"],
)
@pytest.mark.parametrize("packed", [False, True])
def test_matlab_things(tmp_path, value, kind, packed):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"x": value, "y": ramp(3, 2)}, do_compression=packed)
    with pytest.raises(
        ValueError, match=f"a.mat' holds a MATLAB {kind} array, expected"
    ):
        load([path], key="x")
    assert_holds(load([path], key="y"), {"a": ramp(3, 2)})


def test_nameless_variable_is_matlabs_own(tmp_path):
    array = ramp(3, 2, dtype="f8")
    content = mat5_bytes("x", array) + mat5_bytes("", array + 1)[128:]
    (tmp_path / "a.mat").write_bytes(content)
    assert_holds(load(tmp_path), {"a": array})


@pytest.mark.parametrize("kind", ["mat 5", "mat 7"])
def test_matlab_logical(tmp_path, kind):
    array = np.eye(3, 2, dtype=bool)
    bags = load([write(tmp_path / "a", array, kind)])
    assert_holds(bags, {"a": array.astype("f4")})


def test_matlab_4_things(tmp_path):
    path = write(tmp_path / "a", np.eye(3) * 1j, "mat 4")
    with pytest.raises(ValueError, match="holds a MATLAB complex array"):
        load([path])
    path = write(tmp_path / "b", np.array(["text"]), "mat 4")
    with pytest.raises(ValueError, match="holds a MATLAB char array"):
        load([path])


@pytest.mark.parametrize("kind", ["npy", "npz", "h5"])
def test_complex_numbers(tmp_path, kind):
    path = write(tmp_path / "a", np.eye(3) * 1j, kind)
    match = r"^bag 0 \(id 'a'\): '.*a\..*' has dtype complex128, expected real numbers"
    with pytest.raises(TypeError, match=match):
        load([path])


def test_hdf5_things(tmp_path):
    path = tmp_path / "a.h5"
    with h5py().File(path, "w") as file:
        file["text"] = ["one", "two"]
        file["number"] = 5.0
        file["null"] = h5py().Empty("f4")
        file.create_dataset("unwritten", (3, 2), "f4")
        file["empty matrix"] = np.array([0, 5])
        file["empty matrix"].attrs["MATLAB_empty"] = 1
        file["flags"] = np.eye(3, 2, dtype=bool)
    for key, match in {
        "text": r"has shape \(2,\), expected",
        "number": "holds no array: '/number' is empty or one value",
        "null": "holds no array: '/null' is empty",
        "unwritten": "is incomplete: '/unwritten' was never written",
        "empty matrix": "holds no array",
    }.items():
        with pytest.raises(ValueError, match=match):
            load([path], key=key)
    assert_holds(load([path], key="flags"), {"a": np.eye(3, 2, dtype="f4")})


def test_plain_hdf5_is_no_mat(tmp_path):
    """Nothing would tell whether its axes are MATLAB's."""
    path = write(tmp_path / "a", ramp(3, 2), "h5").rename(tmp_path / "a.mat")
    with pytest.raises(ValueError, match=r"a.mat' is not a readable .mat file"):
        load([path])


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", r"is empty: shape \(0, 0\)"),
        ("\n  \n", r"is empty: shape \(0, 0\)"),
        ("1 2\n3\n", "line 2 holds 1 numbers, expected 2 as in the first"),
        ("\n1 2\n\n3 4 5\n", "line 4 holds 3 numbers, expected 2"),
        ("read me\n", "line 1: .*'read'; pattern takes other files"),
        ("1,2\n", "line 1: .*'1,2'"),
        ("x" * 5 * MIB, f"line 1 exceeds {4 * MIB} bytes"),
    ],
    ids=["empty", "blank", "short line", "long line", "words", "commas", "endless"],
)
def test_bad_text(tmp_path, text, match):
    (tmp_path / "v.txt").write_text(text)
    with pytest.raises(ValueError, match=rf"^bag 0 \(id 'v'\): '.*v.txt' .*{match}"):
        load(tmp_path)


def test_bad_number_in_text(tmp_path):
    (tmp_path / "v.txt").write_text("1 2\n\n3 4x\n")
    bags = load(tmp_path)
    with pytest.raises(ValueError, match=r"^bag 0 .*v.txt' .*line 3: .*'4x'"):
        bags[0]


# --------------------------------------------------------------------------
# Without h5py
# --------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["a.h5", "a.hdf5", "a.mat"])
def test_hdf5_without_h5py(tmp_path, monkeypatch, name):
    path = tmp_path / name
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM")
    monkeypatch.setitem(sys.modules, "h5py", None)
    match = rf"^bag 0 .*{name}' needs h5py: pip install 'sklearn_vad\[hdf5\]'$"
    with pytest.raises(ImportError, match=match):
        load([path])


def test_import_needs_no_h5py():
    code = (
        "import sys; sys.modules['h5py'] = None; import sklearn_vad.datasets as d;"
        " sys.exit('torch' in sys.modules or not d.load_features)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --------------------------------------------------------------------------
# Damaged files
# --------------------------------------------------------------------------
def assert_refused(path, match, most=8 * MIB):
    """Loading and reading `path` ends in an error, and takes little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=match):
            load([path])[0]
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


TRAP = "is damaged or a trap: it promises"


def test_npz_trap(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((80, MIB), "i1"))
    assert_refused(tmp_path / "a.npz", f"a.npz' {TRAP} 83886080 bytes for shape")


def npz_of(header, content=b"\0" * 64, **options):
    """A .npz with any header and any amount of data."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "<f4", "fortran_order": False, "shape": header}
    )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", **options) as archive:
        archive.writestr("x.npy", file.getvalue() + content)
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (npz_of((10**9, 10**6)), "promises 4000000000000128 bytes .* there are 192"),
        (npz_of((2, 2)), "promises 144 bytes .* there are 192"),
        (npz_of((-4, -4)), r"is damaged: it promises an array of shape \(-4, -4\)"),
        (
            npz_of((4, 4), compression=zipfile.ZIP_LZMA),
            "is compressed, but not by numpy",
        ),
        (b"", "is not a readable .npz file"),
    ],
    ids=["more", "less", "negative", "lzma", "empty"],
)
def test_bad_npz(tmp_path, content, match):
    (tmp_path / "a.npz").write_bytes(content)
    assert_refused(tmp_path / "a.npz", f"a.npz' .*{match}")


def test_npz_with_a_wrong_checksum(tmp_path):
    content = bytearray(npz_of((4, 4), ramp(4, 4).tobytes()))
    content[content.index(ramp(4, 4)[3].tobytes())] ^= 1
    (tmp_path / "a.npz").write_bytes(content)
    assert_refused(tmp_path / "a.npz", "a.npz' is not a readable .npz file: Bad CRC")


def test_mat_traps(tmp_path):
    path = tmp_path / "a.mat"
    zeros = np.zeros((10, MIB), "u1")
    path.write_bytes(mat5_bytes("x", zeros, stored="u1", packed=True))
    assert_refused(path, f"a.mat' {TRAP} 83886080 bytes for shape")
    # Its head says little, but it unpacks to much.
    good = mat5_bytes("x", np.zeros((2, 2)))
    packed = zlib.compress(good[128:] + bytes(80 * MIB))
    path.write_bytes(good[:128] + struct.pack("<II", 15, len(packed)) + packed)
    assert_refused(path, "a.mat' is damaged or a trap: a variable", 200 * MIB)


@pytest.mark.parametrize(
    ("variable", "match"),
    [
        (mat5_bytes("x", np.ones((2, 2)))[128:-8], "a variable exceeds the file"),
        (part(14, part(1, b"x")), "is damaged: a variable has no head"),
        (part(15, zlib.compress(part(14, part(6, b"1")))), "a variable has no head"),
        (part(3, part(6, bytes(8))), "is damaged: a variable has no head"),
        (
            mat5_bytes("x", np.ones((2, 2), "S1"), stored="S1")[128:],
            "is damaged: a variable has no numbers",
        ),
    ],
    ids=["truncated", "no flags", "short flags", "no matrix", "text"],
)
def test_bad_mat(tmp_path, variable, match):
    head = mat5_bytes("x", np.ones((2, 2)))[:128]
    (tmp_path / "a.mat").write_bytes(head + variable)
    with pytest.raises(ValueError, match=f"^bag 0 .*a.mat' .*{match}"):
        load(tmp_path)[0]


@pytest.mark.parametrize(
    ("head", "match"),
    [
        ((0, 10**6, 10**6, 0, 2), "a variable exceeds the file"),
        ((0, 2**31 - 1, 2**31 - 1, 1, 2), "a variable exceeds the file"),
        ((0, 2, 2, 0, 2**31 - 1), "a variable exceeds the file"),
        ((0, -3, 1, 0, 4), "a variable has no head"),  # the next would be this one
        ((0, 2, 2, 0, -5), "a variable has no head"),
        ((60, 2, 2, 0, 2), "a variable has no head"),
        ((4000, 2, 2, 0, 2), "a variable has no head"),
        ((2, 2, 2, 0, 2), "holds a MATLAB sparse array"),
    ],
)
def test_mat_4_traps(tmp_path, head, match):
    head = struct.pack("<5i", *head)
    (tmp_path / "a.mat").write_bytes(head + b"x\0" + b"\0" * 32)
    assert_refused(tmp_path / "a.mat", f"a.mat' .*{match}")


@pytest.mark.parametrize("stored", ["f8", "f4", "i4", "i2", "u2", "u1"])
@pytest.mark.parametrize("order", "<>")
def test_types_and_orders_of_matlab_4(tmp_path, order, stored):
    array = ramp(4, 3, start=5) // 1
    code = ["f8", "f4", "i4", "i2", "u2", "u1"].index(stored)
    with open(tmp_path / "a.mat", "wb") as file:
        for name, values in (("x", array), ("longer", array + 1)):
            head = (1000 * (order == ">") + 10 * code, 4, 3, 0, len(name) + 1)
            file.write(struct.pack(order + "5i", *head) + name.encode() + b"\0")
            file.write(values.astype(order + stored).tobytes("F"))
    assert_holds(load(tmp_path, key="longer"), {"a": array + 1})
    assert scipy.io.loadmat(tmp_path / "a.mat")["longer"].tolist() == (
        (array + 1).tolist()
    )


@pytest.mark.parametrize("suffix", ["h5", "mat"])
def test_hdf5_traps(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    options = {"userblock_size": 512} if suffix == "mat" else {}
    for extra in ({}, {"chunks": (1, MIB), "compression": "gzip"}):
        with h5py().File(path, "w", **options) as file:
            file.create_dataset("x", (10**5, MIB), "f4", **extra)
        if suffix == "mat":
            with open(path, "r+b") as file:
                file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM")
        assert_refused(path, f"a.{suffix}' {TRAP} 419430400000 bytes")
    with h5py().File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("x", (2, 2), "f4", chunks=(16 * MIB, 2), maxshape=(None, 2))
    assert_refused(tmp_path / "b.h5", f"b.h5' {TRAP} 134217728 bytes")


def test_hdf5_packed_twice(tmp_path):
    low = h5py()
    plist = low.h5p.create(low.h5p.DATASET_CREATE)
    plist.set_chunk((4, 2))
    for _ in range(2):
        plist.set_deflate(9)
    with low.File(tmp_path / "a.h5", "w") as file:
        space = low.h5s.create_simple((4, 2))
        low.h5d.create(file.id, b"x", low.h5t.IEEE_F32LE, space, plist)
        file["x"][:] = ramp(4, 2)
    assert_refused(tmp_path / "a.h5", "a.h5' is a trap: '/x' is packed more than once")


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
        {"compression": "lzf", "shuffle": True},
        {"compression": "gzip", "scaleoffset": 2},
        {"chunks": (2, 2), "maxshape": (None, 3)},
    ],
)
def test_hdf5_filters(tmp_path, options):
    write_hdf5(tmp_path / "a.h5", {"x": ramp(5, 3)}, **options)
    assert_holds(load(tmp_path), {"a": ramp(5, 3)})


@pytest.mark.parametrize("kind", ["npz packed", "hdf5 packed", "mat 7"])
def test_black_videos_are_no_traps(tmp_path, kind):
    zeros = np.zeros((1000, 1024), "f4")
    path = write(tmp_path / "a", zeros, kind)
    assert path.stat().st_size < zeros.nbytes / 64
    assert_holds(load([path]), {"a": zeros})


def damage(good, rng):
    """Cut a file short, flip bits, or overwrite bytes of it."""
    bad = bytearray(good)
    how = rng.random()
    if how < 0.3:
        return bad[: rng.randrange(len(bad))]
    span = len(bad) if how < 0.6 else min(len(bad), 400)  # headers matter most
    for _ in range(rng.choice([1, 1, 2, 6])):
        at = rng.randrange(span)
        bad[at] = rng.choice([bad[at] ^ 1 << rng.randrange(8), 0, 127, 255])
    return bad


def bag_or_error(path):
    try:
        return load([path])[0]
    except (ValueError, TypeError) as error:
        return str(error)


@pytest.mark.parametrize("kind", WRITERS)
def test_damaged_files(tmp_path, kind):
    """An error that names the file, or finite values of a shape that fits."""
    path = write(tmp_path / "a", ramp(6, 5), kind)
    good, refused = path.read_bytes(), 0
    rng = random.Random(kind)
    for _ in range(80):
        path.write_bytes(damage(good, rng))
        made = bag_or_error(path)
        if isinstance(made, str):
            assert made.startswith(f"bag 0 (id 'a'): {str(path)!r} ")
            refused += 1
        else:
            assert made.ndim == 2
            assert np.isfinite(made).all()
    assert refused > 20


@pytest.mark.parametrize("kind", WRITERS)
def test_truncated_files(tmp_path, kind):
    path = write(tmp_path / "a", ramp(50, 20), kind)
    good = path.read_bytes()
    sizes = [0, len(good) // 2]
    if kind != "txt":  # where only a line of too few numbers tells
        sizes += [1, 100, len(good) - 5]
    for size in sizes:
        path.write_bytes(good[:size])
        with pytest.raises(ValueError, match=r"^bag 0 \(id 'a'\): '.*a\."):
            load([path])[0]
