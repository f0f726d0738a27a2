"""Checks of arguments: what makes no sense is refused where it is given, by name.

Called by the rest of the net package, on any thread. They raise TypeError or ValueError.
Go has types for the first, and leaves the second to the kernel.
"""

from __future__ import annotations

import inspect
import math
import os
from typing import Any

__all__ = [
    "INT_MAX",
    "check_control",
    "check_has",
    "check_int",
    "check_local_addr",
    "check_resolver",
    "check_seconds",
    "check_server_hostname",
]

INT_MAX = 2**31 - 1  # of an option that the kernel takes as a C int


def check_int(name: str, value: object, least: int | None = 0, most: int | None = None) -> None:
    """Raise if *value* is no int from *least* to *most*, None for no such bound."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if (least is not None and value < least) or (most is not None and value > most):
        text = str(value) if value.bit_length() < 64 else "of over 64 bits"  # str() has a limit
        if most is not None:
            bounds = f"must be {least} to {most}"
        else:
            bounds = f"must be above {least - 1}" if least else "must not be negative"
        raise ValueError(f"{name} {bounds}, not {text}")


def check_seconds(name: str, seconds: object) -> None:
    """Raise if *seconds* is none: infinity is, nan is not."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"{name} must be seconds, not {type(seconds).__name__}")
    try:
        nan = math.isnan(seconds)
    except OverflowError:
        raise ValueError(f"{name} must be seconds: {name} is too large") from None
    if nan:
        raise ValueError(f"{name} must not be nan")


def check_has(name: str, value: object, methods: tuple[str, ...], remedy: str) -> None:
    """Raise if *value* has not all of *methods*; *remedy* is what it must be."""
    if isinstance(value, type) or not all(callable(getattr(value, m, None)) for m in methods):
        kind = value.__name__ + " itself" if isinstance(value, type) else type(value).__name__
        raise TypeError(f"{name} must be {remedy}, not {kind}")


def check_resolver(resolver: object) -> None:
    """Raise if *resolver* is neither None nor an AddrResolver."""
    if resolver is not None:
        remedy = "an object with lookup_addr(host, port, family)"
        check_has("resolver", resolver, ("lookup_addr",), remedy)


def check_control(control: Any) -> None:
    """Raise if *control* is neither None nor a Control: it is called, and not awaited."""
    if control is None:
        return
    if not callable(control):
        raise TypeError(f"control must be a function, not {type(control).__name__}")
    if any(map(inspect.iscoroutinefunction, (control, control.__call__))):
        raise TypeError("control must be a plain function, not an async one: it is not awaited")


def check_local_addr(addr: object) -> None:
    """Raise if *addr* is of no type that an address has; what it says, the network decides."""
    if addr is not None and not isinstance(addr, (str, tuple, os.PathLike)):
        kind = type(addr).__name__
        raise TypeError(f"local_addr must be 'host:port', a tuple or a path, not {kind}")


def check_server_hostname(name: object) -> None:
    """Raise if *name* can be no server's: OpenSSL is not asked first, it speaks of codecs."""
    if name is None:
        return
    if not isinstance(name, str):
        raise TypeError(f"server_hostname must be a str, not {type(name).__name__}")
    if name.startswith("."):
        raise ValueError(f"server_hostname must not begin with a dot, as {name!r} does")
