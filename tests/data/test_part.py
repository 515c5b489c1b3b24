"""What stands in and around a photograph does not reach the model, and is there again in the result."""

import io
import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from skimage import data

from bd_diff.data.deep import from_levels
from bd_diff.data.images import to_image, to_tensor
from bd_diff.data.inputs import open_images, part_of, to_batch, to_images
from bd_diff.data.line_frames import line_frame
from bd_diff.data.part import Range


@pytest.fixture(scope="module")
def sharp():
    """A sharp photograph, 128 x 128 pixels."""
    return np.asarray(Image.fromarray(data.astronaut()[:256, 96:352]).resize((128, 128), Image.LANCZOS))


@pytest.fixture(scope="module")
def blurry(sharp):
    """The same, blurred by a line of 9 pixels, with a little noise."""
    moved = ndimage.uniform_filter1d(sharp.astype(float), 9, axis=1, mode="reflect")
    return (moved + np.random.default_rng(0).normal(0, 1, moved.shape)).clip(0, 255).astype(np.uint8)


def part(levels, **options):
    levels = levels.reshape(*levels.shape[:2], -1)
    return part_of(from_levels(np.ascontiguousarray(levels), {}), **options)


def seen(levels):
    return levels.astype(np.float32) / np.iinfo(levels.dtype).max


def pixels(given):
    return given.pixels.permute(1, 2, 0).numpy()


def told(levels):
    """The lines that are told of a photograph whose result is itself."""
    with warnings.catch_warnings(record=True) as lines:
        warnings.simplefilter("always")
        part(levels)
    return [str(line.message) for line in lines]


def test_a_photograph_without_anything_goes_through_as_it_is(blurry):
    given = part(blurry)
    assert torch.equal(given.pixels, to_tensor(Image.fromarray(blurry)))
    assert torch.equal(given.put_back(1 - given.pixels), 1 - given.pixels)


@pytest.mark.parametrize("colours", [[0], [255], [255, 0], [30]])
@pytest.mark.parametrize("sides", [((40, 40), (0, 0)), ((0, 0), (30, 12)), ((20, 20), (20, 20)), ((0, 0), (0, 9))])
def test_borders_are_cut_off_and_put_back(blurry, colours, sides):
    framed = blurry
    for colour in reversed(colours):
        framed = np.pad(framed, (*sides, (0, 0)), constant_values=colour)
    given = part(framed)
    assert np.array_equal(pixels(given), seen(blurry))
    result = given.put_back(1 - given.pixels)
    whole = np.asarray(to_image(result))
    inside = tuple(slice(len(colours) * before, len(colours) * before + 128) for before, _ in sides)
    assert np.array_equal(whole[inside], 255 - blurry)
    border = np.ones(whole.shape[:2], bool)
    border[inside] = False
    assert np.array_equal(whole[border], framed[border])


def test_a_border_survives_jpeg(blurry, tmp_path):
    framed = np.pad(blurry, ((40, 40), (0, 0), (0, 0)))
    Image.fromarray(framed).save(tmp_path / "film.jpg", quality=85)
    (given,) = open_images(tmp_path / "film.jpg")
    assert abs(given.pixels.shape[1] - 128) <= 2 and given.pixels.shape[2] == 128


@pytest.mark.parametrize("sides", [(64, 64, 0, 0), (61, 59, 0, 0), (0, 0, 0, 21), (12, 50, 12, 12), (8, 8, 8, 8)])
@pytest.mark.parametrize("colour", [0, 16, 250])
@pytest.mark.parametrize("kind", ["noise", "loud noise", "quality 80", "quality 60"])
def test_borders_are_found_under_noise_and_jpeg_to_the_line(blurry, sides, colour, kind):
    top, below, left, right = sides
    framed = np.pad(blurry, ((top, below), (left, right), (0, 0)), constant_values=colour)
    if kind.endswith("noise"):
        border = np.pad(np.zeros(blurry.shape[:2], bool), ((top, below), (left, right)), constant_values=True)
        noise = np.random.default_rng(0).normal(0, 5 if kind == "loud noise" else 2, framed.shape)
        framed = (framed + noise * border[..., None]).clip(0, 255).round().astype(np.uint8)
    else:
        file = io.BytesIO()
        Image.fromarray(framed).save(file, "JPEG", quality=int(kind[-2:]))
        framed = np.asarray(Image.open(file))
    rows, columns = part(framed).box
    found = [rows.start, columns.start, framed.shape[0] - rows.stop, framed.shape[1] - columns.stop]
    cut = [there - border for there, border in zip(found, (top, left, below, right), strict=True)]
    assert min(cut) >= 0 and max(cut) <= 3  # nothing of the border is left, and little of the photograph missing


