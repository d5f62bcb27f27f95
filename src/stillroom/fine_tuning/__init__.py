"""Fine-tuning jobs: asked for (`order`, `method`), owned (`owner`), recorded by whoever runs them (`record`)."""

from stillroom.fine_tuning.method import ITSELF, Hyperparameters, method_asked, wanted_of
from stillroom.fine_tuning.order import Order, parse_order
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
    "ITSELF",
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
    "method_asked",
    "parse_order",
    "record_checkpoint",
    "record_crash",
    "record_message",
    "record_start",
    "record_steps",
    "set_aside",
    "wanted_of",
]
