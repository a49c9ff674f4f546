"""All that runs in a node: the loop, the functions it was sent, its exports, and its questions.

One thread runs the jobs, in the order of their frames. A second one, started with the first chunk
of several items, sends results that have been waiting, so that a slow item never holds back the
ones before it. What happens on a node between two items is written to a page that the master maps
too: after a death the master knows which item had begun.
"""

from __future__ import annotations

import faulthandler
import io
import os
import pickle
import select
import signal
import struct
import sys
import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from azpool import _waits
from azpool.errors import PoolError
from azpool.pool import capture, namespace, outcome, wire
from azpool.pool.namespace import Links, exports
from azpool.pool.wire import ATOMIC, Flag, Frame, Kind

if TYPE_CHECKING:
    import _socket as socket
    from collections.abc import Callable, Iterator
    from types import ModuleType, TracebackType

LOOK_SECONDS = 0.0002  # to wake a sleeping process takes 20-40 us, more than a call itself
FLUSH_SECONDS = 0.005  # results leave within 10 ms: this, and one switch of the interpreter's lock
FLUSH_ROUNDS = 20  # without a chunk: then the thread rests until the next one
COLUMNS, ITEMS, CALL = range(3)  # how a chunk's arguments were packed
RESULT_HEAD = struct.Struct("<QId")  # first item, number of items, seconds of the whole chunk
EMIT_HEAD = struct.Struct("<Q")  # item


class Status:
    """Words of the page that a node shares with the master (unsigned 64-bit)."""

    CHUNK = 0  # sequence number of the chunk that runs, 0 between chunks
    SETTING_UP = (1 << 64) - 1  # there instead: ITEM is the step of the log that runs
    ITEM = 1  # index of the item that has begun
    BEGAN = 2  # when it began (CLOCK_MONOTONIC, ns), where the job has deadlines
    INTERRUPT = 3  # written by the master: the chunk that SIGINT is meant for, or a step of the log
    STEP = 1 << 63  # plus the number of a step
    STATE = 4  # 1 when the exports hold what a replacement would not have
    WORDS = 8
    BYTES = 4096


class Function:
    """A function as it was shipped; loaded when it is first used."""

    def __init__(self, frame: Frame) -> None:
        self._parts: tuple[bytes | memoryview, list[memoryview]] | None = None
        self._links: Links | None = None
        self._call: Callable[..., Any] | None = None
        self._error: BaseException | None = None
        self._trace: TracebackType | None = None
        try:
            self._parts = wire.buffers_of(frame)
        except Exception as error:  # no memory for its buffers
            self._error = error
        for fd in frame.fds:
            os.close(fd)

    def ready(self) -> Callable[..., Any]:
        """Return the callable, linked to the exports as they are now."""
        if self._parts is not None:
            payload, buffers = self._parts
            try:
                self._call, entries = pickle.loads(payload, buffers=buffers)
                self._links = Links(entries) if entries else None
            except KeyboardInterrupt:  # meant for one chunk: the next one loads it again
                raise
            except BaseException as error:
                self._error, self._trace = error, error.__traceback__
            self._parts = None
        if self._error is not None:
            raise self._error.with_traceback(self._trace)  # which would grow with each item
        if self._links is not None:
            self._links.link(exports.namespace)
        assert self._call is not None
        return self._call


