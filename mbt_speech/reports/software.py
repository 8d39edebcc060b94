"""What a result was computed with."""

from importlib.metadata import version

PACKAGES = (
    "torch", "transformers", "datasets", "accelerate", "evaluate", "huggingface_hub", "safetensors", "numpy",
    "scikit-learn", "soundfile", "soxr",
)  # fmt: skip


def software_versions() -> dict[str, str]:
    """Returns the installed versions of the packages that results depend on."""
    return {package: version(package) for package in PACKAGES}
