"""The input pipeline: dataset, sampling, loading; preparation, staging and benchmarking.

Of ``hvd_utils`` it imports the ground floor alone: cli, config, paper and faults.
"""