@pytest.fixture(scope="module")
def larger():
    """A blurry photograph, 256 x 256 pixels."""
    moved = ndimage.uniform_filter1d(data.astronaut()[:256, 96:352].astype(float), 9, axis=1, mode="reflect")
    return (moved + np.random.default_rng(0).normal(0, 1, moved.shape)).clip(0, 255).astype(np.uint8)


def framed_in(larger, colour, shape, quality=None):
    """The photograph in a frame that leaves an oval or rounded corners, and what that covers."""
    drawn = Image.new("L", (1024, 1024))
    pen, inset = ImageDraw.Draw(drawn), 40
    if shape == "oval":
        pen.ellipse((inset, inset, 1023 - inset, 1023 - inset), fill=255)
    else:
        inset = inset if shape == "wide frame" else 0
        pen.rounded_rectangle((inset, inset, 1023 - inset, 1023 - inset), 96, fill=255)
    share = np.asarray(drawn.resize((256, 256), Image.BOX))[..., None] / 255
    image = Image.fromarray((larger * share + colour * (1 - share)).round().astype(np.uint8))
    if quality:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        image = Image.open(file)
    return np.asarray(image), share[..., 0] < 1


@pytest.mark.parametrize("colour", [0, 255])
@pytest.mark.parametrize("shape", ["oval", "rounded corners", "wide frame"])
@pytest.mark.parametrize("quality", [None, 92, 80])
def test_round_frames_and_rounded_corners_are_kept_from_the_model_and_stay(larger, colour, shape, quality):
    framed, covered = framed_in(larger, colour, shape, quality)
    given = part(framed)
    kept = np.ones((256, 256), bool)
    kept[given.box] = given.hidden
    differs = ~covered & (np.abs(larger.astype(int) - colour).max(-1) > 24)
    assert kept[covered].mean() > 0.99 and kept[differs].mean() < 0.12
    filled_in = covered[given.box]
    apart = [np.abs(values - seen(larger)[given.box])[filled_in].mean() for values in (pixels(given), colour / 255)]
    assert colour == 0 or apart[0] < 0.5 * apart[1]  # in the corners this photograph is black itself
    result = np.asarray(to_image(given.put_back(1 - given.pixels)))
    assert np.array_equal(result[kept], framed[kept]) and np.array_equal(result[~kept], 255 - framed[~kept])


def test_dark_corners_that_fade_in_are_no_frame(larger):
    rows, columns = np.mgrid[-1:1:256j, -1:1:256j]
    light = ((1.2 - np.hypot(rows, columns)) * 5).clip(0, 1)[..., None]
    given = part((larger * light).astype(np.uint8))
    assert not given.hidden.any() and given.box == (slice(0, 256), slice(0, 256))


def test_a_white_sky_that_fades_in_is_no_border(blurry):
    sky = blurry.astype(float)
    fade = np.clip((np.arange(128) - 30) / 40, 0, 1)[:, None, None]
    sky = (255 * (1 - fade) + sky * fade).astype(np.uint8)
    assert pixels(part(sky)).shape == sky.shape


@pytest.mark.parametrize("hidden", [0, 255, "noise"])
def test_colours_under_transparency_do_not_matter_and_are_put_back(blurry, hidden):
    rows, columns = np.mgrid[-1:1:128j, -1:1:128j]
    visible = rows**2 + columns**2 < 0.7
    under = np.random.default_rng(1).integers(0, 256, blurry.shape) if hidden == "noise" else hidden
    cut = np.dstack([np.where(visible[..., None], blurry, under), 255 * visible]).astype(np.uint8)
    given, other = part(cut), part(np.dstack([blurry * visible[..., None], 255 * visible]).astype(np.uint8))
    assert torch.equal(given.pixels, other.pixels)
    rest = ~visible[given.box]
    steps = np.abs(np.diff(pixels(given), axis=0)).max(-1)
    assert steps[rest[1:] | rest[:-1]].max() < 1.5 * steps[~(rest[1:] | rest[:-1])].max()  # no edge at the cut
    result = np.asarray(to_image(given.put_back(1 - given.pixels), like=given.photograph))
    assert np.array_equal(result[visible][:, :3], 255 - blurry[visible])
    assert np.array_equal(result[~visible], cut[~visible])


def written(photograph, text, place, size, fill, stroke):
    image = Image.fromarray(photograph)
    outline = {"stroke_width": 1, "stroke_fill": "black"} if stroke else {}
    ImageDraw.Draw(image).text(place, text, fill=fill, font=ImageFont.load_default(size), **outline)
    return np.asarray(image)


