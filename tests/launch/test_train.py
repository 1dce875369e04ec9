"""`launch/tpu train`: what starts on each host, once and verbatim; what a dry run prints."""

import subprocess

import pytest
from gcloud_commands import CREATE, PLACE, macros, needs_hosts

pytestmark = needs_hosts


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
