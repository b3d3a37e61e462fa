"""mautic_sync sorts Mautic contacts into ghosts, leads and customers, and keeps Mautic's stages true."""

__version__ = "0.1.0"
