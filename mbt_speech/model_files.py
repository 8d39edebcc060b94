"""A model's files, which may be damaged, or somebody else's, and what tells its weights from others."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn

from .user_errors import as_sentence

# What files end in that somebody else wrote: values of other types, weights of other shapes, half a file.
UNREADABLE = (StrictDataclassError, SafetensorError, RuntimeError, TypeError, AttributeError, KeyError)


@contextmanager
def damage_named(name: str | Path) -> Iterator[None]:
    """Says which model it is that cannot be opened, and why.

    Raises:
        ValueError: Its files are damaged, or do not belong together.
    """
    try:
        yield
    except UNREADABLE as error:
        raise ValueError(f"The model of {name} cannot be opened: {as_sentence(error)}") from error


def weights_digest(model: nn.Module) -> str:
    """Hashes every parameter and buffer."""
    weights = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        weights.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return weights.hexdigest()
