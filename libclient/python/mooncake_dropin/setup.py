# SPDX-License-Identifier: Apache-2.0
"""The package mooncake over featured. `make wheel-mooncake` makes its wheel, and gives the version."""

from __future__ import annotations

import os

from setuptools import find_packages, setup

VERSION = os.environ.get("FEATURE_VERSION", "0")

setup(
    name="feature-broker-mooncake",
    version=VERSION,
    description="Mooncake's Python API over featured, for programs that were written for Mooncake",
    license="Apache-2.0",
    python_requires=">=3.10",
    install_requires=[f"feature-broker=={VERSION}"],
    packages=find_packages(include=["mooncake", "mooncake.*"]),
    package_data={"": ["py.typed"]},
    entry_points={"console_scripts": ["mooncake_master = mooncake.master:main"]},
    zip_safe=False,
)
