"""What an evaluation prints when it is done."""

from __future__ import annotations

from pathlib import Path

from simsiam.report.collect import RESULT_FILE


def print_table(places: list[Path]) -> None:
    """The tables of the results, what was noted on each, and a page for each that has more to show."""
    from simsiam.report.document import report
    from simsiam.report.evaluation_page import has_page, write_evaluation_page
    from simsiam.results import Result

    print(report(places))
    for place in places:
        for note in Result.read(place / RESULT_FILE).notes:
            print(f"note: {note}")
    for place in places:
        print(f"result: {place / RESULT_FILE}")
        if has_page(place):
            print(f"report: {write_evaluation_page(place)}")
