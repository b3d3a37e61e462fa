"""Where news goes besides Mautic."""
