"""A database by its address: the engine, and what its errors mean in a sentence."""

from typing import Any

import sqlalchemy as sa

from fedcore.errors import CorruptState, StorageError


def open_engine(url: str) -> sa.Engine:
    """An engine for `url`; SQLite gets write-ahead logging and full synchronisation."""
    engine = sa.create_engine(url, connect_args={"timeout": 60} if url.startswith("sqlite") else {})
    if engine.dialect.name == "sqlite":

        @sa.event.listens_for(engine, "connect")
        def _settings(connection: Any, _: Any) -> None:
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=60000"):
                connection.execute(f"PRAGMA {pragma}")

    return engine


def shown(url: str) -> str:
    """An address without its password."""
    return sa.make_url(url).render_as_string(hide_password=True)


def explained(error: Exception, where: str) -> StorageError:
    """What went wrong with the journal `where`, as an error of our own to raise."""
    cause = str(getattr(error, "orig", error)).splitlines()[0]
    damaged = ("malformed", "not a database", "disk image")
    if any(word in cause for word in damaged):
        return CorruptState(
            f"journal {where} is damaged ({cause}); restore it from a copy, it is not made anew"
        )
    if any(word in cause for word in ("is locked", "lock timeout", "deadlock")):
        return StorageError(
            f"journal {where} is held by another process ({cause}); wait for it and give the same command again"
        )
    return StorageError(f"journal {where}: {cause}; check the address, the folder's rights and free space")
