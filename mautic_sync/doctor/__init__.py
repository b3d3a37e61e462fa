"""`doctor`: looks at everything that a run needs, and says for each thing how it is and what to do about it.

Nothing is written anywhere: not to Mautic, not to ZeroBounce, not to the store. No credit is spent.
"""

from mautic_sync.doctor.examination import Examination
from mautic_sync.doctor.examine import CHECKS, Check, Result, as_json, examine, exit_code
from mautic_sync.doctor.finding import Finding

__all__ = ["CHECKS", "Check", "Examination", "Finding", "Result", "as_json", "examine", "exit_code"]
