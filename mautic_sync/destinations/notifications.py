"""Messages to people, over Apprise: sent at least once.

An address of Apprise holds passwords and tokens, so none is ever logged, shown or part of an error. Apprise is loaded
when the first message goes out, and nothing else needs it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
from collections.abc import Mapping
from typing import Any

from mautic_sync.errors import ConfigError
from mautic_sync.mapping_actions import FROM_ENVIRONMENT

NOT_INSTALLED = "messages need the package apprise: install it with `pip install 'mautic-sync[notify]'`"


def installed() -> bool:
    """Whether messages can be sent at all."""
    return importlib.util.find_spec("apprise") is not None


class DeliveryError(Exception):
    """The message was not taken, as far as is known; another try may help."""


def name_of(address: str) -> str:
    """What an address is called where it must not be shown: a digest, the same for the same address."""
    return hashlib.blake2b(address.encode(), digest_size=6).hexdigest()


def send(address: str, title: str, text: str, environment: Mapping[str, str] = os.environ) -> None:
    """Send one message to one address, or to the one that `env:NAME` finds in the environment.

    Raises ConfigError when it cannot be sent as things are set up, DeliveryError when the other side did not take it.
    """
    service = _service(_address(address, environment))
    try:
        # Else a mail is sent as HTML, in which lines run together and `&copy=` is a sign.
        taken = service.notify(body=text, title=title, body_format="text")
    except Exception as error:  # noqa: BLE001  # over a hundred plug-ins, each with errors of its own
        # Whatever a plug-in raises may hold its address.
        raise DeliveryError(f"the service failed ({type(error).__name__})") from None
    if not taken:
        raise DeliveryError("the service did not take it")


def look(address: str, environment: Mapping[str, str] = os.environ) -> None:
    """Raises ConfigError where `send` would, and sends nothing."""
    _service(_address(address, environment))


def _address(written: str, environment: Mapping[str, str]) -> str:
    name = written.removeprefix(FROM_ENVIRONMENT)
    if name == written:
        return written
    found = environment.get(name)
    if not found:
        raise ConfigError(f"the environment has no {name}, which notify.to names")
    return found


def _service(address: str) -> Any:
    try:
        import apprise
    except ImportError:
        raise ConfigError(NOT_INSTALLED) from None
    # What Apprise logs can hold the address.
    logger = logging.getLogger("apprise")
    logger.propagate = False
    logger.disabled = True
    service = apprise.Apprise()
    if not service.add(address):
        raise ConfigError("an address under notify.to is none that Apprise understands")
    for one in service:
        # What is too long for a service, as a digest for a chat is, it would refuse; an address may say otherwise.
        if "overflow_mode" not in vars(one):
            one.overflow_mode = apprise.OverflowMode.SPLIT
    return service
