"""A secret in memory: it shows as stars, and pickles only inside a frame to a node.

What holds keys and SAS tokens until handles replace it; nothing else may depend on its form.
"""

from __future__ import annotations

from azpool.errors import CannotPickle
from azpool.pool.travel import is_travelling, travelling

__all__ = ["Secret", "travelling"]


class Secret:
    """A string that never shows itself: `repr`, `str` and formatting give `Secret(***)`."""

    __slots__ = ("_value",)
    _value: str

    def __init__(self, value: str) -> None:
        object.__setattr__(self, "_value", value)

    def reveal(self) -> str:
        """Give the value itself, for signing; never for a message, a log or a repr."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Secret can't be changed")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a Secret can't be changed")

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Secret:
        return self

    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:
        if not is_travelling():
            raise CannotPickle(
                "cannot pickle a Secret: it travels only in a pool's frames; "
                "send the container or endpoint through the pool"
            )
        return Secret, (self._value,)
