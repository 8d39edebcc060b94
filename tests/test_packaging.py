"""What is told to pip, and what continuous integration runs."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = ("feature_extraction", "mbt_speech", "modeling_mbt")
REQUIREMENTS = [
    Requirement(line)
    for lines in (PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"].values())
    for line in lines
    if not line.startswith("mbt-speech")
]


def pins(text: str) -> dict[str, str]:
    lines = re.findall(r"^([\w.-]+)==(\S+)$", text, flags=re.MULTILINE)
    return {canonicalize_name(name): version for name, version in lines}


def test_the_lowest_versions_are_those_of_pyproject():
    script = ROOT / ".github" / "lowest_versions.py"
    printed = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    bounds = {canonicalize_name(one.name): str(one.specifier) for one in REQUIREMENTS if len(one.specifier)}
    assert {name: f">={version}" for name, version in pins(printed).items()} == bounds


def test_the_versions_of_the_tests_are_allowed():
    pinned = pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    for requirement in REQUIREMENTS:
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is None or version in requirement.specifier, requirement
    for extra in ("train", "demo", "real", "lars", "export", "dev", "docs"):
        for line in PROJECT["project"]["optional-dependencies"][extra]:
            name = canonicalize_name(Requirement(line).name)
            assert name == "mbt-speech" or name in pinned, f"{line} has no version in constraints.txt"


def test_continuous_integration_runs_what_a_fresh_machine_does():
    (command,) = re.findall(r"^make .+$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), flags=re.MULTILINE)
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"]
    assert command in [step.get("run") for step in jobs["test"]["steps"]]
    for job in jobs.values():
        pythons = [step["with"]["python-version"] for step in job["steps"] if "python-version" in step.get("with", {})]
        assert [f">={version}" for version in pythons] == [PROJECT["project"]["requires-python"]]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_is_typed_in_the_wheel_too(package):
    assert (ROOT / package / "py.typed").is_file()
    assert "py.typed" in PROJECT["tool"]["setuptools"]["package-data"][package]
