"""Pictures of items as a channel, beside what Transformers' models make of them by hand."""

import shutil

import numpy as np
import pytest

from uem_t5x import cli
from uem_t5x.base.errors import InputError
from uem_t5x.data import channels
from uem_t5x.data.dataset_folder import DatasetFolder
from uem_t5x.encoders import images

torch = pytest.importorskip("torch", reason="PyTorch is no part of this project's set")
transformers = pytest.importorskip("transformers", reason="Transformers is no part of this set")
from PIL import Image  # noqa: E402  comes with them

SIDE = 30
TOWER = {
    "hidden_size": 32,
    "intermediate_size": 37,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": SIDE,
    "patch_size": 6,
}
TEXT = {**{k: TOWER[k] for k in list(TOWER)[:4]}, "vocab_size": 50, "eos_token_id": 1}


def _clip():
    vision = transformers.CLIPVisionConfig(**TOWER, projection_dim=16)
    text = transformers.CLIPTextConfig(**TEXT, bos_token_id=0, projection_dim=16)
    both = transformers.CLIPConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16
    )
    return {
        "clip": transformers.CLIPModel(both),
        "clip_vision": transformers.CLIPVisionModel(vision),
        "clip_vision_projected": transformers.CLIPVisionModelWithProjection(vision),
    }


