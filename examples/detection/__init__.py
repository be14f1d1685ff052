"""The parts of ``mask_rcnn.py``: options, data in COCO's format, the network, checkpoints.

May import ``hvd_utils`` and ``dali_pipeline``. Start with ``options``.
"""
