"""``dataset.train_images`` and ``dataset.split``: which images a trial trains on, and what its seed draws."""

import numpy as np
import pytest
from pairs import put, write_pairs

from bench.config.errors import ConfigError
from bench.config.expand import Trial, data_key
from bench.config.settings import TransformConfig
from bench.config.trial import DATASETS, TrialConfig, with_value
from bench.datasets import DataError
from bench.scheduling.preflight import prepare_data
from bench.trial import run_trial

SIZE = TransformConfig(size=16)


def build(**config):
    return DATASETS.build(DATASETS.parse(config), SIZE)


@pytest.fixture
def folder(tmp_path):
    images, masks = write_pairs(tmp_path, 20)
    return {"name": "folder", "images": str(images), "masks": str(masks)}


@pytest.fixture
def sets(tmp_path):
    put(tmp_path, "DUTS-TR/DUTS-TR-Image", "DUTS-TR/DUTS-TR-Mask", count=9, seed=1)
    put(tmp_path, "ECSSD/images", "ECSSD/masks", count=3, seed=2)
    return {"name": "benchmark", "root": str(tmp_path), "test": ["ECSSD"], "incomplete": "allow"}


PROCEDURAL = {"name": "procedural", "train": 9, "val": 2, "test": 3, "side": 16}


@pytest.mark.parametrize("dataset", ["folder", "sets", "procedural"])
def test_fewer_images_are_among_more_and_the_other_splits_stay(dataset, request):
    config = PROCEDURAL if dataset == "procedural" else request.getfixturevalue(dataset)
    few, more, every = build(**config, train_images=3), build(**config, train_images=6), build(**config)
    assert [len(few.train), len(more.train)] == [3, 6] and len(every.train) > 6
    assert set(few.train.names) < set(more.train.names) < set(every.train.names)
    for part in (few, more):
        assert (part.val.names, part.test.names) == (every.val.names, every.test.names)
        assert np.array_equal(part.test.images[part.test.indices], every.test.images[every.test.indices])
        assert part.source_fingerprint == every.source_fingerprint and part.fingerprint != every.fingerprint
        place = {name: row for name, row in zip(every.train.names, every.train.indices)}
        for name, row in zip(part.train.names, part.train.indices):
            assert np.array_equal(part.train.images[row], every.train.images[place[name]])
    assert build(**config, train_images="all").fingerprint == every.fingerprint


def test_which_images_depends_on_the_seed_of_the_split_and_not_on_their_names(sets):
    drawn = [build(**sets, train_images=3, split_seed=seed).train.names for seed in range(8)]
    assert len(set(drawn)) > 4
    assert drawn[0] == build(**sets, train_images=3).train.names


def test_other_images_are_neither_read_nor_hashed(folder, tmp_path, monkeypatch):
    chosen = build(**folder, train_images=4)
    used = {*chosen.train.names, *chosen.val.names, *chosen.test.names}
    assert len(used) == 4 + 2 + 4
    for path in (tmp_path / "images").iterdir():
        if path.stem not in used:
            path.write_bytes(b"\0" * path.stat().st_size)
    monkeypatch.setenv("SAM3_BENCH_CACHE", str(tmp_path / "cache"))
    again = build(**folder, train_images=4)
    assert again.fingerprint == chosen.fingerprint and again.source_fingerprint == chosen.source_fingerprint
    assert len(again.train.images) == 10
    with pytest.raises(DataError):
        build(**folder)


def test_a_set_has_a_fingerprint_of_its_own_only_if_all_of_it_is_read(sets):
    assert list(build(**sets).set_fingerprints) == ["DUTS-TR", "ECSSD"]
    assert list(build(**sets, train_images=3).set_fingerprints) == ["ECSSD"]
    assert list(build(**sets, train_images=9).set_fingerprints) == ["DUTS-TR", "ECSSD"]


def test_more_images_than_there_are_is_an_error_that_counts_them(folder, tiny):
    with pytest.raises(DataError, match=r"train_images: 15, but .*images has 14 training pairs. At most 14, or all"):
        build(**folder, train_images=15)
    assert len(build(**folder, train_images=14).train) == 14
    with pytest.raises(ConfigError, match=r"train_images is 300, but there are 256 training scenes .* At most 256, or"):
        with_value(tiny, {"dataset": {"name": "procedural", "train_images": 300}})
    with pytest.raises(ConfigError, match="a number of images is needed, or all .got 'half'"):
        with_value(tiny, {"dataset.train_images": "half"})
    with pytest.raises(ConfigError, match="should be greater than 0"):
        with_value(tiny, {"dataset.train_images": 0})


def test_the_error_comes_before_any_image_is_read(folder, tiny, monkeypatch):
    def read(*_):
        raise AssertionError("a file was read")

    monkeypatch.setattr("bench.datasets.core.pair_reader.content_of", read)
    config = with_value(tiny, {"dataset": {**folder, "train_images": 99}})
    with pytest.raises(ConfigError, match="has 14 training pairs"):
        prepare_data([Trial(config, ())])


