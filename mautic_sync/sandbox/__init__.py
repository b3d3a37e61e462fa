"""A simulated Mautic (5.1.0 or 7.0.0) and ZeroBounce over real HTTP, in one process, for demo, tests and benchmarks.

It answers by rules over its own tables. It knows nothing of the worker's code, so that both can be held to the same
recordings of real servers independently.
"""

from .faults import Faults, parse_faults
from .instance import Credentials
from .server import Options, Sandbox, read_credentials, serve

__all__ = ["Credentials", "Faults", "Options", "Sandbox", "parse_faults", "read_credentials", "serve"]
