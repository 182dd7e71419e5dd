# SPDX-License-Identifier: Apache-2.0
"""The package feature_broker. `pip install libclient/python` needs a built libfeature.so (see
build_extension.py); `make wheel` makes a wheel that carries it along."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent


def read_version() -> str:
    """From feature.h, the one place that says it."""
    text = (HERE.parent / "feature.h").read_text()
    parts = re.findall(r"define FEATURE_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)", text)
    return ".".join(parts)


setup(
    name="feature-broker",
    version=read_version(),
    description="Features of large models from producers to trainers, through shared memory and RDMA",
    license="Apache-2.0",
    python_requires=">=3.10",
    install_requires=["cffi>=1.15"],
    packages=find_packages(include=["feature_broker", "feature_broker.*"]),
    # bin/ and lib/ are there when scripts/build-wheel has put the programs and libfeature into them.
    package_data={"": ["py.typed", "*.pyi"], "feature_broker": ["bin/*", "lib/*"]},
    entry_points={
        "console_scripts": [
            "featured = feature_broker._programs:featured",
            "featurectl = feature_broker._programs:featurectl",
        ]
    },
    cffi_modules=["build_extension.py:ffibuilder"],
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
    zip_safe=False,
)
