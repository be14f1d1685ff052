"""The paper's tables and figure in miniature, on a laptop."""
