"""The words of a command line to a script's arguments: a YAML recipe first, then what overrides it."""

import difflib
import importlib.util
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml
from transformers import HfArgumentParser

from .arguments import RunArguments
from .user_errors import DEBUG, DEBUG_HELP, missing

RECIPE_NAME = "recipe.yaml"

Arguments = TypeVar("Arguments", bound=RunArguments)


def parse_arguments(arguments_class: type[Arguments], argv: list[str] | None = None) -> Arguments:
    """Parse `[recipe.yaml] [--name value ...]`.

    Args:
        arguments_class: The script's dataclass.
        argv: The words of the command line; by default the process's.

    A mistake ends the process with a sentence that names the nearest right argument.
    """
    parser = HfArgumentParser([arguments_class], allow_abbrev=False)  # pyright: ignore[reportArgumentType]
    parser.add_argument(DEBUG, action="store_true", help=DEBUG_HELP)
    words = list(sys.argv[1:] if argv is None else argv)
    names = [f.name for f in fields(arguments_class)]
    try:
        if importlib.util.find_spec("accelerate") is None:
            raise ValueError(missing(parser.prog, "accelerate", "train"))
        if words and words[0].endswith((".yaml", ".yml")):
            recipe = read_recipe(words.pop(0), names)
            for action in parser._actions:
                if action.dest in recipe:
                    action.required = False
            parser.set_defaults(**recipe)
        for option in (word.split("=")[0] for word in words if word.startswith("--")):
            if option not in parser._option_string_actions:  # before what is missing because of it
                known = [f"--{name}" for name in names]
                raise ValueError(f"There is no argument {option}{_nearest(option, known) or '.'}")
        return parser.parse_args_into_dataclasses(words)[0]
    except ValueError as error:
        parser.error(str(error))


def read_recipe(path: str, known: Iterable[str]) -> dict[str, Any]:
    """Read a YAML recipe: a flat mapping from argument names to values.

    Raises:
        ValueError: It is not there, is no mapping, or names an argument that does not exist.
    """
    try:
        recipe = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"The recipe {path} cannot be read: {error}.") from None
    if not isinstance(recipe, dict):
        raise ValueError(f"The recipe {path} must be a mapping from argument names to values.")
    for name in sorted(set(recipe) - set(known), key=str):
        raise ValueError(f"The recipe {path} has an unknown argument {name}{_nearest(str(name), known) or '.'}")
    # Nested values travel as JSON, the form that they have on the command line.
    return {name: json.dumps(value) if isinstance(value, dict) else value for name, value in recipe.items()}


def write_recipe(args: RunArguments) -> None:
    """Write all arguments but the token to `recipe.yaml` in `output_dir`, a recipe that repeats the run."""
    values = {name: value for name, value in asdict(args).items() if name != "hub_token"}
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    Path(args.output_dir, RECIPE_NAME).write_text(text, encoding="utf-8")


def read_label_map(text: str | None) -> dict[str, str | None]:
    """Read `--label_map`: JSON, or the name of a file that holds it.

    Raises:
        ValueError: It is no JSON object, or a new name is no string.
    """
    if text is not None and not text.lstrip().startswith("{"):
        if not Path(text).is_file():
            raise ValueError(f'--label_map {text} is neither a JSON object nor a file: write \'{{"old": "new"}}\'.')
        text = Path(text).read_text(encoding="utf-8")
    label_map = parse_overrides("label_map", text)
    for old, new in label_map.items():
        if not isinstance(new, str | None):
            raise ValueError(f"--label_map names {old!r} {new!r}: a new name is a string, or null to leave it out.")
    return label_map


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f": did you mean {near[0]}?" if near else ""


def parse_overrides(name: str, text: str | None) -> dict[str, Any]:
    """Read an argument whose value is a JSON object."""
    try:
        value = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        raise ValueError(f"--{name} must be a JSON object, such as '{{\"name\": 1}}': {error}.") from None
    if not isinstance(value, dict):
        raise ValueError(f"--{name} must be a JSON object, such as '{{\"name\": 1}}', and is {text!r}.")
    return value
