"""The test set that anyone can make is what it says, and none of it was trained on."""

import public_test_set
import pytest
from bd_diff_toys import ROOT
from public_test_set import PHOTOGRAPHS, fingerprint, source, write_test_set

from bd_diff.data.images import list_images, read_image


def test_every_photograph_is_written_as_it_is_and_large_enough_for_the_protocol(tmp_path):
    write_test_set(tmp_path)
    written = {path.stem: read_image(path) for path in list_images(tmp_path)}
    assert set(written) == set(PHOTOGRAPHS)
    for name, (package, file, licence, expected) in PHOTOGRAPHS.items():
        assert fingerprint(written[name]) == expected == fingerprint(read_image(source(package, file)))
        assert min(written[name].size) >= 256 + 32
        assert licence.startswith(("CC0", "public domain"))


def test_photographs_that_were_trained_on_are_not_among_them():
    trained = {path.stem for path in (ROOT / "bd_diff/assets/sharp").glob("*.webp")}
    assert trained and not trained & {source(package, file).stem for package, file, _, _ in PHOTOGRAPHS.values()}


def test_another_picture_of_a_newer_package_is_refused(tmp_path, monkeypatch):
    package, file, licence, _ = PHOTOGRAPHS["coffee"]
    monkeypatch.setattr(public_test_set, "PHOTOGRAPHS", {"coffee": (package, file, licence, "0" * 16)})
    with pytest.raises(ValueError, match="coffee.png is another picture"):
        write_test_set(tmp_path)
