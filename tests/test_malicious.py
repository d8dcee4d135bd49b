"""Files made to do harm: none runs code, none leads out of its folder.

The canary sings by creating a file. `test_canary_can_sing` unpickles it on purpose.
"""

import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import joblib
import numpy as np
import pytest
import scipy.io
import torch
from fuzz_files import packed_zeros, peak_memory
from safetensors import safe_open
from test_persistence import read as read_detector
from test_persistence import write as write_detector
from test_readers import assert_refused, h5py, load, npz_of

import sklearn_vad
from sklearn_vad import Bags, MILRankingAnomalyDetector
from sklearn_vad.datasets import (
    Annotations,
    load_concatenated_frame_labels,
    load_csv_annotations,
    load_shanghaitech_annotations,
    load_split,
    load_ucf_crime_annotations,
    load_xd_violence_annotations,
)

MIB = 2**20


class Canary:
    """An object whose pickle creates a file when it is read."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.fixture
def song(tmp_path):
    """Where the canary would sing; it must be silent."""
    path = tmp_path / "song"
    yield path
    assert not path.exists(), "code from a file was run"


@pytest.fixture
def detector_file(small, tmp_path):
    est = MILRankingAnomalyDetector(hidden_dims=(4, 2), max_epochs=1, random_state=0)
    path = tmp_path / "detector.safetensors"
    est.fit(*small).save(path)
    return path


def refused(match):
    return pytest.raises((ValueError, TypeError), match=match)


# --------------------------------------------------------------------------
# Pickles
# --------------------------------------------------------------------------
def _objects(song):
    array = np.empty((2, 2), object)
    array[:] = Canary(song)
    return array


def _write_npz(file, array, packed=False):
    (np.savez_compressed if packed else np.savez)(file, x=array)


def _write_h5(file, song):
    """A pickle as an attribute, as a dataset of bytes, and as a vlen."""
    data = np.void(pickle.dumps(Canary(song)))
    with h5py().File(file, "w") as out:
        out["x"] = np.ones((3, 2), "f4")
        out["x"].attrs["pickle"] = data
        out.attrs["__reduce__"] = data


DUMPS = {
    "pickle": lambda file, song: pickle.dump(Canary(song), file),
    "npy": lambda file, song: np.save(file, _objects(song), allow_pickle=True),
    "npz": lambda file, song: _write_npz(file, _objects(song)),
    "packed npz": lambda file, song: _write_npz(file, _objects(song), packed=True),
    "torch": lambda file, song: torch.save(Canary(song), file),
    "old torch": lambda file, song: torch.save(
        Canary(song), file, _use_new_zipfile_serialization=False
    ),
    "joblib": lambda file, song: joblib.dump(Canary(song), file),
    "packed joblib": lambda file, song: joblib.dump(Canary(song), file, compress=3),
}
SUFFIXES = [".npy", ".npz", ".pt", ".pth", ".pkl", ".joblib", ".mat", ".h5", ".txt"]


def test_canary_can_sing(tmp_path):
    loads = {
        "pickle": pickle.load,
        "npy": lambda file: np.load(file, allow_pickle=True),
        "npz": lambda file: np.load(file, allow_pickle=True)["x"],
        "torch": lambda file: torch.load(file, weights_only=False),
        "joblib": joblib.load,
    }
    for kind, unpickle in loads.items():
        song = tmp_path / kind
        with open(tmp_path / "file", "w+b") as file:
            DUMPS[kind](file, song)
            file.seek(0)
            assert not song.exists()
            found = unpickle(file)
            assert song.exists()
        for opened in np.ravel(np.array(found, object)):
            opened.close()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", DUMPS)
def test_pickles_are_never_opened(kind, suffix, song, tmp_path):
    path = tmp_path / f"a{suffix}"
    with open(path, "wb") as file:
        DUMPS[kind](file, song)
    with refused("bag 0 .*a"):
        load([path])[0]
    with refused("cannot load"):
        sklearn_vad.load(path)
    for reader in (load_csv_annotations, load_ucf_crime_annotations, load_split):
        with refused("a"):
            reader(path)
    if suffix == ".npy":
        with refused("bag 0"):
            Bags.from_files([path])[0]
        with refused("a.npy"):
            load_shanghaitech_annotations(tmp_path)
        with refused("a.npy"):
            load_concatenated_frame_labels(path, ["a"], [4])


def test_pickles_inside_hdf5_are_no_more_than_bytes(song, tmp_path):
    _write_h5(tmp_path / "a.h5", song)
    assert load([tmp_path / "a.h5"])[0].tolist() == [[1, 1]] * 3
    with h5py().File(tmp_path / "b.h5", "w") as file:
        file["x"] = np.frombuffer(pickle.dumps(Canary(song)) + b"." * 9, "S1")[:, None]
    with refused("has dtype .S1, expected real numbers"):
        load([tmp_path / "b.h5"])


def test_pickles_inside_matlab_files(song, tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"x": [[pickle.dumps(Canary(song), 0)]]})
    with refused("a.mat' holds a MATLAB char array"):
        load([tmp_path / "a.mat"])
    scipy.io.savemat(tmp_path / "b.mat", {"x": {"a": np.ones((2, 2))}})
    with refused("b.mat' holds a MATLAB struct array"):
        load([tmp_path / "b.mat"])


def test_store_with_a_pickle(song, tmp_path):
    Bags.from_list([np.ones((3, 2))]).save(tmp_path / "store")
    for kind in ("npy", "pickle", "npz", "torch"):
        with open(tmp_path / "store" / "snippets.npy", "wb") as file:
            DUMPS[kind](file, song)
        with refused("store.* is damaged: snippets.npy"):
            Bags.open(tmp_path / "store")


# --------------------------------------------------------------------------
# Saved detectors
# --------------------------------------------------------------------------
def with_header(path, change):
    """Rewrite the JSON header of a safetensors file; `change` may return bytes."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header, tensors = json.loads(data[8 : 8 + length]), data[8 + length :]
    made = change(header)
    made = json.dumps(header).encode() if made is None else made
    path.write_bytes(struct.pack("<Q", len(made)) + made + tensors)


