"""Hosts, as far as one machine can play them.

What runs on one sees no other processes, has shared memory and folders of its own, and reaches the rest by
an address of the loopback interface.
"""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil

from anyfold.testing._limits import wait_until
from anyfold.testing.probes import count_invocations

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 100.0  # seconds; a hang, not slowness
WITH_ITS_STARTER = ("setpriv", "--pdeathsig", "KILL")
SEPARATE = (
    "unshare",
    "--user",
    "--map-root-user",
    "--mount",
    "--pid",
    "--fork",
    "--mount-proc",
    "--kill-child",
)


def script(name):
    """Return the path of a command that was installed along with the interpreter."""
    return str(Path(sys.executable).with_name(name))


class Host:
    """Runs a command until it is stopped.

    Parameters
    ----------
    command : str
        What a shell would be given.
    folder : Path
        For what the host keeps; temporary files and output.
    environment : dict, optional
        Variables in addition to this process's.
    separate : bool
        Whether it is a host of its own, or this one.
    private : sequence of path
        Folders that are others on a host of its own.
    """

    def __init__(self, command, folder, environment=None, *, separate=True, private=()):
        self.folder = folder
        self.temp_dir = folder / "tmp"
        self.temp_dir.mkdir(parents=True)
        self._log = folder / "log"
        arguments = shlex.split(command)
        if separate:
            mounts = ["mount -t tmpfs tmpfs /dev/shm"]
            for number, path in enumerate(private):
                own = folder / f"private{number}"
                own.mkdir()
                mounts.append(f"mount --bind {shlex.quote(str(own))} {shlex.quote(str(path))}")
            arguments = [*SEPARATE, "sh", "-c", " && ".join([*mounts, 'exec "$@"']), "sh", *arguments]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        own = {"PYTHONPATH": path, "TMPDIR": str(self.temp_dir)} if separate else {"PYTHONPATH": path}
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [*WITH_ITS_STARTER, *arguments],
                env={**os.environ, **own, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def wait_for(self, text):
        """Return when the command has written a text."""

        def written():
            output = self._log.read_text()
            assert self._process.poll() is None, f"the host has ended:\n{output}"
            return text in output

        try:
            wait_until(written, f"{text!r}", PATIENCE)
        except AssertionError:
            self.stop()
            raise

    def stop(self):
        """End everything that runs there, abruptly."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self._process.pid)
            for each in [*process.children(recursive=True), process]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
        self._process.wait()


def interrupted(program, folder, *arguments, n_hanging):
    """Press Ctrl-C in a program of the user's when tasks hang; return what it has to say at its end.

    Parameters
    ----------
    program : str
        Python code that is given a folder for probes and further arguments, and writes JSON.
    folder : Path
        Of the test.
    *arguments : str
        Further arguments.
    n_hanging : int
        How many probes must hang at least.
    """
    (folder / "run").mkdir()
    script = folder / "program.py"
    script.write_text(textwrap.dedent(program))
    driver = subprocess.Popen(
        [sys.executable, str(script), str(folder / "run"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )

    def hangs():
        assert driver.poll() is None, driver.communicate()[1]
        return count_invocations(folder / "run", "*hangs") >= n_hanging

    try:
        wait_until(hangs, "tasks that hang", PATIENCE)
        os.killpg(driver.pid, signal.SIGINT)
        out, err = driver.communicate(timeout=PATIENCE)
    finally:
        driver.kill()
    assert driver.returncode == 0, err
    return json.loads(out)
