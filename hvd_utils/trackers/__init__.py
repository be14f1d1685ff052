"""Where a run's metrics are shown beside its own log: TensorBoard, Weights & Biases, MLflow.

May import ``cli`` and ``config``. Start with ``sender``; ``inspect.track`` reads the log for them.
"""
