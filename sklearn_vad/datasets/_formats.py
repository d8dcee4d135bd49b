"""The formats of feature files: for each, how to read a shape, and how the array.

Nothing is ever unpickled. A file that promises far more data than one of its size
would hold is refused before any are read: see `_most_bytes`. Files are strangers'
input: errors of damaged ones are all ValueErrors, in bounded time and memory.
"""

import io
import itertools
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.io import matlab

from .._storage import (
    _float_dtype,
    _read_npy_header,
    _to_dtype,
    read_npy,
    read_npy_head,
    shorten,
)

_MAX_MAT_HEADER = 4096  # class, shape and name of a variable
_MAX_LINE = 4 * 2**20  # bytes of a line of text
_MAX_LISTED = 20  # names in an error message
# Filters of HDF5 by number: shuffle, checksum, n-bit, scale-offset, and packings.
_HDF5_HARMLESS = (2, 3, 5, 6)
_HDF5_LIARS = (5, 6)
_HDF5_GZIP, _HDF5_SZIP = 1, 4
_HDF5_PACKINGS = {_HDF5_GZIP: "gzip", _HDF5_SZIP: "szip", 32000: "lzf"}
_HDF5_SLACK = 64  # bytes that checksums and heads of other filters add to a chunk


def suffix_of(path):
    return os.path.splitext(path)[1].lower()


# --------------------------------------------------------------------------
# Formats: for each, a function that returns (shape, dtype), and one the array
# --------------------------------------------------------------------------
class _UnfitError(ValueError):
    """What is wrong with a file, worded to follow its name."""


def read_part(part, path, key, name):
    """Return the "header" of a file, (shape, dtype), or its "data", an array."""
    suffix = suffix_of(path)
    try:
        return FORMATS[suffix][part](path, key)
    except ImportError as error:
        raise ImportError(
            f"{name} needs h5py: pip install 'sklearn_vad[hdf5]'"
        ) from error
    except _UnfitError as error:
        raise ValueError(f"{name} {error}") from error
    except Exception as error:  # damaged files fail in a hundred ways
        reason = shorten(error) or type(error).__name__
        raise ValueError(f"{name} is not a readable {suffix} file: {reason}") from error


def _choose(key, names):
    """Return the name of the one array to read, out of those in a file."""
    names = list(names)
    if key in names:
        return key
    if key is None and len(names) == 1:
        return names[0]
    listed = ", ".join(map(repr, map(shorten, names[:_MAX_LISTED]))) or "none"
    if len(names) > _MAX_LISTED:
        listed += f" and {len(names) - _MAX_LISTED} more"
    if key is not None:
        raise _UnfitError(f"holds no array {key!r}, found {listed}")
    raise _UnfitError(
        f"holds {len(names)} arrays, expected one, or the name of one as key;"
        f" found {listed}"
    )


def _refuse_key(key):
    if key is not None:
        raise _UnfitError(
            f"holds one array without a name, expected no key, got {key!r}"
        )


def _most_bytes(path):
    """Return how much data a file may hold at most.

    zlib makes zeros a thousand times smaller, but features some ten times at most.
    """
    return 64 * os.path.getsize(path) + 64 * 2**20


def _check_promise(path, shape, dtype):
    """Raise if a file promises more data than one of its size would hold."""
    n_bytes = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0:
        raise _UnfitError(f"is damaged: it promises an array of shape {shorten(shape)}")
    if n_bytes > _most_bytes(path):
        raise _UnfitError(
            f"is damaged or a trap: it promises {shorten(n_bytes)} bytes for shape"
            f" {shorten(shape)}, but is a file of {os.path.getsize(path)} bytes"
        )


# .npy ---------------------------------------------------------------------
def _npy_header(path, key):
    _refuse_key(key)
    try:
        return _read_npy_header(path)
    except ValueError as error:
        raise _UnfitError(str(error)) from error


def _npy_data(path, key):
    return read_npy(path)


# .npz ---------------------------------------------------------------------
@contextmanager
def _npz_member(path, key):
    """Open the chosen array of a .npz file; yield a stream and its size."""
    with zipfile.ZipFile(path) as archive:
        members = {
            info.filename.removesuffix(".npy"): info
            for info in archive.infolist()
            if info.filename.endswith(".npy")
        }
        info = members[_choose(key, members)]
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _UnfitError("is compressed, but not by numpy.savez_compressed")
        with archive.open(info) as stream:
            yield stream, info.file_size


