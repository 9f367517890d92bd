"""Whether an address, or the host that a request names, is this machine's own."""

from __future__ import annotations

import ipaddress
import re

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[0-9a-z.-]+)(:[0-9]{1,5})?", re.IGNORECASE | re.ASCII)


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach a server that listens there."""
    if address.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def is_local(host: str) -> bool:
    """Whether a request was addressed to this machine by its own name.

    A page elsewhere whose name was made to point here (DNS rebinding) is told by this. So the whole
    header has to be a name and a port: of `[::1]evil.com` and `localhost:80@evil.com` different
    programs make different hosts.

    Args:
        host: the header Host.
    """
    found = _HOST.fullmatch(host)
    if found is None:
        return False
    name = found[1]
    if name.startswith("["):
        return ":" in name and is_loopback(name[1:-1])
    return is_loopback(name) or name.lower() == "localhost."
