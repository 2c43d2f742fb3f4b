"""What the tests of sandboxes share: one task, small limits, and programs that are preloaded."""

from aem_swe.sandboxes import SandboxLimits
from aem_swe.types import Task

LIMITS = SandboxLimits(memory_mb=128, processes=32, disk_mb=16, command_timeout_s=10.0)
PROGRAMS = {
    "/opt/aem/tools/echo.py": (
        "import os\nimport sys\n"
        "print(sys.argv[1:], os.getcwd(), os.environ.get('A'), __name__, __file__)\n"
        "sys.stdout.write(sys.stdin.read())\n"
    ),
    "/opt/aem/tools/modules.py": (
        "import sys\n"
        "strange = {name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names) - {'__main__'}\n"
        "print(sorted(strange), [entry for entry in sys.path if 'aem' in entry or 'guest' in entry])\n"
    ),
    "/opt/aem/tools/fail.py": "def inner():\n    return 1 // 0\n\n\ninner()\n",
    "/opt/aem/tools/leave.py": "import sys\nprint('out')\nsys.exit(sys.argv[1] if len(sys.argv) > 1 else 7)\n",
    "/opt/aem/tools/late.py": (
        "import atexit\nimport threading\nimport time\n"
        "atexit.register(print, 'atexit')\n"
        "threading.Thread(target=lambda: (time.sleep(0.05), print('thread'))).start()\n"
        "print('main')\n"
    ),
    "/opt/aem/tools/candidate.py": (
        "import sys\nsys.path.insert(0, '/testbed')\nimport candidate\nprint(candidate.VALUE)\n"
    ),
}
FILES = (("src/a.py", b"x = 1\n"), ("data.bin", b"\0\xff\r\n"), ("crlf", b"a\r\nb\r\n"))
TASK = Task(id="task-1", statement=(), files=FILES)
