# SPDX-License-Identifier: Apache-2.0
"""What the README tells a new user to do, done: `featured --quick`, then its lines of Python.

Run by the Python of a virtual environment into which the wheel was installed, with its bin/ first on
PATH and the README's lines as the argument. Standard library alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys


def main(lines: str) -> None:
    broker = subprocess.Popen(["featured", "--quick"], stdout=subprocess.PIPE, text=True)
    assert broker.stdout is not None
    try:
        for line in broker.stdout:
            if "export FEATURED_SOCKET=" in line:
                os.environ["FEATURED_SOCKET"] = line.split("=", 1)[1].strip()
            if "Ctrl-C" in line:
                break
        subprocess.run([sys.executable, "-c", lines], check=True)
        status = subprocess.run(["featurectl", "stores"], check=True, capture_output=True, text=True)
        assert "run0" in status.stdout, status.stdout
        version = subprocess.run(["featured", "--version"], check=True, capture_output=True, text=True)
        assert version.stdout.startswith("featured "), version.stdout
    finally:
        broker.send_signal(signal.SIGINT)
        assert broker.wait(20) == 0
    serve = "import feature_broker as fb\nwith fb.serve() as b, b.connect() as c: print(c.health().node)"
    subprocess.run([sys.executable, "-c", serve], check=True)
    print("first steps: done")


main(sys.argv[1])
