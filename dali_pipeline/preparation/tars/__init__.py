"""Tars of WebDataset's form, in a folder or at a URL, indexed where they are."""
