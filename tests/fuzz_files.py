"""Damaged files: how they are made, and what reading one may end in.

`tests/test_fuzz.py` reads some hundreds, `benchmarks/fuzz.py` as many as asked for.
The right outcomes of reading a damaged file are three:

- "refused": a ValueError, TypeError or OSError whose message names the file;
- "same": what the undamaged file gives, equal in every value;
- "changed": other values, where nothing guards them. Features are finite, of the
  shape that the bags promised, and of a size that fits that of the file;
  annotations are `Annotations` or labels that pass their own checks again.

All else is wrong: another error, running out of memory, more than `MOST_BYTES`
of it, and, for a saved detector, "changed": its checksum guards every bit.
"""

import io
import json
import random
import struct
import warnings
import zipfile
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import torch
from test_readers import WRITERS, mat5_bytes, ramp

import sklearn_vad
from sklearn_vad import Bags, MILRankingAnomalyDetector, datasets
from sklearn_vad.datasets import Annotations, load_features, make_bags

MOST_BYTES = 400 * 2**20  # above what the process had before
_SIGNS_OF_NO_MEMORY = ("MemoryError", "Unable to allocate", "bad_alloc", "not allocate")
_NUMBERS = (0, 1, 2, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40)
_NUMBERS += (2**62, 2**63 - 1, 2**63, 2**64 - 1)
_WORDS = (
    *("nan", "inf", "1e400", "-1", "9" * 30, "9" * 5000, "1_0", "0x10", "\0", "\x85"),
    *("", "true", "null", "[" * 200_000, '{"a":' * 5000, '"', "\\ud800", "a" * 70_000),
    *("-0", "1e-400", "../../x", "/etc/passwd", "٣", "1.5", "[]", "{}", "-9" * 10),
)


# --------------------------------------------------------------------------
# Whole files, and how each is read
# --------------------------------------------------------------------------
def _features(path):
    bags = load_features([path], progress=False)
    bag = bags[0]
    if bag.shape != (bags.lengths[0], bags.n_features) or bag.dtype != bags.dtype:
        raise AssertionError(f"a bag {bag.shape} of {bags}")
    return bag


def _npy_bag(path):
    bags = Bags.from_files([path])
    return bags[0]


def _store(path):
    bags = Bags.open(path.parent)
    found = list(bags)
    if [len(bag) for bag in found] != bags.lengths.tolist():
        raise AssertionError(f"bags of other lengths than {bags.lengths}")
    return [bags.ids, *found]


def _annotations(found):
    """Return the columns, once they passed all checks again."""
    columns = [found.ids, found.categories, found.video_labels, found.events]
    columns += [found.n_frames, found.events_known]
    Annotations(*columns)
    return columns


def _table(path):
    found = datasets.load_csv_annotations(path)
    known = found.n_frames is not None and found.events_known.all()
    masks = found.frame_labels(outside="drop").masks if known else []
    return [*_annotations(found), *masks]


def _concatenated(path):
    return datasets.load_concatenated_frame_labels(path, ["a", "b"], [3, 2]).masks


def _detector(path):
    est = sklearn_vad.load(path)
    weights = est.net_.module_.state_dict()
    kept = {k: v for k, v in vars(est).items() if k not in ("net_", "history_")}
    return [json.dumps(kept, default=str, sort_keys=True), str(est.history_), weights]


def _write_detector(path):
    bags, y = make_bags(8, n_features=3, max_snippets=8, random_state=0)
    est = MILRankingAnomalyDetector(
        hidden_dims=(4, 2), n_segments=4, max_epochs=1, random_state=0
    )
    est.fit(bags, y).save(path)


def _write_store(path):
    bags = Bags.from_list([ramp(6, 5), ramp(3, 5)], ids=["a", "b"])
    path.parent.rmdir()  # stores make their folder themselves
    bags.save(path.parent)


_UCF = "a.mp4 Arson 3 40 50 60\nb.mp4  9 Normal -1 -1\n".replace(" 9", "")
_XD = "v=1__#1_label_B1-0-0 3 40 50 60\nv=2__#1_label_G-0-0 1 2\n"
_CSV = "video,label,start,end,category,n_frames\na,1,3,40,Arson,90\nb,0,,,,30\n"
_SPLIT = "x/Abuse001_x264.mp4 1\n01_0014,0\n"


