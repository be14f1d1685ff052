"""What the benchmarks share: launching, results, and the programs that they measure.

Start with ``processes`` and ``results``.
"""