def _npz_header(path, key):
    with _npz_member(path, key) as (stream, size):
        shape, dtype, _, length = read_npy_head(stream)
    expected = length + math.prod(shape) * dtype.itemsize
    if dtype.hasobject:
        raise _UnfitError(
            f"holds pickled objects (dtype {dtype}), which are never read"
        )
    if size != expected:
        raise _UnfitError(
            f"is damaged: its array promises {expected} bytes for shape"
            f" {shorten(shape)}, there are {size}"
        )
    _check_promise(path, shape, dtype)
    return shape, dtype


def _npz_data(path, key):
    with _npz_member(path, key) as (stream, _):
        data = stream.read()
    shape, dtype, order, length = read_npy_head(io.BytesIO(data))
    return np.frombuffer(data, dtype, offset=length).reshape(shape, order=order)


# .h5, .hdf5, and .mat of version 7.3 ----------------------------------------
@contextmanager
def _hdf5_dataset(path, key):
    """Open the chosen array of an HDF5 file."""
    import h5py  # an extra

    with h5py.File(path, "r", locking="best-effort") as file:
        found = {}

        def note(name, item):
            if isinstance(item, h5py.Dataset) and not name.startswith("#"):
                found[name] = item

        file.visititems(note)  # follows no links, thus stays in this file
        dataset = found[_choose(key and key.strip("/"), found)]
        if dataset.external or dataset.is_virtual:
            raise _UnfitError("keeps its data in other files, expected them inside")
        yield dataset


def _hdf5_header(path, key):
    with _hdf5_dataset(path, key) as dataset:
        shape, dtype = dataset.shape, dataset.dtype
        if not shape or "MATLAB_empty" in dataset.attrs:
            raise _UnfitError(f"holds no array: {dataset.name!r} is empty or one value")
        _check_promise(path, shape, dtype)
        _check_promise(path, dataset.chunks or (), dtype)
        if 0 not in shape and dataset.id.get_storage_size() == 0:
            raise _UnfitError(f"is incomplete: {dataset.name!r} was never written")
        _packing(dataset)
        return shape, dtype


def _packing(dataset):
    """Return (place, number) of the filter that packs an HDF5 array, or None.

    Raises for filters of which nobody can tell how much they unpack to.
    """
    plist = dataset.id.get_create_plist()
    filters = [plist.get_filter(i) for i in range(plist.get_nfilters())]
    packings = [(i, f[0]) for i, f in enumerate(filters) if f[0] in _HDF5_PACKINGS]
    unknown = {f[0] for f in filters} - {*_HDF5_HARMLESS, *_HDF5_PACKINGS}
    if len(packings) > 1:  # each unpacks to up to a thousand times
        raise _UnfitError(f"is a trap: {dataset.name!r} is packed more than once")
    if unknown:
        raise _UnfitError(
            f"is packed by the HDF5 filter of number {min(unknown)}, expected"
            f" {', '.join(_HDF5_PACKINGS.values())}"
        )
    n_bytes = math.prod(dataset.chunks or ()) * dataset.dtype.itemsize
    for number, _, values, _ in filters:  # which say themselves how much they make
        made = math.prod(values[2:5:2]) if number in _HDF5_LIARS else 0
        if made > n_bytes:
            raise _UnfitError(f"is a trap: a filter of {dataset.name!r} lies")
    return packings[0] if packings else None


def _check_chunks(dataset, path):
    """Raise where a packed chunk of an HDF5 array unpacks to more than it should.

    libhdf5 unpacks it to the end, and only then finds it too long.
    """
    place, number = _packing(dataset) or (0, None)
    if number not in (_HDF5_GZIP, _HDF5_SZIP):  # the third makes 90 times as much
        return
    chunks = []
    dataset.id.chunk_iter(chunks.append)
    n_bytes = math.prod(dataset.chunks) * dataset.dtype.itemsize + _HDF5_SLACK
    for chunk in chunks:
        if chunk.filter_mask >> place & 1:  # this one was left as it is
            continue
        if number == _HDF5_GZIP and chunk.size * 1032 <= _most_bytes(path):
            continue  # zlib can't do more
        packed = dataset.id.read_direct_chunk(chunk.chunk_offset)[1]
        if number == _HDF5_GZIP:
            unpacker = zlib.decompressobj()
            unpacker.decompress(packed, n_bytes)
            too_long = bool(unpacker.unconsumed_tail)
        else:
            too_long = int.from_bytes(packed[:4], "little") > n_bytes
        if too_long:
            raise _UnfitError(
                f"is damaged or a trap: a chunk of {dataset.name!r} unpacks to more"
                f" than its {n_bytes} bytes"
            )


