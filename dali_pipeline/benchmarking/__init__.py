"""How fast the pipeline is, stage by stage, and beside its peers.

May import all of ``dali_pipeline`` but ``staging``, and ``cli`` and ``config`` of ``hvd_utils``.
Start with ``bench``; the command is ``python -m dali_pipeline.benchmark``.
"""
