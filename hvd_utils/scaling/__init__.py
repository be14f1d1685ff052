"""How fast would training be on more GPUs, or on another network? ``python -m hvd_utils.scaling``.

All of it is arithmetic on a measured step of one worker, the gradients of the real model and a
network's data sheet. It needs no Horovod and no GPU, and PyTorch only to look at the model.

May import ``cli``, ``nn`` and ``inspect``. Start with ``__main__``.
"""
