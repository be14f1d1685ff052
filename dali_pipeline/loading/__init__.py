"""Loaders carry out a plan: batches on the device, by DALI, by torchvision, or synthetic.

May import ``sampling``, ``dataset``, and ``cli`` and ``faults`` of ``hvd_utils``. Start with
``loader``.
"""
