"""What one network of a sweep learns from."""

import re

import run_finetune


def test_a_seed_cuts_long_clips_alike_alone_and_in_a_sweep(speech_folder, tmp_path, capsys):
    def losses_of_seed_1(*seeds):
        words = ["--model_name_or_path", "supervised", "--train_dir", str(speech_folder), "--seed", *seeds]
        words += ["--output_dir", str(tmp_path / "-".join(seeds)), "--preset", "tiny", "--max_length_seconds", "0.3"]
        run_finetune.main([*words, "--max_steps", "2", "--logging_steps", "1", "--per_device_train_batch_size", "8"])
        return re.findall(r"seed 1, (.*: step \d).*? loss ([\d.]+)", capsys.readouterr().err)

    alone = losses_of_seed_1("1")
    assert len(alone) > 2
    assert losses_of_seed_1("0", "1") == alone
