"""The cost side: what was used (`ledger`), its sums (`usage`), and how much may be spent (`budget`)."""

from stillroom.billing.budget import Budgets, BudgetState, Period
from stillroom.billing.ledger import PICO, Entry, Kind, cost_picousd, microusd, record, rounded_microusd
from stillroom.billing.usage import By, Total, day_of, totals

__all__ = [
    "PICO",
    "BudgetState",
    "Budgets",
    "By",
    "Entry",
    "Kind",
    "Period",
    "Total",
    "cost_picousd",
    "day_of",
    "microusd",
    "record",
    "rounded_microusd",
    "totals",
]
