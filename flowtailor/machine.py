"""What is on this machine: which processes live, and which addresses lead to it alone."""

from __future__ import annotations

import ipaddress
import os


def is_running(pid: int) -> bool:
    """Whether a process of this machine lives."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine only; unknown names are not."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
