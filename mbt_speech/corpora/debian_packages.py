"""Debian packages as archives of data: apt-get downloads them, dpkg-deb unpacks them, nothing is installed."""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

OTHERWISE = "or get the packages elsewhere (packages.debian.org) and name their folder with --packages_dir"
GONE = re.compile(r"Unable to locate package (\S+)|Package '?(\S+?)'? has no installation candidate")


def find_packages(names: Sequence[str], folder: Path) -> dict[str, Path | None]:
    """Returns the file of each package in a folder, None of those that are not there.

    Raises:
        ValueError: There are two versions of one.
    """
    found: dict[str, Path | None] = {}
    for name in names:
        paths = sorted(folder.glob(f"{name}_*.deb"))
        if len(paths) > 1:
            raise ValueError(f"{folder} holds {' and '.join(path.name for path in paths)}: keep one of them.")
        found[name] = paths[0] if paths else None
    return found


def download_packages(names: Sequence[str], folder: Path) -> None:
    """Downloads packages into a folder, as any user: apt's own lists and cache are not touched.

    Raises:
        ValueError: apt-get is missing, cannot reach its servers, or does not know a package.
    """
    if shutil.which("apt-get") is None:
        raise ValueError(
            f"The recordings come by apt-get, which is not on this machine: use Debian or Ubuntu, {OTHERWISE}."
        )
    partial = (folder / "partial").resolve()
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "lists" / "partial").mkdir(parents=True)
    updated = _apt_get("update", folder=partial)
    downloaded = _apt_get("download", *names, folder=partial)
    if downloaded.returncode != 0:
        raise ValueError(_explain(updated.stderr + downloaded.stderr))
    for path in partial.glob("*.deb"):
        path.rename(folder / path.name)
    shutil.rmtree(partial)


def unpack_package(package: Path, folder: Path) -> None:
    """Unpacks the files of a package below a folder.

    Raises:
        ValueError: dpkg-deb is missing, or the file is no whole package.
    """
    if shutil.which("dpkg-deb") is None:
        raise ValueError("dpkg-deb unpacks the recordings and is not on this machine: install dpkg.")
    folder.mkdir(parents=True, exist_ok=True)
    words = ["dpkg-deb", "--extract", str(package), str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=_english())
    if done.returncode != 0:
        reason = _last_line(done.stderr)
        raise ValueError(f"{package} cannot be unpacked ({reason}): delete it, and call again or get it anew.")


def _apt_get(command: str, *names: str, folder: Path) -> subprocess.CompletedProcess[str]:
    options = {"Dir::State::Lists": folder / "lists", "Dir::Cache": folder, "APT::Sandbox::User": "root"}
    words = ["apt-get", "-q", *(f"-o{name}={value}" for name, value in options.items()), command, *names]
    return subprocess.run(words, cwd=folder, stderr=subprocess.PIPE, text=True, check=False, env=_english())


def _english() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C"}


def _explain(errors: str) -> str:
    gone = sorted({old or new for old, new in GONE.findall(errors)})
    if gone and "Failed to fetch" not in errors:
        return f"apt-get knows no package {', '.join(gone)} in this release: take another release, {OTHERWISE}."
    reason = _last_line(errors)
    return f"apt-get could not download the recordings ({reason}): check the network and call again, {OTHERWISE}."


def _last_line(errors: str) -> str:
    return (errors.strip().splitlines() or ["no reason given"])[-1].rstrip(".")
