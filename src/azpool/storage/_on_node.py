"""What nodes that move files have from the start: their modules, and the table of types.

`mimetypes` reads files for it, 4 ms: once in the zygote, not on each node.
"""

import mimetypes

from azpool.storage import _batch, _rest

__all__ = ["_batch", "_rest"]

mimetypes.init()
