"""The one schema object that every table belongs to, and the column kinds they share.

A table is defined and queried by the module that owns it; migrations in `store/migrations` create it.
"""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import BigInteger, Integer, MetaData

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite numbers rows by itself only in a column called exactly INTEGER.
RowId = BigInteger().with_variant(Integer, "sqlite")


def as_json(value: Any) -> str:
    """A value as a JSON column keeps it."""
    return msgspec.json.encode(value).decode()


def parsed(text: str | None) -> Any:
    """What a JSON column keeps; None for NULL."""
    return None if text is None else msgspec.json.decode(text)
