# SPDX-License-Identifier: Apache-2.0
# The module that build_extension.py makes. What cffi hands out has no types of its own.
from typing import Any

ffi: Any
lib: Any
