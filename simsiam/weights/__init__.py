"""Weights in and out: every published format, loaded in full or not at all."""
