"""What a pool and its nodes are doing, frozen at one moment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from azpool.pool.guard import count_of_nodes, rss_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.table import Table

FOLDED_BEYOND = 24  # nodes; a table of more would not fit a screen


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What the supervisor knows of one node."""

    index: int
    pid: int
    incarnation: int
    state: str
    items: int
    busy_seconds: float
    traffic: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatistics:
    """One node.

    Attributes:
        index: 0..n-1.
        pid: its process id, 0 while it is being replaced.
        incarnation: how many nodes there have been behind this index before it.
        state: starting, ready, busy, draining, stopping or gone.
        items: answered behind this index since the last reset.
        busy_share: 0..1, of the time since the pool's last reset; what runs now counts.
        rss_bytes: resident memory, shared pages included; 0 where it can't be read.
        sent_bytes: went to this process. Buffers over 1 MB are mapped by it, not sent.
        received_bytes: came from it, with the same exception.
    """

    index: int
    pid: int
    incarnation: int
    state: str
    items: int
    busy_share: float
    rss_bytes: int
    sent_bytes: int
    received_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatistics:
    """A pool; prints as a table, that of many nodes in short.

    Attributes:
        size: number of nodes.
        items: answered since the last reset.
        age_seconds: since the last reset.
        nodes: one `NodeStatistics` for each, by index.
    """

    size: int
    items: int
    age_seconds: float
    nodes: tuple[NodeStatistics, ...]

    @classmethod
    def of(cls, facts: list[NodeFacts], age_seconds: float) -> PoolStatistics:
        """Complete the supervisor's facts by what the system knows of the processes."""
        nodes = tuple(
            NodeStatistics(
                index=fact.index,
                pid=fact.pid,
                incarnation=fact.incarnation,
                state=fact.state,
                items=fact.items,
                busy_share=min(1.0, fact.busy_seconds / max(age_seconds, 1e-9)),
                rss_bytes=rss_bytes(fact.pid),
                sent_bytes=fact.traffic[0],
                received_bytes=fact.traffic[1],
            )
            for fact in facts
        )
        return cls(
            size=len(nodes),
            items=sum(node.items for node in nodes),
            age_seconds=age_seconds,
            nodes=nodes,
        )

    def __rich__(self) -> Table:
        from rich.table import Table

        from azpool.report import format_seconds

        items = f"{self.items:,} {'item' if self.items == 1 else 'items'}"
        title = f"{count_of_nodes(self.size)}, {items} in {format_seconds(self.age_seconds)}"
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        for heading in ("node", "pid", "life", "state", "items", "busy", "RSS", "sent", "received"):
            table.add_column(heading, justify="left" if heading == "state" else "right")
        shown = self.size if self.size <= FOLDED_BEYOND else FOLDED_BEYOND - 1
        for node in self.nodes[:shown]:
            table.add_row(str(node.index), str(node.pid or "-"), *_columns(node.state, [node]))
        folded: dict[str, list[NodeStatistics]] = {}
        for node in self.nodes[shown:]:
            folded.setdefault(node.state, []).append(node)
        for state, nodes in folded.items():
            table.add_row(f"+{len(nodes)}", "", *_columns(state, nodes))
        if self.size > 1:
            table.add_row("all", "", *_columns("", self.nodes), style="bold")
        return table

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=96, no_color=True, highlight=False)
        with console.capture() as captured:
            console.print(self)
        return "\n".join(line.rstrip() for line in captured.get().splitlines())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from rich.console import Console

        console = Console(width=96, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
        with console.file:
            console.print(self)
            return console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")


def _columns(state: str, nodes: Sequence[NodeStatistics]) -> Iterator[str]:
    """Yield what a row says of one node, or of several: sums, and the mean share of time."""
    from azpool.report import format_bytes

    alone = nodes[0] if len(nodes) == 1 else None
    yield str(alone.incarnation) if alone else ""
    yield state
    yield f"{sum(node.items for node in nodes):,}"
    yield f"{sum(node.busy_share for node in nodes) / len(nodes):.0%}"
    yield format_bytes(alone.rss_bytes) if alone else ""  # a sum would count shared pages often
    yield format_bytes(sum(node.sent_bytes for node in nodes))
    yield format_bytes(sum(node.received_bytes for node in nodes))
