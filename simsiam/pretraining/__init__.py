"""Pre-training from first image to report: the run, what watches it, what judges it, what it leaves behind."""
