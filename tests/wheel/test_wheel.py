# SPDX-License-Identifier: Apache-2.0
"""The wheel in dist/ (`make wheel`), as its users meet it: in a virtual environment without a
compiler, and on another release of Linux than the one it was built on."""

from __future__ import annotations

import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import time
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = (ROOT / os.environ.get("BUILD", "build")).resolve()
FIRST_STEPS = Path(__file__).with_name("first_steps.py")

# glibc of Red Hat Enterprise Linux 9; Ubuntu 22.04 has 2.35.
GLIBC_MINOR_MAX = 34
# Of the machine: its drivers bring them, and they must fit its kernel.
NEVER_BUNDLED = ("libibverbs", "librdmacm", "libcuda")


def readme_lines() -> str:
    """The lines of Python of the README's section Quick."""
    section = (ROOT / "README.md").read_text().split("\n## Quick\n", 1)[1].split("\n## ", 1)[0]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found.group(1)


@pytest.fixture(scope="session")
def wheel() -> Path:
    """The wheel; there is one."""
    (path,) = (ROOT / "dist").glob("feature_broker-*.whl")
    return path


@pytest.fixture(scope="session")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_tag(wheel: Path) -> None:
    pattern = rf"feature_broker-[\d.]+-cp310-abi3-manylinux_2_(\d+)_{platform.machine()}\.whl"
    found = re.fullmatch(pattern, wheel.name)
    assert found is not None, wheel.name
    assert int(found.group(1)) <= GLIBC_MINOR_MAX


def test_programs_are_there_and_may_be_run(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name in ("bin/featured", "bin/featurectl"):
            mode = archive.getinfo(f"feature_broker/{name}").external_attr >> 16
            assert stat.S_IMODE(mode) & 0o111 == 0o111, name
        archive.getinfo("feature_broker/lib/libfeature.so.0")
        archive.getinfo("feature_broker/py.typed")


def elf_files(folder: Path) -> list[Path]:
    return [
        path for path in folder.rglob("*") if path.is_file() and path.open("rb").read(4) == b"\x7fELF"
    ]


def test_nothing_of_the_drivers_is_bundled_or_needed(unpacked: Path) -> None:
    files = elf_files(unpacked)
    assert len(files) > 4
    for path in files:
        assert not path.name.startswith(NEVER_BUNDLED), path
        said = subprocess.run(
            ["objdump", "-p", str(path)], check=True, capture_output=True, text=True
        ).stdout
        needed = re.findall(r"NEEDED +(\S+)", said)
        assert not [name for name in needed if name.startswith(NEVER_BUNDLED)], path


def bare_environment(home: Path, path: Path) -> dict[str, str]:
    """Nothing of this machine's but the settings of pip. There is no compiler on PATH."""
    kept = {key: value for key, value in os.environ.items() if key.startswith("PIP_")}
    own = {"HOME": str(home), "XDG_RUNTIME_DIR": str(home), "PATH": str(path)}
    return {**kept, **own, "PIP_NO_CACHE_DIR": "1"}


def test_bare_environment(
    wheel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    venv.create(tmp_path / "v", with_pip=True)
    programs = tmp_path / "v" / "bin"
    environment = bare_environment(tmp_path, programs)
    assert not [name for name in ("cc", "gcc", "c99", "clang") if shutil.which(name, path=str(programs))]
    begin = time.monotonic()
    run = [str(programs / "python"), "-m", "pip", "install", "--quiet", str(wheel), "numpy"]
    subprocess.run(run, env=environment, cwd=tmp_path, check=True)
    installed = time.monotonic()
    said = subprocess.run(
        [str(programs / "python"), str(FIRST_STEPS), readme_lines()],
        env=environment, cwd=tmp_path, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert "first steps: done" in said.stdout
    with capsys.disabled():
        print(
            f"\nwheel: installed in {installed - begin:.1f} s,"
            f" first steps in {time.monotonic() - installed:.1f} s"
        )


# ---- another release ----

# Debian's, the newest first: the one that is not this machine's is taken.
RELEASES = {"trixie": "3.13", "bookworm": "3.11"}  # with their Python


def other_release() -> str:
    own = Path("/etc/os-release").read_text()
    return next(name for name in RELEASES if f"VERSION_CODENAME={name}" not in own)


def root_of(release: str) -> Path:
    """A root file system of this release, made once."""
    root = BUILD / "wheel" / f"root-{release}"
    if root.exists():
        return root
    fresh = root.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.parent.mkdir(parents=True, exist_ok=True)
    run = ["debootstrap", "--variant=minbase", "--include=python3,python3-venv", release, str(fresh)]
    made = subprocess.run(run, capture_output=True, text=True)
    if made.returncode != 0:
        pytest.skip(f"debootstrap cannot make {release}: {made.stdout.strip().splitlines()[-1:]}")
    fresh.rename(root)
    return root


@pytest.mark.skipif(os.geteuid() != 0, reason="chroot and debootstrap are for root: run it as root")
def test_other_release(wheel: Path, tmp_path: Path) -> None:
    """In a chroot of another release of Debian, without network and without a compiler."""
    release = other_release()
    root = root_of(release)
    wheels = root / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:",
         "--python-version", RELEASES[release], "--dest", str(wheels), str(wheel), "numpy"],
        check=True,
    )  # fmt: skip
    (root / "steps.py").write_text(FIRST_STEPS.read_text())
    steps = """
        mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" || exit 77
        exec chroot "$0" /usr/bin/env -i HOME=/root PATH=/v/bin:/usr/bin:/bin sh -ec '
            ! command -v cc && ! command -v gcc
            rm -rf /v && python3 -m venv /v
            pip install --quiet --no-index --find-links /wheels feature-broker numpy
            exec python /steps.py "$0"' "$1"
    """
    run = ["unshare", "--mount", "--propagation", "private", "sh", "-c", steps, str(root), readme_lines()]
    done = subprocess.run(run, capture_output=True, text=True)
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip(f"this machine does not let root mount: {done.stderr.strip()}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "first steps: done" in done.stdout
