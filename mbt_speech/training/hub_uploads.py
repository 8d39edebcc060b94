"""Uploads to the Hub, beside the training and after it: no fault of the network stalls or ends a run."""

import os
import shlex
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue

from accelerate import Accelerator
from huggingface_hub import CommitOperationAdd, HfApi, get_session
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.utils import filter_repo_objects, logging

from mbt_speech.command_line import RECIPE_NAME, recipe_to_share
from mbt_speech.run_arguments import RunArguments
from mbt_speech.standard_error import tell
from mbt_speech.user_errors import redact

from .output_folder import LOCK_NAME

MODEL_FILES = ("config.json", "model.safetensors", "preprocessor_config.json", "*.py")
SNAPSHOT = ".upload-"
# Checkpoints, also those of a sweep's runs; file names of the recordings; logs of trackers.
NOT_UPLOADED = ("checkpoint-*", "*/checkpoint-*", "*.partial/*", f"{SNAPSHOT}*", "bad_audio.txt", ".git/*", LOCK_NAME,
                "*events.out.tfevents*", "wandb/*")  # fmt: skip

ATTEMPTS = 5
FIRST_WAIT_SECONDS = 2.0  # doubled from attempt to attempt
MAX_WAIT_SECONDS = 300.0  # the window over which the Hub counts requests
REQUEST_SECONDS = 120.0  # without a byte; the client itself would wait forever
STOP_SECONDS = 30.0  # for a run that is told to stop
FINISH_SECONDS = 1_800.0  # for the end of a run: a model of 100 MB over 0.5 Mbit/s
MAX_WAITING = 8
TRANSIENT = (408, 409, 412, 425, 429)
REFUSED = {401: "the Hub does not know the token, or it has expired (401)", 403: "the token may not do this (403)"}


class HubUploads:
    """The uploads of a run, one after the other in a thread of their own; the main process alone has any.

    Args:
        args: The run, whose `push_to_hub` and `hub_*` say what is uploaded where.
        accelerator: Knows which process this is.

    Nothing is raised: what could not be uploaded is told in a sentence, with the command that does it later.
    """

    def __init__(self, args: RunArguments, accelerator: Accelerator):
        self.args, self.folder = args, Path(args.output_dir)
        self.repository = args.hub_model_id or self.folder.resolve().name
        self.is_on = args.push_to_hub and accelerator.is_main_process
        if not self.is_on:
            return
        _remove_snapshots(self.folder)
        logging.set_verbosity_error()  # it would tell of every attempt
        self.api, self.exists, self.failed = HfApi(token=args.hub_token), False, False
        self.jobs: Queue[tuple[Callable[[], bool], Future]] = Queue()
        threading.Thread(target=self._work, daemon=True).start()  # a daemon, so that no exit waits for the network
        self._submit(self._announce)

    def push_checkpoint(self, checkpoint: Path) -> None:
        """Uploads the model of a checkpoint in the background with `--hub_strategy every_save`."""
        if not self.is_on or self.args.hub_strategy != "every_save":
            return
        while self.jobs.qsize() >= MAX_WAITING and self._drop_oldest():
            tell("A checkpoint is not uploaded: the Hub is slow, and newer ones wait.")
        try:
            snapshot = _take_snapshot(checkpoint, self.folder)
        except OSError as error:
            tell(f"{checkpoint.name} is not uploaded: {error}.")
            return
        done = self._submit(lambda: self._push_snapshot(snapshot, checkpoint.name))
        done.add_done_callback(lambda _: shutil.rmtree(snapshot, ignore_errors=True))

    def finish(self) -> None:
        """Uploads `output_dir` after what is still on its way; waits `FINISH_SECONDS` for the end of it."""
        if not self.is_on:
            return
        if self.failed:  # what waits would fail as well, and is on its way with the end
            while self._drop_oldest():
                pass
        try:
            self._submit(self._push_output_dir).result(FINISH_SECONDS)
        except TimeoutError:
            tell(self._later(f"has not ended within {FINISH_SECONDS / 60:g} minutes"))
        except KeyboardInterrupt:
            tell(self._later("was interrupted"))
        _remove_snapshots(self.folder)

    def give_up(self) -> None:
        """Waits `STOP_SECONDS` for what is on its way: a run that is told to stop must end in time."""
        if not self.is_on:
            return
        try:
            self._submit(lambda: True).result(STOP_SECONDS)
        except (TimeoutError, KeyboardInterrupt):
            tell(f"Not every checkpoint has reached {self.repository}: the run that continues uploads later ones.")
        _remove_snapshots(self.folder)

    def _work(self) -> None:
        while True:
            job, done = self.jobs.get()
            try:
                done.set_result(job())
            except Exception as error:  # a bug of ours, for the one who waits
                done.set_exception(error)

    def _submit(self, job: Callable[[], bool]) -> Future:
        done = Future()
        self.jobs.put((job, done))
        return done

    def _drop_oldest(self) -> bool:
        with suppress(Empty):
            self.jobs.get_nowait()[1].cancel()
            return True
        return False

    def _announce(self) -> bool:
        """Creates the repository, to tell of a wrong token now and not after days."""
        try:
            self._create_repository()
        except Exception as error:
            if not is_transient(error):
                tell(f"The upload to {self.repository} will fail: {self._reason(error)}. The run goes on.")
        return True

    def _push_snapshot(self, snapshot: Path, name: str) -> bool:
        error = self._upload(snapshot, f"Model of {name}", ())
        if error is not None:
            tell(f"{name} is not uploaded to {self.repository}: {self._reason(error)}. The run goes on.")
        return error is None

    def _push_output_dir(self) -> bool:
        error = self._upload(self.folder, "Upload MBT model", NOT_UPLOADED)
        if error is None:
            print(f"Uploaded to {self.api.endpoint}/{self.repository}.")
        else:
            tell(self._later(f"failed: {self._reason(error)}"))
        return error is None

    def _upload(self, folder: Path, message: str, ignore_patterns: Sequence[str]) -> Exception | None:
        """Commits a folder; returns what was wrong with the last attempt, None if nothing was."""

        def attempt() -> None:
            self._create_repository()
            names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
            files = [
                CommitOperationAdd(name, _to_share(folder / name))
                for name in filter_repo_objects(names, ignore_patterns=list(ignore_patterns))
            ]
            self.api.create_commit(self.repository, files, commit_message=message)

        try:
            retry(attempt)
        except Exception as error:
            self.failed = True
            return error
        self.failed = False
        return None

    def _create_repository(self) -> None:
        get_session().timeout = REQUEST_SECONDS  # the client's, which the library makes anew after some errors
        if not self.exists:
            url = self.api.create_repo(self.repository, private=self.args.hub_private_repo or None, exist_ok=True)
            self.repository, self.exists = url.repo_id, True

    def _later(self, what: str) -> str:
        words = ["hf", "upload", self.repository, str(self.folder), "."]
        words += ["--private"] if self.args.hub_private_repo else []
        words += [word for pattern in (*NOT_UPLOADED, RECIPE_NAME) for word in ("--exclude", pattern)]
        return f"The upload {what}. The model is complete in {self.folder}; push it later with: {shlex.join(words)}"

    def _reason(self, error: Exception) -> str:
        response = _response(error)
        if response is not None:
            status = response.status_code
            reason = REFUSED.get(status, f"the Hub answered {status} {response.reason_phrase}")
        else:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(".: ")
        return redact(reason, self.args.hub_token)