def _first(header):
    return header[next(name for name in header if name != "__metadata__")]


def _overlap(header):
    names = [name for name in header if name != "__metadata__"]
    header[names[1]] = dict(header[names[0]])


def _doubled(header):
    text = json.dumps(header)
    return (text[:-1] + ", " + text[1:]).encode()


@pytest.mark.parametrize(
    "change",
    [
        lambda header: _first(header).update(data_offsets=[-8, 8]),
        lambda header: _first(header).update(data_offsets=[0, 2**62]),
        lambda header: _first(header).update(data_offsets=[2**63, 2**64 - 1]),
        lambda header: _first(header).update(data_offsets=[8, 0]),
        lambda header: _first(header).update(shape=[2**40, 2**40]),
        lambda header: _first(header).update(shape=[-1]),
        lambda header: _first(header).update(shape=[0] * 10**5),
        lambda header: _first(header).update(dtype="O"),
        lambda header: _first(header).update(dtype="F64"),
        _overlap,
        lambda header: header.update({"../../x": _first(header)}),
        lambda header: header["__metadata__"].update(sklearn_vad="{}"),
        lambda header: header["__metadata__"].update(sklearn_vad="[" * 10**5),
        lambda header: header["__metadata__"].update(sklearn_vad='{"a":' * 10**5),
        lambda header: header["__metadata__"].update(sklearn_vad="9" * 10**5),
        lambda header: b"[" * 10**5,
        lambda header: b'{"a":' * 10**5,
        lambda header: b"{}" + b" " * 2**23,
        lambda header: b"",
    ],
)
def test_lying_headers_of_detectors(change, detector_file, song):
    with_header(detector_file, change)
    before = peak_memory(reset=True)
    with refused(f"^cannot load '{detector_file}': ") as caught:
        sklearn_vad.load(detector_file)
    assert len(str(caught.value)) < 20_000
    assert peak_memory() - before < 200 * MIB


def test_keys_of_the_header_that_come_twice(detector_file):
    with_header(detector_file, _doubled)
    with refused("duplicate field"):
        sklearn_vad.load(detector_file)


def test_the_last_of_two_keys_has_to_match_the_checksum(detector_file):
    with safe_open(detector_file, "pt") as file:
        text = file.metadata()["sklearn_vad"]
    assert '"lr": ' in text
    twice = text.replace('"lr": ', '"lr": 0.5, "lr": ', 1)
    with_header(
        detector_file, lambda header: header["__metadata__"].update(sklearn_vad=twice)
    )
    lr = sklearn_vad.load(detector_file).lr  # the last one, which was saved
    assert lr == json.loads(text)["detector"]["parameters"]["lr"]


