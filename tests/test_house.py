"""The order of the house: who may import whom, and what public names owe."""

import ast
import inspect
import pkgutil
import re
import subprocess
import sys
from importlib import import_module
from itertools import chain
from pathlib import Path

import pytest
from numpydoc.hooks.validate_docstrings import parse_config
from numpydoc.validate import validate

import sklearn_vad

ROOT = Path(__file__).parents[1]
PACKAGE = Path(sklearn_vad.__file__).parent

# A module may import from the rows above its own only. The packages' __init__
# files stand outside: they offer names, and nothing inside imports from them.
HOUSE = (
    {"_progress"},
    {"_storage"},
    {"bags"},
    {"_video"},
    {"timeline"},
    {"metrics"},
    {"postprocessing"},
    {"_levels"},
    {"_scores"},
    {"_criss_cross"},
    {"_products"},
    {"_locality"},
    {"functional"},
    {"layers"},
    {"_lstm"},
    {"_packing"},
    {"_batching"},
    {"_whole_file"},
    {"_tensor_file"},
    {"_checkpoint"},
    {"persistence"},
    {"_scoring"},
    {"_engine"},
    {"online"},
    {"_onnx"},
    {"_summary"},
    {"base"},
    {"detectors"},
    {"preprocessing", "extraction", "display", "reporting", "datasets"},
)
TORCH_FREE = [
    "_progress",
    "_storage",
    "_whole_file",
    "bags",
    "timeline",
    "metrics",
    "postprocessing",
    "preprocessing",
    "datasets",
    "display",
    "reporting",
]
FORBIDDEN_WORDS = ("clip", "abnormal", "score_samples")
TERMS_OF_PAPERS = {"clip_attention"}  # DAM's Clip_A

# Beside what [tool.numpydoc_validation] says, a public name needs a docstring.
CONFIG = parse_config(ROOT)
CHECKS = CONFIG["checks"] | {"GL08"}
# Nobody calls these with the arguments of __init__ or __call__.
NOT_CALLED_BY_USERS = {
    "sklearn_vad.Bags",
    "sklearn_vad.metrics.frame_average_precision_scorer",
    "sklearn_vad.metrics.frame_roc_auc_scorer",
    "sklearn_vad.metrics.frame_scorers",
}


# --------------------------------------------------------------------------
# Imports, read without running them
# --------------------------------------------------------------------------
def imported_names(source, package):
    """Yield the absolute names that a module imports, in functions too.

    ``from .a import b`` gives "<package>.a.b": b may be a module or an object.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            parents = parents[: len(parents) - node.level + 1] if node.level else []
            origin = ".".join([*parents, *filter(None, [node.module])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def _imports(path):
    package = ".".join(["sklearn_vad", *path.relative_to(PACKAGE).parts[:-1]])
    return list(imported_names(path.read_text(encoding="utf-8"), package))


def _place(path):
    """Return the name under which a file stands in the house."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def _row(place):
    return next((i for i, places in enumerate(HOUSE) if place in places), None)


ALL_FILES = sorted(PACKAGE.rglob("*.py"))
FILES = [path for path in ALL_FILES if path.name != "__init__.py"]


def each_file(files):
    names = [path.relative_to(PACKAGE).as_posix() for path in files]
    return pytest.mark.parametrize("path", files, ids=names)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("import torch.nn as nn", ["torch.nn"]),
        ("from torch import nn", ["torch.nn"]),
        ("from . import a", ["p.q.a"]),
        ("from .a import b, c", ["p.q.a.b", "p.q.a.c"]),
        ("from ..a import b", ["p.a.b"]),
        ("def f():\n    from .. import a", ["p.a"]),
    ],
)
def test_imported_names(line, expected):
    assert list(imported_names(line, "p.q")) == expected


@each_file(FILES)
def test_module_has_a_place(path):
    assert _row(_place(path)) is not None, (
        "add the new module to HOUSE here and to docs/decisions"
    )


