"""Uploading a finished run."""

import sys
from pathlib import Path

from huggingface_hub import HfApi

from .arguments import RunArguments

NOT_UPLOADED = ["checkpoint-*", ".checkpoint-*", "bad_audio.txt", "events.out.tfevents*"]


def push_to_hub(args: RunArguments) -> None:
    """Upload `output_dir` with `--push_to_hub`; a failure leaves the local result complete and says how to push later.

    File names of the recordings (`bad_audio.txt`) and checkpoints stay here.
    """
    if not args.push_to_hub:
        return
    repository = args.hub_model_id or Path(args.output_dir).name
    api = HfApi()
    try:
        url = api.create_repo(repository, private=args.hub_private_repo, exist_ok=True)
        api.upload_folder(
            repo_id=url.repo_id,
            folder_path=args.output_dir,
            ignore_patterns=NOT_UPLOADED,
            commit_message="Upload MBT model",
        )
    except Exception as error:  # the run is done and saved: no fault of the network may turn that into a failure
        print(
            f"The upload failed ({type(error).__name__}: {error}). The model is complete in {args.output_dir}; push "
            f"it later with: hf upload {repository} {args.output_dir}",
            file=sys.stderr,
        )
    else:
        print(f"Uploaded to {url}.")