@pytest.mark.parametrize(
    "text, place, size, fill, stroke",
    [
        ("(c) a stock preview", (4, 60), 14, "white", True),
        ("2019 07 14", (50, 108), 13, (255, 140, 20), False),
        ("CAPTION", (10, 8), 26, "yellow", False),
    ],
)
def test_what_is_written_over_a_blurry_photograph_is_kept_from_the_model_and_stays(
    blurry, text, place, size, fill, stroke
):
    captioned = written(blurry, text, place, size, fill, stroke)
    letters = np.abs(captioned.astype(int) - blurry).max(-1) > 40
    given = part(captioned)
    assert given.hidden[letters].mean() > 0.9 and given.hidden[~letters].mean() < 0.05
    before, after = (np.abs(values - seen(blurry)).mean() for values in (seen(captioned), pixels(given)))
    assert after < 0.5 * before
    result = np.asarray(to_image(given.put_back(1 - given.pixels)))
    assert np.array_equal(result[given.hidden], captioned[given.hidden])
    assert np.array_equal(result[~given.hidden], 255 - captioned[~given.hidden])


def in_jpeg(levels, quality):
    if quality is None:
        return levels
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


@pytest.mark.parametrize("quality", [None, 92, 80])
@pytest.mark.parametrize(
    "colour, alpha, turn", [((255, 150, 40), 1, 0), ((250, 60, 30), 1, 0), ("white", 0.6, 0), ("white", 0.6, 20)]
)
def test_coloured_and_half_transparent_letters_are_kept_from_the_model_also_in_a_jpeg(
    larger, colour, alpha, turn, quality
):
    mask = Image.new("L", (256, 256))
    ImageDraw.Draw(mask).text((80, 200), "2004/08/21 15:32", 255, ImageFont.load_default(18))
    share = alpha * np.asarray(mask.rotate(turn, Image.BICUBIC))[..., None] / 255
    paint = np.asarray(Image.new("RGB", (1, 1), colour))
    stamped = in_jpeg((larger * (1 - share) + paint * share).round().astype(np.uint8), quality)
    given = part(stamped)
    letters, away = share[..., 0] > 0.3 * alpha, ndimage.binary_dilation(share[..., 0] > 0, iterations=5)
    assert not given.unchanged
    assert given.hidden[letters].mean() > 0.6 and given.hidden[~away].mean() < 0.03


def overlaid(levels, draw):
    """Levels with something drawn on them, and where that is: `draw(drawing, fill)`."""
    mask, picture = (Image.new("L", levels.shape[1::-1]), Image.fromarray(levels.copy()))
    draw(ImageDraw.Draw(mask), 255)
    draw(ImageDraw.Draw(picture), (255, 255, 255))
    return np.asarray(picture), np.asarray(mask) > 128


@pytest.fixture(scope="module")
def moved():
    """A photograph of 256 x 256 pixels, moved by 15 and out of focus."""
    sharp = np.asarray(Image.fromarray(data.astronaut()).resize((256, 256), Image.LANCZOS)).astype(float)
    soft = ndimage.gaussian_filter(ndimage.uniform_filter1d(sharp, 15, axis=1, mode="reflect"), (1, 1, 0))
    return (soft + np.random.default_rng(0).normal(0, 1, soft.shape)).clip(0, 255).astype(np.uint8)


def test_letters_all_over_a_blurry_photograph_are_no_sharp_photograph(moved):
    def rows(drawing, fill):
        for number, top in enumerate(range(2, 256, 56)):
            drawing.text((4 - 8 * (number % 3), top), "SAMPLE " * 8, fill=fill, font=ImageFont.load_default(22))

    levels, letters = overlaid(moved, rows)
    given = part(levels)
    assert not given.unchanged and given.hidden[letters].mean() > 0.9


def test_streaks_of_light_in_a_dark_photograph_do_not_vote_on_its_blur(moved):
    def streaks(drawing, fill):
        for left, top in np.random.default_rng(1).integers(20, 236, (10, 2)).tolist():
            down = range(0, 30, 3)
            drawing.line([(int(left + 3 * np.sin(at / 3)), top + at) for at in down], fill=fill, width=2)

    levels, lights = overlaid((moved * 0.2).astype(np.uint8), streaks)
    assert part(levels).hidden[lights].mean() > 0.9


@pytest.mark.parametrize("quality", [None, 92, 80])
def test_no_letters_are_seen_in_a_blurry_photograph_without_any(larger, quality):
    assert not part(in_jpeg(larger, quality)).hidden.any()


