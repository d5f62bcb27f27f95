"""Fine-tuning jobs: asked for (`order`), owned (`owner`), recorded by whoever runs them (`record`)."""

from stillroom.fine_tuning.order import Hyperparameters, Order, parse_order
from stillroom.fine_tuning.owner import FineTuning
from stillroom.fine_tuning.record import (
    fail,
    finish,
    record_checkpoint,
    record_crash,
    record_message,
    record_start,
    record_steps,
    set_aside,
)
from stillroom.fine_tuning.table import KIND, Checkpoint, Event, Job, get_job

__all__ = [
    "KIND",
    "Checkpoint",
    "Event",
    "FineTuning",
    "Hyperparameters",
    "Job",
    "Order",
    "fail",
    "finish",
    "get_job",
    "parse_order",
    "record_checkpoint",
    "record_crash",
    "record_message",
    "record_start",
    "record_steps",
    "set_aside",
]
