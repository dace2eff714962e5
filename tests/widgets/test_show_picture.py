"""The reader's picture: every kind of file is either taken whole or refused by name, and nothing is lost."""

import datetime
import io

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from course_lib import datasets, files, show
from course_lib.show import picture

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch, tmp_path):
    """A cache of its own, and a reader who is allowed a picture of their own."""
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "not" / "there" / "yet"))
    monkeypatch.delenv("COURSE_PICTURE", raising=False)


def noise(height=40, width=60, channels=3, dtype=np.uint8):
    random = np.random.default_rng(0)
    shape = (height, width, channels) if channels > 1 else (height, width)
    return random.integers(0, np.iinfo(dtype).max + 1, shape, dtype)


def file(array, form="PNG", **options):
    stream = io.BytesIO()
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(stream, form, **options)
    return stream.getvalue()


def test_until_one_is_chosen_it_is_the_cat():
    """Oracle: datasets.photograph."""
    assert torch.equal(show.your_picture(), datasets.photograph("chelsea"))
    assert torch.equal(show.your_picture((32, 48)), datasets.photograph("chelsea", (32, 48)))


def test_a_chosen_picture_comes_back_in_every_size(monkeypatch):
    """Oracle: the array that was uploaded; COURSE_PICTURE=default brings the cat back."""
    array = noise()
    show.store_picture("mine.png", file(array))
    assert torch.equal(show.your_picture(), datasets.from_uint8(array))
    assert show.your_picture((20, 20)).shape == (3, 20, 20)
    monkeypatch.setenv("COURSE_PICTURE", "default")
    assert torch.equal(show.your_picture(), datasets.photograph("chelsea"))
    monkeypatch.delenv("COURSE_PICTURE")
    show.forget_picture()
    show.forget_picture()
    assert torch.equal(show.your_picture(), datasets.photograph("chelsea"))


def test_grey_sixteen_bits_alpha_and_palette_become_rgb():
    """Oracle: arithmetic by hand on the arrays."""
    grey = noise(channels=1)
    assert torch.equal(show.store_picture("g.png", file(grey)), datasets.from_uint8(grey).expand(3, -1, -1))
    deep = noise(channels=1, dtype=np.uint16)
    show.store_picture("deep.png", file(deep))
    wanted = torch.from_numpy(np.floor(deep / 65535 * 255 + 0.5).astype(np.float32) / 255)
    assert torch.allclose(show.your_picture()[0], wanted, atol=1e-6)
    clear = noise(channels=4)
    clear[..., 3] = 0
    assert torch.equal(show.store_picture("clear.png", file(clear)), torch.ones(3, 40, 60))
    indexed = Image.fromarray(noise()).quantize(8)
    rgb = datasets.from_uint8(np.asarray(indexed.convert("RGB")))
    assert torch.equal(show.store_picture("p.png", file(indexed)), rgb)


def test_orientation_is_obeyed():
    """Oracle: EXIF tag 6 means that the stored rows are the columns of the picture, so it is turned clockwise."""
    image = Image.fromarray(noise())
    exif = image.getexif()
    exif[274] = 6
    show.store_picture("phone.png", file(image, exif=exif))
    assert torch.equal(show.your_picture(), datasets.from_uint8(np.rot90(noise(), -1).copy()))


def test_a_photograph_is_reduced_before_it_is_kept():
    """Oracle: 1024 pixels on the longer side, aspect kept, values in [0, 1]."""
    show.store_picture("big.jpg", file(noise(1200, 3000), "JPEG"))
    image = show.your_picture()
    assert image.shape == (3, 410, 1024)
    assert 0 <= float(image.min()) < float(image.max()) <= 1


def deep_tiff(height, width):
    """A picture whose size Pillow cannot tell: 16 bits of grey, with alpha."""
    stream = io.BytesIO()
    planes = noise(height, 2 * width, 1, np.uint16).reshape(height, width, 2)
    tifffile.imwrite(stream, planes, photometric="minisblack", planarconfig="contig", extrasamples=["unassalpha"])
    return stream.getvalue()


def animated():
    frames = [Image.fromarray(noise()), Image.fromarray(255 - noise())]
    return file(frames[0], "GIF", save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("empty.png", b"", datasets.UnreadablePicture, "empty.png: the file is empty"),
        ("notes.png", b"hello " * 50, datasets.UnreadablePicture, "notes.png: not a picture"),
        ("cut.png", file(noise())[:900], datasets.UnreadablePicture, "cut.png: the file is truncated"),
        ("cut.jpg", file(noise(), "JPEG")[:900], datasets.UnreadablePicture, "cut.jpg: the file is truncated"),
        ("move.gif", animated(), datasets.UnreadablePicture, "move.gif: it holds 2 frames"),
        ("dot.png", file(noise(1, 1)), show.UnsuitablePicture, r"dot.png has 1 x 1 pixels, at least 16"),
        ("line.png", file(noise(15, 400)), show.UnsuitablePicture, r"line.png has 15 x 400 pixels"),
        (
            "rope.png",
            file(noise(16, 1025)),
            show.UnsuitablePicture,
            r"rope.png has 16 x 1025 pixels, more than 64 to 1",
        ),
        ("mast.png", file(noise(20_000, 16)), show.UnsuitablePicture, r"mast.png has 20000 x 16 pixels, .* cut out"),
        ("deep.tif", deep_tiff(15, 400), show.UnsuitablePicture, r"deep.tif has 15 x 400 pixels, at least 16"),
        (
            "wall.png",
            file(Image.new("1", (10_000, 5_001))),
            show.UnsuitablePicture,
            r"wall.png has 5001 x 10000 = 50 megapixels",
        ),
        (
            "bomb.png",
            file(Image.new("1", (20_000, 20_000))),
            show.UnsuitablePicture,
            r"bomb.png has far more than 50 megapixels",
        ),
        ("C:\\photos\\ink.jpg", file(Image.new("CMYK", (40, 40)), "JPEG"), datasets.UnreadablePicture, "ink.jpg: its"),
        ("../../etc/x.png", b"x", datasets.UnreadablePicture, r"cannot read x\.png"),
    ],
    ids=lambda v: v if isinstance(v, str) and len(v) < 20 else "",
)
def test_what_cannot_be_taken_is_refused_by_name_and_nothing_is_lost(name, content, error, message):
    """Oracle: the picture chosen before is still there, bit for bit; the message names the file, not its path."""
    show.store_picture("mine.png", file(noise()))
    with pytest.raises(error, match=message) as caught:
        show.store_picture(name, content)
    assert "tmp" not in str(caught.value).lower()
    assert torch.equal(show.your_picture(), datasets.from_uint8(noise()))


