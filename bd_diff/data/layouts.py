"""The folder layouts that deblurring data comes in: from a folder to the list of its images and pairs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bd_diff.data.images import EXTENSIONS, list_images, natural_order

BLURRY = ("blur", "blurry", "blurred", "input", "lq")  # in capitals or not
SHARP = ("sharp", "target", "gt", "hq")
SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


class Missing(Exception):
    """Raised where a folder is not in a layout; the message names what is missing."""


@dataclass(frozen=True)
class Item:
    """One image or pair: its paths (None for a side that does not exist), its name, and the group of its results."""

    name: str
    blurry: Path | None
    sharp: Path | None
    group: str = "all"


@dataclass(frozen=True)
class Layout:
    """A layout: `find(root, split)` lists its items or raises `Missing`.

    kind: "paired", "unpaired" (blurry and sharp images that have nothing to do with each other) or "images" (a plain
    folder; its images stand in `sharp`, though nothing tells whether they are).
    """

    shape: str
    kind: str
    find: Callable[[Path, str], list[Item]]


def images_under(folder: Path) -> list[Path]:
    """All images below a folder, in natural order; none is no error."""
    paths = (path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS and path.is_file())
    hidden = (path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts))
    return sorted(hidden, key=natural_order)


def below(folder: Path, *names: str) -> Path:
    """The first of these subfolders that exists; upper and lower case are the same if no name fits exactly."""
    there = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    for name in names:
        if folder / name in there:
            return folder / name
    for name in names:
        for path in there:
            if path.name.lower() == name.lower():
                return path
    raise Missing(f"{'/, '.join(names)}/")


def match(blurry: Path, sharp: Path, group: str = "all", prefix: str = "", unused: bool = False) -> list[Item]:
    """Pair the images of two folders by their relative names without the ending.

    Raises `ValueError` for an image without a twin; with `unused`, sharp images need none.
    """
    sides = [
        {path.relative_to(folder).with_suffix(""): path for path in images_under(folder)} for folder in (blurry, sharp)
    ]
    if not sides[0]:
        raise Missing(f"images in {blurry}")
    for here, there, mine, theirs in ((0, 1, blurry, sharp), (1, 0, sharp, blurry)):
        lonely = [sides[here][name] for name in sides[here] if name not in sides[there]]
        if lonely and not (unused and here == 1):
            raise ValueError(
                f"{len(lonely)} of {len(sides[here])} images in {mine} have no twin of the same name in {theirs}; "
                f"the first is {lonely[0].name}"
            )
    return [Item(f"{prefix}{name.as_posix()}", path, sides[1][name], group) for name, path in sides[0].items()]


def scenes(folder: Path, blurry: str) -> list[Item]:
    """<scene>/{blurry,sharp}/* below a folder."""
    if not folder.is_dir():
        raise Missing(f"{folder.name}/")
    found = [scene for scene in sorted(folder.iterdir()) if (scene / "sharp").is_dir()]
    if not found:
        raise Missing(f"{folder.name}/<scene>/sharp/")
    if not all((scene / blurry).is_dir() for scene in found):
        raise Missing(f"{folder.name}/<scene>/{blurry}/")
    return [item for scene in found for item in match(scene / blurry, scene / "sharp", prefix=f"{scene.name}/")]


def gopro(root: Path, split: str) -> list[Item]:
    return scenes(root / split, "blur")


def gopro_gamma(root: Path, split: str) -> list[Item]:
    return scenes(root / split, "blur_gamma")


def reds(root: Path, split: str) -> list[Item]:
    folder = root / split if (root / split).is_dir() else root
    return match(below(folder, f"{split}_blur"), below(folder, f"{split}_sharp"))


def hide(root: Path, split: str) -> list[Item]:
    truth, folder = below(root, "GT"), below(root, split)
    parts = [folder] if split == "train" else [below(folder, "test-close-ups"), below(folder, "test-long-shot")]
    return [item for part in parts for item in match(part, truth, group=part.name, unused=True)]


def listed(root: Path, patterns: list[str], sharp: str) -> list[Item]:
    """Pairs of a list file: each line holds a sharp and a blurry path, told apart by the folder name `sharp`."""
    lists = [path for pattern in patterns for path in sorted(root.glob(pattern))]
    if not lists:
        raise Missing(" or ".join(patterns))
    items = []
    for path in lists:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            words = line.split()
            truths = [word for word in words if f"/{sharp}/" in f"/{word}"]
            inputs = [word for word in words if word not in truths]
            if words and not (truths and inputs):
                raise ValueError(f"{path}, line {number}: expected a path through {sharp}/ and one of the blurry image")
            if words:
                name = Path(inputs[0]).with_suffix("").as_posix()
                items.append(Item(name, root / inputs[0], root / truths[0], Path(inputs[0]).parts[0]))
    if absent := [path for item in items for path in (item.blurry, item.sharp) if path and not path.is_file()]:
        raise ValueError(f"{lists[0].name} names {len(absent)} files that are not there; the first is {absent[0]}")
    return items


def realblur(root: Path, split: str) -> list[Item]:
    return listed(root, [f"RealBlur_J_{split}_list.txt", f"RealBlur_R_{split}_list.txt"], "gt")


def rsblur(root: Path, split: str) -> list[Item]:
    return listed(root, [f"RSBlur_real_{split}.txt"], "gt")


def blur2blur(root: Path, split: str) -> list[Item]:
    if split == "test":
        return [Item(f"testA/{path.stem}", path, None) for path in images_under(below(root, "testA"))]
    known_blur, truth = below(root, "trainC"), below(root, "trainD")
    target = [Item(f"trainA/{path.stem}", path, None, "target") for path in images_under(below(root, "trainA"))]
    return match(known_blur, truth, group="known", prefix="trainC/") + target


def extreme(root: Path, split: str) -> list[Item]:
    sharp, levels = below(root, "sharp"), below(root, "blurred_levels")
    found = sorted((level for level in levels.iterdir() if level.is_dir()), key=natural_order)
    if not found:
        raise Missing("blurred_levels/blur_<level>/")
    return [item for level in found for item in match(level, sharp, level.name, f"{level.name}/", unused=True)]


def paired(root: Path, split: str) -> list[Item]:
    folder = next((root / name for name in SPLITS.get(split, (split,)) if (root / name).is_dir()), root)
    return match(below(folder, *BLURRY), below(folder, *SHARP))


def unpaired(root: Path, split: str) -> list[Item]:
    blurry, sharp = images_under(below(root, "unpaired")), images_under(below(root, "sharp"))
    return [Item(f"unpaired/{path.stem}", path, None, "unpaired") for path in blurry] + [
        Item(f"sharp/{path.stem}", None, path, "sharp") for path in sharp
    ]


def plain(root: Path, split: str) -> list[Item]:
    try:
        return [Item(path.stem, None, path) for path in list_images(root)]
    except ValueError:
        raise Missing("images in the folder itself") from None


# Tried in this order: what is more particular comes first.
LAYOUTS = {
    "realblur": Layout("RealBlur_J|R_train|test_list.txt beside the scenes", "paired", realblur),
    "rsblur": Layout("RSBlur_real_train|val|test.txt beside the scenes", "paired", rsblur),
    "gopro": Layout("train|test/<scene>/{blur,sharp}/", "paired", gopro),
    "gopro-gamma": Layout("train|test/<scene>/{blur_gamma,sharp}/", "paired", gopro_gamma),
    "reds": Layout("[train|val/]{train|val}_{blur,sharp}/<scene>/", "paired", reds),
    "hide": Layout("train/, test/{test-close-ups,test-long-shot}/ and GT/", "paired", hide),
    "blur2blur": Layout(
        "trainA/ target, trainC/ blurry, trainD/ its sharp twins, testA/ target", "unpaired", blur2blur
    ),
    "extreme": Layout("sharp/ beside blurred_levels/blur_<level>/", "paired", extreme),
    "paired": Layout(f"[split/]{{{'|'.join(BLURRY)}}}/ and {{{'|'.join(SHARP)}}}/", "paired", paired),
    "unpaired": Layout("unpaired/ (blurry) beside sharp/", "unpaired", unpaired),
    "plain": Layout("images in the folder itself", "images", plain),
}


def recognise(root: str | Path, split: str = "test", layout: str | None = None) -> tuple[str, list[Item]]:
    """The name of a folder's layout and its items; only `layout` is tried when it is given.

    Raises `ValueError` for a folder that does not exist, images without twins, an unknown layout, and a folder in no
    layout: then the sentence says for each what is missing.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder")
    if layout is not None and layout not in LAYOUTS:
        raise ValueError(f"there is no layout {layout!r}; the layouts are {', '.join(LAYOUTS)}")
    tried = []
    for name in [layout] if layout else LAYOUTS:
        try:
            return name, LAYOUTS[name].find(root, split)
        except Missing as missing:
            tried.append(f"{name} (no {missing})")
    raise ValueError(f"{root}, split {split}, is in no layout known here; tried {', '.join(tried)}")
