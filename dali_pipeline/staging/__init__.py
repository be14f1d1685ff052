"""A data set copied to each node's own disk, whole or not at all.

May import ``dataset`` and ``preparation``, and ``cli`` and ``faults`` of ``hvd_utils``. Start with
``dali_pipeline/stage.py``, the command.
"""
