"""How fast would training be on more GPUs, or on another network? ``python -m hvd_utils.scaling``.

From a measured step of one worker, the gradients of the real model and a network's data sheet. All
of it is arithmetic: neither Horovod nor a GPU is needed, and PyTorch only to look at the model.
"""
