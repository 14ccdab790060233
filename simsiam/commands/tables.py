"""What an evaluation prints when it is done."""

from __future__ import annotations

import errno
from pathlib import Path

from simsiam.report.collect import RESULT_FILE


def print_table(places: list[Path]) -> None:
    """The tables of the results, what was noted on each, and a page for each that has more to show."""
    from simsiam.report.document import report
    from simsiam.report.evaluation_page import has_page
    from simsiam.results import Result

    print(report(places))
    for place in places:
        for note in Result.read(place / RESULT_FILE).notes:
            print(f"note: {note}")
    for place in places:
        print(f"result: {place / RESULT_FILE}")
        if has_page(place) and (page := _page(place)).exists():
            print(f"report: {page}")


def _page(place: Path) -> Path:
    """An evaluation's page, written anew; on a place that only reads, the one that is there."""
    from simsiam.report.evaluation_page import PAGE_FILE, write_evaluation_page

    try:
        return write_evaluation_page(place)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        return place / PAGE_FILE
