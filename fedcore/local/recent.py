"""What was used last, within a bound of memory."""

from collections import OrderedDict
from typing import Generic, TypeVar

Kept = TypeVar("Kept")


class Recent(Generic[Kept]):
    """Things by name that take at most `limit` bytes together; those not asked for longest go first, the last stays."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[str, tuple[Kept, int]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, name: str) -> Kept | None:
        """The thing, if it is still there; it counts as used now."""
        if name not in self._kept:
            return None
        self._kept.move_to_end(name)
        return self._kept[name][0]

    def keep(self, name: str, thing: Kept, size: int) -> Kept:
        """Keep a thing of `size` bytes that is not there, and let go of what no longer fits."""
        self._kept[name] = (thing, size)
        self._size += size
        while self._size > self._limit and len(self._kept) > 1:
            self._size -= self._kept.popitem(last=False)[1][1]
        return thing

    def clear(self) -> None:
        """Let go of everything."""
        self._kept.clear()
        self._size = 0
