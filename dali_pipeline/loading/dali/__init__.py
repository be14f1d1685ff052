"""The DALI loader: reading, decoding, and the transforms that follow on a CPU.

Part of ``loading``. Start with ``loader``, then ``graph``.
"""
