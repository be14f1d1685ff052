"""Loaders carry out a plan: batches on the device, by DALI, by torchvision, or synthetic.

May import ``sampling``, ``dataset``, and ``cli``, ``config`` and ``faults`` of ``hvd_utils``.
Start with ``loader``; ``dali`` decodes, ``decoding`` finds out where.
"""
