"""What a hostile policy would try from inside. Each test is one attack and asserts that it came to nothing."""

import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from scene import TASK

from aem_swe.sandboxes import Sandbox
from aem_swe.sandboxes.local import LocalSandboxes

PACKAGE = Path(__file__).resolve().parents[2]


@pytest.fixture
def sandbox(auto: LocalSandboxes) -> Iterator[Sandbox]:
    """A sandbox that must still work after the attack."""
    with auto.open(TASK) as opened:
        yield opened
        assert opened.run(["echo", "still here"]).stdout == b"still here\n"


def python(sandbox: Sandbox, source: str, **options: float) -> bytes:
    """Run a program inside; what it printed, its traceback included."""
    result = sandbox.run(["python3", "-"], stdin=source.encode(), timeout=options.get("timeout", 10.0))
    return result.stdout + result.stderr


def call(number: int, *arguments: object) -> str:
    """A program that makes one raw system call and prints the name of its errno."""
    listed = ", ".join(map(str, (number, *arguments)))
    return (
        "import ctypes, errno\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        f"result = libc.syscall({listed})\n"
        "print(errno.errorcode.get(ctypes.get_errno(), '') if result == -1 else f'done {result}')\n"
    )


def test_deleting_everything_deletes_only_its_own_files(sandbox: Sandbox) -> None:
    sandbox.run("rm -rf /testbed /tmp /etc /opt /bin /lib /dev /proc/1")
    sandbox.run("rm -rf --no-preserve-root / 2>/dev/null", timeout=1)
    assert Path("/usr/bin/env").exists()
    assert sandbox.run("ls /testbed /tmp; test -x /usr/bin/env").exit_code == 0
    assert sandbox.run("ls -A /testbed").stdout == b""


READ_ONLY = ["/usr/bin/x", "/etc/passwd", "/bin/x", "/opt/aem/tools/echo.py", "/dev/x", "/x", "/proc/x"]


@pytest.mark.parametrize("place", READ_ONLY)
def test_nothing_outside_its_own_folders_can_be_written(sandbox: Sandbox, place: str) -> None:
    assert sandbox.run(f"echo x > {place}").exit_code != 0
    assert sandbox.run(f"touch {place}; rm -f {place} && mv /testbed/crlf {place}").exit_code != 0


def test_of_the_host_only_programs_can_be_seen(sandbox: Sandbox, tmp_path: Path) -> None:
    assert sandbox.run("ls -A /").stdout.split() == sorted(
        {*sandbox.run("ls -A /").stdout.split()} - {b"home", b"var", b"run", b"sys", b"srv", b"mnt", b"work", b"boot"}
    )
    mark = tmp_path / "mark"
    mark.write_text("secret")
    absent = ("/sys", "/run", "/var", "/home", "/etc/shadow", "/etc/hostname", "/.host")
    for path in (mark, PACKAGE, Path(__file__), *absent):
        assert sandbox.run(["ls", str(path)]).exit_code != 0, path
    assert sandbox.run("ls -A /tmp /dev/shm; find / -name '*.sock' -o -name 'docker*.sock' 2>/dev/null").stdout == (
        b"/dev/shm:\n\n/tmp:\n"
    )


def test_installed_packages_and_this_one_cannot_be_read(sandbox: Sandbox) -> None:
    find = "find / -xdev -name 'aem_swe*' -o -xdev -path '*-packages/*' -o -xdev -name 'test_local_attacks*'"
    listed = sandbox.run(f"{find} 2>/dev/null; cd / && python3 -c 'import aem_swe'")
    assert listed.stdout == b""
    assert b"No module named 'aem_swe'" in listed.stderr


