"""`launch/tpu create`, `delete` and `status`, and what they say of costs."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from gcloud_commands import COSTS, CREATE, PLACE, TPUS, UNKNOWN, needs_hosts

pytestmark = needs_hosts

LAUNCH = Path(__file__).parents[2] / "launch"


@pytest.mark.parametrize("provisioning", CREATE)
def test_create_and_delete(cloud, provisioning):
    cloud.config["PROVISIONING"] = provisioning

    done = cloud.tpu("create")

    assert cloud.asked() == [[*CREATE[provisioning], *PLACE]]
    assert "uem is READY" in done.stderr
    assert ("WAITING_FOR_RESOURCES" in done.stderr) == provisioning.startswith("queued")

    assert "uem is READY" in cloud.tpu("create").stderr  # again is fine
    assert len(cloud.asked()) == 1

    cloud.forget()
    cloud.tpu("delete")
    if provisioning.startswith("queued"):
        expected = [*TPUS, "queued-resources", "delete", "uem", "--force", "--quiet", *PLACE]
    else:
        expected = [*TPUS, "tpu-vm", "delete", "uem", "--quiet", *PLACE]
    assert cloud.asked() == [expected]
    assert not (cloud.root / "tpu-vm").exists()
    # Nothing is left to delete, and that is fine, but no deletion; another zone may have it.
    again = cloud.tpu("delete").said
    assert len(cloud.asked()) == 1
    assert "deleted" not in again
    assert "nothing to delete: Google Cloud has no TPU and no request of the name uem" in again
    assert "in us-central2-b of my-project" in again
    assert "gcloud compute tpus tpu-vm list --zone=- --project=my-project" in again


def test_network_account_and_version_are_passed_on(cloud):
    cloud.config |= {
        "NETWORK": "net",
        "SUBNETWORK": "projects/p/regions/r/subnetworks/s",
        "SERVICE_ACCOUNT": "trainer@my-project.iam.gserviceaccount.com",
        "RUNTIME_VERSION": "special",
    }
    cloud.tpu("create")
    assert cloud.asked()[0][6:] == [
        "--version=special",
        "--network=net",
        "--subnetwork=projects/p/regions/r/subnetworks/s",
        "--service-account=trainer@my-project.iam.gserviceaccount.com",
        *PLACE,
    ]


@pytest.mark.parametrize(
    ("accelerator", "version"),
    [
        ("v3-32", "tpu-ubuntu2204-base"),
        ("v5litepod-256", "v2-alpha-tpuv5-lite"),
        ("v5p-8", "v2-alpha-tpuv5"),
        ("v6e-8", "v2-alpha-tpuv6e"),
    ],
)
def test_the_version_follows_the_accelerator(cloud, accelerator, version):
    cloud.config["ACCELERATOR_TYPE"] = accelerator
    assert (
        f"--accelerator-type={accelerator} --version={version} "
        in cloud.tpu("--dry-run", "create").stdout
    )


def test_create_that_is_refused(cloud):
    (cloud.root / "fail-create").write_text("ERROR: There is no more capacity in the zone")
    done = cloud.tpu("create", code=1)
    assert "no more capacity" in done.stderr
    assert "try PROVISIONING=queued" in done.stderr
    assert "Google Cloud has no TPU and no request of the name uem" in done.said  # it was asked


def test_create_does_not_replace_what_is_lost(cloud):
    cloud.set("tpu-vm", "PREEMPTED")
    done = cloud.tpu("create", code=1)
    assert "launch/tpu resume" in done.said
    assert "uem is PREEMPTED, and may cost money until: launch/tpu delete" in done.said
    assert not cloud.asked()


@pytest.mark.parametrize("provisioning", CREATE)
def test_create_asks_what_came_of_a_broken_connection(cloud, provisioning):
    cloud.config["PROVISIONING"] = provisioning
    cloud.fault("break-create")
    done = cloud.tpu("create")
    assert "connection reset" in done.said
    assert COSTS in done.said
    assert len(cloud.asked()) == 1


@pytest.mark.parametrize("command", ["create", "resume"])
def test_create_does_not_know_when_nobody_answers(cloud, command):
    cloud.config["POLL_SECONDS"] = "0"
    cloud.fault("break-create")
    cloud.fault("cut")
    done = cloud.tpu(command, code=1)
    assert done.said.endswith(UNKNOWN)
    assert len(cloud.asked()) == 1


def test_create_that_is_interrupted(cloud):
    cloud.fault("hang-create")
    with subprocess.Popen(
        [LAUNCH / "tpu", "--config", cloud.write_config(), "create"],
        stderr=subprocess.PIPE,
        text=True,
        env=cloud.environment(),
        start_new_session=True,
    ) as process:
        for _ in range(500):
            if (cloud.root / "tpu-vm").exists():
                break
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        said = cloud.said(process.communicate(timeout=30)[1])
    assert process.returncode == 130
    assert UNKNOWN in said


def test_create_does_not_bring_back_what_somebody_deleted(cloud):
    cloud.config["PROVISIONING"] = "queued"
    cloud.fault("fail-create", "")  # ends well, and nothing is there
    done = cloud.tpu("create", code=1)
    assert len(cloud.asked()) == 1
    assert "Google Cloud has no TPU and no request" in done.said


@pytest.mark.parametrize(
    ("fault", "states", "code", "says"),
    [
        ("break-delete", ["READY"], 0, "uem is deleted"),
        ("fail-delete", ["READY"], 1, f"uem was not deleted: {COSTS}"),
        ("fail-delete", ["READY", "DELETING"], 0, "uem is DELETING, and may cost money until"),
        ("fail-describe", ["READY"], 1, UNKNOWN),
    ],
)
def test_delete_asks_what_is_left(cloud, fault, states, code, says):
    cloud.set("tpu-vm", *states)
    cloud.fault(fault)
    done = cloud.tpu("delete", code=code)
    assert says in done.said
    assert ("is deleted" in done.said) == (says == "uem is deleted")


def test_the_command_that_ends_the_costs_can_be_pasted(cloud):
    command = cloud.tpu("create").stderr.partition("until: ")[2].partition(";")[0]
    subprocess.run(
        ["bash", "-c", command], cwd=LAUNCH.parent, env=cloud.environment(), check=True, timeout=30
    )
    assert not (cloud.root / "tpu-vm").exists()


def test_status_says_what_may_be_billed(cloud):
    assert "Google Cloud has no TPU and no request of the name uem" in cloud.tpu("status").said
    # It was asked for before PROVISIONING was changed, and is billed when it comes.
    cloud.set("queued-resources", "WAITING_FOR_RESOURCES")
    waiting = "uem is a request that is WAITING_FOR_RESOURCES, and may cost money"
    assert waiting in cloud.tpu("status").said
    cloud.up()
    assert COSTS in cloud.tpu("status").said
    cloud.fault("fail-describe")
    assert UNKNOWN in cloud.tpu("status", code=1).said
