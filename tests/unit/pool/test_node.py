"""What a node answers, frame by frame, without a channel."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from azpool.pool import namespace, outcome, wire
from azpool.pool.node import COLUMNS, RESULT_HEAD, Node, Status
from azpool.pool.wire import Flag, Kind, Message


class NodeWithoutChannel(Node):
    def __init__(self) -> None:
        super().__init__(0, memoryview(bytearray(8 * Status.WORDS)).cast("Q"))
        self.sent: list[Message] = []

    def _send(self, message: Message) -> None:
        self.sent.append(message)

    def know(self, function: Callable[..., Any]) -> None:
        payload, buffers = namespace.dumps(function, what="it")
        self.handle(wire.frame_of(wire.encode(Kind.FUNCTION, 1, payload, buffers)))

    def run(self, items: list[Any]) -> tuple[int, int, list[Any]]:
        """Run a chunk and return its first item, the number of answers, and the answers."""
        head = pickle.dumps((1, COLUMNS, 0, [items], False, None))
        self.handle(wire.frame_of(wire.encode(Kind.RUN, 7, head)))
        frame = wire.frame_of(self.sent.pop())
        first, count, _ = RESULT_HEAD.unpack_from(frame.body)
        plain = bool(frame.flags & Flag.PLAIN)
        values = outcome.decode_batch(frame.body[RESULT_HEAD.size :], [], plain=plain)
        return first, count, values


class InterruptedLate(NodeWithoutChannel):
    """Interrupted, as the master wanted it, right after the last result was kept."""

    def _loop_single(self, call: Callable[..., Any], arguments: Iterator[Any]) -> None:
        super()._loop_single(call, arguments)
        self._status[Status.INTERRUPT] = self._chunk
        raise KeyboardInterrupt


@pytest.mark.parametrize("items", [[-1], [-1, -2, -3]])
def test_every_item_has_one_answer_however_late_an_interrupt_comes(items: list[int]) -> None:
    node = InterruptedLate()
    node.know(abs)
    assert node.run(items) == (0, len(items), [-n for n in items])


def test_goodbye_is_the_last_frame() -> None:
    node = NodeWithoutChannel()
    node.know(abs)
    assert node.run([-1]) == (0, 1, [1])
    assert node.handle(wire.frame_of(wire.encode(Kind.FORGET, 1, b""))) is True
    assert node.handle(wire.frame_of(wire.encode(Kind.BYE, 0, b""))) is False
