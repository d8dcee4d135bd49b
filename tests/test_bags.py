"""Containers: what goes in, what comes out, and what is refused.

Files and stores are written with plain numpy and json here, so that the tests
know the formats without asking the code under test.
"""

import builtins
import json
import operator
import os
import pickle
import struct
import tempfile
from collections import deque
from decimal import Decimal
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.exceptions import DataConversionWarning
from sklearn.model_selection import train_test_split

from sklearn_vad import Bags, FrameLabels
from sklearn_vad.bags import (
    check_bags,
    check_same_videos,
    check_video_labels,
    reads_as_rows,
)

NAN, INF = np.nan, np.inf


# --------------------------------------------------------------------------
# Helpers
# --------------------------------------------------------------------------
def ramp(n_snippets, *tail, start=0.0, dtype=np.float64):
    """An array whose values are all different."""
    size = n_snippets * int(np.prod(tail))
    return (start + np.arange(size)).reshape(n_snippets, *tail).astype(dtype)


def three_arrays(dtype=np.float64):
    starts = {4: 0, 1: 100, 3: 200}
    return [ramp(n, 2, start=start, dtype=dtype) for n, start in starts.items()]


def cube(*tail, dtype=np.float32):
    return [ramp(2, *tail, dtype=dtype), ramp(3, *tail, start=50, dtype=dtype)]


def assert_holds(bags, arrays, ids=None):
    """`bags` holds exactly these values, at these places."""
    assert len(bags) == len(arrays)
    assert bags.shape == (len(arrays),)
    assert bags.lengths.tolist() == [len(array) for array in arrays]
    for bag, array in zip(bags, arrays, strict=True):
        np.testing.assert_array_equal(bag, array, strict=False)
        assert bag.shape == np.shape(array)
    assert (bags.ids if ids is None else bags.ids.tolist()) == ids


def write_files(folder, arrays, names="abcdefgh"):
    paths = [folder / f"{name}.npy" for name in names[: len(arrays)]]
    for path, array in zip(paths, arrays, strict=True):
        np.save(path, array)
    return paths


def write_store(folder, flat, **index):
    """A store as another program would write it."""
    folder.mkdir(exist_ok=True)
    np.save(folder / "snippets.npy", flat)
    index = {"format": 1, "lengths": [len(flat)], "ids": None, **index}
    (folder / "bags.json").write_text(json.dumps(index))
    return folder


def rewrite(path, array):
    """Overwrite a file; its time differs however fast the test runs."""
    np.save(path, array)
    os.utime(path, ns=(1, 1))


def cut_short(path, size):
    """Truncate a file, whose time stays the same."""
    time = os.stat(path).st_mtime_ns
    os.truncate(path, size)
    os.utime(path, ns=(time, time))


def npy_bytes(descr="'<f4'", shape="(1, 2)", data=b"\0" * 8, version=1, header=None):
    """A .npy file with any header at all."""
    if header is None:
        header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n"
    size = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + size + header.encode() + data


def one_item(array):
    """An object array with one array in it."""
    out = np.empty(1, dtype=object)
    out[0] = array
    return out


def masked(array):
    return np.ma.masked_array(array, mask=np.eye(*array.shape[:2], dtype=bool))


@pytest.fixture(params=["list", "files", "store"])
def bags(request, tmp_path):
    """The same three bags from memory, from files and from a store."""
    arrays = three_arrays()
    if request.param == "files":
        return Bags.from_files(write_files(tmp_path, arrays))
    made = Bags.from_list(arrays, ids=list("abc"))
    if request.param == "list":
        return made
    made.save(tmp_path / "store")
    return Bags.open(tmp_path / "store")


# --------------------------------------------------------------------------
# Bad bags
# --------------------------------------------------------------------------
GOOD = np.ones((3, 2))
SHAPE = r"expected \(n_snippets, n_features\)"
REAL = "expected real numbers"
NUMERIC = "expected one numeric array"

BAD_BAGS = {
    "no snippets": (np.empty((0, 2)), ValueError, r"is empty: .*n_snippets >= 1"),
    "empty list": ([], ValueError, SHAPE),
    "no features": (np.ones((3, 0)), ValueError, "has no features.*1 or more"),
    "no steps": (np.ones((3, 0, 2)), ValueError, "has no features"),
    "nan": ([[0, 1], [2, NAN]], ValueError, r"NaN \(first in snippet 1\)"),
    "nan in float16": (np.array([[NAN, 0]], "f2"), ValueError, "contains NaN"),
    "nan tensor": (torch.tensor([[NAN, 0.0]]), ValueError, "contains NaN"),
    "inf": ([[0, 1], [1, 1], [2, INF]], ValueError, r"infinity \(first in snippet 2"),
    "-inf": ([[-INF, 1]], ValueError, "contains infinity.*expected finite"),
    "beyond float32": ([[1e39, 0]], ValueError, r"too large for dtype\('float32'\)"),
    "beyond -float32": ([[-1e39, 0]], ValueError, "too large"),
    "beyond float64": ([[10**400, 0]], ValueError, "too large"),
    "long double": (
        np.array([[np.longdouble(2) ** 2000, 0]]),
        ValueError,
        "contains infinity|too large",
    ),
    "3 features for 2": (np.ones((3, 3)), ValueError, r"3 features .*expected 2 as in"),
    "3 axes for 2": (np.ones((3, 1, 2)), ValueError, "has 3 axes.*expected 2 as in"),
    "1-D": (np.ones(3), ValueError, SHAPE),
    "1-D tensor": (torch.ones(3), ValueError, SHAPE),
    "a number": (5.0, ValueError, SHAPE),
    "ragged rows": ([[1, 2], [3]], ValueError, "not a rectangular array"),
    "masked": (masked(GOOD), ValueError, "masked entries"),
    "str": ("video.npy", TypeError, "type str.*Bags.from_files"),
    "path": (Path("video.npy"), TypeError, "Path.*Bags.from_files"),
    "bytes": (b"ab", TypeError, "type bytes"),
    "strings": ([["a", "b"]], TypeError, REAL),
    "numbers as strings": (np.array([["1", "2"]]), TypeError, REAL),
    "complex": (GOOD * 1j, TypeError, "complex128.*" + REAL),
    "complex tensor": (torch.ones(2, 2) * 1j, TypeError, "complex64.*" + REAL),
    "dates": (np.array([["2020-01-01"] * 2], "M8[D]"), TypeError, REAL),
    "records": (np.zeros((2, 2), "i4,i4"), TypeError, REAL),
    "mixed objects": (np.array([[1, "a"]], object), TypeError, "holds str, " + NUMERIC),
    "None among objects": ([[1, None]], TypeError, "holds NoneType, " + NUMERIC),
    "Decimal": ([[Decimal(1), Decimal(2)]], TypeError, "holds Decimal"),
    "None": (None, TypeError, "type NoneType, " + NUMERIC),
    "dict": ({"a": 1}, TypeError, "type dict, " + NUMERIC),
    "set": ({1, 2}, TypeError, "type set, " + NUMERIC),
    "generator": ((row for row in GOOD), TypeError, "type generator, " + NUMERIC),
    "sparse": (scipy.sparse.csr_array(GOOD), TypeError, "type csr_array"),
    "sparse tensor": (torch.eye(2).to_sparse(), TypeError, "expected an array"),
    "Bags": (Bags.from_list([GOOD]), TypeError, "holds ndarray, " + NUMERIC),
}


@pytest.mark.parametrize(
    ("bad", "error", "match"), BAD_BAGS.values(), ids=BAD_BAGS.keys()
)
def test_bad_bag_is_named(bad, error, match):
    with pytest.raises(error, match=rf"(?s)^bag 1\b.*{match}"):
        check_bags([GOOD, bad])
    with pytest.raises(error, match=rf"(?s)^bag 1 \(id 'b'\).*{match}"):
        Bags.from_list([GOOD, bad, GOOD], ids=list("abc"))


def test_differing_inner_axes_are_named():
    with pytest.raises(ValueError, match=r"^bag 1 .*expected \(3, 4, 5\).*as in bag 0"):
        Bags.from_list([np.ones((2, 4, 5)), np.ones((3, 6, 5))])


BAD_X = {
    "empty list": ([], ValueError, "^no bags: expected .*at least one"),
    "empty Bags": (Bags.from_list([GOOD])[[]], ValueError, "^no bags"),
    "list of 1-D arrays": (list(GOOD), ValueError, "^bag 0 .*" + SHAPE),
    "1-D array": (np.ones(3), ValueError, r"Reshape your data: one video is \[video\]"),
    "number in an array": (np.array(3.0), ValueError, r"^X has shape \(\)"),
    "array of strings": (np.array(["a", "b"]), ValueError, "expected a list of bags"),
    "None in an array": (np.array(None), ValueError, r"^X has shape \(\)"),
    "rows with text": (np.array([[1, "a"]], object), TypeError, "^bag 0 .*holds str"),
    "frame labels": (FrameLabels([[0, 1]]), ValueError, "expected a list of bags"),
    "masked": (np.ma.masked_less(np.ones((2, 3, 2)), 5), ValueError, "^X: masked"),
    "list of str": (["a.npy"], TypeError, "^bag 0 .*Bags.from_files"),
    "str": ("a.npy", TypeError, "X is 'a.npy'.*Bags.from_files"),
    "path": (Path("a.npy"), TypeError, "Bags.from_files"),
    "None": (None, TypeError, "^X has type NoneType, expected bags or a list"),
    "int": (5, TypeError, "^X has type int"),
    "dict": ({"a": GOOD}, TypeError, "^X has type dict"),
    "set": ({1, 2}, TypeError, "^X has type set"),
    "generator": ((bag for bag in [GOOD]), TypeError, "^X has type generator"),
    "deque": (deque([GOOD]), TypeError, "^X has type deque"),
    "sparse": (scipy.sparse.csr_array(GOOD), TypeError, "^X has type csr_array"),
}