def _hdf5_data(path, key):
    with _hdf5_dataset(path, key) as dataset:
        _check_chunks(dataset, path)
        return dataset[()]


# .mat ---------------------------------------------------------------------
# scipy is not asked: some damaged files bring it down, with the whole process, some
# let it run for ever, and it unpacks as much as a file says. The format:
# mathworks.com/help/pdf_doc/matlab/matfile_format.pdf
_MAT_MATRIX, _MAT_PACKED = 14, 15
_MAT_NAME, _MAT_SHAPE, _MAT_FLAGS = 1, 5, 6
_MAT_STORED = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
_MAT_CLASSES = {
    6: "float64",
    7: "float32",
    8: "int8",
    9: "uint8",
    10: "int16",
    11: "uint16",
    12: "int32",
    13: "uint32",
    14: "int64",
    15: "uint64",
}
_MAT4_STORED = {0: "f8", 1: "f4", 2: "i4", 3: "i2", 4: "u2", 5: "u1"}
_MAT4_STORED |= {100 + code: stored for code, stored in _MAT4_STORED.items()}
_MAT4_KINDS = {0: "float64", 1: "char", 2: "sparse"}  # all numbers are doubles
_MAT_OTHERS = {1: "cell", 2: "struct", 3: "object", 4: "char", 5: "sparse"}


class _Variable(NamedTuple):
    """A variable of a .mat file; `read` returns its array."""

    shape: tuple
    kind: str
    read: Callable


def _mat_header(path, key):
    version = _mat_version(path)
    if version == 7:
        shape, dtype = _hdf5_header(path, key)
        return shape[::-1], dtype
    variable = _mat_variable(path, key, version)
    if variable.kind not in _MAT_CLASSES.values():
        raise _UnfitError(
            f"holds a MATLAB {variable.kind} array, expected a full one of real numbers"
        )
    dtype = np.dtype(variable.kind)
    _check_promise(path, variable.shape, dtype)
    return variable.shape, dtype


def _mat_data(path, key):
    version = _mat_version(path)
    if version == 7:
        return _hdf5_data(path, key).T
    return _mat_variable(path, key, version).read()


def _mat_version(path):
    """Return MATLAB's version of a .mat file: 4, 5 (to 7.2) or 7 (7.3: HDF5)."""
    return {0: 4, 1: 5, 2: 7}[matlab.matfile_version(path)[0]]


def _mat_variable(path, key, version):
    """Return the chosen variable of a .mat file that is not HDF5."""
    found = dict(_mat4_variables(path) if version == 4 else _mat5_variables(path))
    return found[_choose(key, found)]