def test_a_long_picture_is_still_wide_enough_when_it_is_stored():
    """Oracle: 64 to 1 is the longest shape that keeps 16 pixels at 1024; a deep TIFF that is wide enough is taken."""
    assert show.store_picture("long.png", file(noise(32, 2048))).shape == (3, 16, 1024)
    assert show.store_picture("deep.tif", deep_tiff(40, 60)).shape == (3, 40, 60)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("\N{CAT FACE}" * 300 + ".png", "\N{CAT FACE}" * 76 + ".png"),
        ("a\0b.png", "ab.png"),
        ("x" * 5000, "x" * 80),
        ("a\udc80b.png", "ab.png"),
        ("..", ".."),
        (".", "."),
        ("", "picture"),
        ("folder/", "picture"),
        ("\0", "picture"),
        ("a\nb.png", "ab.png"),
    ],
    ids=["emoji", "nul", "long", "surrogate", "parent", "here", "none", "folder", "only nul", "line"],
)
def test_a_file_may_have_any_name(name, said):
    """Oracle: the picture is taken whole; a bad one is refused by at most 80 printable signs of its name."""
    box = show.upload()
    assert box.receive(name, file(noise()))
    assert torch.equal(show.your_picture(), datasets.from_uint8(noise()))
    assert f"{said} goes with you" in box.message.value
    assert not box.receive(name, b"nonsense")
    assert f"{said}: not a picture" in box.message.value
    assert len(box.message.value) < 250


def test_a_disk_that_fails_keeps_the_picture_before(monkeypatch):
    """Oracle: os.replace fails as on a full disk; the older file is still whole and no neighbour is left."""
    show.store_picture("mine.png", file(noise()))

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(files.CannotWrite, match="no space left"):
        show.store_picture("other.png", file(255 - noise()))
    assert torch.equal(show.your_picture(), datasets.from_uint8(noise()))
    assert len(list(files.cache_dir().iterdir())) == 1


def test_a_damaged_cache_says_what_to_do():
    """Oracle: the message leads back to chapter 00."""
    show.store_picture("mine.png", file(noise()))
    path = files.cache_dir() / "your_picture.png"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(datasets.UnreadablePicture, match="choose your picture again in chapter 00"):
        show.your_picture()
    box = show.upload()
    assert "choose your picture again" in box.message.value


def file_from_browser(name, content):
    """A file as ipywidgets hands it over."""
    return {
        "name": name,
        "type": "image/png",
        "size": len(content),
        "content": memoryview(content),
        "last_modified": NOW,
    }


def test_the_box_takes_refuses_and_forgets():
    """Oracle: the tensor that your_picture gives after each step, and what the reader is told."""
    box = show.upload()
    before = box.image.value
    box.chooser.set_trait("value", (file_from_browser("mine.png", file(noise())),))
    assert torch.equal(show.your_picture(), datasets.from_uint8(noise()))
    assert "mine.png goes with you" in box.message.value
    assert box.image.value != before
    taken = box.image.value
    assert not box.receive("<b>.png", b"nonsense")
    assert "&lt;b&gt;.png" in box.message.value
    assert box.image.value == taken
    assert box.receive("<i>.png", file(noise()))
    assert box.message.value.startswith("&lt;i&gt;.png goes with you")
    box.back.click()
    assert torch.equal(show.your_picture(), datasets.photograph("chelsea"))
    assert box.image.value == before


def test_the_stored_output_of_the_box_is_a_picture():
    """Oracle: the bundle without its widget view."""
    data, about = show.upload()._repr_mimebundle_()
    assert data.pop("application/vnd.jupyter.widget-view+json")
    assert Image.open(io.BytesIO(data["image/png"])).size == (451, 300)
    assert data["text/plain"] == "[choose a picture of your own]"
    assert about["image/png"]["alt"]


def test_an_impossible_size_is_refused():
    """Oracle: the message of datasets.photograph, for the reader's picture too."""
    show.store_picture("mine.png", file(noise()))
    with pytest.raises(ValueError, match="size must be"):
        show.your_picture((0, 10))


def test_the_limits_are_those_that_the_text_names():
    """Oracle: the numbers that the docstring promises."""
    assert picture.MOST_PIXELS == 50_000_000
    assert f"{picture.STORED_SIDE} pixels a side" in picture.store_picture.__doc__
    assert f"under {picture.LEAST_SIDE} pixels" in picture.store_picture.__doc__
    assert f"longer than {picture.LONGEST_SHAPE} to 1" in picture.store_picture.__doc__
