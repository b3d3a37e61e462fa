"""`python -m mautic_sync`: the command line."""

from mautic_sync.cli import main

main()
