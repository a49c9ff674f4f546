"""A job whose module is slow to import, as those of Azure's SDK are."""

import azure.storage.blob  # noqa: F401 - its import is what is measured
from _pool_tasks import meet

__all__ = ["meet_heavy"]


def meet_heavy(address):
    meet(address)
