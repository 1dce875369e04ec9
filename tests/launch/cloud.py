"""A stand-in for Google Cloud: what `gcloud` is on PATH while `launch/tpu` is tested.

It writes down what it is asked, argument by argument, remembers whether there is a TPU, and gives
each of its hosts a home of its own, in which what comes by `ssh --command` is run by a real shell.
The same file is `git`, `python3` and `uv` on the hosts: they write down their arguments, and
training does what the test has planned for it. It looks at the name by which it was called.

It is started some thousand times, so it imports only what costs nothing.
"""
# ruff: noqa: PTH101, PTH103, PTH108, PTH109, PTH110, PTH119, PTH120, PTH123, PTH208, SIM105

import fcntl
import os
import sys
from _json import encode_basestring_ascii as quoted

ROOT = os.environ["STAND_IN"]
NAME, ARGUMENTS = os.path.basename(sys.argv[0]), sys.argv[1:]


def record(**entry):
    argv = ", ".join(map(quoted, ARGUMENTS))
    rest = "".join(f", {quoted(key)}: {quoted(value)}" for key, value in entry.items())
    with open(f"{ROOT}/calls.jsonl", "a") as file:
        file.write(f'{{"who": {quoted(NAME)}, "argv": [{argv}]{rest}}}\n')


def option(name):
    values = [a.partition("=")[2] for a in ARGUMENTS if a.startswith(f"--{name}=")]
    return values[-1] if values else None


def read(name):
    with open(f"{ROOT}/{name}") as file:
        return file.read()


def write(name, text):
    with open(f"{ROOT}/{name}", "w") as file:
        file.write(text)


def has(name):
    return os.path.exists(f"{ROOT}/{name}")


def homes():
    return sorted(f"{ROOT}/{name}" for name in os.listdir(ROOT) if name.startswith("host-"))


def copy(source, target):
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(source) as file, open(target, "w") as copied:
        copied.write(file.read())
    os.chmod(target, 0o755)


def state(kind):
    first, *rest = read(kind).splitlines()
    if rest:  # the first of several is true only once
        write(kind, "\n".join(rest))
    if first == "PROVISIONING":
        write("tpu-vm", "CREATING\nREADY")
    return first


def wipe():
    import shutil

    for home in homes():
        if os.path.exists(f"{home}/uem-t5x/train.pid"):
            with open(f"{home}/uem-t5x/train.pid") as file:
                try:
                    os.killpg(int(file.read()), 9)
                except ProcessLookupError:
                    pass
        shutil.rmtree(home, ignore_errors=True)
    if has("tpu-vm"):
        os.unlink(f"{ROOT}/tpu-vm")


def on_host(home, command):
    pid = os.fork()
    if not pid:
        os.chdir(home)
        environment = dict(os.environ, HOME=home, PATH=f"{ROOT}/vm-bin:/usr/bin:/bin")
        os.execve("/bin/bash", ["bash", "-c", command], environment)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def gcloud():
    record()
    kind, verb = ARGUMENTS[2:4]
    if has(f"fail-{verb}"):
        sys.exit(read(f"fail-{verb}") or 0)
    if verb == "describe":
        if not has(kind):
            sys.exit(
                f"ERROR: (gcloud.compute.tpus.{kind}.describe) NOT_FOUND: Resource "
                f"'projects/my-project/locations/us-central2-b/nodes/{ARGUMENTS[4]}' was not found."
            )
        now = state(kind)
        if now == "READY":
            for host in range(int(os.environ["HOSTS"])):
                os.makedirs(f"{ROOT}/host-{host}", exist_ok=True)
        print(now)
    elif verb == "create" and kind == "tpu-vm":
        write(kind, "READY")
    elif verb == "create":
        write(kind, "WAITING_FOR_RESOURCES\nPROVISIONING\nACTIVE")
    elif verb == "delete":
        os.unlink(f"{ROOT}/{kind}")
        wipe()
    elif verb == "scp":
        for home in homes():
            copy(ARGUMENTS[4], f"{home}/{ARGUMENTS[5].partition(':')[2]}")
    elif verb == "ssh":
        # As gcloud and ssh do it: what was split at spaces is put together again.
        command = " ".join(option("command").split(" "))
        worker = option("worker")
        codes = [
            on_host(home, command) for home in homes() if worker in ("all", home.split("-")[-1])
        ]
        sys.exit(max(codes))
    if has(f"hang-{verb}"):
        import time

        time.sleep(30)
    # Done, but nobody hears of it; and, of a connection that is cut, nor of anything later.
    if has("cut"):
        write("fail-describe", "ERROR: network is unreachable")
    if has(f"break-{verb}"):
        sys.exit(read(f"break-{verb}"))


def git():
    record(home=os.environ["HOME"])
    if ARGUMENTS[0] == "clone":
        os.makedirs(f"{ARGUMENTS[-1]}/.git")
    elif "rev-parse" in ARGUMENTS:
        if "refs/remotes" in ARGUMENTS[-1]:  # a commit, then, and no branch
            sys.exit(1)
        print("c0ffee")


def python():
    record(home=os.environ["HOME"], cwd=os.getcwd(), path=os.environ.get("PYTHONPATH", ""))
    if "--target" in ARGUMENTS:
        copy(f"{ROOT}/vm-bin/python3", ARGUMENTS[ARGUMENTS.index("--target") + 1] + "/bin/uv")
    if ARGUMENTS[:2] == ["-m", "pip"]:
        return
    with open(f"{ROOT}/plan.lock", "w") as lock:  # hosts start at the same time
        fcntl.flock(lock, fcntl.LOCK_EX)
        first, *rest = read("plan").splitlines()
        write("plan", "\n".join(rest or [first]))
    for word in first.split():
        verb, _, value = word.partition("=")
        if verb == "step":
            print(f"step {value}/100: loss=1.0", flush=True)
        elif verb == "preempted":
            write("tpu-vm", "PREEMPTED")
            if has("queued-resources"):
                write("queued-resources", "SUSPENDED")
        elif verb == "sleep":
            import time

            time.sleep(float(value))
        elif verb == "exit":
            sys.exit(int(value))


def uv():
    record(home=os.environ["HOME"])
    copy(f"{ROOT}/vm-bin/python3", f"{ARGUMENTS[-1]}/bin/python")


{"gcloud": gcloud, "git": git, "uv": uv}.get(NAME, python)()
