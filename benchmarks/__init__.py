"""Benchmarks: each prints what it measured, on which machine; ``python -m benchmarks.NAME``."""
