"""How long `--help` of every verb takes, as whole processes, and whether torch was imported.

python benchmarks/help_time.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from simsiam.cli import VERBS

LIMIT = 0.3  # seconds
RUNS = 5
PROGRAM = (
    "import sys; from simsiam.cli import main\n"
    "try: main(sys.argv[1:])\n"
    "except SystemExit: pass\n"
    "sys.exit(int('torch' in sys.modules))"
)


def main() -> int:
    """Print a line a verb; exit with 1 if one is over the limit or imports torch."""
    failed = False
    for arguments in [["--help"], *[[verb, "--help"] for verb in VERBS]]:
        times, imported = [], False
        for _ in range(RUNS):
            started = time.perf_counter()
            done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, check=False)
            times.append(time.perf_counter() - started)
            imported |= done.returncode != 0
        median = statistics.median(times)
        failed |= median > LIMIT or imported
        torch = "IMPORTED" if imported else "not imported"
        print(f"{' '.join(arguments):<18} {median:.3f} s (limit {LIMIT} s), torch {torch}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
