"""Virtual CPU devices for tests and for the programs they start."""


def xla_flags(count: int) -> str:
    """Returns `XLA_FLAGS` for so many devices, and for programs that are compiled fast.

    Compiling takes most of a test's time; what runs for a second need not run well.
    """
    return (
        f"--xla_force_host_platform_device_count={count} "
        "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    )