@pytest.mark.parametrize(("X", "error", "match"), BAD_X.values(), ids=BAD_X.keys())
def test_bad_input(X, error, match):
    with pytest.raises(error, match=match):
        check_bags(X)


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        pytest.param(None, "got NoneType", id="None"),
        pytest.param(5, "got int", id="int"),
        pytest.param({"a": GOOD}, "got dict", id="dict"),
        pytest.param({1, 2}, "got set", id="set"),
        pytest.param("a.npy", "got str", id="str"),
        pytest.param(Path("a.npy"), "got .*Path", id="path"),
        pytest.param(np.array(1.0), "got ndarray", id="0-d"),
    ],
)
def test_from_list_expects_a_list(arrays, match):
    expected = "^bags: expected a list with one array per video, "
    with pytest.raises(TypeError, match=expected + match):
        Bags.from_list(arrays)


@pytest.mark.parametrize(
    ("ids", "error", "match"),
    [
        pytest.param(["a"], ValueError, "got 1 ids for 2 bags", id="too few"),
        pytest.param(list("abc"), ValueError, "got 3 ids for 2 bags", id="too many"),
        pytest.param(["a", "a"], ValueError, "differ, got 'a' twice", id="same"),
        pytest.param([1, "1"], ValueError, "differ, got '1' twice", id="same as text"),
        pytest.param("ab", TypeError, "one id per bag, got str", id="str"),
        pytest.param({"b", "a"}, TypeError, "one id per bag, got set", id="set"),
        pytest.param(5, TypeError, "one id per bag, got int", id="int"),
    ],
)
def test_bad_ids(ids, error, match, tmp_path):
    with pytest.raises(error, match=match):
        Bags.from_list([GOOD, GOOD], ids=ids)
    paths = write_files(tmp_path, [GOOD, GOOD])
    with pytest.raises(error, match=match):
        Bags.from_files(paths, ids=ids)


@pytest.mark.parametrize(
    ("ids", "error", "match"),
    [
        (["a"], ValueError, "got 1 ids for 2 videos"),
        (5, TypeError, "one id per video, got int"),
        (float("inf"), TypeError, "one id per video, got float"),
        ("ab", TypeError, "one id per video, got str"),
    ],
)
def test_bad_ids_of_frame_labels(ids, error, match):
    with pytest.raises(error, match=match):
        FrameLabels([[0], [1]], ids=ids)


# --------------------------------------------------------------------------
# Unusual, but legitimate bags
# --------------------------------------------------------------------------
WANTED = ramp(2, 3)
LEGIT_BAGS = {
    "float16": (WANTED.astype("f2"), "f2"),
    "float32": (WANTED.astype("f4"), "f4"),
    "float64": (WANTED, "f8"),
    "long double": (WANTED.astype(np.longdouble), "f8"),
    "big-endian": (WANTED.astype(">f4"), "f4"),
    "int8": (WANTED.astype("i1"), "f4"),
    "uint64": (WANTED.astype("u8"), "f4"),
    "Fortran order": (np.asfortranarray(WANTED), "f8"),
    "every other row": (np.repeat(WANTED, 2, axis=0)[::2], "f8"),
    "reversed": (WANTED[::-1, ::-1].copy()[::-1, ::-1], "f8"),
    "nested lists": (WANTED.tolist(), "f8"),
    "nested tuples": (tuple(map(tuple, WANTED.astype(int).tolist())), "f4"),
    "list of rows": (list(WANTED), "f8"),
    "object array of numbers": (WANTED.astype(object), "f8"),
    "data frame": (pd.DataFrame(WANTED), "f8"),
    "masked nowhere": (np.ma.masked_array(WANTED), "f8"),
    "tensor": (torch.tensor(WANTED), "f8"),
    "tensor of ints": (torch.tensor(WANTED.astype(int)), "f4"),
    "tensor with grad": (torch.tensor(WANTED, requires_grad=True), "f8"),
    "bfloat16": (torch.tensor(WANTED, dtype=torch.bfloat16), "f4"),
    "bfloat16 with grad": (
        torch.tensor(WANTED, dtype=torch.bfloat16, requires_grad=True),
        "f4",
    ),
    "transposed tensor": (torch.tensor(WANTED.T.copy()).T, "f8"),
    "negated view": (torch.tensor(-1j * WANTED).conj().imag, "f8"),
}


@pytest.mark.parametrize(("bag", "dtype"), LEGIT_BAGS.values(), ids=LEGIT_BAGS.keys())
def test_legitimate_bag(bag, dtype):
    other = np.full((1, 3), 7, dtype)
    for made in (Bags.from_list([bag, other]), check_bags((bag, other))):
        assert_holds(made, [WANTED, other])
        assert made.dtype == made[0].dtype == np.dtype(dtype)
        assert made.dtype.isnative
        assert made.n_features == 3


def test_bools_are_numbers():
    bags = Bags.from_list([[[True, False]], torch.tensor([[False, True]])])
    assert_holds(bags, [[[1, 0]], [[0, 1]]])
    assert bags.dtype == np.float32


def test_zero_rows_are_kept():
    zeros = np.zeros((2, 3))
    assert_holds(Bags.from_list([zeros, WANTED, zeros]), [zeros, WANTED, zeros])


def test_largest_float32_is_kept():
    largest = np.array([[-1.0, 1.0]]) * float(np.finfo(np.float32).max)
    assert_holds(Bags.from_list([largest]), [largest])


def test_mixed_dtypes_take_the_widest():
    half, single, double = (np.array([[0.1]], dtype) for dtype in ("f2", "f4", "f8"))
    bags = Bags.from_list([half, single, double])
    assert bags.dtype == np.float64
    assert_holds(bags, [half, single, double])


def test_read_only_memory_map(tmp_path):
    np.save(tmp_path / "a.npy", WANTED)
    bags = Bags.from_list([np.load(tmp_path / "a.npy", mmap_mode="r")])
    (tmp_path / "a.npy").write_bytes(b"")
    assert_holds(bags, [WANTED])


def test_from_list_copies():
    array = WANTED.copy()
    bags = Bags.from_list([array])
    array[:] = -1
    assert_holds(bags, [WANTED])


STACK = np.stack(cube(3)[:1] * 2)
LEGIT_X = {
    "list": list(STACK),
    "tuple": tuple(STACK),
    "3-D array": STACK,
    "3-D object array": STACK.astype(object),
    "3-D tensor": torch.tensor(STACK, requires_grad=True),
    "3-D bfloat16": torch.tensor(STACK, dtype=torch.bfloat16),
    "3-D lists": STACK.tolist(),
    "Bags": Bags.from_list(STACK),
    "object array": np.asarray(Bags.from_list(STACK)),
    "series": pd.Series(list(STACK)),
}


@pytest.mark.parametrize("X", LEGIT_X.values(), ids=LEGIT_X.keys())
def test_legitimate_input(X):
    bags = check_bags(X)
    assert_holds(bags, STACK)
    assert bags.bag_ndim == 2
    assert not reads_as_rows(X)


def test_ragged_object_array_and_generator():
    arrays = three_arrays()
    made = Bags.from_list(array for array in arrays)
    assert_holds(made, arrays)
    assert_holds(check_bags(np.asarray(made)), arrays)
    assert_holds(check_bags(one_item(arrays[0])), arrays[:1])


@pytest.mark.parametrize(
    "X",
    [
        pytest.param(WANTED, id="array"),
        pytest.param(WANTED.astype(object), id="object array"),
        pytest.param(torch.tensor(WANTED), id="tensor"),
        pytest.param(pd.DataFrame(WANTED), id="data frame"),
    ],
)
def test_rows_are_bags_of_one_snippet(X):
    assert reads_as_rows(X)
    assert_holds(check_bags(X), [[[0, 1, 2]], [[3, 4, 5]]])


@pytest.mark.parametrize(
    ("X", "rows"),
    [
        pytest.param([[1, 2], [3, 4]], True, id="nested lists"),
        pytest.param([(1, 2)], True, id="list of tuples"),
        pytest.param(list(WANTED), False, id="list of 1-D arrays"),
        pytest.param([WANTED], False, id="one video in a list"),
        pytest.param([], False, id="empty list"),
        pytest.param(np.ones(3), False, id="1-D array"),
        pytest.param(None, False, id="None"),
        pytest.param("text", False, id="str"),
        pytest.param(deque([WANTED, WANTED[:1]]), False, id="deque"),
    ],
)
def test_reads_as_rows(X, rows):
    assert reads_as_rows(X) is rows


def test_check_bags_hands_bags_back_as_they_are(bags):
    assert check_bags(bags) is bags


@pytest.mark.parametrize("tail", [(3,), (4, 3), (2, 4, 3)], ids=["2-D", "3-D", "4-D"])
def test_inner_axes(tail):
    arrays = cube(*tail)
    bags = Bags.from_list(arrays)
    assert_holds(bags, arrays)
    assert bags.bag_ndim == len(tail) + 1
    assert bags.n_features == 3


# --------------------------------------------------------------------------
# Indexing, conversion
# --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("key", "wanted"),
    [
        pytest.param(0, 0, id="0"),
        pytest.param(2, 2, id="2"),
        pytest.param(-1, 2, id="-1"),
        pytest.param(-3, 0, id="-3"),
        pytest.param(np.int32(1), 1, id="int32"),
        pytest.param(np.uint8(1), 1, id="uint8"),
        pytest.param(np.array(1), 1, id="0-d array"),
        pytest.param(torch.tensor(-2), 1, id="0-d tensor"),
        pytest.param((1, ...), 1, id="(1, ...)"),
    ],
)
def test_integer_gives_a_bag(bags, key, wanted):
    bag = bags[key]
    assert type(bag) is np.ndarray
    np.testing.assert_array_equal(bag, three_arrays()[wanted])


