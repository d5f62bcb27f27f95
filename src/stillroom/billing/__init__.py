"""The cost side: what was used (`ledger`, `record`), its sums (`usage`), and how much may be spent (`budget`)."""

from stillroom.billing.budget import Budgets, BudgetState, Period
from stillroom.billing.ledger import LABELLING, PICO, Entry, Kind, cost_picousd, microusd, rounded_microusd
from stillroom.billing.record import record
from stillroom.billing.subjects import cost_of, costs_of
from stillroom.billing.usage import By, Total, day_of, totals

__all__ = [
    "LABELLING",
    "PICO",
    "BudgetState",
    "Budgets",
    "By",
    "Entry",
    "Kind",
    "Period",
    "Total",
    "cost_of",
    "cost_picousd",
    "costs_of",
    "day_of",
    "microusd",
    "record",
    "rounded_microusd",
    "totals",
]