def _mat4_variables(path):
    """Yield the names and variables of a file of version 4."""
    with open(path, "rb") as file:
        end = os.fstat(file.fileno()).st_size
        order = "<" if 0 <= struct.unpack("<i", file.read(4))[0] < 5000 else ">"
        file.seek(0)
        while head := file.read(20):
            code, *shape, is_complex, n_name = struct.unpack(order + "5i", head)
            stored = _MAT4_STORED.get(code // 10)  # 1000 says: big-endian
            kind = _MAT4_KINDS.get(code % 10)
            if stored is None or kind is None or n_name < 0 or min(shape) < 0:
                raise _UnfitError("is damaged: a variable has no head")
            dtype = np.dtype(order + stored)
            start = file.tell() + n_name
            stop = start + math.prod(shape) * dtype.itemsize * (2 if is_complex else 1)
            if stop > end:
                raise _UnfitError(
                    "is truncated or damaged: a variable exceeds the file"
                )
            name = file.read(n_name).strip(b"\0").decode("latin-1")
            read = partial(_mat4_array, path, start, dtype, shape)
            yield name, _Variable(tuple(shape), "complex" if is_complex else kind, read)
            file.seek(stop)


def _mat4_array(path, start, dtype, shape):
    n = math.prod(shape)
    return np.fromfile(path, dtype, n, offset=start).reshape(shape, order="F")


def _mat5_variables(path):
    """Yield the names and variables of a file of versions 5 to 7.2."""
    with open(path, "rb") as file:
        end = os.fstat(file.fileno()).st_size
        order = "<" if file.read(128)[126:] == b"IM" else ">"
        while tag := file.read(8):
            kind, size = struct.unpack(order + "II", tag)
            start = file.tell()
            if start + size > end:
                raise _UnfitError(
                    "is truncated or damaged: a variable exceeds the file"
                )
            unpack = partial(_mat5_unpack, path, start, size, kind == _MAT_PACKED)
            name, shape, kind, _ = _mat5_parse(unpack(_MAX_MAT_HEADER), order)
            if name:  # those without are MATLAB's own
                yield name, _Variable(shape, kind, partial(_mat5_array, unpack, order))
            file.seek(start + size)


def _mat5_unpack(path, start, size, packed, most=None):
    """Return the bytes of one variable, the first ones only if `most` is given."""
    limit = _most_bytes(path) if most is None else most
    with open(path, "rb") as file:
        file.seek(start if packed else start - 8)  # a packed one has its tag inside
        data = file.read(min(size if packed else size + 8, limit))
    if not packed:
        return data
    unpacker = zlib.decompressobj()
    data = unpacker.decompress(data, limit)
    if most is None and not unpacker.eof:
        raise _UnfitError(
            "is damaged or a trap: a variable is cut short when packed, or has over"
            f" {limit} bytes when unpacked"
        )
    return data


def _mat5_parse(data, order):
    """Return a variable's name, shape, kind, and its other parts."""
    parts = _mat5_parts(data, order)
    head = dict(itertools.islice(parts, 3))
    flags = head.get(_MAT_FLAGS, b"")
    if len(flags) != 8 or struct.unpack_from(order + "I", data)[0] != _MAT_MATRIX:
        raise _UnfitError("is damaged: a variable has no head")
    flags = struct.unpack_from(order + "I", flags)[0]
    name = bytes(head.get(_MAT_NAME, b"")).decode("latin-1")
    shape = tuple(np.frombuffer(head.get(_MAT_SHAPE, b""), order + "i4").tolist())
    kind = (_MAT_CLASSES | _MAT_OTHERS).get(flags & 0xFF, "object")
    return name, shape, "complex" if flags & 0x800 else kind, parts


def _mat5_parts(data, order):
    """Yield type and bytes of the parts of a variable, whose tag takes 8 bytes."""
    data, at = memoryview(data), 8
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(order + "II", data, at)
        start = at + 8
        if kind >> 16:  # a short part, all in 8 bytes
            kind, size, start = kind & 0xFFFF, min(kind >> 16, 4), at + 4
        yield kind, data[start : start + size]
        at = at + 8 if start == at + 4 else start + size + -size % 8


def _mat5_array(unpack, order):
    _, shape, kind, parts = _mat5_parse(unpack(), order)
    stored, content = next(parts, (None, b""))
    if stored not in _MAT_STORED:
        raise _UnfitError("is damaged: a variable has no numbers")
    array = np.frombuffer(content, order + _MAT_STORED[stored])
    dtype = _float_dtype(np.dtype(kind), "the array")  # often stored as integers
    return _to_dtype(array.reshape(shape, order="F"), dtype)


# .txt ---------------------------------------------------------------------
def _text_lines(path):
    """Yield the number and the words of each line that is not blank."""
    with open(path, "rb") as file:
        for number in itertools.count(1):
            line = file.readline(_MAX_LINE)
            if len(line) == _MAX_LINE:
                raise _UnfitError(
                    f"is no text: line {number} exceeds {_MAX_LINE} bytes"
                )
            if not line:
                return
            if words := line.split():
                yield number, words


def _numbers(number, words):
    """Return the numbers of a line, which has the given number itself."""
    try:
        return np.array([float(word) for word in words])
    except ValueError as error:
        raise _UnfitError(
            f"is no text of numbers only: line {number}: {shorten(error)};"
            " pattern takes other files from a folder"
        ) from error


def _text_header(path, key):
    _refuse_key(key)
    n_snippets, n_features = 0, 0
    for number, words in _text_lines(path):
        if n_snippets == 0:
            n_features = len(_numbers(number, words))
        if len(words) != n_features:
            raise _UnfitError(
                f"is damaged: line {number} holds {len(words)} numbers, expected"
                f" {n_features} as in the first"
            )
        n_snippets += 1
    return (n_snippets, n_features), np.dtype(np.float32)


def _text_data(path, key):
    with np.errstate(over="ignore"):  # infinity is an error elsewhere
        rows = [_numbers(*line).astype(np.float32) for line in _text_lines(path)]
    return np.stack(rows)


FORMATS = {
    ".npy": {"header": _npy_header, "data": _npy_data},
    ".npz": {"header": _npz_header, "data": _npz_data},
    ".h5": {"header": _hdf5_header, "data": _hdf5_data},
    ".hdf5": {"header": _hdf5_header, "data": _hdf5_data},
    ".mat": {"header": _mat_header, "data": _mat_data},
    ".txt": {"header": _text_header, "data": _text_data},
}