@pytest.mark.parametrize(
    ("key", "wanted"),
    [
        pytest.param(slice(None), [0, 1, 2], id=":"),
        pytest.param(slice(1, None), [1, 2], id="1:"),
        pytest.param(slice(None, None, -1), [2, 1, 0], id="::-1"),
        pytest.param(slice(7, 9), [], id="7:9"),
        pytest.param([2, 0], [2, 0], id="list"),
        pytest.param(np.array([-1, 1], "i2"), [2, 1], id="int16"),
        pytest.param(np.array([1], "u1"), [1], id="uint8"),
        pytest.param([1, 1, 0, 1], [1, 1, 0, 1], id="duplicates"),
        pytest.param([], [], id="empty list"),
        pytest.param(range(2), [0, 1], id="range"),
        pytest.param(torch.tensor([2, 1]), [2, 1], id="tensor"),
        pytest.param([True, False, True], [0, 2], id="mask as list"),
        pytest.param(np.array([False, True, False]), [1], id="mask"),
        pytest.param(pd.Series([False, False, True]), [2], id="mask as series"),
        pytest.param((slice(0, 2), ...), [0, 1], id="(0:2, ...)"),
        pytest.param(([0, 2], ...), [0, 2], id="([0, 2], ...)"),
        pytest.param((np.array([False, True, True]), ...), [1, 2], id="(mask, ...)"),
    ],
)
def test_anything_else_gives_bags(bags, key, wanted):
    arrays = three_arrays()
    part = bags[key]
    assert type(part) is Bags
    assert_holds(part, [arrays[i] for i in wanted], ids=["abc"[i] for i in wanted])
    assert part.n_features == 2
    assert part.dtype == np.float64


BAD_KEYS = {
    "3": (3, "index 3 is out of range for 3"),
    "-4": (-4, "index -4 is out of range for 3"),
    "[-4, 0]": ([-4, 0], "index -4 is out of range for 3"),
    "[0, 3]": ([0, 3], "index 3 is out of range for 3"),
    "short mask": ([True, False], "mask has 2 entries for 3"),
    "long mask": (np.ones(4, bool), "mask has 4 entries for 3"),
    "empty mask": (np.ones(0, bool), "mask has 0 entries for 3"),
    "2-D": ([[0, 1]], "expected an integer"),
    "ragged": ([[0, 1], [2]], "expected an integer"),
    "True": (True, "expected an integer.*got True"),
    "float": (1.0, "expected an integer.*got 1.0"),
    "floats": ([0.0, 1.0], "expected an integer"),
    "str": ("a", "expected an integer.*got 'a'"),
    "None": (None, "expected an integer.*got None"),
    "...": (..., "expected an integer"),
    "()": ((), r"expected an integer.*got \(\)"),
    "(0, 1)": ((0, 1), r"expected an integer.*got \(0, 1\)"),
    "(0, :)": ((0, slice(None)), "expected an integer"),
}


@pytest.mark.parametrize(("key", "match"), BAD_KEYS.values(), ids=BAD_KEYS.keys())
def test_bad_key(bags, key, match):
    with pytest.raises(IndexError, match=match):
        bags[key]
    with pytest.raises(IndexError, match=match):
        FrameLabels([[0], [1], [0]])[key]


def test_subset_of_subset(bags):
    arrays = three_arrays()
    part = bags[::-1][[0, 2, 2]][1:]
    assert_holds(part, [arrays[0], arrays[0]], ids=["a", "a"])
    np.testing.assert_array_equal(part[-1], arrays[0])


def test_error_names_the_id_not_the_place_in_a_subset(tmp_path):
    arrays = three_arrays()
    arrays[2][1, 0] = NAN
    part = Bags.from_files(write_files(tmp_path, arrays))[[2]]
    for key in (0, -1):
        match = r"^bag 0 \(id 'c'\) contains NaN \(first in snippet 1\)"
        with pytest.raises(ValueError, match=match):
            part[key]


def test_asarray_is_one_dimensional_for_ragged_bags(bags):
    made = np.asarray(bags)
    assert made.shape == (3,)
    assert made.dtype == object
    for bag, array in zip(made, three_arrays(), strict=True):
        np.testing.assert_array_equal(bag, array)


@pytest.mark.parametrize("tail", [(3,), (4, 3)], ids=["2-D", "3-D"])
@pytest.mark.parametrize("n_bags", [1, 2], ids=["one", "two"])
def test_asarray_is_one_dimensional_for_equal_lengths(n_bags, tail):
    array = ramp(2, *tail)
    made = np.array(Bags.from_list([array] * n_bags), dtype=object)
    assert made.shape == (n_bags,)
    for bag in made:
        np.testing.assert_array_equal(bag, array)


def test_asarray_of_no_bags(bags):
    assert np.asarray(bags[[]]).shape == (0,)


def test_asarray_of_numbers_is_refused(bags):
    with pytest.raises(TypeError, match="convert to an object array only"):
        np.asarray(bags, dtype=float)


@pytest.mark.parametrize("bags", ["list", "store"], indirect=True)
def test_subsets_are_views(bags):
    address = bags[2].__array_interface__["data"][0]
    parts = [bags[1:], bags[[2, 1]][::-1], bags[np.array([False, True, True])]]
    for part in parts:
        assert np.shares_memory(part[1], bags[2])
        assert part[1].__array_interface__["data"][0] == address
    assert np.shares_memory(np.asarray(bags)[2], bags[2])
    assert not np.shares_memory(bags[1], bags[2])


def test_bags_are_read_only(bags):
    for bag in (bags[0], bags[1:][0], np.asarray(bags)[0]):
        with pytest.raises(ValueError, match="read-only"):
            bag[0, 0] = 5
    assert_holds(bags, three_arrays(), ids=list("abc"))


def test_scikit_learn_splits_bags(bags):
    y = FrameLabels([[0], [1], [0]])
    train, test, y_train, y_test = train_test_split(
        bags, y, test_size=1, random_state=0
    )
    arrays = dict(zip("abc", three_arrays(), strict=True))
    labels = {"a": 0, "b": 1, "c": 0}
    assert sorted([*train.ids, *test.ids]) == ["a", "b", "c"]
    for part, part_y in ((train, y_train), (test, y_test)):
        assert_holds(part, [arrays[i] for i in part.ids], ids=part.ids.tolist())
        assert part_y.video_labels.tolist() == [labels[i] for i in part.ids]


# --------------------------------------------------------------------------
# Pickles
# --------------------------------------------------------------------------
@pytest.mark.parametrize(
    "key",
    [slice(None), slice(None, None, -1), [1], [2, 2, 0], []],
    ids=["whole", "reversed", "one", "duplicates", "none"],
)
def test_pickle_round_trip(bags, key):
    part = bags[key]
    again = pickle.loads(pickle.dumps(part))
    assert_holds(again, list(part), ids=part.ids.tolist())
    assert_holds(again[::-1], list(part)[::-1], ids=part.ids.tolist()[::-1])
    assert again.n_features == 2
    assert again.dtype == np.float64


@pytest.mark.parametrize("mmap_mode", [None, "r"])
def test_joblib_round_trip(bags, tmp_path, mmap_mode):
    joblib.dump(bags[1:], tmp_path / "bags.joblib")
    again = joblib.load(tmp_path / "bags.joblib", mmap_mode=mmap_mode)
    assert_holds(again, three_arrays()[1:], ids=["b", "c"])


def test_joblib_hash_tells_values_apart():
    first = Bags.from_list([WANTED])
    assert joblib.hash(first) == joblib.hash(Bags.from_list([WANTED]))
    assert joblib.hash(first) != joblib.hash(Bags.from_list([WANTED + 1]))


def test_subset_pickles_its_own_snippets_only():
    arrays = [np.full((100, 16), 1.0 + i) for i in range(50)]
    bags = Bags.from_list(arrays)
    pickled = pickle.dumps(bags[[3, 40]])
    assert len(pickled) < 1.1 * 2 * arrays[0].nbytes
    assert np.float64(4.0).tobytes() * 1600 in pickled
    for i in (2, 4, 39, 41):
        assert np.float64(1.0 + i).tobytes() * 4 not in pickled
    assert_holds(pickle.loads(pickled), [arrays[3], arrays[40]])


def test_store_pickles_as_its_path(tmp_path):
    arrays = [np.full((2, 3), float(i)) for i in range(500)]
    ids = [f"a_video_with_a_long_name_{i}" for i in range(500)]
    Bags.from_list(arrays, ids=ids).save(tmp_path / "store")
    bags = Bags.open(tmp_path / "store")
    pickled = pickle.dumps(bags)
    assert len(pickled) < 2000
    assert_holds(pickle.loads(pickled), arrays, ids=ids)
    subset = pickle.dumps(bags[:10])
    assert len(subset) < 3000
    assert_holds(pickle.loads(subset), arrays[:10], ids=ids[:10])


def test_subset_of_a_store_without_ids_pickles_as_a_subset(tmp_path):
    Bags.from_list(three_arrays()).save(tmp_path / "store")
    part = pickle.loads(pickle.dumps(Bags.open(tmp_path / "store")[[2, 0]]))
    assert_holds(part, [three_arrays()[2], three_arrays()[0]])


def test_files_pickle_as_paths(tmp_path):
    arrays = [ramp(1000, 8), ramp(500, 8)]
    bags = Bags.from_files(write_files(tmp_path, arrays))
    unread = pickle.dumps(bags)
    assert_holds(bags, arrays, ids=["a", "b"])
    read = pickle.dumps(bags)
    assert max(len(unread), len(read)) < 2000
    for pickled in (unread, read):
        assert_holds(pickle.loads(pickled), arrays, ids=["a", "b"])


