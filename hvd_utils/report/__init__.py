"""A report of one or more runs: ``python -m hvd_utils.report RUN [RUN ...]``."""
