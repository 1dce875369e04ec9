"""Cloud TPUs by the names that Google rents them out under, and what their chips can do.

A figure is of a chip as Cloud TPU documentation, system architecture, publishes it ("key
specifications" of each version; v2's from the article that page refers to: Jouppi et al., *A
Domain-Specific Supercomputer for Training Deep Neural Networks*, CACM 2020). JAX's device is a
TensorCore on v2 and v3, which have two in a chip; from v4 on it is the chip (v4's and v5p's two
cores work as one, a "megacore").
"""

import dataclasses
import importlib.util
import math
import os
import re
from typing import Any

from uem_t5x.base.errors import InputError

_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """A TPU version.

    Attributes:
      name: as `get_topology_desc` takes it.
      cores: TensorCores in a chip.
      devices: JAX devices in a chip.
      hbm_gib: memory of a chip, GiB (v5p's 95, v5e's 16 and v6e's 32 are published in GB).
      usable_hbm_gib: what XLA lets a program have of a device's memory, GiB; it names the figure
        when it refuses a program (libtpu 0.0.51).
      peak_flops: bfloat16 FLOP/s of a chip.
      hbm_bandwidth: bytes/s of a chip.
      config: `chip_config_name` of `get_topology_desc`.
    """

    name: str
    cores: int
    devices: int
    hbm_gib: int
    usable_hbm_gib: float
    peak_flops: float
    hbm_bandwidth: float
    config: str = "default"


_V2 = Chip("v2", 2, 2, 16, 7.48, 46e12, 700e9)
_V3 = Chip("v3", 2, 2, 32, 15.48, 123e12, 900e9)
_V4 = Chip("v4", 2, 1, 32, 30.75, 275e12, 1200e9, "megacore")
_V5E = Chip("v5e", 1, 1, 16, 15.75, 197e12, 819e9)
_V5P = Chip("v5p", 2, 1, 95, 95.73, 459e12, 2765e9, "megacore")
_V6E = Chip("v6e", 1, 1, 32, 31.24, 918e12, 1638e9)


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice of a TPU pod.

    Attributes:
      name: its Cloud name. The number counts TensorCores on v2, v3, v4 and v5p, chips on v5e, v6e.
      chip: its TPU version.
      shape: chips in each dimension of the interconnect.
      chips_per_host: chips of one machine in each dimension.
    """

    name: str
    chip: Chip
    shape: tuple[int, ...]
    chips_per_host: tuple[int, int, int] = (2, 2, 1)

    @property
    def chips(self) -> int:
        """The number of chips."""
        return math.prod(self.shape)

    @property
    def devices(self) -> int:
        """The number of JAX devices."""
        return self.chips * self.chip.devices

    @property
    def hosts(self) -> int:
        """The number of machines (TPU VMs)."""
        return self.chips // math.prod(self.chips_per_host)

    @property
    def hbm_bytes(self) -> int:
        """Memory of a device, as published."""
        return int(self.chip.hbm_gib * _GIB / self.chip.devices)

    @property
    def usable_hbm_bytes(self) -> int:
        """What XLA lets a program have of it."""
        return int(self.chip.usable_hbm_gib * _GIB)

    @property
    def peak_flops(self) -> float:
        """bfloat16 FLOP/s of a device."""
        return self.chip.peak_flops / self.chip.devices

    @property
    def hbm_bandwidth(self) -> float:
        """Bytes/s between a device and its memory."""
        return self.chip.hbm_bandwidth / self.chip.devices


def _slices(
    chip: Chip, prefix: str, shapes: dict[int, str], hosts: dict[int, str] | None = None
) -> dict[str, Topology]:
    """Returns topologies by name, given the shape for each number and odd machines' shapes."""
    hosts = hosts or {}
    return {
        f"{prefix}-{number}": Topology(
            f"{prefix}-{number}", chip, _sizes(shape), _sizes(hosts.get(number, "2x2x1"))
        )
        for number, shape in shapes.items()
    }


def _sizes(shape: str) -> tuple[int, ...]:
    return tuple(map(int, shape.split("x")))


_SQUARES = {8: "2x2", 32: "4x4", 64: "4x8", 128: "8x8", 256: "8x16", 512: "16x16"}
_CUBES = {8: "2x2x1", 16: "2x2x2", 32: "2x2x4", 64: "2x4x4", 128: "4x4x4"}
_LARGE_CUBES = {256: "4x4x8", 512: "4x8x8", 1024: "8x8x8"}
_LITE = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
# Up to eight chips share a machine; larger slices are made of machines with four.
_LITE_HOSTS = {1: "1x1x1", 8: "2x4x1"}

TOPOLOGIES = {
    **_slices(_V2, "v2", {n: shape for n, shape in _SQUARES.items() if n != 64}),
    **_slices(_V3, "v3", _SQUARES | {1024: "16x32", 2048: "32x32"}),
    **_slices(_V4, "v4", _CUBES | _LARGE_CUBES),
    **_slices(_V5E, "v5litepod", _LITE, _LITE_HOSTS),
    **_slices(_V5P, "v5p", _CUBES | _LARGE_CUBES),
    **_slices(_V6E, "v6e", _LITE, _LITE_HOSTS),
}


def topology(name: str) -> Topology:
    """Returns the topology of a Cloud name; `v5e-4` is `v5litepod-4`.

    Raises:
      InputError: if there is none.
    """
    known = TOPOLOGIES.get(re.sub(r"^v5e-", "v5litepod-", name))
    if known is None:
        raise InputError(f"--topology {name}: unknown; choose from {_known()}")
    return known


def _known() -> str:
    numbers: dict[str, list[str]] = {}
    for name in TOPOLOGIES:
        prefix, number = name.rsplit("-", 1)
        numbers.setdefault(prefix, []).append(number)
    return ", ".join(f"{prefix}-{{{','.join(some)}}}" for prefix, some in numbers.items())


def set_environment() -> None:
    """Prepares for compiling without a TPU; to be called before JAX starts.

    JAX itself runs on the CPU, and libtpu neither asks Google's metadata server nor keeps other
    processes from it.
    """
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")


def check_libtpu() -> None:
    """Raises an InputError if libtpu, which holds the compiler, is not installed."""
    if importlib.util.find_spec("libtpu") is None:
        raise InputError(
            "libtpu, which holds the TPU compiler, is not installed; "
            "run: pip install -e '.[tpu-compile]'"
        )


def devices(topology: Topology) -> list[Any]:
    """Returns JAX devices that programs can be compiled for, but not run on.

    Raises:
      InputError: if libtpu is not installed.
    """
    check_libtpu()
    from jax.experimental import topologies

    return topologies.get_topology_desc(
        platform="tpu",
        topology_name=f"{topology.chip.name}:{'x'.join(map(str, topology.shape))}",
        chip_config_name=topology.chip.config,
        chips_per_host_bounds=topology.chips_per_host,
    ).devices
