"""Fine-tuning jobs: asked for (`order`), owned (`owner`), recorded by whoever runs them (`record`)."""

from stillroom.fine_tuning.order import Hyperparameters, Order, hyperparameters_of, parse_order, wanted_of
from stillroom.fine_tuning.owner import FineTuning
from stillroom.fine_tuning.progress import Figures, Progress
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
    "Figures",
    "FineTuning",
    "Hyperparameters",
    "Job",
    "Order",
    "Progress",
    "fail",
    "finish",
    "get_job",
    "hyperparameters_of",
    "parse_order",
    "record_checkpoint",
    "record_crash",
    "record_message",
    "record_start",
    "record_steps",
    "set_aside",
    "wanted_of",
]
