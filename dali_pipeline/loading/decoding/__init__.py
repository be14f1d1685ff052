"""Which ways of decoding a GPU's JPEGs work here: each is probed in a child process.

Part of ``loading``. Start with ``choose``, then ``probe``. DALI 2.3 and newer take nvImageCodec
0.9, which is reported to crash where it decodes regions on GPUs
(github.com/NVIDIA/nvImageCodec/issues/55).
"""