@each_file(FILES)
def test_imports_point_upward(path):
    row = _row(_place(path))
    for name in _imports(path):
        package, _, rest = name.partition(".")
        if package != "sklearn_vad" or rest == "__version__":
            continue
        place = _place(path)
        if place in ("datasets", "display") and rest.startswith(f"{place}._"):
            continue  # its files may use each other
        imported = _row(rest.split(".")[0])
        assert imported is not None, f"{name}: import from the module that defines it"
        assert imported < row, f"{name} stands below or beside {_place(path)}"


def test_detectors_package_imports_its_detectors_only():
    names = _imports(PACKAGE / "detectors" / "__init__.py")
    assert all(name.startswith("sklearn_vad.detectors._") for name in names)


@each_file(ALL_FILES)
def test_only_the_engine_imports_skorch(path):
    uses_skorch = any(name.split(".")[0] == "skorch" for name in _imports(path))
    assert uses_skorch == (path.name == "_engine.py")


@pytest.mark.parametrize("module", TORCH_FREE)
def test_torch_free_modules_import_torch_free_ones(module):
    folder = PACKAGE / module
    files = folder.glob("*.py") if folder.is_dir() else [PACKAGE / f"{module}.py"]
    for name in chain.from_iterable(map(_imports, files)):
        package, _, rest = name.partition(".")
        assert package not in ("torch", "skorch")
        if package == "sklearn_vad":
            assert rest.split(".")[0] in [*TORCH_FREE, "__version__"]


@pytest.mark.parametrize(
    "module", ["sklearn_vad", *(f"sklearn_vad.{name}" for name in TORCH_FREE)]
)
def test_import_loads_no_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


# --------------------------------------------------------------------------
# Public names
# --------------------------------------------------------------------------
def _public_modules():
    yield sklearn_vad
    for info in pkgutil.iter_modules(sklearn_vad.__path__):
        if not info.name.startswith("_"):
            yield import_module(f"sklearn_vad.{info.name}")


def _own_methods(cls):
    """Return the public methods that this package wrote, inherited ones too."""
    return [
        name
        for name, member in inspect.getmembers(cls, inspect.isroutine)
        if not name.startswith("_")
        and (member.__module__ or "").startswith("sklearn_vad")
    ]


def _public_names():
    """Return the full names of what users call, every object once."""
    names = {}
    for module in _public_modules():
        for name in getattr(module, "__all__", ()):
            public = getattr(module, name, None)  # None: see test_public_names_exist
            if public is None:
                continue
            names.setdefault(id(public), f"{module.__name__}.{name}")
            for method in _own_methods(public) if inspect.isclass(public) else ():
                function = inspect.unwrap(getattr(public, method))
                key = id(getattr(function, "__func__", function))
                names.setdefault(key, f"{names[id(public)]}.{method}")
    return sorted(names.values())


@pytest.mark.parametrize("module", list(_public_modules()), ids=lambda m: m.__name__)
def test_public_names_exist(module):
    names = getattr(module, "__all__", [])
    assert len(set(names)) == len(names)
    assert [name for name in names if not hasattr(module, name)] == []


@pytest.mark.parametrize("name", _public_names())
def test_docstring(name):
    checks = CHECKS - {"PR01"} if name in NOT_CALLED_BY_USERS else CHECKS
    errors = [error for error in validate(name)["errors"] if error[0] in checks]
    assert errors == []


@pytest.mark.parametrize("name", _public_names())
def test_words(name):
    """One word, one meaning: see docs/glossary.md."""
    public = sklearn_vad
    for part in name.split(".")[1:]:
        public = getattr(public, part)
    spoken = [name]
    if callable(public):
        spoken += inspect.signature(public).parameters
    for word in set(spoken) - TERMS_OF_PAPERS:
        assert not re.search("|".join(FORBIDDEN_WORDS), word.lower())
