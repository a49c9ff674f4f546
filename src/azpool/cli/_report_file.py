"""`--report FILE`: the whole report as JSON or CSV, written row by row, so that it takes no memory.

The JSON is that of `Report.to_json`, with one outcome a line.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any, TextIO

from azpool.errors import LocalFileError, UsageError

if TYPE_CHECKING:
    from azpool.report import Report

__all__ = ["check_report_path", "write_report"]


def check_report_path(path: str | None) -> None:
    """Refuse, before anything moves, a path that no report can be written to.

    Raises:
        UsageError: its ending is neither .json nor .csv, or its folder can't be written.
    """
    if path is None:
        return
    if not path.lower().endswith((".json", ".csv")):
        raise UsageError(f"cannot write the report {path!r}: name it .json or .csv")
    folder = os.path.dirname(path) or "."
    if os.path.isdir(path):
        raise UsageError(f"cannot write the report {path!r}: it is a folder; name a file")
    if not os.path.isdir(folder):
        raise UsageError(f"cannot write the report {path!r}: no folder {folder!r}; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(
            f"cannot write the report {path!r}: permission denied; choose another folder"
        )


def write_report(path: str, report: Report[Any]) -> None:
    """Write a report; it appears whole or not at all, in the place of an older one.

    Raises:
        LocalFileError: it can't be written.
    """
    temporary = f"{path}.{os.getpid()}.tmp"
    write = _write_csv if path.lower().endswith(".csv") else _write_json
    try:
        # A local name may be no UTF-8: its own bytes are what finds the file again.
        with open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            write(file, report)
        os.replace(temporary, path)
    except OSError as error:
        raise LocalFileError(
            f"cannot write the report {path!r}: {error.strerror or error}; the transfer itself "
            "is over",
            path=path,
        ) from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def _write_json(file: TextIO, report: Report[Any]) -> None:
    head = {
        "title": report.title,
        "seconds": report.seconds,
        "bytes_moved": report.bytes_moved,
        "counts": {state.value: count for state, count in report.counts.items()},
        "notes": list(report.notes),
    }
    file.write(json.dumps(head)[:-1] + ', "outcomes": [')
    before = "\n"
    for outcome in report:
        file.write(before + json.dumps(outcome.to_dict()))
        before = ",\n"
    file.write("\n]}\n")


def _write_csv(file: TextIO, report: Report[Any]) -> None:
    import csv

    writer = None
    for outcome in report:
        row = outcome.to_dict()
        if writer is None:
            writer = csv.DictWriter(file, fieldnames=list(row))
            writer.writeheader()
        writer.writerow(row)
