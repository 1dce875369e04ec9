"""File handles: TensorFlow's input pipeline waits for one for ever where there are too few."""

import resource

from uem_t5x.base.errors import InputError

_NEEDED = 256  # several times what a run has been seen to hold


def take() -> None:
    """Takes as many as training or scoring may need.

    Raises:
      InputError: if the system gives fewer.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= _NEEDED:
        return
    if hard != resource.RLIM_INFINITY and hard < _NEEDED:
        raise InputError(
            f"this process may open {hard} files, the input pipeline needs up to {_NEEDED}; raise "
            f"the limit (ulimit -n {_NEEDED})"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (_NEEDED, hard))
