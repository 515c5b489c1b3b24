"""The command that builds kernel banks goes on with the bank it began, and no other."""

import pytest
import torch

from bd_diff.data.images import save_image, to_image
from bd_diff.data.procedural import procedural_image
from train.kernel_bank import main


def test_a_bank_goes_on_where_it_was_but_not_with_other_blurs(tmp_path):
    image = procedural_image(224 + 1, torch.Generator().manual_seed(0))
    save_image(to_image(image), tmp_path / "sharp/0.png")
    (tmp_path / "bank.yaml").write_text("families: {line: 1.0}\ncount: 8\nwindow: 192\n")
    folders = [f"folder={tmp_path / 'bank'}", f"sharp={tmp_path / 'sharp'}"]
    given = ["--config", str(tmp_path / "bank.yaml"), *folders]
    (tmp_path / "bank").mkdir()
    kept = tmp_path / "bank/00000.safetensors"
    kept.write_text("a file that is there is not searched again")
    main(given)
    assert kept.read_text().startswith("a file that is there") and (tmp_path / "bank/settings.json").exists()
    with pytest.raises(ValueError, match="bank was begun with noise .*, now it is 0.1"):
        main([*given, "noise=0.1"])