@pytest.mark.parametrize("quality", [None, 80])
@pytest.mark.parametrize("colour", [(255, 255, 255), (20, 30, 60)])
def test_a_thin_rectangle_in_the_photograph_is_kept_from_the_model(larger, colour, quality):
    drawn = Image.fromarray(larger)
    ImageDraw.Draw(drawn).rectangle((14, 20, 241, 235), outline=colour, width=2)
    line = (np.asarray(drawn) != larger).any(-1)
    given = part(in_jpeg(np.asarray(drawn), quality))
    assert given.hidden[line].all() and given.hidden[~line].mean() < 0.06 and not given.unchanged
    assert np.abs(pixels(given) - seen(larger)).mean() < 0.02


def test_a_straight_edge_or_bars_without_a_rectangle_are_no_line_frame(larger):
    bars = larger.copy()
    bars[60:62] = bars[200:202] = 250
    assert not line_frame(seen(bars)).any()
    edge = larger.copy()
    edge[:100], edge[:, :90] = 250, 10
    assert not line_frame(seen(edge)).any()


@pytest.mark.parametrize("quality", [None, 80])
def test_a_border_with_a_soft_shadow_is_cut_off(larger, quality):
    shade = np.zeros((312, 312))
    shade[34:290, 34:290] = 0.6
    paper = 245 * (1 - ndimage.gaussian_filter(shade, 4))[..., None].repeat(3, -1)
    paper[28:284, 28:284] = larger
    rows, columns = part(in_jpeg(paper.round().astype(np.uint8), quality)).box
    cut = rows.start - 28, columns.start - 28, 284 - rows.stop, 284 - columns.stop
    assert min(cut) >= -1 and max(cut) <= 2


@pytest.mark.parametrize("quality", [None, 80])
def test_a_border_whose_photograph_is_mostly_of_its_colour_on_one_side_is_cut_off(larger, quality):
    bright = larger.astype(float)
    share = np.clip((np.arange(256) - 200) / 20, 0, 1)[:, None, None] * (np.arange(256) < 170)[:, None]
    bright = (bright * (1 - share) + 244 * share).round().astype(np.uint8)
    framed = np.pad(bright, ((18, 60), (18, 18), (0, 0)), constant_values=244)
    rows, columns = part(in_jpeg(framed, quality)).box
    cut = rows.start - 18, columns.start - 18, 274 - rows.stop, 274 - columns.stop
    assert min(cut) >= 0 and max(cut) <= 3


@pytest.mark.parametrize("size", [16, 24])
def test_a_band_with_a_caption_is_a_border(blurry, size):
    framed = np.pad(blurry, ((8, 40), (8, 8), (0, 0)), constant_values=245)
    banded = written(framed, "Summer", (20, 138), size, "black", False)
    assert pixels(part(banded)).shape == blurry.shape


def test_large_outlined_letters_are_found_along_their_strokes(blurry):
    image = Image.fromarray(blurry)
    font = ImageFont.load_default(24)
    ImageDraw.Draw(image).text((34, 90), "SALE", "white", font, stroke_width=2, stroke_fill="black")
    given = part(captioned := np.asarray(image))
    before, after = (np.abs(values - seen(blurry)).mean() for values in (seen(captioned), pixels(given)))
    assert not given.unchanged and after < 0.4 * before


