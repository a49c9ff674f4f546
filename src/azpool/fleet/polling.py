"""The operation behind an answer: where to ask, when, and how it ended.

    answer = yield call
    ending = yield from follow(call, answer)

ARM accepts what takes time and says where to ask: by `Azure-AsyncOperation`, else by `Location`,
else by the `provisioningState` of the resource itself. Retry-After says when; the loop keeps
polls apart where nothing is said, and within the subscription's budget.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from azpool.fleet.budget import retry_after_seconds
from azpool.fleet.calls import Answer, Call, Kind, Pause, Procedure

__all__ = ["Ending", "Trouble", "follow", "is_lost", "poll_url", "trouble_of"]

# Of a poll: the operation is not kept any more, or could not be asked for.
_TELL_NOTHING = frozenset({404, 410, 408, 429})
_DONE = frozenset({"succeeded", "failed", "canceled", "cancelled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What the service says of a failure.

    Attributes:
        code: its code (`AllocationFailed`), or None.
        message: its words, or "".
        details: what it says of single parts: their target (or "") and code and message.
    """

    code: str | None = None
    message: str = ""
    details: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How an operation ended.

    Attributes:
        ok: whether it did what was asked for.
        lost: whether the service no longer knows of it, or could not be asked.
        answer: the answer that decided.
        trouble: what the service said; empty where it is ok.
    """

    ok: bool
    answer: Answer
    lost: bool = False
    trouble: Trouble = Trouble()


def is_lost(answer: Answer) -> bool:
    """Whether nothing is known of what became of a call."""
    return answer.status is None and answer.sent


def poll_url(answer: Answer) -> str | None:
    """Answer where to ask how far it is, or None where the answer names no place."""
    return answer.headers.get("azure-asyncoperation") or answer.headers.get("location")


def trouble_of(answer: Answer) -> Trouble:
    """Read what an answer says of a failure, in its body or beside it."""
    body = answer.body if isinstance(answer.body, Mapping) else {}
    error = body.get("error", body)
    if not isinstance(error, Mapping):
        return Trouble(code=answer.code, message=answer.message)
    details = []
    for one in error.get("details") or ():
        if isinstance(one, Mapping):
            words = [str(one.get(name) or "") for name in ("target", "code", "message")]
            details.append((words[0], words[1], words[2]))
    code = error.get("code") if isinstance(error.get("code"), str) else None
    message = error.get("message") if isinstance(error.get("message"), str) else None
    return Trouble(
        code=code or answer.code,
        message=message or answer.message,
        details=tuple(details),
    )


def follow(call: Call, answer: Answer, *, reread: Call | None = None) -> Procedure[Ending]:
    """Ask until the operation that `answer` has begun ends.

    Args:
        call: what began it.
        answer: its answer, which accepted it.
        reread: reads the resource itself; needed where the service names no place to ask, as after
            a PUT whose answer has a `provisioningState` alone.
    """
    url = poll_url(answer)
    by_status = "azure-asyncoperation" in answer.headers
    if url is None and (reread is None or _provisioning(answer) in {"", *_DONE}):
        return _ended(answer, _provisioning(answer))
    if url is not None:
        ask = Call(
            subscription=call.subscription,
            method="get",
            url=url,
            kind=Kind.READ,
            repeatable=True,
            about=call.about,
            poll=True,
        )
    else:
        assert reread is not None
        ask = replace(reread, poll=True)
    while True:
        yield Pause(seconds=retry_after_seconds(answer) or 0.0)
        polled = yield ask
        assert polled is not None
        if not polled.ok:
            # 404: the service keeps operations for a while. No answer: the machine's state tells.
            unsure = polled.status is None or polled.status in _TELL_NOTHING or polled.status >= 500
            return Ending(ok=False, lost=unsure, answer=polled, trouble=trouble_of(polled))
        if by_status:
            status = _word(polled.body, "status")
        elif url is None:
            status = _provisioning(polled)
        else:
            status = "" if polled.status == 202 else _provisioning(polled) or "succeeded"
        if status in _DONE:
            return _ended(polled, status)
        if by_status and not status and polled.status in {200, 204}:
            return _ended(polled, "succeeded")  # an operation without a status has ended
        answer = polled
        moved = None if by_status else polled.headers.get("location")
        if url is not None and (polled.headers.get("azure-asyncoperation") or moved):
            url = polled.headers.get("azure-asyncoperation") or moved
            ask = replace(ask, url=url)


def _ended(answer: Answer, status: str) -> Ending:
    if status in {"", "succeeded"}:
        return Ending(ok=True, answer=answer)
    trouble = trouble_of(answer)
    if trouble.code is None:
        trouble = replace(trouble, code="OperationCanceled" if "cancel" in status else "Failed")
    return Ending(ok=False, answer=answer, trouble=trouble)


def _word(body: Any, name: str) -> str:
    word = body.get(name) if isinstance(body, Mapping) else None
    return word.lower() if isinstance(word, str) else ""


def _provisioning(answer: Answer) -> str:
    properties = answer.body.get("properties") if isinstance(answer.body, Mapping) else None
    return _word(properties, "provisioningState")
