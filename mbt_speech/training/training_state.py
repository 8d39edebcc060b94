"""What training goes on from: weights, optimizer, masks, random states; as tensors and JSON, never as a pickle."""

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor

from mbt_speech.probing.hub_classifiers import HubClassifier
from modeling_mbt import MBTPreTrainedModel

from .sparsity import SparseTraining

WEIGHTS_NAME, OPTIMIZER_NAME, MASKS_NAME = "model.safetensors", "optimizer.safetensors", "masks.safetensors"


class TrainingState(NamedTuple):
    """What is saved and restored; the learning rate is not in it, since it follows from the step."""

    accelerator: Accelerator
    """Knows the process, its device and the loss scaler of fp16."""
    model: MBTPreTrainedModel | HubClassifier
    """The plain model (unwrapped)."""
    optimizer: torch.optim.Optimizer
    """The plain optimizer."""
    sparsity: SparseTraining | None = None
    """The masks of the model's weights, if it is sparse."""

    def save(self, folder: Path) -> dict[str, Any]:
        """Writes this process's files, the main one all that they share; returns what belongs into a JSON file."""
        (folder / self._random_name).write_text(json.dumps(_random_states(self.accelerator.device)))
        if self.accelerator.is_main_process:
            self.model.save_pretrained(folder)
            _save(folder / OPTIMIZER_NAME, {
                f"{number}.{name}": value
                for number, values in self.optimizer.state_dict()["state"].items() for name, value in values.items()
            })  # fmt: skip
            if self.sparsity is not None:
                _save(folder / MASKS_NAME, self.sparsity.state_dict())
        scaler = self.accelerator.scaler
        return {"optimizer": self._optimizer_type, "scaler": None if scaler is None else scaler.state_dict()}

    def load(self, folder: Path, content: Mapping[str, Any]) -> None:
        """Restores everything in place.

        Args:
            folder: The checkpoint.
            content: What `save` gave.

        Raises:
            ValueError: The checkpoint is of another model, another optimizer or another kind of training.
        """
        if content["optimizer"] != self._optimizer_type:
            raise ValueError(f"its optimizer is {content['optimizer']} and not {self._optimizer_type}")
        weights = load_file(folder / WEIGHTS_NAME)
        _check_names_and_shapes("weight", weights, self.model.state_dict())
        self.model.load_state_dict(weights)
        self._load_optimizer(load_file(folder / OPTIMIZER_NAME))
        if self.sparsity is not None:
            masks = load_file(folder / MASKS_NAME) if (folder / MASKS_NAME).is_file() else {}
            _check_names_and_shapes("mask", masks, self.sparsity.state_dict())
            self.sparsity.load_state_dict(masks)
        if self.accelerator.scaler is not None and content["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(content["scaler"])
        if (folder / self._random_name).is_file():
            _restore_random_states(json.loads((folder / self._random_name).read_text()), self.accelerator.device)

    @property
    def _random_name(self) -> str:
        return f"random_states_{self.accelerator.process_index}.json"

    @property
    def _optimizer_type(self) -> str:
        return type(self.optimizer).__name__

    def _load_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes the optimizer's averages, in the memory layout of their parameters, without which sums round anew."""
        parameters = [one for group in self.optimizer.param_groups for one in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            number, _, name = key.partition(".")
            if not number.isdecimal() or int(number) >= len(parameters):
                raise ValueError(f"its optimizer holds {key}, which belongs to no parameter")
            parameter = parameters[int(number)]
            if value.ndim:
                _check_names_and_shapes("average", {key: value}, {key: parameter})
                value = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
            state.setdefault(int(number), {})[name] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})


def _save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)


def _check_names_and_shapes(kind: str, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    for name in sorted(found.keys() | wanted.keys()):
        there, here = (tuple(all_[name].shape) if name in all_ else "absent" for all_ in (found, wanted))
        if there != here:
            raise ValueError(f"its {kind} {name} is {there}, and this run's is {here}")


def _random_states(device: torch.device) -> dict[str, Any]:
    numpy_state: Any = np.random.get_state(legacy=False)
    numpy_state["state"]["key"] = numpy_state["state"]["key"].tolist()
    return {
        "python": random.getstate(),
        "numpy": numpy_state,
        "torch": torch.get_rng_state().tolist(),
        "device": None if device.type == "cpu" else torch.get_device_module(device).get_rng_state(device).tolist(),
    }


def _restore_random_states(states: Mapping[str, Any], device: torch.device) -> None:
    version, key, gauss = states["python"]
    random.setstate((version, tuple(key), gauss))
    np.random.set_state(states["numpy"])
    torch.set_rng_state(torch.tensor(states["torch"], dtype=torch.uint8))
    if device.type != "cpu" and states["device"] is not None:
        torch.get_device_module(device).set_rng_state(torch.tensor(states["device"], dtype=torch.uint8), device)