# --------------------------------------------------------------------------
# Files
# --------------------------------------------------------------------------
@pytest.fixture
def opened(monkeypatch):
    """Names of the .npy files that were opened so far."""
    names = []
    real_open = builtins.open

    def counting_open(file, *args, **kwargs):
        if str(file).endswith(".npy"):
            names.append(Path(file).name)
        return real_open(file, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", counting_open)
    return names


def test_files_are_read_when_needed(tmp_path, opened):
    paths = write_files(tmp_path, three_arrays())
    opened.clear()
    bags = Bags.from_files(paths)
    part = bags[1:][::-1]
    assert len(bags) == 3
    assert bags.shape == (3,)
    assert part.ids.tolist() == ["c", "b"]
    pickle.dumps(part)
    assert opened == []
    np.testing.assert_array_equal(part[1], three_arrays()[1])
    assert set(opened) == {"b.npy"}
    opened.clear()
    assert bags.lengths.tolist() == [4, 1, 3]
    assert bags.n_features == 2
    assert opened == ["a.npy", "b.npy", "c.npy"]


def test_lengths_read_headers_not_data(tmp_path):
    arrays = three_arrays()
    arrays[1][:] = NAN
    bags = Bags.from_files(write_files(tmp_path, arrays))
    assert bags.lengths.tolist() == [4, 1, 3]
    assert bags.dtype == np.float64
    with pytest.raises(ValueError, match=r"^bag 1 \(id 'b'\) contains NaN"):
        bags[1]


def test_relative_paths_survive_a_change_of_folder(tmp_path, monkeypatch):
    write_files(tmp_path, three_arrays())
    monkeypatch.chdir(tmp_path)
    bags = Bags.from_files(["a.npy", Path("c.npy")])
    monkeypatch.chdir("/")
    assert_holds(bags, [three_arrays()[0], three_arrays()[2]], ids=["a", "c"])


def test_ids_of_files(tmp_path):
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "same.v1.npy", WANTED)
    paths = [tmp_path / "x" / "same.v1.npy", tmp_path / "y" / "same.v1.npy"]
    assert Bags.from_files(paths[:1]).ids.tolist() == ["same.v1"]
    assert Bags.from_files(paths).ids.tolist() == [str(p) for p in paths]
    assert Bags.from_files(paths, ids=[1, 2]).ids.tolist() == ["1", "2"]


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        pytest.param(WANTED.astype("f2"), "f2", id="float16"),
        pytest.param(WANTED.astype(">f8"), "f8", id="big-endian"),
        pytest.param(WANTED.astype("i4"), "f4", id="int32"),
        pytest.param(WANTED > 2, "f4", id="bool"),
        pytest.param(np.asfortranarray(WANTED), "f8", id="Fortran order"),
        pytest.param(WANTED.astype(np.longdouble), "f8", id="long double"),
        pytest.param(ramp(2, 4, 3), "f8", id="3 axes"),
        pytest.param(np.zeros((2, 3)), "f8", id="zeros"),
    ],
)
def test_files_equal_memory(array, dtype, tmp_path):
    lazy = Bags.from_files(write_files(tmp_path, [array, array[:1]]))
    memory = Bags.from_list([array, array[:1]], ids=["a", "b"])
    assert_holds(lazy, list(memory), ids=["a", "b"])
    assert lazy.dtype == memory.dtype == lazy[0].dtype == np.dtype(dtype)
    assert lazy.dtype.isnative
    assert lazy.bag_ndim == memory.bag_ndim == array.ndim
    assert lazy.n_features == memory.n_features == 3


def test_file_of_python_2(tmp_path):
    path = tmp_path / "old.npy"
    path.write_bytes(npy_bytes(shape="(1L, 2L)", data=struct.pack("<ff", 5, 6)))
    with pytest.warns(UserWarning, match="created on Python 2"):
        assert_holds(Bags.from_files([path]), [[[5, 6]]], ids=["old"])


@pytest.mark.parametrize("name", ["b.pt", "b.pth", "b.pkl", "b.npz", "b.txt", "b"])
def test_other_formats_are_refused_by_name(name, tmp_path, opened):
    good = write_files(tmp_path, [WANTED])
    (tmp_path / name).write_bytes(pickle.dumps(WANTED))
    opened.clear()
    match = rf"^bag 1 \(id 'b'\): cannot read '.*{name}'; expected a .npy file .*pickle"
    with pytest.raises(ValueError, match=match):
        Bags.from_files([*good, tmp_path / name])
    assert opened == []


def test_missing_file_is_refused_at_once(tmp_path):
    good = write_files(tmp_path, [WANTED])
    with pytest.raises(ValueError, match=r"^bag 1 \(id 'z'\): .*z.npy': no such file"):
        Bags.from_files([*good, tmp_path / "z.npy"])


@pytest.mark.parametrize(
    ("paths", "error", "match"),
    [
        pytest.param("a.npy", TypeError, r"one .npy file per video.*got str", id="str"),
        pytest.param(Path("a.npy"), TypeError, "glob.*got .*Path", id="path"),
        pytest.param(None, TypeError, "got NoneType", id="None"),
        pytest.param({"a": "a.npy"}, TypeError, "got dict", id="dict"),
        pytest.param({"a.npy"}, TypeError, "got set", id="set"),
        pytest.param([], ValueError, "^no bags: expected .*one path", id="empty"),
        pytest.param([5], TypeError, "^bag 0 .*type int, expected the path", id="int"),
        pytest.param([None], TypeError, "^bag 0 .*type NoneType", id="None in list"),
        pytest.param([b"a.npy"], TypeError, "^bag 0 .*type bytes", id="bytes"),
        pytest.param([WANTED], TypeError, "^bag 0 .*Bags.from_list", id="array"),
    ],
)
def test_bad_paths(paths, error, match):
    with pytest.raises(error, match=match):
        Bags.from_files(paths)


UNREADABLE = "is not a readable .npy file"
DAMAGED_FILES = {
    "empty": (b"", UNREADABLE),
    "text": (b"1.0, 2.0\n3.0, 4.0\n", UNREADABLE),
    "pickle": (pickle.dumps(WANTED), UNREADABLE),
    "zip": (b"PK\x03\x04" + b"\0" * 60, UNREADABLE),
    "magic only": (b"\x93NUMPY", UNREADABLE),
    "unknown version": (npy_bytes(version=9), "unknown .npy version"),
    "truncated header": (npy_bytes()[:30], UNREADABLE),
    "truncated data": (npy_bytes(data=b"\0" * 7), "truncated or damaged.*promises"),
    "no data": (npy_bytes(data=b""), "truncated or damaged"),
    "data to spare": (npy_bytes(data=b"\0" * 9), "truncated or damaged"),
    "objects": (npy_bytes("'|O'"), "holds pickled objects.*never read"),
    "objects in records": (npy_bytes("[('a', '|O')]"), "holds pickled objects"),
    "huge shape": (npy_bytes(shape=f"({2**62}, 1024)"), "truncated or damaged"),
    "shape beyond 64 bits": (npy_bytes(shape=f"({2**63}, {2**63})"), "truncated"),
    "negative shape": (npy_bytes(shape="(-1, -2)"), r"damaged: .*\(-1, -2\)"),
    "bool in the shape": (npy_bytes(shape="(True, 2)"), "damaged: .*shape"),
    "70 axes": (npy_bytes(shape=f"({'1, ' * 69}2)"), "damaged: .*shape"),
    "shape as list": (npy_bytes(shape="[1, 2]"), UNREADABLE),
    "unknown dtype": (npy_bytes("'nonsense'"), UNREADABLE),
    "missing keys": (npy_bytes(header="{'descr': '<f4'}\n"), UNREADABLE),
    "code for a header": (npy_bytes(header="exit(1)\n"), UNREADABLE),
    "open bracket": (npy_bytes(header="{'descr': (\n"), UNREADABLE),
    "5000 brackets": (npy_bytes(header="(" * 5000), UNREADABLE),
    "9000 minus signs": (npy_bytes(header="-" * 9000 + "1"), UNREADABLE),
    "huge header": (npy_bytes(header=" " * 60_000 + "{}"), UNREADABLE),
    "header beyond the file": (
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}",
        UNREADABLE,
    ),
}
BAD_CONTENTS = {
    "no snippets": (npy_bytes(shape="(0, 2)", data=b""), "is empty.*n_snippets >= 1"),
    "no features": (npy_bytes(shape="(2, 0)", data=b""), "has no features"),
    "1-D": (npy_bytes(shape="(2,)"), SHAPE),
    "0-D": (npy_bytes(shape="()", data=b"\0" * 4), SHAPE),
    "NaN": (npy_bytes(data=struct.pack("<ff", 1, NAN)), r"contains NaN \(first in"),
    "-inf": (npy_bytes(data=struct.pack("<ff", -INF, 1)), "contains infinity"),
    "beyond float32": (
        npy_bytes("'<f8'", data=struct.pack("<dd", 1e39, 1)),
        "too large for dtype",
    ),
}


