"""What `launch/tpu` asks of gcloud, says of costs, and starts training with."""

import ast
import shutil

import pytest

needs_hosts = pytest.mark.skipif(
    not (shutil.which("flock") and shutil.which("setsid")),
    reason="the hosts' part needs flock and setsid, as Linux has them",
)

TPUS = ["compute", "tpus"]
PLACE = ["--zone=us-central2-b", "--project=my-project"]
CORES = ["--accelerator-type=v4-8"]
CREATE = {
    "on-demand": [*TPUS, "tpu-vm", "create", "uem", *CORES, "--version=tpu-ubuntu2204-base"],
    "spot": [*TPUS, "tpu-vm", "create", "uem", *CORES, "--version=tpu-ubuntu2204-base", "--spot"],
    "queued": [
        *[*TPUS, "queued-resources", "create", "uem", "--node-id=uem", *CORES],
        "--runtime-version=tpu-ubuntu2204-base",
    ],
    "queued-spot": [
        *[*TPUS, "queued-resources", "create", "uem", "--node-id=uem", *CORES],
        *["--runtime-version=tpu-ubuntu2204-base", "--spot"],
    ],
}

COSTS = "uem is READY and costs money until: launch/tpu delete"
UNKNOWN = """uem may exist and be billed until: launch/tpu delete
  whether it does: launch/tpu status
  TPUs in any zone: gcloud compute tpus tpu-vm list --zone=- --project=my-project
  requests: gcloud compute tpus queued-resources list --zone=- --project=my-project
"""


def macros(argv):
    """The `--gin.` arguments with their values as Python reads them."""
    pairs = [argument.split("=", 1) for argument in argv if argument.startswith("--gin.")]
    return {name.removeprefix("--gin."): ast.literal_eval(value) for name, value in pairs}