CLASSES = [
    *("os.system", "builtins.eval", "sklearn.svm.SVC", "SaveMixin", "torch"),
    *("BaseAnomalyDetector", "_DETECTORS", "__class__", "../DDLAnomalyDetector", ""),
    *("sklearn_vad.DDLAnomalyDetector", "DDLAnomalyDetector.load", "import_module"),
    *("MILRankingAnomalyDetector\0", "MILRankingAnomalyDetector ", "_mil_ranking"),
]


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("nested", [False, True])
def test_classes_outside_the_list(name, nested, detector_file, song):
    saved, tensors = read_detector(detector_file)
    if nested:
        made = {"$detector": {"class": name, "parameters": {"path": str(song)}}}
        saved["detector"]["parameters"]["callbacks"] = [made]
    else:
        saved["detector"]["class"] = name
    write_detector(detector_file, saved, tensors)
    with refused("the detector is of class .*expected one of"):
        sklearn_vad.load(detector_file)


@pytest.mark.parametrize(
    "name",
    [
        *("__class__", "__dict__", "__init__", "__reduce__", "net_", "estimator__lr"),
        *("a.b", "lr.__class__", "self", "cls", "set_params", "_make_module", " "),
    ],
)
@pytest.mark.parametrize("place", ["parameters", "fitted", "parts"])
def test_names_that_are_no_parameters(name, place, detector_file, song):
    saved, tensors = read_detector(detector_file)
    saved["detector"][place][name] = {"class": "os.system", "path": str(song)}
    write_detector(detector_file, saved, tensors)
    with refused("cannot load"):
        sklearn_vad.load(detector_file)


@pytest.mark.parametrize(
    "value",
    [
        {"$array": ["O", [{"$detector": 1}]]},
        {"$array": ["f8,f8", [1]]},
        {"$array": ["<f8", [[1], [2, 3]]]},
        {"$array": ["<U16777216", ["a"]]},
        {"$array": [["a", "<f8"], [1]]},
        {"$array": 3},
        {"$float": "__import__('os')"},
        {"$tuple": {"a": 1}},
        {"$detector": {"class": "EnsembleAnomalyDetector", "parameters": {}}},
        {"$eval": "1"},
        {"__reduce__": ["os.system", ["true"]]},
    ],
)
def test_values_that_are_no_callbacks(value, detector_file, song):
    saved, tensors = read_detector(detector_file)
    saved["detector"]["parameters"]["hidden_dims"] = value
    write_detector(detector_file, saved, tensors)
    with refused("cannot load"):
        sklearn_vad.load(detector_file)


def test_detectors_nested_without_end(detector_file):
    saved, tensors = read_detector(detector_file)
    innermost = saved["detector"]["parameters"]
    for _ in range(150):
        innermost["callbacks"] = [
            {"$detector": {"class": "MILRankingAnomalyDetector", "parameters": {}}}
        ]
        innermost = innermost["callbacks"][0]["$detector"]["parameters"]
    write_detector(detector_file, saved, tensors)
    with refused("cannot load"):
        sklearn_vad.load(detector_file)


