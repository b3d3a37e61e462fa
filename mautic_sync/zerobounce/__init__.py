"""The only code that speaks to ZeroBounce.

An answer costs a credit, and so may a question whose answer was lost: nothing is asked twice in here.
"""

from mautic_sync.zerobounce.client import Answer, BadKeyError, NoCreditsError, ZeroBounce

__all__ = ["Answer", "BadKeyError", "NoCreditsError", "ZeroBounce"]
