"""What one network of a sweep learns from, and how it is tested."""

import os
import re
from types import SimpleNamespace

import numpy as np
import torch
from accelerate import Accelerator

import run_finetune
from mbt_speech.data.crops import Clip
from mbt_speech.training.fine_tuning import predict, waveform_inputs
from mbt_speech.training.run_log import read_log
from tests.support.processes import run_in_two_processes


def test_a_seed_cuts_long_clips_alike_alone_and_in_a_sweep(speech_folder, tmp_path, capsys):
    def losses_of_seed_1(*seeds):
        words = ["--model_name_or_path", "supervised", "--train_dir", str(speech_folder), "--seed", *seeds]
        words += ["--output_dir", str(tmp_path / "-".join(seeds)), "--preset", "tiny", "--max_length_seconds", "0.3"]
        run_finetune.main([*words, "--max_steps", "2", "--logging_steps", "1", "--per_device_train_batch_size", "8"])
        return re.findall(r"seed 1, (.*: step \d).*? loss ([\d.]+)", capsys.readouterr().err)

    alone = losses_of_seed_1("1")
    assert len(alone) > 2
    assert losses_of_seed_1("0", "1") == alone


def test_accuracy_is_measured_on_the_way_only_on_clips_that_are_not_learned_from(speech_folder, tmp_path):
    words = ["--model_name_or_path", "supervised", "--train_dir", str(speech_folder), "--output_dir", str(tmp_path)]
    run_finetune.main([*words, "--preset", "tiny", "--max_steps", "2", "--eval_steps", "1"])
    measured = {
        path.parent.name: any("eval_accuracy" in line for line in read_log(path.parent))
        for path in tmp_path.rglob("train_log.jsonl")
    }
    assert measured == {"learning_rate_0.001": True, "learning_rate_0.003": True, "all_labels": False}


class TenClips:
    """Constant clips of growing length and loudness."""

    seconds = np.arange(1.0, 11.0)

    def __getitem__(self, item):
        return Clip(np.full(item + 1, item, np.float32), item, [])


class BatchNormOfPeaks(torch.nn.Module):
    """A network whose logits depend on running statistics."""

    def __init__(self, mean):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(1)
        self.norm.running_mean.fill_(mean)

    def forward(self, waveforms, lengths):
        return SimpleNamespace(logits=self.norm(waveforms.amax(1, keepdim=True)))


def predict_in_process(rank, results):
    """Runs in two processes, whose networks have seen different clips."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    args = SimpleNamespace(per_device_train_batch_size=2, dataloader_num_workers=0)
    model = BatchNormOfPeaks(rank + 1.0)
    results[rank] = predict(args, Accelerator(cpu=True), model, waveform_inputs, TenClips(), np.arange(1, 10))


def test_two_processes_classify_with_the_running_statistics_of_the_first():
    for logits, labels in run_in_two_processes(predict_in_process).values():
        assert sorted(labels) == list(range(1, 10))
        np.testing.assert_allclose(logits[:, 0], labels - 1, rtol=1e-4)
