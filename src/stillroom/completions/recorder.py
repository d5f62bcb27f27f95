"""Keeps answers: hands each one, with its ledger row, to the writer as one transaction.

Packing happens in the caller's thread, so that the writer only writes.
"""

from __future__ import annotations

import logging
from concurrent.futures import Future

from sqlalchemy import Connection

from stillroom import billing
from stillroom.completions import kept, table
from stillroom.completions.kept import KeptAnswer
from stillroom.config import Price
from stillroom.errors import StoreUnavailable
from stillroom.store.writer import Writer

log = logging.getLogger(__name__)


class Recorder:
    """The gateway's door to the store."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def keep(
        self, entry: billing.Entry, price: Price, *, new: table.NewCompletion | None, answer: KeptAnswer | None
    ) -> Future[None]:
        """Stores what the answer cost, with it the completion, the answer for repeats, or both; the
        future resolves after the commit.

        It is stored even when nobody waits. The future raises StoreUnavailable or DiskFull when
        nothing was stored.
        """
        packed = table.pack(new.request, new.response) if new is not None else None

        def write(connection: Connection) -> None:
            if new is not None and packed is not None:
                table.add(connection, new, packed)
            if answer is not None:
                kept.add(connection, answer)
            billing.record(connection, entry, price)

        return self._writer.submit(write)

    def meter(self, entry: billing.Entry, price: Price) -> None:
        """Records what an unstored answer cost, without making anyone wait for the commit."""
        try:
            metered = self._writer.submit(lambda connection: billing.record(connection, entry, price))
        except StoreUnavailable as error:
            _warn(error)  # the answer is there; that it cannot be counted is no reason to withhold it
        else:
            metered.add_done_callback(lambda done: _warn(done.exception()))


def _warn(error: BaseException | None) -> None:
    if error is not None:
        log.warning("an unstored answer could not be metered: %s", error)
