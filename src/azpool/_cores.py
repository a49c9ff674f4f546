"""How many nodes move files on a machine. Pure, and imports nothing: a command asks first thing."""

__all__ = ["nodes_for"]

# A node has many requests in flight by itself, and moves parts on threads: more nodes than this
# only take turns. 20,000 x 4 KiB took 3.4 CPU s on 3 or 4 nodes and 4.6 on 10, with 2 cores; and
# 100 x 64 MiB came at 875 MiB/s on 4 nodes and at 783 on 10.
NODES_PER_CORE = 2
MOST_NODES = 10


def nodes_for(cores: int) -> int:
    """Answer how many nodes keep so many cores busy."""
    return max(2, min(MOST_NODES, NODES_PER_CORE * cores))
