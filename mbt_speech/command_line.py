"""The words of a command line to a script's arguments: a YAML recipe first, then what overrides it."""

import contextlib
import difflib
import importlib.util
import json
import os
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from transformers import HfArgumentParser

from .arguments import PRESET_DEFAULTS, PretrainArguments
from .run_arguments import RunArguments, decisive
from .user_errors import DEBUG, DEBUG_HELP, OneSentence, missing

RECIPE_NAME = "recipe.yaml"
RECIPE_HEAD = "# Folders that are not below the current one are named without those above them.\n"
MAX_YAML_BYTES = 1 << 20
MAX_YAML_DEPTH = 50

Arguments = TypeVar("Arguments", bound=RunArguments)


class _Parser(OneSentence, HfArgumentParser):
    """A parser of dataclasses."""


def parse_arguments(arguments_class: type[Arguments], argv: list[str] | None = None) -> Arguments:
    """Parses `[recipe.yaml] [--name value ...]`.

    Args:
        arguments_class: The script's dataclass.
        argv: The words of the command line; by default the process's.

    A mistake ends the process with a sentence that names the nearest right argument.
    """
    description = f"{arguments_class.__doc__} A YAML recipe may stand in front of the options, which override it."
    parser = _Parser([arguments_class], allow_abbrev=False, description=description)  # pyright: ignore
    parser.add_argument(DEBUG, action="store_true", help=DEBUG_HELP)
    for action in parser._actions:
        if action.option_strings[0].startswith("--no_"):
            action.help = f"Turns --{action.dest} off."
    words = list(sys.argv[1:] if argv is None else argv)
    names = [f.name for f in fields(arguments_class)]
    try:
        if importlib.util.find_spec("accelerate") is None:
            raise ValueError(missing(parser.prog, "accelerate", "train"))
        recipe = []
        if words and words[0].endswith((".yaml", ".yml")):
            recipe = as_words(read_recipe(words.pop(0), names))
        for option in (word.split("=")[0] for word in words if word.startswith("--")):
            if option not in parser._option_string_actions:  # before what is missing because of it
                known = [f"--{name}" for name in names]
                raise ValueError(f"There is no argument {option}{_nearest(option, known) or '.'}")
        if arguments_class is PretrainArguments:
            parser.set_defaults(**PRESET_DEFAULTS.get(_value_of("--preset", [*recipe, *words]), {}))
        return parser.parse_args_into_dataclasses([*recipe, *words])[0]
    except ValueError as error:
        parser.error(str(error))


def _value_of(option: str, words: list[str]) -> str:
    """Returns what an option is given last, `--option value` or `--option=value`; nothing if it is not."""
    values = [after for word, after in pairwise([*words, ""]) if word == option]
    return (values + [word.partition("=")[2] for word in words if word.startswith(f"{option}=")] or [""])[-1]


def read_recipe(path: str, known: Iterable[str]) -> dict[str, Any]:
    """Reads a YAML recipe: a flat mapping from argument names to values.

    Raises:
        ValueError: It is not there, is no mapping, or names an argument that does not exist.
    """
    recipe = load_yaml(Path(path))
    if not isinstance(recipe, dict):
        raise ValueError(f"The recipe {path} must be a mapping from argument names to values.")
    for name in sorted(set(recipe) - set(known), key=str):
        raise ValueError(f"The recipe {path} has an unknown argument {name}{_nearest(str(name), known) or '.'}")
    return recipe


def load_yaml(path: Path) -> Any:
    """Reads a YAML file, also one that was made to fill the memory.

    Raises:
        ValueError: It is not there, is no YAML of plain values, or is larger than any recipe.
    """
    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            raise ValueError(f"it has more than {MAX_YAML_BYTES} bytes")
        return yaml.load(path.read_text(encoding="utf-8"), _PlainLoader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split())
        raise ValueError(f"The recipe {path} cannot be read: {reason}.") from None


