"""What tests of several processes on this machine share."""

import socket


def free_address() -> str:
    """Returns where processes may join: a port of this machine that nobody has just now."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"
