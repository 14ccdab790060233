"""Images in: robust decoding, sources, the two views, loading."""