class _PlainLoader(yaml.SafeLoader):
    """Without aliases, ten lines of which can stand for a billion values, and without nesting that takes seconds.

    Only `true` and `false` are booleans: `yes`, `no`, `on` and `off` are words.
    """

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, pattern) for tag, pattern in resolvers if first in "tTfF" or not tag.endswith(":bool")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def fetch_flow_collection_start(self, TokenClass):  # noqa: N803 - the parser's own name
        if self.flow_level >= MAX_YAML_DEPTH:
            raise yaml.YAMLError(f"brackets are nested more than {MAX_YAML_DEPTH} deep")
        super().fetch_flow_collection_start(TokenClass)

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not used in recipes")
        return super().compose_node(parent, index)


def as_words(arguments: Mapping[str, Any]) -> list[str]:
    """Writes arguments as they stand on a command line, to be checked as those are; null is the default."""
    words = []
    for name, value in arguments.items():
        if value is not None and value != []:
            values = value if isinstance(value, list) else [value]
            words += [f"--{name}", *(json.dumps(one) if isinstance(one, dict | list) else str(one) for one in values)]
    return words


def write_recipe(args: RunArguments, is_main_process: bool) -> None:
    """Writes arguments to `recipe.yaml` in `output_dir`, a recipe that repeats the run from its start.

    Left out are the token, and what says how to deal with an earlier run in the folder.

    To be called once the run has found everything in order: what stands there is the recipe of an earlier run.
    """
    if not is_main_process:
        return
    left_out = ("hub_token", "resume_from_checkpoint", "overwrite_output_dir")
    values = {name: value for name, value in asdict(args).items() if name not in left_out}
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    path = Path(args.output_dir, RECIPE_NAME)
    unfinished = path.with_name(f".{path.name}.partial")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def read_arguments(folder: Path) -> dict[str, Any]:
    """Reads what `write_recipe` left in a folder.

    Raises:
        ValueError: It cannot be read.
    """
    values = load_yaml(folder / RECIPE_NAME)
    if not isinstance(values, dict):
        raise ValueError(f"{folder / RECIPE_NAME} is damaged: delete it to go on with its run.")
    return values


def changed_arguments(args: RunArguments, folder: Path) -> list[str]:
    """Returns which decisive arguments are others than those of the recipe in a folder, if there is one, as words.

    Raises:
        ValueError: It cannot be read.
    """
    before = read_arguments(folder) if (folder / RECIPE_NAME).is_file() else {}
    return [
        f"--{name} {value} (before: {before[name]})"
        for name, value in decisive(args).items()
        if before.get(name, value) != value
    ]


def recipe_to_share(path: Path) -> str:
    """Returns the text of a recipe for others, to whom absolute paths tell no more of this machine than a name.

    Raises:
        ValueError: It cannot be read.
    """
    return RECIPE_HEAD + yaml.safe_dump(_without_folders(load_yaml(path)), sort_keys=False, allow_unicode=True)


def _without_folders(value: Any) -> Any:
    """Shortens absolute paths, also inside of JSON: below the current folder to the rest, else to their names."""
    if isinstance(value, list):
        return [_without_folders(one) for one in value]
    if isinstance(value, dict):
        return {name: _without_folders(one) for name, one in value.items()}
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("{"):
        with contextlib.suppress(ValueError):  # a path may begin so, too
            return json.dumps(_without_folders(json.loads(value)))
    path = Path(os.path.normpath(value))
    if not path.is_absolute():
        return value
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else path.name


def read_label_map(text: str | None) -> dict[str, str | None]:
    """Reads `--label_map`: JSON, or the name of a file that holds it.

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


def parse_overrides(name: str, text: str | None, known: Collection[str] = ()) -> dict[str, Any]:
    """Reads an argument whose value is a JSON object; with `known` names, it may have no others.

    Raises:
        ValueError: It is no such object.
    """
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"--{name} must be a JSON object, such as '{{\"name\": 1}}': {error}.") from None
    if not isinstance(value, dict):
        raise ValueError(f"--{name} must be a JSON object, such as '{{\"name\": 1}}', and is {text!r}.")
    for unknown in sorted(set(value) - set(known)) if known else ():
        near = _nearest(unknown, known) or f": there are {', '.join(sorted(known))}."
        raise ValueError(f"--{name} has an unknown entry {unknown}{near}")
    return value
