"""Pages, tables and plots, made from `result.json` and `metrics.jsonl` alone."""