def test_the_trainer_s_environment_is_nowhere(auto: LocalSandboxes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEM_CANARY", "kanarienvogel")
    with LocalSandboxes(limits=auto.limits) as fresh, fresh.open(TASK) as sandbox:
        found = sandbox.run("env; cat /proc/*/environ /proc/*/cmdline /proc/*/task/*/environ | tr '\\0' '\\n'")
        assert b"kanarienvogel" not in found.stdout + found.stderr


@pytest.mark.parametrize("file", ["environ", "mem", "maps", "fd", "root", "cwd", "exe", "stack", "map_files"])
def test_pid_1_cannot_be_looked_into(sandbox: Sandbox, file: str) -> None:
    result = sandbox.run(f"cat /proc/1/{file} || ls /proc/1/{file}/ || readlink /proc/1/{file}")
    assert result.exit_code != 0
    assert result.stdout == b""


def test_reading_proc_by_the_host_s_own_request_gives_nothing(sandbox: Sandbox) -> None:
    sandbox.run("ln -s /proc/self/environ e; ln -s /proc/self/mem m; ln -s /proc/1/maps p; ln -s /proc/self/fd/3 f")
    for path in ("e", "m", "p", "f", "/proc/self/maps", "/proc/1/status", "/proc/self/root/etc/passwd/../../x"):
        with pytest.raises(FileNotFoundError):
            sandbox.read(path)


def test_a_link_leads_the_host_only_to_files_of_the_sandbox(sandbox: Sandbox) -> None:
    sandbox.run("ln -s /etc/passwd link; ln -s /etc/shadow other; ln -s / root; rm -rf src; ln -s /tmp src")
    inside = sandbox.run(["cat", "/etc/passwd"]).stdout
    assert sandbox.read("link") == inside != Path("/etc/passwd").read_bytes()
    assert sandbox.read("root/etc/passwd") == inside
    with pytest.raises(FileNotFoundError):
        sandbox.read("other")
    with pytest.raises(OSError):
        sandbox.write("root/etc/passwd", b"x")
    sandbox.write("src/a.py", b"through the link")
    assert sandbox.run(["cat", "/tmp/a.py"]).stdout == b"through the link"


def test_nothing_can_be_traced(sandbox: Sandbox) -> None:
    attach = call(101, 16, 1, 0, 0) if os.uname().machine == "x86_64" else call(117, 16, 1, 0, 0)
    assert python(sandbox, attach).strip() == b"EPERM"
    sandbox.run("sleep 1000 & sleep 0.05")
    source = """
import glob
for path in glob.glob("/proc/[0-9]*/mem"):
    try:
        open(path, "r+b")
        print("open", path)
    except OSError:
        pass
"""
    assert python(sandbox, source) == b""


@pytest.mark.parametrize("name", ["KILL", "STOP", "TERM", "INT", "HUP", "CHLD", "USR1", "SEGV", "XCPU", "ALRM"])
def test_pid_1_survives_signals(sandbox: Sandbox, name: str) -> None:
    sandbox.run(f"for i in 1 2 3 4 5 6 7 8 9; do kill -{name} 1; done")


def test_killing_everything_ends_only_the_command_itself(sandbox: Sandbox) -> None:
    sandbox.run("kill -9 -1")
    sandbox.run("sleep 1000 & kill -STOP -1")


def test_pid_1_keeps_its_limits_and_priority(sandbox: Sandbox) -> None:
    source = """
import os, resource
for attack in (
    lambda: resource.prlimit(1, resource.RLIMIT_CPU, (0, 0)),
    lambda: resource.prlimit(1, resource.RLIMIT_NOFILE, (0, 0)),
    lambda: os.setpriority(os.PRIO_PROCESS, 1, 19),
    lambda: os.setpriority(os.PRIO_USER, 0, 19),
    lambda: os.setpriority(os.PRIO_PGRP, 0, 19),
    lambda: os.sched_setaffinity(1, {0}),
    lambda: os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0)),
):
    try:
        attack()
        print("done")
    except PermissionError:
        pass
os.setpriority(os.PRIO_PROCESS, 0, 15)
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
"""
    assert python(sandbox, source) == b""


def test_the_oom_killer_cannot_be_pointed_at_pid_1(sandbox: Sandbox) -> None:
    assert sandbox.run("sleep 0.2; cat /proc/1/oom_score_adj /proc/self/oom_score_adj").stdout == b"0\n1000\n"
    assert sandbox.run("echo 0 > /proc/self/oom_score_adj || echo 1000 > /proc/1/oom_score_adj").exit_code != 0


def test_namespaces_and_mounts_of_ones_own_are_refused(sandbox: Sandbox) -> None:
    commands = ["unshare -U true", "unshare -Ur true", "unshare -m true", "unshare -n true", "mount -t tmpfs none /tmp",
                "umount /proc", "chroot / true", "nsenter -t 1 -m true", "mount --bind /usr /testbed"]  # fmt: skip
    for command in commands:
        assert sandbox.run(command).exit_code != 0, command
    if os.uname().machine == "x86_64":
        for numbers in ((272, 0x10000000), (56, 0x10000011, 0, 0, 0, 0), (435, 0, 0), (165, 0, 0, 0, 0, 0)):
            assert python(sandbox, call(*numbers)).strip() in (b"EPERM", b"ENOSYS"), numbers
    assert sandbox.run("cat /proc/sys/user/max_user_namespaces").stdout == b"0\n"


def test_the_32_bit_doors_are_shut(sandbox: Sandbox) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("only x86_64 has them")
    assert python(sandbox, call(0x4000_0000 + 39)).strip() == b"ENOSYS"  # getpid in the x32 numbering
    source = (  # mov eax, 20; int 0x80; ret: getpid in the i386 numbering
        "import ctypes, mmap\ncode = mmap.mmap(-1, 4096, prot=7)\ncode.write(b'\\xb8\\x14\\0\\0\\0\\xcd\\x80\\xc3')\n"
        "print(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))())\n"
    )
    assert python(sandbox, source).strip() == b"-38"


def test_there_is_no_privilege_to_gain(sandbox: Sandbox) -> None:
    status = sandbox.run(["cat", "/proc/self/status"]).stdout.decode()
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(fields[name], 16) == 0, name
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
    assert fields["Uid"].split() == ["1000"] * 4
    assert sandbox.run("id -u; su -c true; sudo -n true", timeout=3).stdout == b"1000\n"
    assert sandbox.run("mknod null c 1 3 || mknod disk b 254 0").exit_code != 0
    assert sandbox.run("chown 0 crlf || chgrp 0 crlf || date -s 2000-01-01 || hostname x").exit_code != 0
    assert sandbox.run("cp /usr/bin/id t && chmod 4755 t && ./t -u").stdout == b"1000\n"


def test_no_file_system_allows_devices_or_set_uid(sandbox: Sandbox) -> None:
    for line in sandbox.run(["cat", "/proc/self/mounts"]).stdout.decode().splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "devtmpfs" or (place.startswith("/dev/") and place != "/dev/shm"):
            continue  # the five device files themselves
        if kind == "proc" and not options.startswith("ro"):
            continue  # the host's, beneath ours
        assert {"nosuid", "nodev"} <= set(options.split(",")), line


def test_the_network_is_an_empty_loopback(sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        source = f"""
import socket
for family, address in ((socket.AF_INET, ("127.0.0.1", {port})), (socket.AF_INET, ("1.1.1.1", 53)),
                        (socket.AF_INET, ("169.254.169.254", 80)), (socket.AF_INET6, ("::1", {port}))):
    with socket.socket(family) as s:
        s.settimeout(2)
        try:
            s.connect(address)
            print("connected", address)
        except OSError as error:
            print(type(error).__name__)
print(sorted(name for _, name in socket.if_nameindex()))
"""
        lines = python(sandbox, source).decode().split("\n")
    assert not any("connected" in line for line in lines)
    assert lines[4] == "['lo']"


def test_its_own_loopback_works(sandbox: Sandbox) -> None:
    source = (
        "import socket\nserver = socket.create_server(('127.0.0.1', 0))\n"
        "socket.create_connection(server.getsockname()).sendall(b'hello')\nprint(server.accept()[0].recv(5))\n"
    )
    assert python(sandbox, source) == b"b'hello'\n"


def test_no_socket_reaches_the_host_another_way(sandbox: Sandbox) -> None:
    name = f"aem-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0" + name)
        server.listen()
        source = f"""
import socket
for make in (
    lambda: socket.socket(socket.AF_UNIX).connect("\\0{name}"),
    lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    lambda: socket.socket(socket.AF_VSOCK),
    lambda: socket.socket(socket.AF_ALG),
    lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9),
):
    try:
        make()
        print("made")
    except OSError:
        pass
"""
        assert python(sandbox, source) == b""


def test_two_sandboxes_do_not_share_abstract_sockets(auto: LocalSandboxes, sandbox: Sandbox) -> None:
    source = "import socket, time\ns = socket.socket(socket.AF_UNIX)\ns.bind('\\0meet')\ns.listen()\n"
    source += "time.sleep(1000)\n"
    sandbox.write("listen.py", source.encode())
    sandbox.run("setsid python3 listen.py & sleep 0.2; grep -c meet /proc/net/unix")
    with auto.open(TASK) as other:
        source = "import socket\nsocket.socket(socket.AF_UNIX).connect('\\0meet')\n"
        assert b"ConnectionRefused" in python(other, source)


def test_a_command_inherits_three_descriptors_only(sandbox: Sandbox) -> None:
    opened = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(opened, True)
    try:
        assert sandbox.run("for f in /proc/self/fd/*; do readlink $f; done").stdout.count(b"\n") == 3
        assert python(sandbox, "import os\nprint(sorted(os.listdir('/proc/self/fd')))\n") == b"['0', '1', '2', '3']\n"
    finally:
        os.close(opened)


def test_hidden_memory_and_shared_segments_are_refused(sandbox: Sandbox) -> None:
    assert b"Errno" in python(sandbox, "import os\nos.memfd_create('x')\n")
    if os.uname().machine == "x86_64":
        for numbers in ((29, 0, 4096, 0o1600), (425, 8, 0), (250, 0, -3), (321, 0, 0, 0), (323, 0)):
            assert python(sandbox, call(*numbers)).strip() in (b"EPERM", b"ENOSYS"), numbers


def test_a_crash_starts_nothing_on_the_host(sandbox: Sandbox) -> None:
    assert sandbox.run("kill -SEGV $$").exit_code == -11
    limits = sandbox.run(["cat", "/proc/self/limits"]).stdout.decode().splitlines()
    core = next(line for line in limits if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["1", "1"]  # the one value at which the kernel calls no crash handler
    assert sandbox.diff() == b""


def test_a_preloaded_program_is_as_shut_in_as_any(auto: LocalSandboxes) -> None:
    probe = """
import os, resource, sys
print(sorted(os.listdir("/proc/self/fd")))
print(resource.getrlimit(resource.RLIMIT_NPROC)[0])
print([name for name in os.listdir("/proc") if name.isdigit() and name != "1" and int(name) != os.getpid()])
print([line for line in open("/proc/self/status") if line.startswith(("CapEff", "Seccomp:"))])
print([name for name in sys.modules if name.startswith("aem")], os.getpgid(0) == os.getpid())
os.kill(1, 9)
"""
    programs = {"/opt/aem/probe.py": probe}
    with LocalSandboxes(limits=auto.limits, programs=programs) as fresh, fresh.open(TASK) as sandbox:
        lines = sandbox.run(["python3", "/opt/aem/probe.py"]).stdout.decode().splitlines()
        assert lines[0] == "['0', '1', '2', '3']"
        assert lines[1] == str(auto.limits.processes + 1)
        assert lines[2] == "[]"
        assert "0000000000000000" in lines[3]
        assert "Seccomp:\\t2" in lines[3]
        assert lines[4] == "[] True"
        assert sandbox.alive()


def test_an_earlier_command_cannot_change_a_preloaded_program(sandbox: Sandbox) -> None:
    sandbox.run("mkdir -p opt; printf 'print(0)' > json.py; printf 'print(0)' > os.py; export PYTHONPATH=/testbed")
    result = sandbox.run(["python3", "/opt/aem/tools/echo.py", "x"], stdin=b"in", env={"PYTHONPATH": "/testbed"})
    assert result.stdout == b"['x'] /testbed None __main__ /opt/aem/tools/echo.py\nin"


def test_attacks_are_made_from_several_threads_of_the_trainer(auto: LocalSandboxes) -> None:
    failures = []

    def attack() -> None:
        with auto.open(TASK) as opened:
            opened.run("kill -9 -1; rm -rf / 2>/dev/null")
            if opened.run(["echo", "1"]).stdout != b"1\n":
                failures.append(opened)

    threads = [threading.Thread(target=attack) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_the_interpreter_inside_is_the_base_one(sandbox: Sandbox) -> None:
    shown = sandbox.run(["python3", "-c", "import sys; print(sys.prefix, sys.version)"]).stdout.decode()
    assert shown.strip() == f"{sys.base_prefix} {sys.version}"


def test_a_signal_by_way_of_a_socket_does_not_reach_pid_1(sandbox: Sandbox) -> None:
    source = """
import fcntl, os, signal, socket
ours, theirs = socket.socketpair()
for number in (signal.SIGKILL, signal.SIGSTOP, 0):
    fcntl.fcntl(ours, 10, number)  # F_SETSIG
    fcntl.fcntl(ours, fcntl.F_SETOWN, 1)
    fcntl.fcntl(ours, fcntl.F_SETFL, os.O_ASYNC)
    theirs.send(b"x")
print("sent")
"""
    assert python(sandbox, source) == b"sent\n"


def test_names_that_fill_a_listing_are_too_much_for_a_diff_not_for_the_sandbox(sandbox: Sandbox) -> None:
    python(sandbox, "for i in range(3800):\n    open('\\udcff' * 240 + str(i), 'w').close()\n")
    with pytest.raises(OSError, match="files changed"):
        sandbox.diff()
