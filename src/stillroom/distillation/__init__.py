"""Distillation as code: teacher, synthetic labels, student, saved model.

    from stillroom.distillation import distill

    outcome = distill("distillation.yaml")          # or a mapping with the file's keys
    print(outcome.model, outcome.training.success_ratio, outcome.cost_usd)

One module a step, in this order: `spec` (what is asked for), `rows`, `labels` (all rows; `interview` is about one),
`examples` (the student's training files), `job`, `outcome`; `run` tells the whole way. No server is needed, and torch is in the job's own process.
"""

from stillroom.distillation.job import Training
from stillroom.distillation.labels import Progress
from stillroom.distillation.outcome import Outcome, Part
from stillroom.distillation.problems import DistillationFailed, InvalidJobFile
from stillroom.distillation.run import distill

__all__ = ["DistillationFailed", "InvalidJobFile", "Outcome", "Part", "Progress", "Training", "distill"]
