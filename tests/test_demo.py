"""The page deblurs, shows and gives back photographs as files of their kind, in a browser too, and leaves nothing."""

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from bd_diff.demo import KEPT_SECONDS, Demo, build
from bd_diff.restore import PipelineRestorer

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def demo(tiny_pipeline):
    demo = Demo(PipelineRestorer(tiny_pipeline))
    yield demo
    demo.close()


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "holiday.jpg"
    exif = Image.Exif()
    exif[0x0110] = "Test Camera"
    Image.effect_noise((48, 32), 80).convert("RGB").save(path, exif=exif)
    return str(path)


def test_a_photograph_is_shown_before_and_after_with_its_blur_and_given_back_with_its_exif(demo, photo):
    shown = demo.deblur(photo, fast=True)
    assert Image.open(shown.before).size == Image.open(shown.after).size == (48, 32)
    assert Image.open(shown.where).size == (48, 32) and Image.open(shown.kernel).size[0] > 200
    result = Image.open(shown.result)
    assert Path(shown.result).name == "holiday-sharp.jpg" and result.format == "JPEG"
    assert result.getexif()[0x0110] == "Test Camera"


def test_strength_zero_shows_the_photograph_twice(demo, photo):
    shown = demo.deblur(photo, strength=0.0)
    before, after = (np.asarray(Image.open(path), int) for path in (shown.before, shown.after))
    assert np.abs(before - after).max() <= 1


def test_previews_have_the_colours_of_the_profile_and_white_where_they_are_transparent(demo, tmp_path):
    srgb = ImageCms.createProfile("sRGB")
    profile = ImageCms.ImageCmsProfile(srgb).tobytes()
    wide = bytearray(profile)  # red and green change places, as far as a viewer can tell
    place = {
        bytes(wide[128 + 4 + 12 * n :][:4]): 128 + 4 + 12 * n + 4 for n in range(int.from_bytes(wide[128:132], "big"))
    }
    red, green = (slice(place[tag], place[tag] + 8) for tag in (b"rXYZ", b"gXYZ"))
    wide[red], wide[green] = wide[green], wide[red]
    pixels = np.zeros((32, 48, 4), np.uint8)
    pixels[:, :24] = 200, 40, 40, 255
    pixels[:, 24:, 2] = 255  # blue, under nothing
    Image.fromarray(pixels).save(tmp_path / "wide.png", icc_profile=bytes(wide))
    shown = demo.deblur(str(tmp_path / "wide.png"), strength=0.0, fast=True)
    for path in (shown.before, shown.after):
        seen = np.asarray(Image.open(path), int)
        assert np.abs(seen[:, 2:20] - (40, 200, 40)).max() <= 3
        assert (seen[:, 24:] == 255).all()


def test_blur_is_moved_from_one_photograph_to_another(demo, photo, tmp_path):
    Image.effect_noise((40, 40), 50).save(tmp_path / "blur.png")
    shown = demo.transfer(photo, str(tmp_path / "blur.png"))
    assert Path(shown.result).name == "holiday-blurred.jpg" and Image.open(shown.after).size == (48, 32)
    assert shown.kernel is None


@pytest.mark.parametrize(
    "given, told", [(None, "give a photograph first"), ("notes.png", "^notes.png is not an image")]
)
def test_what_is_no_photograph_is_told_in_a_sentence_without_folders(demo, tmp_path, given, told):
    if given:
        (tmp_path / given).write_text("text")
    with pytest.raises(ValueError, match=told):
        demo.deblur(given and str(tmp_path / given))


def test_old_results_are_removed_while_it_runs_and_all_at_its_end(demo, photo):
    old, young = (Path(demo.deblur(photo, fast=True).result) for _ in range(2))
    os.utime(old.parent, (time.time() - KEPT_SECONDS - 1,) * 2)
    demo.deblur(photo, fast=True)
    assert not old.exists() and young.exists()
    demo.close()
    assert not demo.folder.exists()


@pytest.fixture
def page(demo, monkeypatch):
    """The address of the page, served to this computer."""
    pytest.importorskip("gradio")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(demo.folder))
    blocks = build(demo, [])
    _, address, _ = blocks.launch(
        server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, max_file_size="1mb", inbrowser=False
    )
    yield address
    blocks.close()


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_in_a_browser(page, photo, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    (tmp_path / "notes.png").write_text("not a photograph")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        visitor = browser.new_page()
        visitor.set_default_timeout(60_000)
        visitor.goto(page)
        upload = visitor.locator("input[type=file]").first
        upload.set_input_files(tmp_path / "notes.png")
        visitor.get_by_text("notes.png", exact=False).first.wait_for()
        visitor.get_by_role("button", name="Deblur", exact=True).click()
        told = visitor.get_by_text("notes.png is not an image in a known format")
        told.first.wait_for()
        assert "Traceback" not in visitor.content()

        visitor.reload()
        visitor.locator("input[type=file]").first.set_input_files(photo)
        visitor.get_by_text("holiday", exact=False).first.wait_for()
        visitor.get_by_role("button", name="Deblur", exact=True).click()
        link = visitor.locator("#result a").first
        link.wait_for()
        for picture in (0, 1):
            visitor.locator("#slider img").nth(picture).wait_for()
        with visitor.expect_download() as downloading:
            link.click()
        downloading.value.save_as(tmp_path / "got.jpg")
        browser.close()
    assert Image.open(tmp_path / "got.jpg").size == (48, 32)
