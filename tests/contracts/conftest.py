"""The journeys' fixtures that contract tests use too."""

from __future__ import annotations

from tests.journeys.conftest import job, label, raw

__all__ = ["job", "label", "raw"]