def _siglip():
    vision = transformers.SiglipVisionConfig(**TOWER)
    text = transformers.SiglipTextConfig(**TEXT, bos_token_id=0, projection_size=32)
    both = transformers.SiglipConfig(text_config=text.to_dict(), vision_config=vision.to_dict())
    return {
        "siglip": transformers.SiglipModel(both),
        "siglip_vision": transformers.SiglipVisionModel(vision),
    }


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Small random vision models, and where each lies with its image processor."""
    torch.manual_seed(0)
    side = {"height": SIDE, "width": SIDE}
    processors = {
        "clip": transformers.CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=side),
        "siglip": transformers.SiglipImageProcessorPil(size=side),
    }
    found = {}
    for name, model in {**_clip(), **_siglip()}.items():
        folder = tmp_path_factory.mktemp("models") / name
        model.save_pretrained(folder)
        processors[name.split("_")[0]].save_pretrained(folder)
        found[name] = model.eval(), folder
    return found


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, dataset_folder):
    """Of three movies and of one that is not there, in three forms; beside them another file."""
    folder = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    ids = dataset_folder.movies()["movieId"].to_list()
    for movie_id, suffix in zip((ids[9], ids[4], ids[7], 987_654), ("png", "bmp", "webp", "png")):
        pixels = draw.integers(0, 256, (40, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{movie_id}.{suffix}", lossless=True)
    (folder / "README.txt").write_text("Posters.")
    return folder


def by_hand(name, model, picture):
    """The features of a picture of 40 x 30: read, cut or resized, normalized, projected."""
    with Image.open(picture) as image:
        if name.startswith("clip"):
            pixels = np.asarray(image.convert("RGB"), np.float32)[5:35] / 255
            mean = [0.48145466, 0.4578275, 0.40821073]
            std = [0.26862954, 0.26130258, 0.27577711]
        else:
            resized = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            pixels, mean, std = np.asarray(resized, np.float32) / 255, [0.5] * 3, [0.5] * 3
    normal = np.transpose((pixels - np.array(mean)) / np.array(std), (2, 0, 1))
    with torch.no_grad():
        vision = getattr(model, "vision_model", model)
        pooled = vision(torch.tensor(normal[None], dtype=torch.float32)).pooler_output
        projection = getattr(model, "visual_projection", lambda vectors: vectors)
        return projection(pooled)[0].numpy()


@pytest.mark.parametrize(
    "name", ["clip", "clip_vision", "clip_vision_projected", "siglip", "siglip_vision"]
)
def test_pictures_become_a_channel(name, models, pictures, dataset_folder, tmp_path):
    model, source = models[name]
    folder = shutil.copytree(dataset_folder.path, tmp_path / "folder")
    added = channels.add_pictures(folder, "poster", pictures, str(source))
    assert (added.filled, added.unknown) == (3, 1)
    matrix = DatasetFolder.open(folder).embedding("poster")
    ids = dataset_folder.movies()["movieId"].to_list()
    for row, suffix in ((9, "png"), (4, "bmp"), (7, "webp")):
        expected = by_hand(name, model, pictures / f"{ids[row]}.{suffix}")
        np.testing.assert_allclose(matrix[row], expected / np.linalg.norm(expected), atol=1e-5)
    assert not np.delete(matrix, [9, 4, 7], axis=0).any()
    assert added.channel.width == matrix.shape[1] == len(expected)


def test_a_picture_is_turned_and_alone(models, tmp_path):
    """As its EXIF data say; and its vector depends on no other picture."""
    pixels = np.random.default_rng(1).integers(0, 256, (36, 48, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "1.png", exif=exif)
    image.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "2.png")
    image.convert("L").save(tmp_path / "3.png")
    files = [tmp_path / f"{number}.png" for number in (1, 2, 3)]
    encoder = images.ImageEncoder(str(models["clip"][1]))
    told = []
    turned, upright, grey = encoder.encode(files, told.append)
    np.testing.assert_allclose(turned, upright, atol=1e-6)
    assert np.abs(grey - turned).max() > 1e-4
    (alone,) = encoder.encode(files[2:], told.append)
    np.testing.assert_allclose(alone, grey, atol=1e-5)
    assert told == [3, 1]


def _bytes_of(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def _picture(path):
    Image.new("RGB", (8, 8), "red").save(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder, known: None, "no pictures; name them by their items' ids"),
        (lambda folder, known: _picture(folder / "poster.png"), "poster.png: name it by its item"),
        (lambda folder, known: _picture(folder / "987654.png"), "none of its 1 pictures is of an"),
        (
            lambda folder, known: [_picture(folder / f"{known}{end}") for end in (".png", ".bmp")],
            r"\.png: \d+\.bmp is of the same item; leave one of them",
        ),
        (
            lambda folder, known: (folder / f"{known}.jpg").write_bytes(b"\xff\xd8 nonsense"),
            r"\d\.jpg: cannot be read as a picture \(cannot identify",
        ),
    ],
)
def test_pictures_that_are_refused(make, message, models, dataset_folder, tmp_path):
    folder = shutil.copytree(dataset_folder.path, tmp_path / "folder")
    before = _bytes_of(folder)
    (tmp_path / "pictures").mkdir()
    make(tmp_path / "pictures", dataset_folder.movies()["movieId"][3])
    with pytest.raises(InputError, match=message):
        channels.add_pictures(folder, "poster", tmp_path / "pictures", str(models["clip"][1]))
    assert _bytes_of(folder) == before


def test_a_picture_that_is_cut_off(models, dataset_folder, tmp_path):
    known = dataset_folder.movies()["movieId"][3]
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"{known}.jpg")
    whole = (tmp_path / f"{known}.jpg").read_bytes()
    (tmp_path / f"{known}.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"\.jpg: cannot be read as a picture .*truncated"):
        channels.add_pictures(
            dataset_folder.path, "poster", tmp_path, str(models["siglip_vision"][1])
        )


def test_models_that_are_none(models, tmp_path):
    with pytest.raises(InputError, match=r"none: no image encoder can be loaded"):
        images.ImageEncoder(str(tmp_path / "none"))
    # A model without the weights of a layer, which Transformers fills with noise.
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(models["clip_vision"][1], tmp_path / "lacking")
    weights = load_file(folder / "model.safetensors")
    lost = next(name for name in sorted(weights) if "post_layernorm.weight" in name)
    save_file({n: w for n, w in weights.items() if n != lost}, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"has no weights for .*post_layernorm\.weight"):
        images.ImageEncoder(str(folder))


def test_on_the_command_line(models, pictures, dataset_folder, tmp_path, capfd):
    folder = shutil.copytree(dataset_folder.path, tmp_path / "folder")
    arguments = ["channel", "add", str(folder), "--name", "poster", "--images", str(pictures)]
    assert cli.main(arguments) == 2
    assert "--images and --image-encoder go together" in capfd.readouterr().err
    arguments += ["--image-encoder", str(models["clip"][1])]
    assert cli.main([*arguments, "--per", "rating"]) == 2
    assert "leave --ids and --per out" in capfd.readouterr().err
    assert cli.main(arguments) == 0
    told = capfd.readouterr()
    assert "poster: 16 columns, 3 of" in told.out
    assert "1 pictures of items that are not there, left out" in told.out
    assert not told.err, told.err
