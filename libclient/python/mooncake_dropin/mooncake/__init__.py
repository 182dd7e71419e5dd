# SPDX-License-Identifier: Apache-2.0
"""Mooncake's Python API over featured, for programs that were written for Mooncake.

This package takes the place of Mooncake's own (mooncake-transfer-engine): install one of the two.
"""
