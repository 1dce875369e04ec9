"""`launch/tpu watch` and `resume`: whatever is lost or fails, what brings training back."""

import os
import signal

import pytest
from gcloud_commands import COSTS, UNKNOWN, macros, needs_hosts

pytestmark = needs_hosts


@pytest.mark.parametrize(
    ("provisioning", "engine"),
    [("spot", "builtin"), ("queued-spot", "t5x")],
)
def test_watch_brings_back_what_was_preempted(cloud, provisioning, engine):
    cloud.config |= {"PROVISIONING": provisioning, "ENGINE": engine, "CHECKPOINT_PERIOD": "10"}
    cloud.plan("step=10 sleep=0.2 preempted exit=1", "step=20 step=100 exit=0")
    cloud.up()
    cloud.tpu("train")
    done = cloud.tpu("watch")

    assert "resume 1 of 20" in done.stderr
    assert "results: gs://bucket/run" in done.stderr
    assert "step 100/100" in done.stdout
    verbs = [argv[3] for argv in cloud.asked("create", "delete", "scp")]
    assert verbs == ["delete", "create", "scp"]
    first, second = cloud.trainings()
    # The same folder in the bucket, and the same everything else: it resumes.
    assert first["argv"] == second["argv"]
    assert macros(second["argv"])["MODEL_DIR"] == "gs://bucket/run"


def test_watch_gives_up_after_max_resumes(cloud):
    cloud.config |= {"PROVISIONING": "spot", "MAX_RESUMES": "1"}
    cloud.plan("preempted exit=1")
    cloud.up()
    cloud.tpu("train")
    done = cloud.tpu("watch", code=5)
    assert "giving up after 1 attempts" in done.stderr
    assert "uem is PREEMPTED, and may cost money" in done.said.splitlines()[-1]
    assert len(cloud.asked("create")) == 1
    assert len(cloud.trainings()) == 2


def test_watch_counts_attempts_that_fail(cloud):
    cloud.config |= {"MAX_RESUMES": "3"}
    cloud.up()
    cloud.set("tpu-vm", "TERMINATED")
    (cloud.root / "fail-create").write_text("ERROR: no more capacity")
    done = cloud.tpu("watch", code=5)
    assert len(cloud.asked("delete")) == 1
    assert len(cloud.asked("create")) == 3
    assert "gs://bucket/run" in done.stderr
    assert "Google Cloud has no TPU and no request" in done.said


@pytest.mark.parametrize(
    ("plan", "code", "starts"),
    [
        (["step=5 exit=0"], 0, 1),
        (["exit=2"], 4, 1),  # bad input: trying again would not help
        (["step=5 exit=1"], 4, 2),  # twice the same
        (["step=5 exit=1", "step=9 exit=1", "exit=0"], 0, 3),  # it moves on
        (["step=5 exit=75", "step=5 exit=75", "exit=0"], 0, 3),  # it was told to stop
    ],
)
def test_watch_tells_failures_apart(cloud, plan, code, starts):
    cloud.plan(*plan)
    cloud.up()
    cloud.tpu("train")
    done = cloud.tpu("watch", code=code)
    assert len(cloud.trainings()) == starts
    assert not cloud.asked("create", "delete")  # there was nothing wrong with the TPU
    assert "ended with exit code" in done.stdout
    if code:
        assert "mend what the log says" in done.stderr
    assert COSTS in done.said.splitlines()[-1]


@pytest.mark.parametrize(
    ("codes", "decides"),
    [
        (["2", "75"], "2"),  # refused input is permanent, whoever speaks last
        (["75", "2"], "2"),
        (["1", "75"], "1"),  # told to stop only where none failed
        (["75", "1"], "1"),
        (["1", "134"], "1"),  # its own failure, then those that it took down
        (["134", "1"], "1"),
        (["0", "75"], "75"),
        (["", "75"], "-"),  # its disk was full
        (["137", "2", "1", "75"], "2"),
    ],
)
def test_the_worst_exit_code_of_all_hosts_decides(cloud, codes, decides):
    cloud.hosts = len(codes)
    cloud.up()
    for host, code in enumerate(codes):
        (cloud.root / f"host-{host}/uem-t5x/train.exit").write_text(code)
    assert f"training: failed with exit code {decides}\n" in cloud.tpu("status").said


def test_hosts_that_are_told_to_stop_are_waited_for(cloud):
    cloud.config["ACCELERATOR_TYPE"] = "v4-16"
    cloud.hosts = 2
    # The second one is still saving, and then has something else to say.
    cloud.plan("step=5 exit=75", "step=5 sleep=1 exit=2")
    cloud.up()
    cloud.tpu("train")
    assert "training refused its input" in cloud.tpu("watch", code=4).stderr
    assert len(cloud.trainings()) == 2


def test_watch_restarts_all_hosts_when_one_fails(cloud):
    cloud.config["ACCELERATOR_TYPE"] = "v4-16"
    cloud.hosts = 2
    # One host fails, the other one waits for it.
    cloud.plan("step=5 exit=1", "step=5 sleep=60", "exit=0")
    cloud.up()
    cloud.tpu("train")
    done = cloud.tpu("watch")
    assert "training failed with exit code 1" in done.stderr
    assert len(cloud.trainings()) == 4


def test_watch_after_a_reboot(cloud):
    cloud.plan("step=5 sleep=60", "exit=0")
    cloud.up()
    cloud.tpu("train")
    cloud.wait("step 5/")
    os.killpg(int((cloud.root / "host-0/uem-t5x/train.pid").read_text()), signal.SIGKILL)
    assert "training is gone" in cloud.tpu("watch").stderr
    assert len(cloud.trainings()) == 2


def test_watch_deletes_nothing_when_cloud_is_silent(cloud):
    cloud.up()
    (cloud.root / "fail-describe").write_text("ERROR: network is unreachable")
    cloud.config["POLL_SECONDS"] = "0"
    done = cloud.tpu("watch", code=1)
    assert "did not answer" in done.stderr
    assert done.said.endswith(UNKNOWN)
    assert not cloud.asked()


def test_watch_does_not_bring_back_what_somebody_deleted(cloud):
    done = cloud.tpu("watch", code=3)
    assert "launch/tpu resume" in done.said
    assert "Google Cloud has no TPU and no request of the name uem" in done.said
    assert not cloud.asked()


@pytest.mark.parametrize("state", ["PREEMPTED", None])
def test_resume_from_any_state(cloud, state):
    if state:
        cloud.set("tpu-vm", state)
    cloud.tpu("resume")
    cloud.wait()
    verbs = [argv[3] for argv in cloud.asked("create", "delete", "scp")]
    assert verbs == (["delete"] if state else []) + ["create", "scp"]
    [call] = cloud.trainings()
    assert macros(call["argv"])["MODEL_DIR"] == "gs://bucket/run"


def test_resume_replaces_a_suspended_request(cloud):
    cloud.config["PROVISIONING"] = "queued-spot"
    cloud.set("queued-resources", "SUSPENDED")
    cloud.tpu("resume")
    assert [argv[2:4] for argv in cloud.asked()] == [
        ["queued-resources", "delete"],
        ["queued-resources", "create"],
    ]
