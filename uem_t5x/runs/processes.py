"""The processes of a run, one a host: who they are, and how one joins the others."""

import dataclasses
import os
import re
import socket
import sys

from uem_t5x.base.errors import InputError

_ADDRESS = "JAX_COORDINATOR_ADDRESS"  # JAX's own way to be told it
_HOST_AND_PORT = re.compile(r"(\[[^\s\[\]/]+\]|[^\s\[\]/:]+):([0-9]{1,5})")
_GIVE_ALL = "give --coordinator_address=HOST:PORT --process_count=N --process_index=I"
_PATIENCE = 300  # seconds


@dataclasses.dataclass(frozen=True)
class Processes:
    """The processes of a run, as this one is told of them.

    Attributes:
      multiprocess: there are others, and the cluster names them.
      coordinator_address: HOST:PORT of the first one; None where the cluster or the environment
        names it.
      process_count: how many there are; None where the cluster tells.
      process_index: which one this is, from 0; None where the cluster tells.
    """

    multiprocess: bool = False
    coordinator_address: str | None = None
    process_count: int | None = None
    process_index: int | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is surely a run's first, or only, process before it has joined."""
        return not self._joins or self.process_index == 0

    def check(self) -> None:
        """Checks what is told, for JAX takes any: it crashes on some, and waits on others.

        Raises:
          InputError: an address that is not HOST:PORT, a host that is not known, a port that the
            first process cannot have, or a count or an index that is out of range, or for nothing.
        """
        count, index = self.process_count, self.process_index
        if not self._joins and (count, index) != (None, None):
            name = "count" if index is None else "index"
            raise InputError(f"--process_{name} says not where the others are: {_GIVE_ALL}")
        if count is not None and count < 1:
            raise InputError(f"--process_count={count}: give 1 or more")
        if index is not None and not 0 <= index < (count or index + 1):
            last = "or more" if count is None else f"to {count - 1}, of --process_count={count}"
            raise InputError(f"--process_index={index}: give 0 {last}")
        address = self._address
        if self._joins and address is not None:
            given = _ADDRESS if self.coordinator_address is None else "--coordinator_address"
            _check_address(f"{given}={address}", address, listens=index == 0)

    def join(self) -> None:
        """Joins the others, if there are any, before JAX looks at the devices; after `check`.

        Raises:
          InputError: if there is nobody to join.
        """
        if not self._joins:
            return
        import jax

        count, index = self.process_count, self.process_index
        who = "all" if count is None else str(count)
        where = self._address or "the address that the cluster names"
        wait = f"waiting up to {_PATIENCE // 60} minutes"
        line = f"uem_t5x.train: {wait} until {who} processes are at {where}"
        print(line, file=sys.stderr, flush=True)
        try:
            jax.distributed.initialize(
                self.coordinator_address, count, index, initialization_timeout=_PATIENCE
            )
        except (ValueError, RuntimeError) as error:
            raise InputError(f"cannot join the other processes: {error}; {_GIVE_ALL}") from error

    @property
    def _joins(self) -> bool:
        return self.multiprocess or self.coordinator_address is not None

    @property
    def _address(self) -> str | None:
        given = self.coordinator_address
        return os.environ.get(_ADDRESS) if given is None else given


def _check_address(setting: str, address: str, listens: bool) -> None:
    """Checks where the first process listens; whether it can, if this is the first."""
    match = _HOST_AND_PORT.fullmatch(address)
    if not match or not 1 <= (port := int(match[2])) <= 65535:
        raise InputError(
            f"{setting}: give HOST:PORT of the first process, such as "
            "10.0.0.2:8476 or [fd00::2]:8476"
        )
    host = match[1].strip("[]")
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise InputError(
            f"{setting}: no host of that name is known here ({error}); give "
            "that of the first process"
        ) from error
    if listens:
        try:
            socket.create_server(
                ("", port),
                family=socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET,
                dualstack_ipv6=socket.has_dualstack_ipv6(),
            ).close()
        except OSError as error:
            raise InputError(
                f"{setting}: the first process cannot listen at port {port} "
                f"({error.strerror}); give one that is free"
            ) from error