def retry(action: Callable[[], None]) -> None:
    """Tries up to `ATTEMPTS` times, longer and longer apart, or as far apart as the Hub says.

    Raises:
        Exception: Of the last attempt, or of the first that no later one would mend.
    """
    for attempt in range(ATTEMPTS):
        try:
            action()
            return
        except Exception as error:
            if attempt == ATTEMPTS - 1 or not is_transient(error):
                raise
            time.sleep(min(MAX_WAIT_SECONDS, _retry_after(error) or FIRST_WAIT_SECONDS * 2**attempt))


def is_transient(error: Exception) -> bool:
    """Returns whether a later attempt may succeed: not with a refused token or a repository that cannot be."""
    response = _response(error)
    if response is not None:
        return response.status_code in TRANSIENT or response.status_code >= 500
    return not isinstance(error, ValueError | FileNotFoundError | OfflineModeIsEnabled)


def _response(error: BaseException | None):
    """Returns the Hub's answer in an error or in what it was raised from; None if there was no answer."""
    while error is not None:
        if getattr(error, "response", None) is not None:
            return error.response  # pyright: ignore[reportAttributeAccessIssue]
        error = error.__cause__
    return None


def _retry_after(error: Exception) -> float | None:
    response = _response(error)
    seconds = "" if response is None else response.headers.get("Retry-After", "")
    return float(seconds) if seconds.isdecimal() else None  # or a date, which the Hub does not send


def _take_snapshot(checkpoint: Path, folder: Path) -> Path:
    """Links what `from_pretrained` opens into a folder of its own: no copy, and rotation cannot delete it."""
    snapshot = Path(tempfile.mkdtemp(prefix=SNAPSHOT, dir=folder))
    for pattern in MODEL_FILES:
        for path in checkpoint.glob(pattern):
            try:
                os.link(path, snapshot / path.name)
            except OSError:  # a file system without links
                shutil.copyfile(path, snapshot / path.name)
    return snapshot


def _to_share(path: Path) -> Path | bytes:
    """Returns a file for a commit: as it is, but for the recipe."""
    return recipe_to_share(path).encode() if path.name == RECIPE_NAME else path


def _remove_snapshots(folder: Path) -> None:
    for snapshot in folder.glob(f"{SNAPSHOT}*"):
        shutil.rmtree(snapshot, ignore_errors=True)