def _text(content):
    return lambda path: path.write_text(content)


def _mask(path):
    np.save(path, np.array([0, 1, 1, 0, 0]))


def _feature_writer(kind):
    return lambda path: WRITERS[kind][1](path, {"features": ramp(6, 5)})


# What to damage: its file name, who writes it, who reads it.
SUBJECTS = {
    **{
        kind: (f"a.{suffix}", _feature_writer(kind), _features)
        for kind, (suffix, _) in WRITERS.items()
    },
    "from_files": ("a.npy", _feature_writer("npy"), _npy_bag),
    "store index": ("store/bags.json", _write_store, _store),
    "store data": ("store/snippets.npy", _write_store, _store),
    "detector": ("a.safetensors", _write_detector, _detector),
    "ucf": (
        "a.txt",
        _text(_UCF),
        lambda path: _annotations(datasets.load_ucf_crime_annotations(path)),
    ),
    "xd": (
        "a.txt",
        _text(_XD),
        lambda path: _annotations(datasets.load_xd_violence_annotations(path)),
    ),
    "csv": ("a.csv", _text(_CSV), _table),
    "split": ("a.txt", _text(_SPLIT), datasets.load_split),
    "shanghaitech": (
        "a.npy",
        _mask,
        lambda path: _annotations(datasets.load_shanghaitech_annotations(path.parent)),
    ),
    "concatenated": ("a.npy", _mask, _concatenated),
}
_TEXTS = ("txt", "ucf", "xd", "csv", "split", "store index")


# --------------------------------------------------------------------------
# Damage that any file can take
# --------------------------------------------------------------------------
def _place(data, rng):
    """Return a position; headers matter most."""
    span = len(data) if rng.random() < 0.5 else min(len(data), 400)
    return rng.randrange(max(span, 1))


def _cut(data, rng):
    return data[: rng.randrange(len(data) + 1)]


def _flip(data, rng):
    for _ in range(rng.choice([1, 1, 2, 6, 30])):
        data[_place(data, rng)] ^= 1 << rng.randrange(8)
    return data


def _overwrite(data, rng):
    for _ in range(rng.choice([1, 1, 3])):
        at = _place(data, rng)
        data[at : at + 1] = bytes([rng.choice([0, 1, 127, 128, 255])])
    return data


def _lie(data, rng):
    """Put a number of 2, 4 or 8 bytes, which may have been a size or an offset."""
    width, order = rng.choice([2, 4, 4, 8, 8]), rng.choice(["little", "big"])
    at = _place(data, rng)
    at -= at % rng.choice([1, 4, 8])
    number = rng.choice(_NUMBERS) % 256**width
    data[at : at + width] = number.to_bytes(width, order)
    return data


def _insert(data, rng):
    at = _place(data, rng)
    data[at:at] = rng.randbytes(rng.choice([1, 2, 8, 300]))
    return data


def _remove(data, rng):
    at = _place(data, rng)
    del data[at : at + rng.choice([1, 2, 8, 100])]
    return data


def _swap(data, rng):
    n = rng.choice([1, 4, 8, 32])
    a, b = sorted((_place(data, rng), _place(data, rng)))
    if b >= a + n and b + n <= len(data):
        data[a : a + n], data[b : b + n] = data[b : b + n], data[a : a + n]
    return data


def _clear(data, rng):
    at, n = _place(data, rng), rng.choice([4, 16, 100])
    data[at : at + n] = bytes([rng.choice([0, 255])]) * len(data[at : at + n])
    return data


def _grow(data, rng):
    return data + rng.choice([b"\0" * 1000, rng.randbytes(50), bytes(data), b"\n"])


def _replace(data, rng):
    return bytearray(rng.choice([b"", rng.randbytes(rng.choice([1, 20, 5000]))]))


def _keep_head(data, rng):
    """Keep what tells the format, and no more."""
    return data[: rng.choice([8, 128, 136])] + rng.randbytes(200)


DAMAGES = (
    *(_cut, _flip, _flip, _overwrite, _lie, _lie, _lie, _insert, _remove, _swap),
    *(_clear, _grow, _replace, _keep_head),
)


def _reword(data, rng):
    """Put another word into a text, or into the header of a binary file."""
    words = data.decode("latin-1")
    at = rng.randrange(len(words) + 1)
    until = at + rng.choice([0, 1, 2, 5])
    word = rng.choice(_WORDS)
    return bytearray((words[:at] + word + words[until:]).encode("utf-8", "replace"))