@pytest.mark.parametrize("dataset", ["folder", "sets", "procedural"])
@pytest.mark.parametrize("split", ["fixed", "by_seed"])
def test_a_number_that_is_all_images_beside_all_is_an_error(dataset, split, tiny, request):
    config = PROCEDURAL if dataset == "procedural" else request.getfixturevalue(dataset)
    whole = {"folder": 14, "sets": 9, "procedural": 9}[dataset]

    def trials(*counts, **more):
        for count in counts:
            changes = {"dataset": {**config, "split": split, "train_images": count}, "train.batch_size": 2, **more}
            yield Trial(with_value(tiny, changes), (str(count),))

    expected = f"train_images: {whole} and all are the same {whole} images here. Leave one of them out"
    with pytest.raises(ConfigError, match=expected):
        prepare_data([*trials(4, whole, "all")])
    prepare_data([*trials(4, whole - 1, "all")])
    prepare_data([*trials(whole), *trials("all", **{"train.epochs": 3})])  # they differ in something else


def test_a_batch_that_is_too_large_names_the_number_of_images(tiny):
    config = with_value(tiny, {"dataset": {**PROCEDURAL, "train_images": 3}, "train.batch_size": 4})
    expected = r"batch_size: 4 is more than there are training pairs with dataset.train_images=3. At most 3"
    with pytest.raises(ConfigError, match=expected):
        prepare_data([Trial(config, ())])


def test_ids_and_fingerprints_are_those_without_the_settings(tiny):
    assert with_value(tiny, {"dataset.train_images": "all", "dataset.split": "fixed"}).trial_id == tiny.trial_id
    full = TrialConfig.model_validate({"model": "sam3_unet", "dataset": {"name": "duts", "train_images": "all"}})
    assert full.trial_id == "b95c50254d5b"  # as it was before the settings
    assert with_value(tiny, {"dataset.train_images": 4}).trial_id != tiny.trial_id
    assert with_value(tiny, {"dataset.split": "by_seed"}).trial_id != tiny.trial_id


def test_a_record_says_how_many_images_it_was_trained_on(tiny):
    record = run_trial(with_value(tiny, {"dataset.train_images": 5}))
    assert record.status == "ok" and record.provenance.images["train"] == 5
    whole = DATASETS.build(tiny.dataset, tiny.transform)
    assert record.provenance.source_fingerprint == whole.source_fingerprint


def seeds_of(base, dataset, count=3):
    """The data of the first seeds of a trial whose split is drawn with its seed."""
    config = with_value(base, {"dataset": {**dataset, "split": "by_seed"}, "transform.size": 16})
    trials = [config.model_copy(update={"seed": seed}) for seed in range(count)]
    assert len({data_key(trial) for trial in trials}) == count
    return [DATASETS.build(trial.drawn_dataset, trial.transform) for trial in trials]


def test_a_split_by_seed_is_another_one_for_each_seed(folder, tiny):
    first, second, third = seeds_of(tiny, folder)
    assert len({data.test.names for data in (first, second, third)}) == 3
    assert first.source_fingerprint == second.source_fingerprint == third.source_fingerprint
    assert first.source_fingerprint != build(**folder).source_fingerprint  # of a table of another kind
    assert second.test.names == build(**folder, split_seed=1).test.names


def test_a_split_by_seed_leaves_a_test_set_alone(sets, tiny):
    first, second = seeds_of(tiny, {**sets, "train_images": 4}, 2)
    assert first.train.names != second.train.names and first.test.names == second.test.names


def test_scenes_by_seed_are_other_scenes_of_other_names(tiny):
    first, second = seeds_of(tiny, PROCEDURAL, 2)
    assert not set(first.test.names) & set(second.test.names)
    assert not np.array_equal(first.test.images[first.test.indices], second.test.images[second.test.indices])
    assert first.source_fingerprint == second.source_fingerprint


def test_a_trial_reads_the_split_of_its_seed(tiny):
    base = with_value(tiny, {"dataset.split": "by_seed"})
    records = [run_trial(base.model_copy(update={"seed": seed})) for seed in (0, 1)]
    names = [record.image_scores["name"] for record in records]
    assert not set(names[0]) & set(names[1])
    assert len({record.provenance.dataset_fingerprint for record in records}) == 2


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"name": "folder"}, "split fixed (dataset.split_seed 0)"),
        ({"name": "folder", "split_seed": 3}, "split fixed (dataset.split_seed 3)"),
        ({"name": "folder", "split": "by_seed"}, "split drawn anew with each seed"),
        ({"name": "duts"}, "splits of the dataset"),
        ({"name": "duts", "split": "by_seed"}, "splits of the dataset"),
        ({"name": "duts", "train_images": 50}, "split fixed (dataset.split_seed 0)"),
        ({"name": "duts", "val": 0.1, "split": "by_seed"}, "split drawn anew with each seed"),
        ({"name": "benchmark"}, "splits of the dataset"),
        ({"name": "benchmark", "val": 0.1}, "split fixed (dataset.split_seed 0)"),
        ({"name": "hub", "id": "a/b"}, "splits of the dataset"),
        ({"name": "hub", "id": "a/b", "test_split": None}, "split fixed (dataset.split_seed 0)"),
        ({"name": "procedural", "seed": 2}, "split fixed (dataset.seed 2)"),
        ({"name": "procedural", "split": "by_seed"}, "split drawn anew with each seed"),
    ],
)
def test_a_dataset_says_where_its_splits_are_from(changes, expected):
    files = {"images": "a", "masks": "b"} if changes["name"] == "folder" else {}
    assert DATASETS.parse({**files, **changes}).split_in_words() == expected
