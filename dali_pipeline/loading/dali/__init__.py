"""The DALI loader: reading, decoding, and what follows decoding on a CPU.

Part of ``loading``. Start with ``loader``, then ``graph``.
"""