@pytest.mark.parametrize(
    ("content", "match"),
    [*DAMAGED_FILES.values(), *BAD_CONTENTS.values()],
    ids=[*DAMAGED_FILES, *BAD_CONTENTS],
)
def test_damaged_file(content, match, tmp_path):
    paths = write_files(tmp_path, [np.ones((3, 2)), WANTED])
    paths[1].write_bytes(content)
    bags = Bags.from_files(paths)
    np.testing.assert_array_equal(bags[0], np.ones((3, 2)))
    with pytest.raises(ValueError, match=rf"(?s)^bag 1 \(id 'b'\).*{match}"):
        bags[1]
    with pytest.raises(ValueError, match=rf"(?s)^bag 1 \(id 'b'\).*{match}"):
        bags.save(tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("descr", "data"),
    [
        pytest.param("'<c8'", b"\0" * 16, id="complex"),
        pytest.param("'<U1'", b"\0" * 8, id="text"),
        pytest.param("[('a', '<f4')]", b"\0" * 8, id="records"),
        pytest.param("'<M8[D]'", b"\0" * 16, id="dates"),
    ],
)
def test_file_of_another_kind(descr, data, tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(npy_bytes(descr, data=data))
    with pytest.raises(TypeError, match=rf"^bag 0 \(id 'a'\): '.*a.npy' .*{REAL}"):
        Bags.from_files([path]).lengths  # noqa: B018


def test_object_file_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    path = tmp_path / "a.npy"
    np.save(path, one_item(Evil()), allow_pickle=True)
    with pytest.raises(ValueError, match=r"^bag 0 \(id 'a'\): .*holds pickled objects"):
        Bags.from_files([path])[0]
    assert not (tmp_path / "ran").exists()


def test_folder_named_npy(tmp_path):
    (tmp_path / "a.npy").mkdir()
    with pytest.raises(ValueError, match=r"^bag 0 \(id 'a'\): .*" + UNREADABLE):
        Bags.from_files([tmp_path / "a.npy"])[0]


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda bags: bags.n_features, id="n_features"),
        pytest.param(lambda bags: bags.lengths, id="lengths"),
        pytest.param(lambda bags: bags.bag_ndim, id="bag_ndim"),
        pytest.param(lambda bags: bags.dtype, id="dtype"),
    ],
)
@pytest.mark.parametrize(
    ("array", "match"),
    [
        pytest.param(np.ones((3, 4)), "4 features .*expected 3 as in", id="features"),
        pytest.param(np.ones((3, 2, 3)), "3 axes .*expected 2 as in", id="axes"),
    ],
)
def test_differing_files(array, match, use, tmp_path):
    bags = Bags.from_files(write_files(tmp_path, [WANTED, array]), ids=["one", "two"])
    with pytest.raises(ValueError, match=rf"^bag 1 \(id 'two'\) has {match} bag 0"):
        use(bags)


@pytest.mark.parametrize("read_before", [False, True], ids=["unread", "read"])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda path: rewrite(path, WANTED + 1), id="rewritten"),
        pytest.param(lambda path: np.save(path, WANTED[:1]), id="shortened"),
        pytest.param(lambda path: cut_short(path, 130), id="truncated"),
        pytest.param(lambda path: path.unlink(), id="deleted"),
    ],
)
def test_file_changed_after_from_files(change, read_before, tmp_path):
    paths = write_files(tmp_path, [WANTED, WANTED])
    bags = Bags.from_files(paths)
    if read_before:
        assert_holds(bags, [WANTED, WANTED], ids=["a", "b"])
    pickled = pickle.dumps(bags)
    change(paths[1])
    for changed in (bags, pickle.loads(pickled)):
        np.testing.assert_array_equal(changed[0], WANTED)
        match = r"^bag 1 \(id 'b'\): .*b.npy' changed on disk after Bags.from_files"
        with pytest.raises(ValueError, match=match):
            changed[1]


# --------------------------------------------------------------------------
# Stores
# --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arrays", "ids"),
    [
        pytest.param(three_arrays(), list("abc"), id="float64"),
        pytest.param(three_arrays("f4"), None, id="float32 without ids"),
        pytest.param(three_arrays("f2"), list("abc"), id="float16"),
        pytest.param(cube(4, 3), ["ä/1", ""], id="3-D"),
        pytest.param([ramp(1, 1)], ["a"], id="one value"),
        pytest.param([np.asfortranarray(WANTED)] * 2, None, id="Fortran order"),
        pytest.param([WANTED.astype("f4"), WANTED + 0.1], None, id="mixed dtypes"),
    ],
)
def test_store_round_trip(arrays, ids, tmp_path):
    bags = Bags.from_list(arrays, ids=ids)
    bags.save(tmp_path / "new" / "store")
    again = Bags.open(str(tmp_path / "new" / "store"))
    assert_holds(again, arrays, ids=ids)
    assert again.dtype == bags.dtype
    assert again.bag_ndim == arrays[0].ndim
    assert again.n_features == arrays[0].shape[-1]
    assert os.listdir(tmp_path / "new") == ["store"]


def test_store_of_files_subsets_and_stores(bags, tmp_path):
    arrays = three_arrays()
    bags.save(tmp_path / "whole")
    assert_holds(Bags.open(tmp_path / "whole"), arrays, ids=list("abc"))
    bags[[2, 0, 2]].save(tmp_path / "part")
    wanted = [arrays[2], arrays[0], arrays[2]]
    assert_holds(Bags.open(tmp_path / "part"), wanted, ids=list("cac"))
    flat = np.load(tmp_path / "part" / "snippets.npy")
    np.testing.assert_array_equal(flat, np.concatenate(wanted))


def test_store_of_mixed_files(tmp_path):
    arrays = [WANTED.astype("f2"), WANTED.astype("i8"), np.asfortranarray(WANTED + 0.1)]
    Bags.from_files(write_files(tmp_path, arrays)).save(tmp_path / "store")
    store = Bags.open(tmp_path / "store")
    assert store.dtype == np.float64
    assert_holds(store, arrays, ids=list("abc"))


def test_no_bags_are_not_saved(bags, tmp_path):
    with pytest.raises(ValueError, match=r"^no bags to save: expected at least one"):
        bags[[]].save(tmp_path / "empty")
    assert not (tmp_path / "empty").exists()


def test_store_of_another_program(tmp_path):
    flat = np.asfortranarray(ramp(5, 3))
    folder = write_store(tmp_path / "store", flat, lengths=[3, 2])
    assert_holds(Bags.open(folder), [flat[:3], flat[3:]])


@pytest.mark.parametrize("path", ["missing", "file", "folder"])
def test_open_what_is_no_store(path, tmp_path):
    (tmp_path / "file").write_text("text")
    (tmp_path / "folder").mkdir()
    match = rf"{path}' is not a store written by Bags.save"
    with pytest.raises(ValueError, match=match):
        Bags.open(tmp_path / path)


BAD_INDEX = {
    "text": ("not json", "is not a store"),
    "empty": ("", "is not a store"),
    "deep": ("[" * 100_000, "is not a store"),
    "latin-1": (b'{"format": "\xff"}', "is not a store"),
    "a list": ("[1]", "another format than 1"),
    "no format": ('{"lengths": [5]}', "another format than 1"),
    "newer format": ('{"format": 2, "lengths": [5]}', "another format than 1"),
    "no lengths": ('{"format": 1}', "no valid lengths"),
    "lengths empty": ('{"format": 1, "lengths": []}', "no valid lengths"),
    "lengths a number": ('{"format": 1, "lengths": 5}', "no valid lengths"),
    "lengths floats": ('{"format": 1, "lengths": [2.0, 3.0]}', "no valid lengths"),
    "lengths text": ('{"format": 1, "lengths": ["5"]}', "no valid lengths"),
    "lengths bools": ('{"format": 1, "lengths": [true, 4]}', "no valid lengths"),
    "zero length": ('{"format": 1, "lengths": [5, 0]}', "no valid lengths"),
    "negative length": ('{"format": 1, "lengths": [6, -1]}', "no valid lengths"),
    "too short": ('{"format": 1, "lengths": [2, 2]}', "2 bags add up to 4 .* holds 5"),
    "too long": ('{"format": 1, "lengths": [2, 9]}', "2 bags add up to 11 .* holds 5"),
    "sum wraps": (
        json.dumps({"format": 1, "lengths": [2**63, 2**63, 5]}),
        "3 bags add up to 18446744073709551621 .* holds 5",
    ),
    "ids too few": (
        '{"format": 1, "lengths": [2, 3], "ids": ["a"]}',
        "ids don't match",
    ),
    "ids text": ('{"format": 1, "lengths": [2, 3], "ids": "ab"}', "ids don't match"),
    "ids numbers": ('{"format": 1, "lengths": [2, 3], "ids": [1, 2]}', "ids don't"),
    "ids lists": ('{"format": 1, "lengths": [2, 3], "ids": [[], []]}', "ids don't"),
}


