"""The input: which image, which crop, and how it is decoded."""
