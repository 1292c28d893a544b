"""What is on this machine: processes, GPUs, ports, and which addresses lead to it alone."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from pathlib import Path

# Of NVIDIA, on Linux and in Windows' subsystem for it, of AMD and of Intel.
GPUS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd", "/dev/dri/renderD128")


def is_running(pid: int) -> bool:
    """Whether a process of this machine lives."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def has_gpu() -> bool:
    """Whether the system shows a device that torch may draw on, if it is built for it; a Mac has one."""
    return sys.platform == "darwin" or any(Path(device).exists() for device in GPUS)


def why_not_listen(host: str, port: int) -> str:
    """Why a server could not listen there; nothing where it could."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As servers do: connections that ended a moment ago do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:  # no port has a number above 65535
            return getattr(error, "strerror", None) or str(error)
    return ""


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
