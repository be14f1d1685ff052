"""The parts of ``python -m dali_pipeline.benchmark``."""