class Node:
    """What a node does with the frames that it is sent; its subclasses know how they travel."""

    home: object = None

    def __init__(self, index: int, status: memoryview) -> None:
        self.index = index
        self._status = status
        self._functions: dict[int, Function] = {}
        self._forked = False  # in a process that a task forked: the channel is not its own
        self._arguments: Iterator[Any] | None = None  # of the chunk that runs
        self._running = False  # user code is on the stack of the thread that runs jobs
        self._results: list[Any] = []
        self._plain = True  # they are of atomic types, all of them
        self._sent = 0
        self._chunk = 0
        self._step = 0  # of the log, while it runs
        self._first = 0
        self._flusher: threading.Thread | None = None
        self._chunk_done = threading.Lock()

    def handle(self, frame: Frame) -> bool:
        """Do what a frame says; False where it says goodbye."""
        if frame.kind == Kind.RUN:
            self._run(frame)
        elif frame.kind == Kind.FUNCTION:
            self._functions[frame.seq] = Function(frame)
        elif frame.kind == Kind.FORGET:
            self._functions.pop(frame.seq, None)
        elif frame.kind == Kind.EXPORT:
            self._set_up(frame, self._export)
        elif frame.kind == Kind.SETUP:
            self._set_up(frame, self._call)
        elif frame.kind == Kind.UNEXPORT:
            for name in wire.decode(frame):
                exports.namespace.pop(name, None)
        return frame.kind != Kind.BYE

    def _send(self, message: wire.Message) -> None:
        """Send a frame to the master, in order."""
        raise NotImplementedError

    def _take_token(self) -> bool:
        """Whether a queued chunk may begin."""
        raise NotImplementedError

    def ask(self, name: str, request: Any) -> Any:
        """Put a question to the master and wait for the answer."""
        raise NotImplementedError

    def _start_flushing(self) -> None:
        """See to it that results of the chunk that begins leave before its end."""

    def _failure(self, error: BaseException, *, skip_frames: int) -> outcome.Failure:
        """Put what user code raised into words."""
        return outcome.encode_error(error, skip_frames=skip_frames)

    # -- exports -------------------------------------------------------------------------------

    def _set_up(self, frame: Frame, step: Callable[[Any], None]) -> None:
        """Do one step of the log and say how it went."""
        answer = None
        self._step = Status.STEP | frame.seq
        self._status[Status.ITEM] = frame.seq
        self._status[Status.CHUNK] = Status.SETTING_UP
        try:
            self._enter_user_code()
            value, entries = wire.decode(frame)
            if entries:
                Links(entries).link(exports.namespace)
            logged(step, value)
            self._running = False
        except BaseException as error:
            self._running = False
            failed = self._failure(error, skip_frames=1)
            answer = (failed.payload, failed.type_name, failed.text, failed.traceback)
        if self._forked:
            _end_fork()
        self._send(wire.encode(Kind.EXPORTED, frame.seq, pickle.dumps(answer, protocol=5)))
        self._status[Status.CHUNK] = self._step = 0

    def _export(self, values: dict[str, Any]) -> None:
        exports.namespace.update(values)

    def _call(self, call: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]) -> None:
        function, args, kwargs = call
        function(*args, **kwargs)

    # -- running -------------------------------------------------------------------------------

    def _run(self, frame: Frame) -> None:
        if frame.flags & Flag.QUEUED and not self._take_token():  # the master took it back
            for fd in frame.fds:
                os.close(fd)
            self._send(wire.encode(Kind.SKIPPED, frame.seq, b""))
            return
        results: list[Any] = []
        self._results = results
        self._plain = True
        self._sent = 0
        self._chunk = frame.seq
        started = time.monotonic()
        try:
            payload, buffers = wire.buffers_of(frame)
            function, mode, self._first, data, timed, seed = pickle.loads(payload, buffers=buffers)
            for fd in frame.fds:
                os.close(fd)
            self._status[Status.ITEM] = self._first
            self._status[Status.BEGAN] = time.monotonic_ns()
            self._status[Status.CHUNK] = frame.seq
            count = len(data[0]) if mode == COLUMNS else len(data)
            if count > 1:
                self._start_flushing()
            started = time.monotonic()
            self._run_items(function, mode, data, buffers, count, timed=timed, seed=seed)
            if seed is not None:
                _randomness().refresh()
        finally:
            self._running = False
        self._finish(frame.seq, results, time.monotonic() - started)
        # Not before the results have left: until then the items count as begun.
        self._status[Status.CHUNK] = 0

    def _run_items(
        self,
        function_id: int,
        mode: int,
        data: Any,
        buffers: list[memoryview],
        count: int,
        *,
        timed: bool,
        seed: int | None,
    ) -> None:
        """Run every item of a chunk; each leaves one entry in the results, whatever happens."""
        results = self._results
        try:
            self._enter_user_code()
            call = self._functions[function_id].ready()
            self._running = False
        except BaseException as error:
            self._running = False
            failure = self._encode_error(error)
            results.extend([failure] * (count - len(results)))
            return
        self._arguments = arguments = _unpack(mode, data, buffers)
        if seed is not None:
            arguments = _randomness().SeededItems(arguments, seed, self._first)
        while len(results) < count:
            try:
                self._enter_user_code()
                if timed:
                    self._loop_timed(call, mode, arguments)
                elif mode == COLUMNS and len(data) == 1:
                    self._loop_single(call, arguments)
                else:
                    self._loop(call, mode, arguments)
                self._running = False
            except BaseException as error:
                self._running = False
                failure = self._encode_error(error)
                if len(results) < count:  # else it was interrupted after its last result
                    results.append(failure)
                if isinstance(error, KeyboardInterrupt) and self._interrupted():
                    results.extend([failure] * (count - len(results)))
            if self._forked:
                _end_fork()

    def _loop_single(self, call: Callable[..., Any], arguments: Iterator[Any]) -> None:
        # The hot loop: one store and one type check an item, beside the call itself.
        results, status = self._results, self._status
        append = results.append
        for status[1], argument in enumerate(arguments, self._first + len(results)):
            value = call(argument)
            if type(value) is int or type(value) in ATOMIC:
                append(value)
            else:
                append(self._encode(value))

    def _loop(self, call: Callable[..., Any], mode: int, arguments: Iterator[Any]) -> None:
        # The next item has begun before its arguments are loaded: loading can kill a node too.
        results, status = self._results, self._status
        status[1] = index = self._first + len(results)
        for args in arguments:
            value = _apply(call, mode, args)
            results.append(value if type(value) in ATOMIC else self._encode(value))
            status[1] = index = index + 1

    def _loop_timed(self, call: Callable[..., Any], mode: int, arguments: Iterator[Any]) -> None:
        results, status = self._results, self._status
        status[Status.BEGAN] = time.monotonic_ns()
        status[Status.ITEM] = index = self._first + len(results)
        for args in arguments:
            # A column holds atomic values only, so a tuple is a row of several columns.
            value = _apply(call, mode, args if mode != COLUMNS or type(args) is tuple else (args,))
            results.append(value if type(value) in ATOMIC else self._encode(value))
            status[Status.BEGAN] = time.monotonic_ns()
            status[Status.ITEM] = index = index + 1

    def _encode(self, value: Any) -> outcome.Pickled:
        self._plain = False  # before the entry is there: the other thread may send it at once
        return outcome.encode_value(value)

    def _encode_error(self, error: BaseException) -> outcome.Failure:
        self._plain = False
        return self._failure(error, skip_frames=2)

    def _finish(self, seq: int, results: list[Any], seconds: float) -> None:
        if self._forked:
            _end_fork()
        if self._flusher is not None:
            with self._chunk_done:
                self._chunk = 0
        self._chunk = 0
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except Exception:  # a task may have put anything in their place
            pass
        if exports.touched:
            self._status[Status.STATE] = 1
        self._send_results(seq, results, self._sent, last=True, seconds=seconds)
        self._results, self._arguments = [], None

    def _send_results(
        self, seq: int, results: list[Any], first: int, *, last: bool, seconds: float
    ) -> None:
        batch = results[first:] if last and first else results
        plain = self._plain and not outcome.is_large(batch)  # after the results: see `_encode`
        flags = (Flag.LAST if last else 0) | (Flag.PLAIN if plain else 0)
        payload, buffers = outcome.encode_batch(batch, plain=plain)
        head = RESULT_HEAD.pack(self._first + first, len(batch), seconds)
        self._send(wire.encode(Kind.RESULT, seq, payload, buffers, flags=flags, prefix=head))

    def _enter_user_code(self) -> None:
        self._running = True
        if self._interrupted():  # it came while there was nothing to interrupt
            raise KeyboardInterrupt

    def _interrupted(self) -> bool:
        return bool(self._status[Status.INTERRUPT] == (self._step or self._chunk))

    def emit(self, value: Any) -> None:
        """Send a value to the master while the item still runs."""
        self._check_not_forked("emit a value")
        payload, buffers = namespace.dumps_plain(value)
        head = EMIT_HEAD.pack(self._status[Status.ITEM])
        self._send(wire.encode(Kind.EMIT, self._chunk, head + payload, buffers))

    def _check_not_forked(self, verb: str) -> None:
        if self._forked:
            raise PoolError(
                f"cannot {verb}: this process is a fork of node {self.index}; do it on the node"
            )

    def _on_fork(self) -> None:
        """In a process that a task forked: the items that follow are the node's, not ours."""
        self._forked = True
        if isinstance(self._arguments, _Pickles):
            self._arguments.end()
        elif self._arguments is not None:
            deque(self._arguments, maxlen=0)


