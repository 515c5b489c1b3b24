"""bd-diff eval and compare, from the command line: card, rows, report and tables."""

import csv
import json
import re
from unittest import mock

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from bd_diff.cli import app
from bd_diff.data.images import read_image, save_image, to_image, to_tensor
from bd_diff.data.procedural import procedural_image
from bd_diff.evaluation import report
from bd_diff.evaluation.card_tables import compare, comparison, read_card, result_table
from bd_diff.evaluation.metrics import psnr


def bd_diff(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(3):
        image = procedural_image(80, torch.Generator().manual_seed(number), "leaves")
        save_image(to_image(image), folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def cards(photographs, tmp_path_factory):
    out = tmp_path_factory.mktemp("cards")
    for entry in ("input", "wiener"):
        protocol = ("--protocol", "blur-families", "--limit", 2, "--save-images")
        result = bd_diff("eval", entry, "--data", photographs, *protocol, "--out", out / entry)
        assert result.exit_code == 0, result.output
    return out


def test_a_card_says_how_its_figures_came_about(cards):
    card = read_card(cards / "wiener")
    assert card["entry"] == {"name": "wiener", "weights_sha256": None, "settings": {}}
    assert card["protocol"] == "blur-families" and card["seed"] == 0 and card["data"]["images"] == 8
    assert list(card["results"]) == ["gaussian", "line", "shake", "sharp", "all"]
    assert torch.__version__.startswith(card["versions"]["torch"]) and card["peak_memory_mib"] > 0
    assert len(card["data"]["fingerprint"]) == 64


def test_rows_are_written_one_an_image_and_their_mean_is_the_cards(cards):
    rows = list(csv.DictReader((cards / "wiener/images.csv").open()))
    line = [float(row["gain"]) for row in rows if row["group"] == "line"]
    result = read_card(cards / "wiener")["results"]["line"]
    assert len(rows) == 8 and sum(line) / 2 == pytest.approx(result["gain"])
    assert result["worst"]["gain"] == min(line)


def test_results_are_written_and_score_the_same_as_a_folder(cards, photographs):
    arguments = ("--data", photographs, "--protocol", "blur-families", "--limit", 2)
    result = bd_diff("eval", cards / "wiener/images", *arguments, "--out", cards / "again")
    again, first = (read_card(cards / name)["results"]["all"]["psnr"] for name in ("again", "wiener"))
    assert result.exit_code == 0 and again == pytest.approx(first, abs=1e-6)


def test_the_report_shows_worst_and_best_and_stands_alone(cards):
    page = (cards / "wiener/report.html").read_text()
    assert "gaussian, worst" in page and "shake, best" in page and "<svg" in page
    assert "http" not in page and page.count("data:image/png;base64,") == 4 * 2 * 3
    with Image.open(cards / "wiener/report.png") as sheet:
        assert sheet.width > 700 and sheet.height > 8 * 256


def test_many_groups_are_shown_as_one():
    rows = [{"group": str(n % 8), "gain": float(n), "psnr_input": 20.0, "name": str(n)} for n in range(16)]
    assert [title for title, _ in report.chosen(rows)] == ["all, worst", "all, median", "all, best"]
    assert [title for title, _ in report.chosen(rows[:2])] == ["0, worst", "1, worst"]
    assert report.curves(rows).count("<polyline") == 1 and report.curves(rows[:6]).count("<polyline") == 6


def test_an_entry_that_gains_nothing_is_ranked_by_psnr():
    rows = [{"group": "all", "gain": 0.0, "psnr_input": psnr, "name": f"{psnr}"} for psnr in (20.0, 18.0, 22.0)]
    assert [row["name"] for _, row in report.chosen(rows)] == ["18.0", "20.0", "22.0"]


def test_names_are_escaped_in_the_report(photographs, tmp_path):
    for side, image in (("blurry", torch.zeros(3, 20, 20)), ("sharp", torch.rand(3, 20, 20))):
        save_image(to_image(image), tmp_path / "pairs" / side / "<b>&.png")
    result = bd_diff("eval", "input", "--data", tmp_path / "pairs", "--out", tmp_path / "out")
    page = (tmp_path / "out/report.html").read_text()
    assert result.exit_code == 0 and "&lt;b&gt;&amp;" in page and "<b>&" not in page


def test_compare_lays_cards_side_by_side(cards, tmp_path):
    result = bd_diff("compare", cards / "input", cards / "wiener/card.json", "--out", tmp_path / "table.md")
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert result.exit_code == 0 and len(lines) == 4
    assert lines[0].startswith("| method | gaussian: gain | gaussian: psnr")
    assert lines[2].startswith("| input | +0.00 |")
    gain = read_card(cards / "wiener")["results"]["gaussian"]["gain"]
    assert lines[3].startswith(f"| wiener | {gain:+.2f} |")


def test_cards_of_other_images_or_protocols_are_not_laid_side_by_side(cards):
    first, second = read_card(cards / "input"), read_card(cards / "wiener")
    second["data"]["fingerprint"] = "other"
    with pytest.raises(ValueError, match="the cards are of different images: input .*; pass --anyway"):
        compare([first, second])
    assert "wiener" in compare([first, second], anyway=True)
    with pytest.raises(ValueError, match="of different protocols"):
        compare([first, {**first, "protocol": "rgb"}])


def test_what_is_no_card_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="card.json does not exist; bd-diff eval --out writes it"):
        read_card(tmp_path)
    for content in ("[]", "{", json.dumps({"entry": 1})):
        (tmp_path / "card.json").write_text(content)
        with pytest.raises(ValueError, match="is not a result card"):
            read_card(tmp_path)


def test_the_printed_table_is_the_cards(cards, photographs):
    result = bd_diff("eval", "input", "--data", photographs, "--protocol", "blur-families", "--limit", 2)
    assert result_table(read_card(cards / "input")) in result.output
    assert "| sharp | 2 |  | 100.00 |" in result.output


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--protocol", "best"], "no protocol 'best'"),
        (["--metric", "vmaf"], "no metric vmaf"),
        (["--save-images"], "--save-images needs --out"),
        (["--names", "val.txt"], "--names goes with --protocol blur-families only"),
        (["--layout", "gopro"], r"tried gopro \(no test/\)"),
        ([], "holds no pairs"),
    ],
)
def test_bad_arguments_are_one_sentence(arguments, words, photographs):
    result = bd_diff("eval", "input", "--data", photographs, *arguments)
    assert isinstance(result.exception, ValueError)
    with pytest.raises(ValueError, match=words):
        raise result.exception