@pytest.mark.parametrize(("text", "match"), BAD_INDEX.values(), ids=BAD_INDEX.keys())
def test_bad_store_index(text, match, tmp_path):
    folder = write_store(tmp_path / "store", ramp(5, 3))
    assert_holds(Bags.open(folder), [ramp(5, 3)])
    content = text if isinstance(text, bytes) else text.encode()
    (folder / "bags.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"store' .*{match}"):
        Bags.open(folder)


@pytest.mark.parametrize("lost", ["bags.json", "snippets.npy"])
def test_store_with_a_lost_part(lost, tmp_path):
    folder = write_store(tmp_path / "store", ramp(5, 3))
    (folder / lost).unlink()
    with pytest.raises(ValueError, match=f"store' is .*{lost}"):
        Bags.open(folder)


@pytest.mark.parametrize(
    "flat",
    [
        pytest.param(ramp(5, 3, dtype=">f4"), id="big-endian"),
        pytest.param(ramp(5, 3, dtype="i4"), id="int"),
        pytest.param(ramp(5, 3, dtype="c8"), id="complex"),
        pytest.param(ramp(5, 3, dtype=np.longdouble), id="long double"),
        pytest.param(ramp(5, 3).astype("U"), id="text"),
        pytest.param(ramp(5, 3) > 2, id="bool"),
        pytest.param(ramp(5, 1)[:, 0], id="1-D"),
        pytest.param(np.ones((5, 0)), id="no features"),
    ],
)
def test_store_of_another_dtype_or_shape(flat, tmp_path):
    folder = write_store(tmp_path / "store", flat)
    with pytest.raises(
        ValueError, match=r"store' is damaged: .*expected native floats"
    ):
        Bags.open(folder)


@pytest.mark.parametrize(
    ("content", "match"),
    DAMAGED_FILES.values(),
    ids=DAMAGED_FILES.keys(),
)
def test_damaged_store(content, match, tmp_path):
    folder = write_store(tmp_path / "store", np.ones((1, 2), np.float32))
    assert_holds(Bags.open(folder), [[[1, 1]]])
    (folder / "snippets.npy").write_bytes(content)
    match = rf"(?s)store' is damaged: snippets.npy .*{match}"
    with pytest.raises(ValueError, match=match):
        Bags.open(folder)


@pytest.mark.parametrize(
    ("value", "match"),
    [
        pytest.param(NAN, r"contains NaN \(first in snippet 1\)", id="NaN"),
        pytest.param(-INF, r"contains infinity \(first in snippet 1\)", id="-inf"),
        pytest.param(1e39, "contains a value too large", id="beyond float32"),
    ],
)
def test_bad_values_of_another_program(value, match, tmp_path):
    flat = ramp(5, 3)
    flat[3, 1] = value
    folder = write_store(tmp_path / "store", flat, lengths=[2, 3], ids=["a", "b"])
    bags = Bags.open(folder)
    for _ in range(2):
        np.testing.assert_array_equal(bags[0], flat[:2])
        with pytest.raises(ValueError, match=rf"^bag 1 \(id 'b'\) {match}"):
            bags[1]
    with pytest.raises(ValueError, match=rf"^bag 0 \(id 'b'\) {match}"):
        pickle.loads(pickle.dumps(bags[1:]))[0]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda file: rewrite(file, ramp(5, 3) + 1), id="rewritten"),
        pytest.param(lambda file: np.save(file, ramp(6, 3)), id="longer"),
        pytest.param(lambda file: cut_short(file, 130), id="truncated"),
        pytest.param(lambda file: file.unlink(), id="deleted"),
    ],
)
def test_store_changed_after_open(change, tmp_path):
    folder = write_store(tmp_path / "store", ramp(5, 3), ids=["a"])
    bags = Bags.open(folder)
    assert_holds(bags, [ramp(5, 3)], ids=["a"])
    pickled = pickle.dumps(bags)
    change(folder / "snippets.npy")
    match = r"^bag 0 \(id 'a'\): store '.*store' changed on disk after Bags.open"
    with pytest.raises(ValueError, match=match):
        bags[0]
    with pytest.raises(ValueError, match=r"store' (changed on disk since|is damaged)"):
        pickle.loads(pickled)


def test_store_replaced_before_unpickling(tmp_path):
    Bags.from_list([ramp(3, 2), ramp(2, 2)]).save(tmp_path / "store")
    bags = Bags.open(tmp_path / "store")
    whole, part = pickle.dumps(bags), pickle.dumps(bags[1:])
    Bags.from_list([ramp(2, 2), ramp(3, 2, start=9)]).save(tmp_path / "store")
    os.utime(tmp_path / "store" / "snippets.npy", ns=(1, 1))
    for pickled in (whole, part):
        with pytest.raises(ValueError, match="store' changed on disk since"):
            pickle.loads(pickled)


def test_store_index_rewritten_before_unpickling(tmp_path):
    folder = write_store(tmp_path / "store", ramp(5, 3), lengths=[2, 3])
    pickled = pickle.dumps(Bags.open(folder)[1:])
    (folder / "bags.json").write_text('{"format": 1, "lengths": [4, 1]}')
    with pytest.raises(ValueError, match="store' changed on disk since"):
        pickle.loads(pickled)


def test_store_deleted_before_unpickling(tmp_path):
    folder = write_store(tmp_path / "store", ramp(5, 3))
    pickled = pickle.dumps(Bags.open(folder))
    for file in folder.iterdir():
        file.unlink()
    with pytest.raises(ValueError, match="store' is not a store"):
        pickle.loads(pickled)