# --------------------------------------------------------------------------
# Lies that need to know the format
# --------------------------------------------------------------------------
_SHAPES = (
    *((6, 5), (5, 6), (30,), (), (0, 5), (6, 0), (-6, -5), (2**31, 5), (2**62, 4)),
    *((10**30, 1), (True, 30), (1,) * 70, (6, 5, 1), (2**32, 2**32), (-1, 2**63)),
)
_DESCRS = (
    *("<f4", ">f4", "<f8", "<f2", "|b1", "|O", "<c8", "|S0", "|S4", "<U9", "|V4"),
    *("<M8[s]", "<f16", [["a", "<f4"]], "f4,f4", "<f3", "", "|S999999999", "<i8"),
)


def npy_bytes(rng, n_bytes=120):
    """A .npy file whose header lies."""
    shape, descr = rng.choice(_SHAPES), rng.choice(_DESCRS)
    fields = {"descr": descr, "fortran_order": rng.random() < 0.5, "shape": shape}
    text = repr(fields)
    if rng.random() < 0.2:
        text = text.replace("}", " " * rng.choice([9000, 60_000, 2**20]) + "}")
    if rng.random() < 0.1:
        text = "(" * 3000 + ")" * 3000
    size = rng.choice([len(text)] * 4 + [0, 2**31, 2**32 - 1])
    return b"\x93NUMPY\2\0" + struct.pack("<I", size) + text.encode() + bytes(n_bytes)


def npz_bytes(rng):
    """A .npz that lies, or that is small and unpacks to much."""
    if rng.random() < 0.2:
        return bytearray(_npz_of_spaces())
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        if rng.random() < 0.5:
            archive.writestr("x.npy", npy_bytes(rng, rng.choice([0, 120, 2**24])))
        else:
            for i in range(rng.choice([1, 2, 300])):
                name = f"{rng.choice(['', '../', '/tmp/'])}{i}.npy"
                archive.writestr(name, npy_bytes(rng))
    data = bytearray(out.getvalue())
    return _lie(data, rng) if rng.random() < 0.5 else data