# --------------------------------------------------------------------------
# Small files that unpack to much, short ones that promise much
# --------------------------------------------------------------------------
def test_npz_with_a_header_of_spaces(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        head = b"\x93NUMPY\2\0" + struct.pack("<I", 2**32 - 1)
        archive.writestr("x.npy", head + bytes(64 * MIB))
    assert_refused(tmp_path / "a.npz", "a.npz' is not a readable .npz file: EOF")


def test_npy_with_a_header_of_spaces(tmp_path):
    with open(tmp_path / "a.npy", "wb") as file:
        file.write(b"\x93NUMPY\2\0" + struct.pack("<I", 2**30))
        file.truncate(2**31)  # a sparse file
    assert_refused(tmp_path / "a.npy", "a.npy' is not a readable .npy file: EOF")
    with refused("a.npy', expected a .npy file"):
        load_concatenated_frame_labels(tmp_path / "a.npy", ["a"], [1])


@pytest.mark.parametrize("shuffle", [False, True])
def test_hdf5_chunk_that_unpacks_to_more(shuffle, tmp_path):
    path = tmp_path / "a.h5"
    with h5py().File(path, "w") as file:
        options = {"compression": "gzip", "shuffle": shuffle, "fletcher32": shuffle}
        x = file.create_dataset("x", (6, 5), "f4", chunks=(6, 5), **options)
        x.id.write_direct_chunk((0, 0), packed_zeros(500 * MIB))
    before = peak_memory(reset=True)
    with refused("a.h5' is damaged or a trap: a chunk of '/x' unpacks to more than"):
        load([path])[0]
    assert peak_memory() - before < 32 * MIB


def test_hdf5_chunks_that_were_not_packed(tmp_path):
    """A chunk may be left as it is, which its filter mask says."""
    array = np.random.default_rng(0).random((600, 500))
    for compression in ("gzip", "lzf", "szip"):
        path = tmp_path / f"{compression}.h5"
        with h5py().File(path, "w") as file:
            try:
                x = file.create_dataset(
                    "x", (600, 500), "f4", chunks=(300, 500), compression=compression
                )
            except ValueError:  # a libhdf5 that lacks szip
                continue
            x.id.write_direct_chunk((0, 0), array[:300].astype("f4").tobytes(), 1)
            x[300:] = array[300:]
        assert np.array_equal(load([path])[0], array.astype("f4"))


@pytest.mark.parametrize("number", [5, 6])
def test_hdf5_filter_that_lies_about_its_output(number, tmp_path):
    low = h5py()
    plist = low.h5p.create(low.h5p.DATASET_CREATE)
    plist.set_chunk((4, 2))
    # Values as libhdf5 would set them, but for the number of elements.
    plist.set_filter(number, low.h5z.FLAG_OPTIONAL, (0, 2, 2**31, 1, 4))
    fake = type(
        "Dataset",
        (),
        {
            "name": "/x",
            "chunks": (4, 2),
            "dtype": np.dtype("f4"),
            "id": type("Id", (), {"get_create_plist": staticmethod(lambda: plist)}),
        },
    )
    from sklearn_vad.datasets import _formats

    with refused("is a trap: a filter of '/x' lies"):
        _formats._packing(fake)


def test_hdf5_filter_that_nobody_knows(tmp_path):
    low = h5py()
    plist = low.h5p.create(low.h5p.DATASET_CREATE)
    plist.set_chunk((4, 2))
    plist.set_filter(32001, low.h5z.FLAG_OPTIONAL, ())
    with low.File(tmp_path / "a.h5", "w") as file:
        space = low.h5s.create_simple((4, 2))
        dataset = low.h5d.create(file.id, b"x", low.h5t.IEEE_F32LE, space, plist)
        dataset.write_direct_chunk((0, 0), bytes(32), 1)
    assert_refused(
        tmp_path / "a.h5", "filter of number 32001, expected gzip, szip, lzf"
    )


def test_ids_that_fill_the_memory(tmp_path):
    """In an array of texts each takes as much as the longest."""
    ids = ["a" * 10**6, *map(str, range(1000))]
    with refused("the longest of 1001 ids has 1000000 characters, expected at most"):
        Bags.from_list([np.ones((1, 1))] * 1001, ids=ids)
    Bags.from_list([np.ones((1, 1))] * 1001).save(tmp_path / "store")
    index = json.loads((tmp_path / "store" / "bags.json").read_text())
    (tmp_path / "store" / "bags.json").write_text(json.dumps({**index, "ids": ids}))
    with refused("store.* is damaged: the longest of 1001 ids"):
        Bags.open(tmp_path / "store")


def test_texts_that_fill_the_memory(tmp_path):
    Bags.from_list([np.ones((1, 1))]).save(tmp_path / "store")
    paths = [tmp_path / "store" / "bags.json", tmp_path / "a.txt"]
    for path in paths:
        with open(path, "ab") as file:
            file.truncate(2**36)  # sparse
    with refused(f"is not a store .*takes {2**36} bytes"):
        Bags.open(tmp_path / "store")
    for reader in (
        *(load_csv_annotations, load_ucf_crime_annotations, load_split),
        load_xd_violence_annotations,
    ):
        with refused(f"a.txt.*takes {2**36} bytes"):
            reader(paths[1])


@pytest.mark.parametrize("number", ["9" * 5000, "9" * 20, "2147483648", "-2147483648"])
def test_numbers_without_end(number, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(f"a Arson 3 {number}")
    with refused("a.txt', line 1: .*exceeds 2147483647") as caught:
        load_ucf_crime_annotations(path)
    assert len(str(caught.value)) < 2000


def test_more_frames_than_fit():
    n = 2**31 - 1
    found = Annotations(["a", "b", "c"], [["N"]] * 3, [0] * 3, [[]] * 3, [n] * 3)
    with refused("the 3 videos have 6.44e[+]09 frames together, expected at most"):
        found.frame_labels()


def test_messages_stay_short(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a" * 10**6 + " b c d e f g")
    for reader in (
        *(load_csv_annotations, load_ucf_crime_annotations, load_split),
        *(load_xd_violence_annotations, lambda path: load([path])),
    ):
        with refused("a.txt'.*(characters|larger than field limit)") as caught:
            reader(path)
        assert len(str(caught.value)) < 4000


# --------------------------------------------------------------------------
# Names that lead elsewhere
# --------------------------------------------------------------------------
TRAVERSALS = ["../../x", "/etc/passwd", "..\\..\\x", "a/../../x", "~/x", "C:\\x", "."]


def _snapshot(folder):
    return sorted(str(path) for path in folder.rglob("*"))


@pytest.mark.parametrize("name", TRAVERSALS)
def test_members_of_npz(name, tmp_path):
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "in" / "a.npz", "w") as archive:
        file = io.BytesIO()
        np.save(file, np.ones((2, 3), "f4"))
        archive.writestr(f"{name}.npy", file.getvalue())
    before = _snapshot(tmp_path)
    assert load([tmp_path / "in" / "a.npz"])[0].tolist() == [[1, 1, 1]] * 2
    assert _snapshot(tmp_path) == before


@pytest.mark.parametrize("name", TRAVERSALS)
def test_ids_of_stores_are_names_only(name, tmp_path):
    path = tmp_path / "in" / "store"
    Bags.from_list([np.ones((2, 3))], ids=[name]).save(path)
    before = _snapshot(tmp_path)
    bags = Bags.open(path)
    assert bags.ids.tolist() == [name]
    bags.save(tmp_path / "in" / "other")
    added = set(_snapshot(tmp_path)) - set(before)
    other = tmp_path / "in" / "other"
    assert added == {str(other), str(other / "bags.json"), str(other / "snippets.npy")}


def test_ids_of_annotations_are_file_names(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("video,label\n../../x.npy,1\n/etc/passwd,0\n..\\y,0\n")
    before = _snapshot(tmp_path)
    found = load_csv_annotations(path)
    assert found.ids.tolist() == ["x", "passwd", "y"]
    path.write_text("../../x.mp4 1\n/etc/shadow 0\n")
    assert load_split(path) == ["x", "shadow"]
    assert _snapshot(tmp_path) == before


def test_npz_member_that_lies_outside_is_not_looked_up(tmp_path):
    np.save(tmp_path / "secret.npy", np.full((2, 2), 7.0))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.npz").write_bytes(npz_of((4, 4)))
    with refused("holds no array '../secret', found 'x'"):
        load([tmp_path / "in" / "a.npz"], key="../secret")


def test_links_out_of_a_folder(tmp_path):
    """Links to files are followed, as the user put them; links to folders are not."""
    outside = tmp_path / "outside"
    outside.mkdir()
    np.save(outside / "b.npy", np.ones((2, 2)))
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "a.npy", np.zeros((2, 2)))
    os.symlink(outside, tmp_path / "in" / "folder")
    os.symlink(tmp_path / "in", tmp_path / "in" / "loop")
    os.symlink(tmp_path / "nowhere.npy", tmp_path / "in" / "dangling.npy")
    assert load(tmp_path / "in").ids.tolist() == ["a"]
    os.symlink(outside / "b.npy", tmp_path / "in" / "c.npy")
    assert load(tmp_path / "in").ids.tolist() == ["a", "c"]


def test_devices_and_pipes_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "a.npy")  # reading one would wait for ever
    os.symlink("/dev/zero", tmp_path / "b.npy")
    for name in ("a.npy", "b.npy"):
        with refused("no such file"):
            load([tmp_path / name])
        with refused("cannot load .*it is no file"):
            sklearn_vad.load(tmp_path / name)
        with refused(f"{name}' is not a readable .npy file: it is a pipe or a device"):
            Bags.from_files([tmp_path / name])[0]
        with refused(f"{name}', expected a .npy file .*it is a pipe or a device"):
            load_concatenated_frame_labels(tmp_path / name, ["a"], [1])
        for reader in (load_csv_annotations, load_ucf_crime_annotations, load_split):
            with refused(f"{name}', expected a text in UTF-8: it is a pipe or a dev"):
                reader(tmp_path / name)
    with refused("holds no files"):
        load(tmp_path)
    (tmp_path / "store").mkdir()
    os.symlink("/dev/zero", tmp_path / "store" / "bags.json")
    with refused("store' is not a store .*it is a pipe or a device"):
        Bags.open(tmp_path / "store")


def test_saving_replaces_a_link_and_not_what_it_leads_to(detector_file, tmp_path):
    Path(tmp_path / "precious").write_text("keep")
    os.symlink(tmp_path / "precious", tmp_path / "link")
    sklearn_vad.load(detector_file).save(tmp_path / "link")
    assert (tmp_path / "precious").read_text() == "keep"
    assert sklearn_vad.load(tmp_path / "link").n_features_in_ == 6
