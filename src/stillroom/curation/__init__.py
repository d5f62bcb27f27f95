"""What makes a good training file of rows: no duplicates, no refusals, a fair split."""

from stillroom.curation.best import choose
from stillroom.curation.curate import Outcome, curate
from stillroom.curation.markdown import markdown
from stillroom.curation.order import Curation, Reason
from stillroom.curation.reporting import Report
from stillroom.curation.rows import FileRows, Named
from stillroom.curation.splitting import held_out_of, split

__all__ = [
    "Curation",
    "FileRows",
    "Named",
    "Outcome",
    "Reason",
    "Report",
    "choose",
    "curate",
    "held_out_of",
    "markdown",
    "split",
]