@cache
def packed_zeros(n_bytes):
    """What zlib makes of zeros, without packing each of them."""
    packer, block = zlib.compressobj(9), min(n_bytes, 2**20)
    whole = packer.compress(bytes(block)) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(bytes(block)) + packer.flush(zlib.Z_FULL_FLUSH)
    rest = packer.compress(bytes(n_bytes % block)) + packer.flush()
    checksum = struct.pack(">I", n_bytes % 65521 << 16 | 1)
    return whole + again * (n_bytes // block - 1) + rest[:-4] + checksum


@cache
def _npz_of_spaces():
    """A header of 500 MiB in a file of 2 MB."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        head = b"\x93NUMPY\2\0" + struct.pack("<I", 2**32 - 1)
        with archive.open("x.npy", "w") as file:
            file.write(head)
            for _ in range(500):
                file.write(b" " * 2**20)
    return out.getvalue()


def hdf5_bytes(rng):
    """An .h5 with a chunk that unpacks to far more than it should."""
    import h5py

    out = io.BytesIO()
    options = rng.choice([{}, {"shuffle": True}, {"scaleoffset": 2}])
    with h5py.File(out, "w") as file:
        x = file.create_dataset(
            "x", (6, 5), "f4", chunks=(6, 5), compression=9, **options
        )
        content = packed_zeros(rng.choice([120, 119, 2**20, 1000 * 2**20]))
        x.id.write_direct_chunk((0, 0), content)
    return bytearray(out.getvalue())


def mat4_bytes(rng):
    head = [rng.choice([0, 10, 1000, 50, 1, 2, 4000])]
    head += [rng.choice([6, 5, 0, -1, -6, 2**31 - 1, -(2**31)]) for _ in range(2)]
    head += [rng.choice([0, 0, 1]), rng.choice([2, 2, 0, -5, -300, 2**31 - 1])]
    return struct.pack("<5i", *head) + b"x\0" + bytes(240)


@cache
def _mat5_of_zeros(n):
    return mat5_bytes("x", np.zeros((1, n), "u1"), stored="u1", packed=True)


def mat5_lie(rng):
    data = bytearray(_mat5_of_zeros(rng.choice([30, 60 * 2**20])))
    return _lie(data, rng) if rng.random() < 0.5 else data


def _header_of(data, rng):
    """Reword the JSON header of a safetensors file, its length kept true."""
    length = struct.unpack("<Q", data[:8])[0]
    header = _reword(data[8 : 8 + length], rng)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


FORGERS = {
    "npy": npy_bytes,
    "from_files": npy_bytes,
    "store data": npy_bytes,
    "shanghaitech": npy_bytes,
    "concatenated": npy_bytes,
    "npz": npz_bytes,
    "npz packed": npz_bytes,
    "h5": hdf5_bytes,
    "hdf5 packed": hdf5_bytes,
    "mat 4": mat4_bytes,
    "mat 5": mat5_lie,
    "mat 7": mat5_lie,
}


def damage(subject, good, rng):
    """Return a damaged copy of a file's bytes."""
    how, data = rng.random(), bytearray(good)
    if subject in FORGERS and how < 0.1:
        return FORGERS[subject](rng)
    if subject == "detector" and how < 0.4:
        return _header_of(data, rng)
    if how < (0.7 if subject in _TEXTS else 0.15):
        return _reword(data, rng)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        data = rng.choice(DAMAGES)(data, rng) if data else data
    return data


# --------------------------------------------------------------------------
# Outcomes
# --------------------------------------------------------------------------
def equal(one, other):
    """Tell whether two results are the same, in values, types and shapes."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        pairs = zip(one, other, strict=False)
        return len(one) == len(other) and all(equal(*pair) for pair in pairs)
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return one == other


def _why_implausible(result, path):
    """Say what is wrong with values that a damaged file gave, None for nothing."""
    arrays = result if isinstance(result, list) else [result]
    arrays = [x for x in arrays if isinstance(x, np.ndarray)]
    for array in arrays:
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return "holds NaN or infinity"
        if array.nbytes > 64 * path.stat().st_size + 64 * 2**20:
            return f"{array.nbytes} bytes of a file of {path.stat().st_size}"
    return None


class FileFuzz:
    """Damaged files by number: the same seed and number give the same file."""

    def __init__(self, folder, seed=0, only=None):
        self.seed = seed
        self.names = [name for name in SUBJECTS if only in (None, name)]
        self.good, self.paths, self.results = {}, {}, {}
        for name in self.names:
            file_name, write, read = SUBJECTS[name]
            path = Path(folder, name.replace(" ", "_"), file_name)
            path.parent.mkdir(parents=True)
            write(path)
            self.paths[name], self.good[name] = path, path.read_bytes()
            self.results[name] = read(path)

    def run(self, number):
        """Damage a file and read it; return (subject, outcome, what is wrong)."""
        self.prepare(number)
        return self.read()

    def prepare(self, number):
        subject = self.subject = self.names[number % len(self.names)]
        rng = random.Random(f"{self.seed} {number}")
        self.paths[subject].write_bytes(damage(subject, self.good[subject], rng))

    def read(self):
        subject, path = self.subject, self.paths[self.subject]
        read = SUBJECTS[subject][2]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                result = read(path)
        except (ValueError, TypeError, OSError) as error:
            wrong = self._why_unexplained(error, path)
            return subject, "unexplained" if wrong else "refused", wrong
        except BaseException as error:
            return subject, "unexplained", f"{type(error).__name__}: {error}"
        finally:
            path.write_bytes(self.good[subject])
        if equal(result, self.results[subject]):
            return subject, "same", None
        wrong = _why_implausible(result, path)
        if subject == "detector":
            wrong = "other weights or attributes, past the checksum"
        return subject, "wrong values" if wrong else "changed", wrong

    def _why_unexplained(self, error, path):
        text = str(error)
        if any(sign in text for sign in _SIGNS_OF_NO_MEMORY):
            return f"out of memory: {text[:300]}"
        named = (str(path), str(path.parent), "bag 0 (id 'a')", "bag 1 (id 'b')")
        if not any(name in text for name in named):
            return f"the file is not named: {type(error).__name__}: {text[:300]}"
        if len(text) > 20_000:
            return f"a message of {len(text)} characters: {text[:300]}"
        return None


def peak_memory(reset=False):
    """Return the most memory the process held since the last reset; 0 unknown."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return 1024 * int(status.split("VmHWM:")[1].split()[0])
