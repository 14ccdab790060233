"""Protocols: each file is one frozen record with `run(backbone, ...) -> Result`."""
