"""From tar files or folders to an index or shards, every image decoded once.

May import ``storage`` and ``dataset``, and ``cli`` of ``hvd_utils``. Start with
``dali_pipeline/prepare.py``, the command.
"""