class ProcessNode(Node):
    """One background process, from the inside."""

    def __init__(self, index: int, sock: socket.socket, status: memoryview, tokens: int) -> None:
        super().__init__(index, status)
        self._sock = sock
        self._tokens = tokens
        self._reader = wire.FrameReader(with_fds=True)
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._soon = False
        self._backlog: deque[Frame] = deque()
        self._send_lock = threading.RLock()
        self._sends: Callable[[], bool] = self._send_lock._is_owned  # type: ignore[attr-defined]
        self._said_meanwhile: deque[wire.Message] = deque()
        self._interrupt_held = False
        self._receives = False  # the thread that runs jobs, and no frame may be lost
        self._reading = threading.Condition()
        self._someone_reads = False
        self._replies: dict[int, Frame] = {}
        self._asked = 0
        self._flush = threading.Semaphore(0)
        self._flushing = False

    def main(self) -> None:
        """Say hello, then do what the master sends until it says goodbye or is gone."""
        signal.signal(signal.SIGINT, self._on_interrupt)
        sys.unraisablehook = self._on_unraisable
        os.register_at_fork(after_in_child=self._on_fork)
        self._send(wire.encode(Kind.HELLO, os.getpid(), b""))
        while True:
            frame = self._next_frame()
            if frame is None or not self.handle(frame):
                return

    # -- the channel ---------------------------------------------------------------------------

    def _send(self, message: wire.Message) -> None:
        if self._sends():  # a finalizer speaks while this thread sends
            self._said_meanwhile.append(message)
            return
        with self._send_lock:
            wire.send_now(self._sock, message)
        while self._said_meanwhile:
            with self._send_lock:
                if self._said_meanwhile:
                    wire.send_now(self._sock, self._said_meanwhile.popleft())
        self._raise_held()

    def _next_frame(self, reply: int | None = None) -> Frame | None:
        """Wait for the next frame, or for the reply to one question; None when the master is gone.

        Whoever waits first reads for all: a reply is kept for the thread that asked, anything else
        for the main loop.
        """
        while True:
            with self._reading:
                while True:
                    if reply is None and self._backlog:
                        return self._backlog.popleft()
                    if reply is not None and reply in self._replies:
                        return self._replies.pop(reply)
                    if not self._someone_reads:
                        self._someone_reads = True
                        break
                    if self._receives:
                        self._let_interrupt(partial(self._reading.wait_for, self._may_read(reply)))
                    else:
                        self._reading.wait()
            frames: list[Frame] | None = None
            try:
                if reply is None:
                    self._look_out()
                elif self._receives:
                    self._let_interrupt(self._comes)
                frames = self._reader.read(self._sock)
            except ConnectionError:
                frames = None
            finally:
                with self._reading:
                    self._someone_reads = False
                    for frame in frames or ():
                        if frame.kind == Kind.REPLY:
                            self._replies[frame.seq] = frame
                        else:
                            self._backlog.append(frame)
                    self._reading.notify_all()
            if frames is None:
                return None

    def _look_out(self) -> None:
        """Wait for the next frame: awake for a moment, if the one before came as soon as that.

        Whoever else wants the core gets it meanwhile, and one miss ends it: an idle node sleeps.
        """
        began = time.monotonic()
        until = began + LOOK_SECONDS
        while self._soon and not self._poll.poll(0):
            os.sched_yield()
            self._soon = time.monotonic() < until
        if not self._soon:
            self._poll.poll()
            self._soon = time.monotonic() < until

    def _may_read(self, reply: int | None) -> Callable[[], bool]:
        return lambda: reply in self._replies or not self._someone_reads

    def _comes(self, seconds: float | None) -> bool:
        return bool(self._poll.poll(None if seconds is None else seconds * 1000))

    def _let_interrupt(self, sleep: Callable[[float | None], bool]) -> None:
        """Sleep, while this thread waits for a reply and has taken nothing off the channel."""
        try:
            self._receives = False
            self._raise_held()
            _waits.wait(sleep)
        finally:
            self._receives = True

    def _raise_held(self) -> None:
        if self._interrupt_held:
            self._interrupt_held = False
            self._on_interrupt(signal.SIGINT, None)  # not as a signal: a task may block those

    def _take_token(self) -> bool:
        try:
            os.eventfd_read(self._tokens)
        except BlockingIOError:
            return False
        return True

    # -- results that wait ---------------------------------------------------------------------

    def _start_flushing(self) -> None:
        """See to it that the second thread looks at this chunk; it costs nothing while it does."""
        if self._flushing:
            return
        self._flushing = True
        if self._flusher is None:
            self._flusher = threading.Thread(
                target=self._flush_forever, name="azpool-flush", daemon=True
            )
            self._flusher.start()
        self._flush.release()

    def _flush_forever(self) -> None:
        while True:
            self._flush.acquire()
            idle = 0
            while idle < FLUSH_ROUNDS:
                time.sleep(FLUSH_SECONDS)
                idle = 0 if self._chunk else idle + 1
                self._send_what_waits()
            self._flushing = False
            if self._chunk:  # it began while this thread was about to rest
                self._start_flushing()

    def _send_what_waits(self) -> None:
        with self._chunk_done:
            made = len(self._results)
            if self._chunk and made > self._sent:
                waiting = self._results[self._sent : made]
                first, self._sent = self._sent, made
                self._send_results(self._chunk, waiting, first, last=False, seconds=0.0)

    # -- interruption --------------------------------------------------------------------------

    def _on_interrupt(self, _number: int, _frame: Any) -> None:
        # Only user code is interrupted, and only the chunk that was meant: a frame is never cut.
        if self._running and self._interrupted():
            if self._receives or self._sends():
                self._interrupt_held = True
                return
            self._running = False
            raise KeyboardInterrupt

    def _on_unraisable(self, what: Any) -> None:
        # An interrupt that came while a destructor ran was swallowed there: it comes again.
        if what.exc_type is KeyboardInterrupt and self._interrupted():
            self._running = True
            os.kill(os.getpid(), signal.SIGINT)
        elif issubclass(what.exc_type, ResourceWarning) and self._interrupted():
            pass  # made, and interrupted before anyone could keep it or close it
        else:
            sys.__unraisablehook__(what)

    # -- what tasks may call -------------------------------------------------------------------

    def ask(self, name: str, request: Any) -> Any:
        """Put a question to the master and wait for the answer."""
        self._check_not_forked("ask the master")
        payload, buffers = namespace.dumps_plain((name, request))
        with self._reading:
            self._asked += 1
            number = self._asked
        self._send(wire.encode(Kind.ASK, number, payload, buffers))
        frame = self._reply_to(number)
        if frame is None:
            raise PoolError(f"cannot ask {name!r}: the master is gone")
        ok, value = wire.decode(frame)
        if not ok:
            raise outcome.Failure(*value).load(item=None, node=self.index)
        return value

    def _reply_to(self, number: int) -> Frame | None:
        if threading.current_thread() is not threading.main_thread():  # no signal interrupts it
            return self._next_frame(number)
        before, self._receives = self._receives, True
        try:
            frame = self._next_frame(number)
        finally:
            self._receives = before
        self._raise_held()
        return frame

    def write(self, stream: int, text: str) -> None:
        """Send what was printed."""
        data = text.encode("utf-8", "surrogateescape")
        if self._forked:
            os.write(stream, data)
            return
        self._send(wire.encode(Kind.OUTPUT, stream, data))

    def tell(self, kind: int, payload: bytes) -> None:
        """Send what was logged or warned of."""
        if not self._forked:
            self._send(wire.encode(kind, 0, payload))


