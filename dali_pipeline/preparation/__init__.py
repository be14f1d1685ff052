"""What `python -m dali_pipeline.prepare` is made of: from tars or folders to an index or shards."""
