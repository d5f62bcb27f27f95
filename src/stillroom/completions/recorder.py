"""Keeps answers: hands each one, with its ledger row, to the writer as one transaction.

Packing happens in the caller's thread, so that the writer only writes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy import Connection

from stillroom import billing
from stillroom.completions import kept, soft_labels, table
from stillroom.completions.kept import KeptAnswer
from stillroom.config import Price
from stillroom.errors import StoreUnavailable
from stillroom.store.writer import Writer

log = logging.getLogger(__name__)

T = TypeVar("T")


class Recorder:
    """The gateway's door to the store."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        # Soft labels take a millisecond for some twenty tokens: too long for the event loop, and for the writer.
        self._packing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="packing")

    def keep(
        self,
        entry: billing.Entry,
        price: Price,
        *,
        new: table.NewCompletion | None,
        answer: KeptAnswer | None,
        logprobs: Sequence[bytes] = (),
    ) -> Future[None]:
        """Stores what the answer cost, with it the completion, the answer for repeats, or both; the
        future resolves after the commit. `logprobs`: what the teacher weighed, as it spells it, one part
        after the other; kept with the completion.

        It is stored even when nobody waits. The future raises StoreUnavailable or DiskFull when
        nothing was stored.
        """
        packed = table.pack(new.request, new.response) if new is not None else None

        def write(connection: Connection, labels: soft_labels.SoftLabels | None = None) -> None:
            if new is not None and packed is not None:
                table.add(connection, new, packed)
            if new is not None and labels is not None:
                soft_labels.add(connection, new.number, labels)
            if answer is not None:
                kept.add(connection, answer)
            billing.record(connection, entry, price)

        if new is None or not logprobs:
            return self._writer.submit(write)
        labels = self._packing.submit(_packed, logprobs)
        return _after(labels, lambda done: self._writer.submit(lambda connection: write(connection, done)))

    def meter(self, entry: billing.Entry, price: Price) -> None:
        """Records what an unstored answer cost, without making anyone wait for the commit."""
        try:
            metered = self._writer.submit(lambda connection: billing.record(connection, entry, price))
        except StoreUnavailable as error:
            _warn(error)  # the answer is there; that it cannot be counted is no reason to withhold it
        else:
            metered.add_done_callback(lambda done: _warn(done.exception()))


def _packed(told: Sequence[bytes]) -> soft_labels.SoftLabels | None:
    """The labels; None when there are none, or none that can be kept: the answer is kept all the same."""
    try:
        return soft_labels.pack(told)
    except Exception:
        log.exception("an answer is stored without its soft labels: they could not be packed")
        return None


def _after(first: Future[T], then: Callable[[T], Future[None]]) -> Future[None]:
    """The second future's end, begun with what the first gives; nobody's thread waits meanwhile."""
    last: Future[None] = Future()

    def end(done: Future[Any]) -> None:
        error = done.exception()
        if error is not None:
            last.set_exception(error)
        else:
            last.set_result(None)

    def go_on(done: Future[T]) -> None:
        try:
            then(done.result()).add_done_callback(end)
        except Exception as error:  # whatever it is: somebody waits
            last.set_exception(error)

    first.add_done_callback(go_on)
    return last


def _warn(error: BaseException | None) -> None:
    if error is not None:
        log.warning("an unstored answer could not be metered: %s", error)