@pytest.mark.parametrize("kind", ["pixel art", "rings", "halftone", "photograph"])
def test_what_is_sharp_already_stays_as_it_is_and_a_line_says_so(sharp, kind):
    rows, columns = np.mgrid[:128, :128]
    random = np.random.default_rng(0)
    colours = random.integers(0, 256, (6, 3), dtype=np.uint8)
    grey = sharp.mean(-1, keepdims=True).repeat(3, -1)
    levels = {
        "pixel art": colours[random.integers(0, 6, (16, 16))].repeat(8, 0).repeat(8, 1),
        "rings": (255 * (np.hypot(rows - 64, columns - 64) // 6 % 2))[..., None].repeat(3, -1).astype(np.uint8),
        "halftone": np.uint8(255 * (grey > 64 + 128 * ((rows + columns) % 6 / 6)[..., None])),
        "photograph": sharp,
    }[kind]
    assert told(levels) == ["the photograph: it is sharp already, and stays as it is"]
    given = part(levels)
    assert np.array_equal(np.asarray(to_image(given.put_back(torch.rand_like(given.pixels)))), levels)
    blurred = part(levels, deblur=False)  # as blur is moved to it
    assert torch.equal(blurred.put_back(1 - blurred.pixels), 1 - blurred.pixels)


@pytest.mark.parametrize("radius", [3, 5])
def test_a_portrait_whose_background_is_out_of_focus_stays_as_it_is(radius):
    photograph = data.astronaut()[:320, 60:380].astype(float)
    rows, columns = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disc = (rows**2 + columns**2 <= radius**2)[..., None].astype(float)
    background = ndimage.convolve(photograph, disc / disc.sum(), mode="reflect")
    assert told(background.astype(np.uint8)) == []
    rows, columns = np.mgrid[:320, :320]
    away = np.hypot((rows - 110) / 95, (columns - 165) / 60)
    face = ((1 - away) * 10 + 0.5).clip(0, 1)[..., None]
    portrait = (face * photograph + (1 - face) * background).astype(np.uint8)
    assert told(portrait) == ["the photograph: it is sharp where it is in focus, and stays as it is"]
    given = part(portrait)
    assert np.array_equal(np.asarray(to_image(given.put_back(1 - given.pixels))), portrait)


@pytest.mark.parametrize("noise", [0, 10, 25])
def test_noise_is_not_taken_for_sharpness(blurry, noise):
    noisy = blurry + np.random.default_rng(0).normal(0, noise, blurry.shape)
    given = part(noisy.clip(0, 255).astype(np.uint8))
    assert not given.unchanged and not given.hidden.any()


def test_a_result_that_is_the_photograph_is_told_of(blurry):
    given = part(blurry, name="in.png")
    with pytest.warns(UserWarning, match="in.png: nothing was changed"):
        given.put_back(given.pixels)


def test_grey_stored_as_colours_stays_grey(blurry):
    given = part(blurry[..., :1].repeat(3, -1))
    result = given.put_back(given.pixels + torch.tensor([0.1, 0.0, -0.1])[:, None, None])
    assert torch.equal(result[0], result[1]) and torch.equal(result[1], result[2])


# Range


@pytest.mark.parametrize("bits", [10, 12])
def test_ten_and_twelve_bit_in_sixteen_reach_the_model_over_the_whole_range_and_come_back_in_their_own(blurry, bits):
    levels = np.round(blurry[..., 1:2] / 255 * (2**bits - 1)).astype(np.uint16)
    given = part(levels)
    low, high = given.pixels.aminmax()
    assert low == 0 and high == 1
    same = np.asarray(to_image(given.put_back(given.pixels), like=given.photograph))
    assert np.array_equal(same, levels[..., 0])
    brightest = np.asarray(to_image(given.put_back(torch.ones_like(given.pixels)), like=given.photograph))
    assert brightest.max() == levels.max()


def test_a_linear_frame_of_stars_reaches_the_model_with_its_sky_visible_and_comes_back(blurry):
    random = np.random.default_rng(0)
    sky = np.zeros((128, 128))
    sky[random.integers(0, 128, 40), random.integers(0, 128, 40)] = 10 ** random.uniform(2, 6, 40)
    frame = ndimage.gaussian_filter(sky, 1.5) + 300 + random.normal(0, 15, sky.shape)
    levels = np.round(frame.clip(0, 65535)).astype(np.uint16)
    given = part(levels)
    assert 0.15 < given.pixels.median() < 0.25 and not given.hidden.any()
    same = np.asarray(to_image(given.put_back(given.pixels), like=given.photograph))
    assert np.abs(same.astype(int) - levels).max() <= 1
    # A pattern of one level of 8 bit that a network leaves is far below the noise of the sky.
    pattern = given.pixels + (torch.arange(128) % 4 == 0) / 255
    changed = np.asarray(to_image(given.put_back(pattern), like=given.photograph)).astype(float)
    dark = levels < 330
    assert (changed - levels)[dark].std() < 0.5 * levels[dark].std()


@pytest.mark.parametrize("found", [Range(), Range(0.1, 0.3), Range(0.0, 1.0, 0.02), Range(0.01, 0.2, 0.1)])
def test_a_stretch_is_undone(found):
    values = torch.linspace(found.black, found.white, 1001, dtype=torch.float64)
    assert torch.allclose(found.back(found.stretch(values)), values, atol=1e-9)


def test_photographs_of_the_usual_range_are_not_stretched(blurry):
    assert part(blurry).range == Range()
    assert part(blurry.astype(np.uint16) * 257).range == Range()


def test_a_list_of_parts_makes_whole_pictures(blurry):
    framed = Image.fromarray(np.pad(blurry, ((40, 40), (0, 0), (0, 0))))
    opened = open_images([framed, torch.zeros(3, 128, 128)])
    batch = to_batch(opened)
    assert batch.shape == (2, 3, 128, 128)
    assert [image.size for image in to_images(1 - batch, opened)] == [(128, 208), (128, 128)]
