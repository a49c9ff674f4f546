"""What fresh nodes are sent first waits until what it imports is imported once for all of them.

Fresh nodes ran the log at most, so they can be replaced unseen by nodes that are forked after the
import. On the supervisor's thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from azpool.pool.engines.base import Engine
    from azpool.pool.generation import Generation, Work

RENEW_SECONDS = 0.01  # an import that took longer is worth new nodes, which take as long
NEVER_PRELOADED = frozenset({"builtins", "__main__", "__mp_main__"})


class Preloading:
    """See the module. `renew` replaces all nodes of a generation and then makes a call."""

    def __init__(
        self, engine: Engine, renew: Callable[[Generation, Callable[[], None]], None]
    ) -> None:
        self._engine = engine
        self._renew = renew
        self._needed: frozenset[str] = frozenset()  # by jobs of earlier generations

    def ahead(self, modules: frozenset[str]) -> None:
        """Import what nodes will need of which none is there yet."""
        self._engine.preload(sorted(modules - NEVER_PRELOADED))

    def holds(
        self,
        generation: Generation,
        modules: frozenset[str],
        work: Work | None,
        step: Callable[[], None],
    ) -> bool:
        """Keep a step until the modules that it needs are imported; False: it need not wait.

        Steps of the log (`work` is None) leave nodes fresh: those that replace them have them too.
        """
        if generation.pristine:
            modules |= self._needed
        wanted = sorted(modules - NEVER_PRELOADED)
        if wanted and self._engine.preload(wanted) and generation.held is None:
            generation.held = []
        if work is not None:
            generation.pristine = False
        if generation.held is None:
            return False
        generation.held.append((work, step))
        return True

    def preloaded(self, generation: Generation, seconds: float) -> None:
        """Modules are there for the nodes to come: let the steps go on, on new nodes if it pays."""
        if generation.held is None:
            return
        if seconds <= RENEW_SECONDS:
            self.release(generation)
        else:
            self._renew(generation, lambda: self.release(generation))

    def release(self, generation: Generation) -> None:
        """Let what was kept go on, in order."""
        held, generation.held = generation.held, None
        for _, step in held or ():
            step()

    def retire(self, generation: Generation) -> None:
        """A generation is followed by another, which will need what its jobs needed."""
        self._needed |= generation.modules
        self.release(generation)
