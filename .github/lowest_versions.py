"""Prints the lowest versions that pyproject.toml allows, as constraints for pip."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
for requirement in sum(project["optional-dependencies"].values(), project["dependencies"]):
    if bound := re.fullmatch(r"([\w-]+)(?:\[.*\])?>=([\w.]+)", requirement):
        print(f"{bound[1]}=={bound[2]}")
