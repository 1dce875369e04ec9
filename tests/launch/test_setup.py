"""`launch/tpu setup`: our revision, T5X's and the packages on each host."""

from pathlib import Path

import pytest
from gcloud_commands import PLACE, TPUS, needs_hosts

pytestmark = needs_hosts

LAUNCH = Path(__file__).parents[2] / "launch"
DOCS = Path(__file__).parents[2] / "docs"
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