def _unpack(mode: int, data: Any, buffers: list[memoryview]) -> Iterator[Any]:
    """Iterate over the arguments of a chunk; a pickled argument is loaded when its turn comes."""
    if mode == COLUMNS:
        return iter(data[0]) if len(data) == 1 else zip(*data, strict=True)
    return _Pickles(data, buffers)


class _Pickles:
    """Arguments that were pickled one by one; one that fails to load does not end the iteration."""

    def __init__(self, data: list[Any], buffers: list[memoryview]) -> None:
        self._data: Iterator[Any] = iter(data)
        self._buffers = iter(buffers)

    def __iter__(self) -> _Pickles:
        return self

    def end(self) -> None:
        """Give no more."""
        self._data = iter(())

    def __next__(self) -> Any:
        entry = next(self._data)
        if type(entry) is tuple:
            payload, count = entry
            buffers = [next(self._buffers) for _ in range(count)]
            args, links = pickle.loads(payload, buffers=buffers)
        else:
            args, links = pickle.loads(entry)
        if links:
            Links(links).link(exports.namespace)
        return args


def _end_fork() -> NoReturn:
    """End a process that a task forked and that returned from it."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(0)


def _randomness() -> ModuleType:
    # Loaded by the first seeded map alone.
    from azpool.pool import randomness

    return randomness


def _apply(call: Callable[..., Any], mode: int, args: Any) -> Any:
    if mode == CALL:
        return call(*args[0], **args[1])
    return call(*args)


def evaluate(source: str) -> Any:
    """Run code in the exports' namespace and return the value of its last line, if it is one."""
    import ast

    tree = ast.parse(source, "<pool_evalq>", "exec")
    variables = exports.namespace
    before = {name: id(value) for name, value in exports.items()}
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<pool_evalq>", "exec"), variables)  # noqa: S102 - its purpose
    if {name: id(value) for name, value in exports.items()} != before:
        exports.touched = True
    if last is None:
        return None
    assert isinstance(last, ast.Expr)
    value = compile(ast.Expression(last.value), "<pool_evalq>", "eval")
    return eval(value, variables)  # noqa: S307 - its purpose


def logged(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call a function whose effect on the exports is in the log."""
    before = exports.touched
    try:
        return function(*args, **kwargs)
    finally:
        exports.touched = before


class _Printed(io.TextIOBase):
    """`sys.stdout` and `sys.stderr` of a node: whole lines go to the master as they are printed."""

    encoding = "utf-8"
    errors = "surrogateescape"

    def __init__(self, node: ProcessNode, stream: int) -> None:
        self._node = node
        self._stream = stream
        self._line = ""
        self._lock = threading.RLock()

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return self._stream

    def write(self, text: str) -> int:
        with self._lock:
            whole, newline, rest = (self._line + text).rpartition("\n")
            self._line = rest
            if newline:
                self._node.write(self._stream, whole + newline)
        return len(text)

    def flush(self) -> None:
        with self._lock:
            if self._line:
                text, self._line = self._line, ""
                self._node.write(self._stream, text)


def redirect(node: ProcessNode) -> None:
    """Send what Python code prints on this node to the master; dumps of a crash go there too."""
    sys.stdout = _Printed(node, 1)
    sys.stderr = _Printed(node, 2)
    capture.install(node.index, node.tell)
    faulthandler.enable(2)