def test_a_card_is_not_replaced_unasked(cards, photographs):
    result = bd_diff("eval", "input", "--data", photographs, "--out", cards / "input")
    assert "already holds a result card" in str(result.exception)


def test_saved_images_are_the_results(cards):
    before, after = (to_tensor(read_image(cards / entry / "images/line/0.png")) for entry in ("input", "wiener"))
    truth = to_tensor(read_image(cards / "input/images/sharp/0.png"))
    assert psnr(after[None], truth[None]) > psnr(before[None], truth[None]) + 1


def test_figures_are_written_where_nobody_reads_them_and_printed_where_they_cannot_be_written(photographs, tmp_path):
    arguments = ["eval", "input", "--data", photographs, "--protocol", "blur-families", "--limit", 1, "--out"]
    with mock.patch("builtins.print", side_effect=BrokenPipeError):
        assert bd_diff(*arguments, tmp_path / "out").exit_code == 1
    assert (tmp_path / "out/card.json").exists() and (tmp_path / "out/report.png").exists()
    with mock.patch("bd_diff.evaluation.result_card.write_card", side_effect=OSError("No space left on device")):
        result = bd_diff(*arguments, tmp_path / "full")
    assert result.exit_code == 1 and "| shake | 1 |" in result.output


def test_pages_name_their_pictures_and_axes_and_fit_narrow_screens(cards, tmp_path):
    page = (cards / "wiener/report.html").read_text()
    assert page.count("<img ") == page.count(' alt="') > 0 and 'alt=""' not in page
    assert "gain in dB PSNR</text>" in page and "images, from worst to best</text>" in page
    assert re.search(r'<svg [^>]*aria-label="Gain in dB of 6 images', page)
    done = bd_diff("compare", cards / "input", cards / "wiener", "--html", tmp_path / "both.html")
    assert done.exit_code == 0
    both = (tmp_path / "both.html").read_text()
    for one in (page, both):
        assert '<meta name="viewport"' in one and "overflow-x: auto" in one
    titles, rows = comparison([read_card(cards / name) for name in ("input", "wiener")])
    assert both.count("<th scope=col>") == len(titles) and all(cell in both for row in rows for cell in row)


def test_methods_of_one_name_are_told_apart_by_their_settings(cards):
    true, estimated = (read_card(cards / "wiener") for _ in range(2))
    estimated["entry"]["settings"] = {"kernel_from": "bd-diff-tiny"}
    rows = comparison([true, estimated])[1]
    assert [row[0] for row in rows] == ["wiener", "wiener (kernel_from bd-diff-tiny)"]
    assert comparison([estimated])[1][0][0] == "wiener"
