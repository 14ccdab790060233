"""Vectors of images: made, kept, searched, and compared for duplicates."""