# Saving over something ----------------------------------------------------
def tree(folder):
    """Everything under a folder, with its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize(
    "files",
    [
        pytest.param([], id="empty folder"),
        pytest.param(["notes.txt"], id="other folder"),
        pytest.param(["snippets.npy"], id="snippets only"),
        pytest.param(["bags.json", "snippets.npy", "notes.txt"], id="store and notes"),
    ],
)
def test_save_leaves_other_folders_alone(files, tmp_path):
    (tmp_path / "there").mkdir()
    for name in files:
        (tmp_path / "there" / name).write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(FileExistsError, match=r"there' exists and is no store.*alone"):
        Bags.from_list([WANTED]).save(tmp_path / "there")
    assert tree(tmp_path) == before


def test_save_leaves_files_and_links_alone(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        with pytest.raises(FileExistsError, match=f"{name}' exists and is no store"):
            Bags.from_list([WANTED]).save(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["file", "link"]
    assert (tmp_path / "file").read_text() == "mine"
    assert os.readlink(tmp_path / "link") == str(tmp_path / "nowhere")


def test_save_replaces_a_store(tmp_path):
    Bags.from_list(three_arrays(), ids=list("abc")).save(tmp_path / "store")
    Bags.from_list([WANTED]).save(tmp_path / "store")
    assert_holds(Bags.open(tmp_path / "store"), [WANTED])
    assert sorted(tree(tmp_path)) == ["store", "store/bags.json", "store/snippets.npy"]


def test_save_replaces_a_damaged_store(tmp_path):
    write_store(tmp_path / "store", WANTED)
    (tmp_path / "store" / "snippets.npy").unlink()
    Bags.from_list([WANTED]).save(tmp_path / "store")
    assert_holds(Bags.open(tmp_path / "store"), [WANTED])


@pytest.mark.parametrize("key", [slice(None), [2, 0]], ids=["whole", "part"])
def test_save_onto_its_own_path(key, tmp_path):
    arrays = three_arrays()
    Bags.from_list(arrays).save(tmp_path / "store")
    bags = Bags.open(tmp_path / "store")
    bags[key].save(tmp_path / "store")
    os.utime(tmp_path / "store" / "snippets.npy", ns=(1, 1))
    wanted = [arrays[i] for i in np.arange(3)[key]]
    assert_holds(Bags.open(tmp_path / "store"), wanted)
    with pytest.raises(ValueError, match=r"changed on disk.*open it again"):
        bags[0]


@pytest.fixture(
    params=[(os, "fsync"), (json, "dumps"), (os, "rename")],
    ids=["data", "index", "rename"],
)
def interrupt(request, monkeypatch):
    """Make save stop as it writes the data, the index, or moves them in place."""

    def start(error, path):
        module, name = request.param
        real = getattr(module, name)

        def failing(*args, **kwargs):
            moves_old_away = name == "rename" and Path(args[0]) == path
            moves_old_back = name == "rename" and Path(args[0]).name == "old"
            if moves_old_away or moves_old_back:
                return real(*args, **kwargs)
            raise error("stopped by the test")

        monkeypatch.setattr(module, name, failing)

    return start


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_interrupted_save_leaves_nothing_behind(error, interrupt, tmp_path):
    interrupt(error, tmp_path / "store")
    with pytest.raises(error, match="stopped by the test"):
        Bags.from_list([WANTED]).save(tmp_path / "store")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_interrupted_save_leaves_the_old_store(error, interrupt, tmp_path):
    Bags.from_list(three_arrays(), ids=list("abc")).save(tmp_path / "store")
    bags = Bags.open(tmp_path / "store")
    before = tree(tmp_path)
    interrupt(error, tmp_path / "store")
    with pytest.raises(error, match="stopped by the test"):
        Bags.from_list([WANTED]).save(tmp_path / "store")
    assert tree(tmp_path) == before
    assert_holds(bags, three_arrays(), ids=list("abc"))
    assert_holds(Bags.open(tmp_path / "store"), three_arrays(), ids=list("abc"))


def test_save_stops_at_a_bad_bag(tmp_path):
    arrays = three_arrays()
    arrays[2][0, 0] = NAN
    bags = Bags.from_files(write_files(tmp_path, arrays))
    write_store(tmp_path / "store", WANTED)
    before = tree(tmp_path)
    with pytest.raises(ValueError, match=r"^bag 2 \(id 'c'\) contains NaN"):
        bags.save(tmp_path / "store")
    assert tree(tmp_path) == before


# --------------------------------------------------------------------------
# Frame labels
# --------------------------------------------------------------------------
MASKS = [[0, 0, 0], [0, 1], [1, 1, 1, 1], [0]]


def labels_of(y):
    """All that FrameLabels hold, as plain lists."""
    return {
        "masks": [mask.tolist() for mask in y.masks],
        "video_labels": y.video_labels.tolist(),
        "n_frames": y.n_frames.tolist(),
        "snippet_length": y.snippet_length.tolist(),
    }


def wanted_labels(key=slice(None), lengths=(16, 16, 16, 16)):
    order = np.arange(4)[key].tolist() if key != [] else []
    return {
        "masks": [[bool(v) for v in MASKS[i]] for i in order],
        "video_labels": [[0, 1, 1, 0][i] for i in order],
        "n_frames": [[3, 2, 4, 1][i] for i in order],
        "snippet_length": [lengths[i] for i in order],
    }


BAD_MASKS = {
    "a two": ([0, 2], "must be 0 or 1, got 2 at frame 1"),
    "a half": ([0.5, 1], "must be 0 or 1, got 0.5 at frame 0"),
    "negative": ([0, 1, -1], "must be 0 or 1, got -1 at frame 2"),
    "NaN": ([0, NAN], "must be 0 or 1, got nan at frame 1"),
    "empty": ([], "shape .0,. .*one 0/1 entry per frame"),
    "2-D": ([[0, 1], [1, 0]], r"shape \(2, 2\) .*expected a 1-D array"),
    "a number": (1, r"shape \(\) .*expected a 1-D array"),
    "ragged": ([[0], [1, 0]], "not a rectangular array"),
    "text": ("01", "expected a 1-D array"),
    "texts": (["0", "1"], "dtype <U1, expected a 1-D array"),
    "objects": ([0, None], "dtype object, expected a 1-D array"),
    "complex": ([0, 1j], "dtype complex128, expected"),
    "masked": (np.ma.masked_array([0, 1], mask=[0, 1]), "masked entries"),
}


@pytest.mark.parametrize(("mask", "match"), BAD_MASKS.values(), ids=BAD_MASKS.keys())
def test_bad_frame_labels_are_named(mask, match):
    with pytest.raises(ValueError, match=rf"^frame labels of video 1\b.*{match}"):
        FrameLabels([[0, 1], mask])


@pytest.mark.parametrize(
    ("masks", "error", "match"),
    [
        pytest.param([], ValueError, "^no frame labels: expected one array", id="none"),
        pytest.param(
            [0, 1, 0], ValueError, r"^frame labels of video 0 .*\(\)", id="1-D"
        ),
        pytest.param("0101", TypeError, "one array per video, got str", id="str"),
        pytest.param({"a": [0]}, TypeError, "one array per video, got dict", id="dict"),
        pytest.param({0, 1}, TypeError, "one array per video, got set", id="set"),
        pytest.param(None, TypeError, "one array per video, got NoneType", id="None"),
        pytest.param(5, TypeError, "one array per video, got int", id="int"),
    ],
)
def test_frame_labels_expect_a_list(masks, error, match):
    with pytest.raises(error, match=match):
        FrameLabels(masks)


@pytest.mark.parametrize(
    ("length", "error", "match"),
    [
        pytest.param(0, ValueError, "must be positive, got 0", id="0"),
        pytest.param(-2, ValueError, "must be positive, got -2", id="negative"),
        pytest.param(NAN, ValueError, "must be positive, got nan", id="NaN"),
        pytest.param(INF, ValueError, "must be positive, got inf", id="inf"),
        pytest.param([4, -1], ValueError, "of video 1 must be .*got -1", id="one bad"),
        pytest.param(
            [NAN, 1], ValueError, "of video 0 must be .*got nan", id="one NaN"
        ),
        pytest.param([16], ValueError, "1 snippet lengths for 2 videos", id="too few"),
        pytest.param(
            [], ValueError, "0 snippet lengths for 2 videos", id="none at all"
        ),
        pytest.param([1, 2, 3], ValueError, "3 snippet lengths for 2", id="too many"),
        pytest.param([[1], [2]], TypeError, "one number per video", id="2-D"),
        pytest.param([[1], [2, 3]], ValueError, "not a rectangular", id="ragged"),
        pytest.param("16", TypeError, "must be a number or one .*got '16'", id="str"),
        pytest.param(None, TypeError, "one number per video, got None", id="None"),
        pytest.param(True, TypeError, "one number per video, got True", id="bool"),
        pytest.param(2j, TypeError, "one number per video, got 2j", id="complex"),
        pytest.param({"a": 1}, TypeError, "one number per video", id="dict"),
    ],
)
def test_bad_snippet_length(length, error, match):
    with pytest.raises(error, match=match):
        FrameLabels([[0, 1], [1]], snippet_length=length)


@pytest.mark.parametrize(
    "masks",
    [
        pytest.param(MASKS, id="lists"),
        pytest.param(tuple(map(tuple, MASKS)), id="tuples"),
        pytest.param([np.array(m, "i1") for m in MASKS], id="int8"),
        pytest.param([np.array(m, bool) for m in MASKS], id="bool"),
        pytest.param([np.array(m, "f4") for m in MASKS], id="float32"),
        pytest.param([torch.tensor(m) for m in MASKS], id="tensors"),
        pytest.param([torch.tensor(m).bfloat16() for m in MASKS], id="bfloat16"),
        pytest.param(
            [pd.Series(m, index=range(9, 9 + len(m))) for m in MASKS], id="sr"
        ),
        pytest.param(np.array([*MASKS, None], object)[:4], id="object array"),
        pytest.param((m for m in MASKS), id="generator"),
        pytest.param([np.repeat(m, 2)[::2] for m in MASKS], id="strided"),
    ],
)
def test_frame_labels(masks):
    y = FrameLabels(masks)
    assert labels_of(y) == wanted_labels()
    assert all(mask.dtype == bool for mask in y.masks)
    assert y.shape == (4,)
    assert len(y) == 4
    assert y.ndim == 1


def test_frame_labels_copy():
    mask = np.array([False, False])
    y = FrameLabels([mask])
    mask[:] = True
    assert y.masks[0].tolist() == [False, False]
    assert np.asarray(y).tolist() == [0]


def test_equal_length_masks_as_array():
    y = FrameLabels(np.eye(2))
    assert [mask.tolist() for mask in y.masks] == [[True, False], [False, True]]


@pytest.mark.parametrize(
    ("length", "wanted"),
    [
        pytest.param(8, [8, 8, 8, 8], id="one"),
        pytest.param(2.5, [2.5, 2.5, 2.5, 2.5], id="fraction"),
        pytest.param([1, 2, 3, 4.5], [1, 2, 3, 4.5], id="one per video"),
        pytest.param(
            np.array([3, 2, 4, 1]) / 32, [3 / 32, 1 / 16, 0.125, 1 / 32], id="32"
        ),
        pytest.param(torch.tensor([1, 2, 3, 4]), [1, 2, 3, 4], id="tensor"),
    ],
)
def test_snippet_lengths_follow(length, wanted):
    y = FrameLabels(MASKS, snippet_length=length)
    assert labels_of(y) == wanted_labels(lengths=wanted)
    assert labels_of(y[[3, 1]]) == wanted_labels([3, 1], lengths=wanted)
    again = pickle.loads(pickle.dumps(y[1:]))
    assert labels_of(again) == wanted_labels(slice(1, None), lengths=wanted)


def test_frame_labels_of_frame_labels():
    y = FrameLabels(MASKS, snippet_length=[1, 2, 3, 4])
    assert labels_of(FrameLabels(y)) == wanted_labels(lengths=[1, 2, 3, 4])
    assert labels_of(FrameLabels(y[::-1])) == wanted_labels(
        slice(None, None, -1), [1, 2, 3, 4]
    )
    assert labels_of(FrameLabels(y, snippet_length=8)) == wanted_labels(lengths=[8] * 4)


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(slice(1, 3), id="slice"),
        pytest.param(slice(None, None, -1), id="reversed"),
        pytest.param([3, 0], id="list"),
        pytest.param([2, 2, 1], id="duplicates"),
        pytest.param([], id="none"),
        pytest.param([-1, 0], id="negative"),
        pytest.param([True, False, False, True], id="mask"),
    ],
)
def test_index_frame_labels(key):
    y = FrameLabels(MASKS, snippet_length=[1, 2, 3, 4])
    wanted = wanted_labels(key, lengths=(1, 2, 3, 4))
    for part in (y[key], y[key, ...], pickle.loads(pickle.dumps(y[key]))):
        assert type(part) is FrameLabels
        assert labels_of(part) == wanted
        assert labels_of(part[::-1][::-1]) == wanted


def test_integer_gives_a_video_label():
    y = FrameLabels(MASKS)
    assert [y[0], y[1], y[-2], y[np.int8(3)], y[0, ...]] == [0, 1, 1, 0, 0]
    assert list(y) == [0, 1, 1, 0]


def test_subset_of_frame_labels_pickles_its_own_frames_only():
    noise = np.random.default_rng(0).random((20, 10_000)) < 0.5  # hard to compress
    y = FrameLabels(noise)
    assert len(pickle.dumps(y)) > 20 * 10_000 / 8
    for key in ([4, 7], slice(2), [7, 7]):
        part = pickle.dumps(y[key])
        assert len(part) < 4_000
        last = np.arange(20)[key][1]
        assert np.array_equal(pickle.loads(part).masks[1], noise[last])


def test_frame_labels_pickle_small():
    masks = np.zeros((100, 9_999), dtype=bool)
    masks[::2, 700:900] = True
    y = FrameLabels(masks, snippet_length=np.arange(1, 101))
    pickled = pickle.dumps(y)
    assert len(pickled) < 10_000  # of a million frames
    again = pickle.loads(pickled)
    assert np.array_equal(again.masks, masks)
    assert again[::3].masks[1].dtype == bool
    assert np.array_equal(again[::3].snippet_length, np.arange(1, 101, 3))
    assert pickle.loads(pickle.dumps(y[:0])).masks == []


def test_subsets_of_frame_labels_are_views():
    y = FrameLabels(MASKS)
    assert np.shares_memory(y[2:].masks[0], y.masks[2])


def test_frame_labels_behave_as_video_labels():
    y = FrameLabels(MASKS)
    values = np.array([0, 1, 1, 0])
    np.testing.assert_array_equal(np.asarray(y), values, strict=True)
    np.testing.assert_array_equal(np.asarray(y, dtype=float), values.astype(float))
    np.testing.assert_array_equal(np.unique(y), [0, 1])
    assert y.dtype == values.dtype
    assert np.mean(y) == 0.5
    np.testing.assert_array_equal(-y, -values, strict=True)
    np.testing.assert_array_equal(values[y == 1], [1, 1])


@pytest.mark.parametrize(
    "operation",
    [
        operator.eq,
        operator.ne,
        operator.lt,
        operator.ge,
        operator.add,
        operator.sub,
        operator.mul,
        operator.floordiv,
        operator.and_,
        operator.or_,
        operator.xor,
    ],
    ids=lambda operation: operation.__name__,
)
def test_arithmetic_of_frame_labels(operation):
    y, values = FrameLabels(MASKS), np.array([0, 1, 1, 0])
    other = np.array([1, 1, 2, 3])
    for right in (1, other):
        np.testing.assert_array_equal(operation(y, right), operation(values, right))
        np.testing.assert_array_equal(
            operation(right, y + 1), operation(right, values + 1)
        )
    np.testing.assert_array_equal(operation(y, y[::-1] | 1), operation(values, 1))


def test_asarray_of_frame_labels_is_a_copy():
    y = FrameLabels(MASKS)
    np.asarray(y)[:] = 5
    assert y.video_labels.tolist() == [0, 1, 1, 0]


# --------------------------------------------------------------------------
# Video labels
# --------------------------------------------------------------------------
BAD_Y = {
    "None": (None, ValueError, "requires y to be passed, but the target y is None"),
    "too few": ([0, 1], ValueError, "inconsistent numbers.* 4 bags and 2 labels"),
    "too many": (np.ones(5, int), ValueError, "4 bags and 5 labels"),
    "none at all": ([], ValueError, "4 bags and 0 labels"),
    "FrameLabels too few": (FrameLabels([[0], [1]]), ValueError, "4 bags and 2 labels"),
    "floats": ([0, 1, 0.5, 0], ValueError, "Unknown label type: .* bag 2 is 0.5"),
    "NaN": ([0, 1, NAN, 1], ValueError, "Input y contains NaN .*label of bag 2 is nan"),
    "inf": (np.array([0, INF, 0, 1]), ValueError, "label of bag 1 is inf"),
    "NaN objects": (np.array([0, 1, 0, NAN], object), ValueError, "bag 3 is nan"),
    "None inside": ([0, 1, None, 1], ValueError, "label of bag 2 is None, expected"),
    "pd.NA": (
        [0, pd.NA, 0, 1],
        ValueError,
        "label of bag 1 is <NA>, expected a number",
    ),
    "missing series": (pd.Series([0, 1, None, 1]), ValueError, "bag 2 is nan"),
    "missing text": (["a", NAN, "b", "a"], ValueError, "bag 0 is 'a', .*bag 1 is nan"),
    "texts and numbers": ([0, "a", 1, "b"], ValueError, "y mixes texts and numbers"),
    "frame lists": (
        [[0, 1], [0], [1], [0]],
        ValueError,
        "array for bag 0.*FrameLabels",
    ),
    "frames after labels": ([0, [0, 1], 0, 1], ValueError, "array for bag 1"),
    "frame arrays": ([np.zeros(2)] * 4, ValueError, r"wrap .*FrameLabels\(masks\)"),
    "frame objects": (
        np.array([np.zeros(2), np.ones(3), np.zeros(1), 0], object),
        ValueError,
        "array for bag 0.*FrameLabels",
    ),
    "2-D": (np.zeros((4, 3)), ValueError, r"1d array, got an array of shape \(4, 3\)"),
    "0-D": (np.array(1), ValueError, "1d array"),
    "Bags": (Bags.from_list([GOOD] * 4), ValueError, "array for bag 0"),
    "bytes": ([b"a", b"b", b"a", b"b"], ValueError, "label of bag 0 is b'a', expected"),
    "complex": (
        np.array([0, 1j, 0, 1]),
        ValueError,
        "y has dtype complex128, expected",
    ),
    "dates": (np.array(["2020"] * 4, "M8[Y]"), ValueError, "y has dtype datetime64"),
    "masked": (np.ma.masked_array([0, 1, 0, 1], [1, 0, 0, 0]), ValueError, "masked"),
    "str": ("0101", TypeError, "^y has type str, expected one label per video"),
    "dict": ({0: 1}, TypeError, "^y has type dict"),
    "set": ({0, 1}, TypeError, "^y has type set"),
    "generator": ((i for i in range(4)), TypeError, "^y has type generator"),
    "int": (4, TypeError, "^y has type int"),
}


@pytest.mark.parametrize(("y", "error", "match"), BAD_Y.values(), ids=BAD_Y.keys())
def test_bad_video_labels(y, error, match):
    with pytest.raises(error, match=match):
        check_video_labels(y, 4)


NUMBERS, TEXTS = [0, 1, 0, 1], ["normal", "fight", "normal", "fight"]
LEGIT_Y = {
    "ints": (NUMBERS, NUMBERS),
    "tuple": (tuple(NUMBERS), NUMBERS),
    "whole floats": ([0.0, 1.0, 0.0, 1.0], NUMBERS),
    "other numbers": ([-1, 7, -1, 7], [-1, 7, -1, 7]),
    "bools": ([False, True, False, True], NUMBERS),
    "one class": ([0, 0, 0, 0], [0, 0, 0, 0]),
    "three classes": ([0, 1, 2, 1], [0, 1, 2, 1]),
    "texts": (TEXTS, TEXTS),
    "text array": (np.array(TEXTS), TEXTS),
    "uint8": (np.array(NUMBERS, "u1"), NUMBERS),
    "numpy scalars": ([np.int64(0), np.bool_(True), np.float32(0), 1], NUMBERS),
    "0-d tensors": (list(torch.tensor(NUMBERS)), NUMBERS),
    "tensor with grad": (torch.tensor([0.0, 1, 0, 1], requires_grad=True), NUMBERS),
    "objects": (np.array(NUMBERS, object), NUMBERS),
    "text objects": (np.array(TEXTS, object), TEXTS),
    "series": (pd.Series(NUMBERS, index=[4, 3, 2, 1]), NUMBERS),
    "text series": (pd.Series(TEXTS), TEXTS),
    "categories": (pd.Categorical(TEXTS), TEXTS),
    "nullable series": (pd.Series(NUMBERS, dtype="Int64"), NUMBERS),
    "FrameLabels": (FrameLabels([[0], [0, 1], [0, 0], [1]]), NUMBERS),
}


@pytest.mark.parametrize(("y", "wanted"), LEGIT_Y.values(), ids=LEGIT_Y.keys())
def test_legitimate_video_labels(y, wanted):
    labels = check_video_labels(y, 4)
    assert type(labels) is np.ndarray
    assert labels.dtype.kind in "biufU"
    assert labels.tolist() == wanted


def test_column_of_labels_warns():
    with pytest.warns(DataConversionWarning, match="column-vector"):
        labels = check_video_labels(np.array([[0], [1]]), 2)
    assert labels.tolist() == [0, 1]


# --------------------------------------------------------------------------
# For any bags and any keys
# --------------------------------------------------------------------------
FINITE = st.floats(-(2.0**100), 2.0**100, width=32)


@st.composite
def arrays_and_keys(draw):
    """Ragged bags of one dtype, and two keys for indexing one after the other."""
    tail = draw(st.sampled_from([(1,), (3,), (2, 2)]))
    dtype = draw(st.sampled_from([np.float16, np.float32, np.float64]))
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=6))
    values = st.floats(-6e4, 6e4, width=16) if dtype == np.float16 else FINITE
    arrays = [draw(hnp.arrays(dtype, (n, *tail), elements=values)) for n in lengths]
    first = draw(keys(len(arrays)))
    second = draw(keys(len(np.arange(len(arrays))[first])))
    return arrays, first, second


def keys(n):
    integers = st.lists(st.integers(-n, n - 1), max_size=8) if n else st.just([])
    return st.one_of(
        st.slices(n),
        integers.map(lambda key: np.array(key, dtype=int)),
        hnp.arrays(bool, n),
    )


@settings(max_examples=60, deadline=None)
@given(arrays_and_keys())
def test_any_bags_by_any_way(case):
    arrays, first, second = case
    order = np.arange(len(arrays))[first][second].tolist()
    ids = [f"v{i}" for i in range(len(arrays))]
    wanted, wanted_ids = [arrays[i] for i in order], [ids[i] for i in order]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        made = [
            Bags.from_list(arrays, ids=ids),
            Bags.from_files(write_files(folder, arrays, names=ids)),
        ]
        made[1].save(folder / "store")
        made.append(Bags.open(folder / "store"))
        for bags in made:
            part = bags[first][second]
            assert_holds(bags, arrays, ids=ids)
            assert_holds(part, wanted, ids=wanted_ids)
            assert_holds(pickle.loads(pickle.dumps(part)), wanted, ids=wanted_ids)
            assert bags.dtype == part.dtype == arrays[0].dtype
            if order:
                part.save(folder / "part")
                assert_holds(Bags.open(folder / "part"), wanted, ids=wanted_ids)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_frame_labels(data):
    mask = st.lists(st.booleans(), min_size=1, max_size=5)
    masks = data.draw(st.lists(mask, min_size=1, max_size=6))
    lengths = data.draw(
        st.lists(st.floats(0.1, 64), min_size=len(masks), max_size=len(masks))
    )
    first = data.draw(keys(len(masks)))
    order = np.arange(len(masks))[first]
    second = data.draw(keys(len(order)))
    order = order[second].tolist()
    part = FrameLabels(masks, snippet_length=lengths)[first][second]
    for y in (part, pickle.loads(pickle.dumps(part))):
        assert labels_of(y) == {
            "masks": [masks[i] for i in order],
            "video_labels": [int(any(masks[i])) for i in order],
            "n_frames": [len(masks[i]) for i in order],
            "snippet_length": [lengths[i] for i in order],
        }
        assert np.asarray(y).tolist() == [int(any(masks[i])) for i in order]


@pytest.mark.parametrize("source", [[GOOD], None, "folder"])
def test_bags_are_made_by_class_methods(source):
    with pytest.raises(TypeError, match=r"^make Bags with Bags.from_list"):
        Bags(source)


def test_frame_labels_of_other_videos():
    bags = Bags.from_list([GOOD, GOOD], ids=["a", "b"])
    check_same_videos(bags, FrameLabels([[0], [1]], ids=["a", "b"]))
    check_same_videos(bags, FrameLabels([[0], [1]]))
    with pytest.raises(ValueError, match=r"^bag 0 \(id 'a'\) has frame labels of 'b'"):
        check_same_videos(bags, FrameLabels([[0], [1]], ids=["b", "a"]))
