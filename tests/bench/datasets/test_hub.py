"""Datasets of the Hugging Face hub, from snapshots that the test writes."""

import io

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from pairs import write_pairs
from PIL import Image

from bench.config.settings import TransformConfig
from bench.config.trial import DATASETS
from bench.datasets import DataError, hub

SIZE = TransformConfig(size=16)


@pytest.fixture
def snapshot(tmp_path):
    """Two train shards and a test file of pairs, as ``datasets`` writes them, and the folders of the same files."""
    images, masks = write_pairs(tmp_path / "files", 8, size=(24, 20))
    stems = sorted(path.stem for path in images.iterdir())
    (tmp_path / "hub" / "data").mkdir(parents=True)
    shards = {"train-00000-of-00002": stems[:3], "train-00001-of-00002": stems[3:5], "test-00000-of-00001": stems[5:]}
    for name, of_shard in shards.items():
        write(tmp_path / "hub" / "data" / f"{name}.parquet", images, masks, of_shard)
    return tmp_path / "hub"


def write(path, images, masks, stems, image="image", mask="mask"):
    rows = {
        image: [{"bytes": (images / f"{stem}.jpg").read_bytes(), "path": f"{stem}.jpg"} for stem in stems],
        mask: [{"bytes": (masks / f"{stem}.png").read_bytes(), "path": None} for stem in stems],
        "extra": list(range(len(stems))),
    }
    pyarrow.parquet.write_table(pyarrow.table(rows), path)


def config(**changes):
    return DATASETS.parse({"name": "hub", "id": "some/set", "val": 0.0, **changes})


def build(**changes):
    return DATASETS.build(config(**changes), SIZE)


def complaint(**changes):
    with pytest.raises(DataError) as error:
        build(**changes)
    return str(error.value)


def test_rows_are_the_files_that_they_were_made_from(snapshot, tmp_path):
    data = build(local=str(snapshot))
    assert data.train.names == tuple(f"{i:06d}-pair {i:03d}" for i in range(5))
    assert data.test.names == tuple(f"{i:06d}-pair {i + 5:03d}" for i in range(3))
    image = Image.open(tmp_path / "files" / "images" / "pair 006.jpg").resize((16, 16), Image.Resampling.BILINEAR)
    assert np.array_equal(data.test.images[data.test.indices[1]], np.asarray(image))
    mask = Image.open(tmp_path / "files" / "masks" / "pair 006.png")
    assert np.array_equal(data.test.ground_truth(1), np.asarray(mask))
    assert list(data.set_fingerprints) == ["train", "test"]
    assert build(local=str(snapshot)).fingerprint == data.fingerprint


def test_without_a_test_split_one_is_taken_from_the_pairs(snapshot):
    data = build(local=str(snapshot), test_split=None, test=0.4)
    assert [len(s) for s in (data.train, data.val, data.test)] == [3, 0, 2]


def test_other_columns_and_plain_bytes(snapshot, tmp_path):
    images, masks = (tmp_path / "files" / side for side in ("images", "masks"))
    (tmp_path / "other").mkdir()
    rows = {
        "jpg": [path.read_bytes() for path in sorted(images.iterdir())],
        "png": [path.read_bytes() for path in sorted(masks.iterdir())],
    }
    pyarrow.parquet.write_table(pyarrow.table(rows), tmp_path / "other" / "train.parquet")
    given = {"local": str(tmp_path / "other"), "test_split": None}
    assert len(build(**given, image="jpg", mask="png").train) == 6
    assert "no column image and no mask in train.parquet. Columns: jpg, png. Set dataset.image" in complaint(**given)


def test_a_snapshot_that_is_not_there_is_found_before_anything_starts(tmp_path):
    (gone,) = config(local=str(tmp_path / "no")).missing()
    assert gone.field == "local" and "hf download --repo-type dataset some/set" in gone.remedy


def test_what_a_snapshot_lacks_is_said(snapshot, tmp_path):
    assert "no file of a split 'training'. Files: data/test-00000-of-00001.parquet, data/train-0" in complaint(
        local=str(snapshot), train_split="training"
    )
    (tmp_path / "empty").mkdir()
    assert "no Parquet files in" in complaint(local=str(tmp_path / "empty"))
    (tmp_path / "empty" / "train.parquet").write_bytes(b"no parquet")
    assert "train.parquet: cannot be read as Parquet" in complaint(local=str(tmp_path / "empty"), test_split=None)


@pytest.mark.parametrize("cell", [{"bytes": None, "path": "x.jpg"}, {"bytes": b"GIF89a", "path": "x.gif"}])
def test_a_row_without_an_image_is_named(tmp_path, cell):
    stream = io.BytesIO()
    Image.new("L", (4, 4)).save(stream, "PNG")
    rows = {"image": [cell], "mask": [{"bytes": stream.getvalue(), "path": "m.png"}]}
    (tmp_path / "hub").mkdir()
    pyarrow.parquet.write_table(pyarrow.table(rows), tmp_path / "hub" / "train.parquet")
    assert "row 0 holds no" in complaint(local=str(tmp_path / "hub"), test_split=None)


def test_a_hub_that_cannot_be_reached_is_a_clear_line(monkeypatch):
    def unreachable(*arguments, **more):
        raise FileNotFoundError("An error happened while trying to locate the files\nlong story")

    monkeypatch.setattr(hub, "snapshot_download", unreachable)
    said = complaint()
    assert "some/set: cannot be had from the Hugging Face hub (An error happened" in said and "\n" not in said
    assert "hf auth login" in said and "dataset.local=DIR" in said


def test_an_id_is_downloaded_at_its_revision(monkeypatch, snapshot):
    asked = {}

    def download(name, **more):
        asked.update(more, id=name)
        return str(snapshot)

    monkeypatch.setattr(hub, "snapshot_download", download)
    assert len(build(revision="abc").train) == 5
    assert (asked["id"], asked["revision"], asked["repo_type"]) == ("some/set", "abc", "dataset")


def test_some_of_the_training_images_are_used(snapshot):
    every, some = build(local=str(snapshot)), build(local=str(snapshot), train_images=2)
    assert len(some.train) == 2 and set(some.train.names) < set(every.train.names)
    assert some.test.names == every.test.names and some.source_fingerprint == every.source_fingerprint
    assert "At most 5, or all" in complaint(local=str(snapshot), train_images=6)
