"""The rules of the paper and what carries them out over many workers."""
