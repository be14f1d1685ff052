"""What `python -m dali_pipeline.stage` is made of: a data set brought to each node's own disk."""
