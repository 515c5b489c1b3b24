"""The page deblurs, shows and gives back photographs as files of their kind, in a browser too, and leaves nothing."""

import http.client
import os
import shutil
import signal
import subprocess
import sys
import time
from copy import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from bd_diff.data.claims import LOCK
from bd_diff.restore import PipelineRestorer
from bd_diff.serving.demo import FOLDER, KEPT_SECONDS, Demo, in_words, remove_abandoned, subtract_noise
from bd_diff.serving.page import HINTS, build, launch_settings

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
    upload = demo.folder / "hash" / "holiday.jpg"
    upload.parent.mkdir()
    upload.touch()
    os.utime(upload.parent, (time.time() - KEPT_SECONDS - 1,) * 2)
    demo.sweep()
    assert not old.exists() and young.exists() and not upload.exists()
    with pytest.raises(ValueError, match="^holiday.jpg is deleted after 10 minutes; give it once more"):
        demo.deblur(str(upload))
    demo.close()
    assert not demo.folder.exists()


@pytest.fixture
def page(demo, monkeypatch):
    """The address of the page, served to this computer."""
    pytest.importorskip("gradio")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(demo.folder))
    blocks = build(demo, [])
    _, address, _ = blocks.launch(
        prevent_thread_lock=True, quiet=True, inbrowser=False, **launch_settings("127.0.0.1", [], 1)
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
        visitor.get_by_text("48 x 32 pixels").wait_for()
        visitor.get_by_alt_text("your photograph").wait_for()
        visitor.get_by_role("button", name="Deblur", exact=True).click()
        link = visitor.locator("#result a").first
        link.wait_for()
        for picture in (0, 1):
            visitor.locator("#slider img").nth(picture).wait_for()
        assert {one.get_attribute("alt") for one in visitor.locator("#slider img").all()} == {"before", "after"}
        assert visitor.get_by_role("button", name="Cancel").first.is_visible()
        assert visitor.get_by_role("img", name="Scale from black").is_visible()
        upper, lower = (visitor.locator(part).bounding_box()["y"] for part in ("#result", "text=The blur it saw"))
        assert upper < lower  # the download is beside the result, before what explains it
        with visitor.expect_download() as downloading:
            link.click()
        downloading.value.save_as(tmp_path / "got.jpg")
        browser.close()
    assert Image.open(tmp_path / "got.jpg").size == (48, 32)


def test_a_photograph_of_more_pixels_than_the_page_takes_is_told_without_options(tiny_pipeline, photo):
    demo = Demo(PipelineRestorer(tiny_pipeline), most=1000)
    with pytest.raises(ValueError, match="^holiday.jpg has 48 x 32 pixels; up to 0.001 megapixels are taken here$"):
        demo.deblur(photo)
    demo.close()


def test_what_a_killed_page_left_is_removed_by_the_next_one_and_what_a_living_one_has_is_not(demo, tmp_path):
    abandoned = demo.folder.with_name(f"{demo.folder.name}x")
    (abandoned / "result-a").mkdir(parents=True)
    (abandoned / LOCK).touch()
    remove_abandoned()
    assert not abandoned.exists() and demo.folder.exists()


def test_another_host_name_is_refused_by_the_page(page):
    address = page.split("//")[1].strip("/")
    for host, status in ((address, 200), ("evil.example", 421)):
        connection = http.client.HTTPConnection(address)
        connection.request("GET", "/", headers={"Host": host})
        assert connection.getresponse().status == status
        connection.close()


def test_a_page_of_a_model_of_one_step_can_be_laid_out(tiny_pipeline, demo):
    pytest.importorskip("gradio")
    pipeline = copy(tiny_pipeline)
    pipeline.register_to_config(most_steps=1)
    demo.restorer = PipelineRestorer(pipeline)
    steps = [one for one in build(demo, []).blocks.values() if getattr(one, "label", None) == "Steps"]
    assert [(one.visible, one.value) for one in steps] == [(False, 1), (False, 1)]


def test_a_page_deblurs_and_when_it_is_stopped_leaves_nothing(tiny_pipeline_folder, photo, tmp_path):
    pytest.importorskip("gradio")
    from gradio_client import Client, handle_file

    command = [sys.executable, "-m", "bd_diff.cli", "demo", "--model", str(tiny_pipeline_folder), "--port", "7917"]
    environment = os.environ | {"TMPDIR": str(tmp_path), "GRADIO_ANALYTICS_ENABLED": "False"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as running:
        assert any("Running on local URL" in line for line in running.stdout)
        visitor = Client("http://127.0.0.1:7917", download_files=str(tmp_path / "got"), verbose=False)
        _, result, *_ = visitor.predict(handle_file(photo), 1, 1, True, api_name="/run")
        assert Image.open(result).size == (48, 32)
        (folder,) = tmp_path.glob(f"{FOLDER}*")
        (folder / "upload").mkdir()
        (folder / "upload/a.jpg").write_text("a visitor's")
        running.send_signal(signal.SIGTERM)
        try:
            assert running.wait(60) == 0
        finally:
            running.kill()
    assert not list(tmp_path.glob(f"{FOLDER}*"))


def test_an_upload_is_shown_with_its_size_and_the_time_it_takes(demo, photo):
    assert demo.preview(None) == (None, "")
    assert demo.preview(photo)[1] == "48 x 32 pixels"  # nothing is promised that was not measured
    demo.search_seconds, demo.megapixel_seconds = 3.0, 2.0
    shown, told = demo.preview(photo)
    assert Image.open(shown).size == (48, 32) and told == "48 x 32 pixels, about 3 seconds here"
    assert demo.seconds(12_000_000) == 27.0 and demo.seconds(12_000_000, steps=2, fast=True) == 48.0
    assert [in_words(seconds) for seconds in (0.2, 89.6, 300)] == ["1 second", "90 seconds", "5 minutes"]


def test_a_visitor_cancels_what_is_made_for_them_and_nothing_else(demo, photo, monkeypatch):
    encode, cancelling = demo.restorer.pipeline.read_at_scales, ["somebody else", "me"]

    def cancel_meanwhile(*arguments, **settings):
        demo.cancel(cancelling.pop(0))
        return encode(*arguments, **settings)

    with monkeypatch.context() as patched:
        patched.setattr(demo.restorer.pipeline, "read_at_scales", cancel_meanwhile)
        assert demo.deblur(photo, visitor="me").result
        with pytest.raises(ValueError, match="^cancelled$"):
            demo.deblur(photo, visitor="me")
    assert demo.deblur(photo, visitor="me").result  # the next one is not cancelled


def test_the_map_is_dark_where_a_result_differs_by_its_noise_only():
    generator = torch.Generator().manual_seed(0)
    scene = torch.linspace(0.2, 0.8, 96).expand(1, 3, 96, 96)
    noise = 0.03 * torch.randn(1, 1, 96, 96, generator=generator)
    photograph, wrong = scene + noise, noise.abs().clone()
    wrong[..., 40:56, 40:56] = 0.1  # a difference that noise does not explain
    assert subtract_noise(torch.full((1, 1, 96, 96), 0.03), photograph).mean() < 0.01
    seen = subtract_noise(wrong, photograph)
    assert seen[..., 40:56, 40:56].min() > 0.09


@pytest.mark.parametrize("colours", HINTS.values(), ids=HINTS)
def test_hints_can_be_read(colours):
    def luminance(colour: str) -> float:  # WCAG 2.1, relative luminance
        channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    dark, light = sorted(map(luminance, colours))
    assert (light + 0.05) / (dark + 0.05) >= 4.5
