import io

import numpy as np
import pytest
from PIL import Image

from assay.data import ImageDataset, write_dataset
from assay.data.dataset import image_bytes
from assay.errors import UserError
from assay.forensics.corpus import (
    assemble_detection_data,
    encode_alike,
    jpeg_quality_of,
    load_split,
    open_detection_data,
    seen_generators,
)
from assay.forensics.halves import generator_half

SMALL = {"train": 60, "validation": 20, "calibration": 20, "test": 20}


@pytest.fixture
def generated(tmp_path):
    """What two generators made: 80 images of each split."""
    made = []
    for number, name in enumerate(("dcgan", "vae")):
        images = np.random.default_rng(number).integers(0, 256, (320, 16, 16), dtype=np.uint8)
        made.append(
            write_dataset(
                tmp_path / name,
                images=images,
                labels=np.zeros(320, int),
                splits=np.repeat(["train", "validation", "calibration", "test"], 80),
                class_names=["generated"],
                name=name,
                extra={"generator": [name] * 320, "category": [""] * 320},
            ).path
        )
    return made


def assemble(dataset, generated, config, tmp_path):
    counts = assemble_detection_data(
        dataset, generated, config, corpus=tmp_path / "corpus", metrics=tmp_path / "metrics.json"
    )
    return open_detection_data(tmp_path / "corpus"), counts


def test_both_classes_come_together_and_unseen_generators_stay_out_of_training(digits, generated, tmp_path):
    corpus, counts = assemble(digits.path, generated, SMALL, tmp_path)
    assert seen_generators(corpus) == ["dcgan"]
    train, test = load_split(corpus, "train"), load_split(corpus, "test")
    assert (len(train.real), len(train.generated)) == (60, 60)
    assert (len(test.real), len(test.generated)) == (20, 40)
    assert set(test.generators) == {"dcgan", "vae"}
    assert set(load_split(corpus, "calibration").generators) == {"dcgan"}
    assert set(load_split(corpus, "validation").generators) == {"dcgan", "vae"}
    assert len(load_split(corpus, "test", generators=["vae"]).generated) == 20
    assert counts["generators"] == 2
    dcgan = ImageDataset.open(generated[0]).split("test").images[:20]
    assert (load_split(corpus, "test", generators=["dcgan"]).generated == dcgan).all()


def test_images_that_generators_learned_from_are_not_among_the_detectors_real_ones(digits, generated, tmp_path):
    corpus, _ = assemble(digits.path, generated, {**SMALL, "train": 5000}, tmp_path)
    ids = [sample for sample in corpus.table("train")["sample_id"].to_pylist() if not sample.startswith("dcgan/")]
    source = digits.table("train")["sample_id"].to_pylist()
    assert ids and not generator_half(np.array(ids)).any()
    assert len(ids) + generator_half(np.array(source)).sum() == len(source)


def test_without_generated_images_none_is_read(digits, generated, tmp_path, monkeypatch):
    corpus, _ = assemble(digits.path, generated, SMALL, tmp_path)
    decoded = []
    from assay.data import codec

    decode_all = codec.decode_all
    monkeypatch.setattr(
        codec, "decode_all", lambda encoded, *rest: decoded.extend(encoded) or decode_all(encoded, *rest)
    )
    split = load_split(corpus, "train", generated=False)
    assert split.generated is None and len(split.real) == 60
    table = corpus.table("train")
    labels = dict(zip(image_bytes(table), table["label"].to_pylist(), strict=True))
    assert [labels[data] for data in decoded] == [0] * 60


def test_both_classes_get_the_codec_of_the_source(digits_arrays, generated, tmp_path):
    images, labels, splits = digits_arrays
    source = write_dataset(
        tmp_path / "jpegs",
        images=encode_alike(images[:, None], "jpeg", 80),
        labels=labels,
        splits=splits,
        class_names=[str(k) for k in range(10)],
        name="jpegs",
    )
    corpus, _ = assemble(source.path, generated, SMALL, tmp_path)
    formats = {Image.open(io.BytesIO(data)).format for data in image_bytes(corpus.table())}
    tables = {
        tuple(map(tuple, Image.open(io.BytesIO(data)).quantization.values())) for data in image_bytes(corpus.table())
    }
    assert formats == {"JPEG"} and len(tables) == 1
    assert Image.open(io.BytesIO(encode_alike(images[:1, None], "png")[0])).format == "PNG"


@pytest.mark.parametrize(("config", "quality"), [({}, None), ({"codec": "jpeg", "jpeg_quality": 83}, 83)])
def test_the_quality_of_the_last_encoding_is_read_from_the_images(detection_data, tmp_path, config, quality):
    corpus, _ = assemble(detection_data.path, [], config, tmp_path)
    assert jpeg_quality_of(corpus) == quality


def test_a_data_set_with_generated_images_is_encoded_anew(detection_data, tmp_path):
    corpus, counts = assemble(detection_data.path, [], {"codec": "jpeg"}, tmp_path)
    assert counts["train"] == detection_data.info.splits["train"]
    assert seen_generators(corpus) == ["blocks"]
    assert all(data[:2] == b"\xff\xd8" for data in image_bytes(corpus.table()))


def test_what_does_not_fit_is_refused(digits, detection_data, generated, tmp_path):
    for dataset, made, config, sentence in (
        (digits.path, generated[1:], {}, "No generated image comes from 'dcgan'"),
        (detection_data.path, generated, {}, "has generated images of its own"),
        (digits.path, generated, {"codec": "gif"}, "detection_data.codec"),
        (digits.path, generated, {"trian": 3}, "detection_data.trian is not a setting"),
    ):
        with pytest.raises(UserError, match=sentence):
            assemble(dataset, made, config, tmp_path)
    with pytest.raises(UserError, match="instead of real, generated"):
        open_detection_data(digits.path)
    assert not (tmp_path / "corpus").exists()
