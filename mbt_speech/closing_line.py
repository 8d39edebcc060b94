"""The last line of a command: where its result is, and which command could follow."""

import shlex


def closing_line(result: str, *words: object) -> str:
    """Returns one line to print at the end.

    Args:
        result: What is where, a sentence without its full stop.
        words: The command that could be next; words in capitals stand for what only the user knows.
    """
    return f"{result}. Next: {shlex.join(map(str, words))}"
