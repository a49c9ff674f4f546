"""The bar of `Container.upload_many(..., progress=True)`: the CLI's views, for Python.

`azpool.storage` loads this by name, and only where somebody asks for a bar. Loads no typer.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from azpool.cli._state import Job, TransferState
from azpool.cli._term import Terminal
from azpool.cli._watch import Watch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from azpool.cli._watch import View
    from azpool.storage.outcome import Progress, ProgressCallable

__all__ = ["progress_bar"]


@contextmanager
def progress_bar(verb: str, target: str = "") -> Iterator[ProgressCallable]:
    """Show a call's progress on standard error while the block lasts; leave nothing behind.

    Args:
        verb: upload, download or delete.
        target: where to, for the heading.
    """
    terminal = Terminal()
    state = TransferState(job=Job(verb=verb, target=target), began=time.monotonic())

    def notice(progress: Progress) -> None:
        state.take(progress)
        for outcome in progress.ended:
            if outcome.error is not None and not outcome.ok:
                view.outcome(outcome, state.tally.add(outcome.name, outcome.error))

    view = _view(terminal, state)
    with Watch(view, state):
        yield notice


def _view(terminal: Terminal, state: TransferState) -> View:
    if terminal.can_move_cursor:
        from azpool.cli._live import LiveView

        return LiveView(terminal, state)
    from azpool.cli._plain import PlainView

    return PlainView(terminal, state)
