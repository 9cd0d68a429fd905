"""Benchmark sets by name: the catalogue, the layouts they are found in, and a trial scored on several of them."""

import re

import pyarrow.parquet
import pytest
from pairs import put
from pydantic import ValidationError

from bench.config.settings import TrainConfig, TransformConfig
from bench.config.trial import DATASETS, TrialConfig
from bench.datasets import DataError
from bench.datasets.core.catalogue import catalogue
from bench.datasets.core.find_sets import find
from bench.records.store import load
from bench.scoring.metrics import OF_PROTOCOL
from bench.trial import run_trial

# --- the catalogue ----------------------------------------------------------------------------------------------------


def test_every_promised_set_and_task_is_there():
    promised = """DUTS-TR DUTS-TE DUT-OMRON HKU-IS PASCAL-S ECSSD MSD PMD CAMO COD10K CHAMELEON NC4K MAS3K RMAS
        Kvasir CVC-ClinicDB CVC-ColonDB ETIS CVC-300"""
    assert set(promised.split()) <= set(catalogue().sets)
    assert set(catalogue().tasks) == {"salient", "mirror", "camouflage", "marine", "polyp"}


def test_tasks_name_sets_metrics_and_recipes_that_exist():
    for name, task in catalogue().tasks.items():
        for variant in (task, *task.variants):
            assert {catalogue().sets[s].role for s in variant.train} == {"train"}
            assert {catalogue().sets[s].role for s in variant.test} == {"test"}
            assert {catalogue().sets[s].task for s in (*variant.train, *variant.test)} == {name}
        assert set(task.metrics) <= set(OF_PROTOCOL[task.protocol])
        TransformConfig.model_validate(task.recipe["transform"])
        TrainConfig.model_validate(task.recipe["train"])
    for entry in catalogue().sets.values():
        known = [catalogue().sets[part].pairs for part in entry.parts]
        assert not known or sum(known) == entry.pairs


def test_every_set_says_its_terms_and_where_it_is_from():
    for name, entry in catalogue().sets.items():
        assert entry.terms and entry.counted and entry.paper and entry.sources, name


# --- finding ----------------------------------------------------------------------------------------------------------

LAYOUTS = [
    ("DUTS-TR", "DUTS-TR/DUTS-TR-Image", "DUTS-TR/DUTS-TR-Mask"),  # original archives
    ("DUTS-TE", "deep/down/DUTS-TE/DUTS-TE-Image", "deep/down/DUTS-TE/DUTS-TE-Mask"),
    ("DUT-OMRON", "DUT-OMRON-image", "pixelwiseGT-new-PNG"),
    ("ECSSD", "ECSSD/images", "ECSSD/ground_truth_mask"),
    ("PASCAL-S", "datasets/imgs/pascal", "datasets/masks/pascal"),
    ("HKU-IS", "HKU-IS/imgs", "HKU-IS/gt"),
    ("CAMO-TR", "CAMO-V.1.0-CVIU2019/Images/Train", "CAMO-V.1.0-CVIU2019/GT"),
    ("CAMO", "CAMO-V.1.0-CVIU2019/Images/Test", "CAMO-V.1.0-CVIU2019/GT"),
    ("HKU-IS", "SOD/HKU_IS/images", "SOD/HKU_IS/segmentations"),  # SALOD
    ("DUTS-TR", "DUTS-TR/images", "DUTS-TR/segmentations"),
    ("DUTS-TR", "DUTS/train/image", "DUTS/train/mask"),  # MDSAM
    ("MSD-TR", "MSD/train/image", "MSD/train/mask"),  # HetNet
    ("MSD", "MSD/test/image", "MSD/test/mask"),
    ("PMD", "PMD/test/image", "PMD/test/mask"),
    ("Polyp-TR", "TrainDataset/image", "TrainDataset/mask"),  # PraNet
    ("ETIS", "TestDataset/ETIS-LaribPolypDB/images", "TestDataset/ETIS-LaribPolypDB/masks"),
    ("CVC-300", "TestDataset/CVC-300/images", "TestDataset/CVC-300/masks"),
    ("COD-TR", "TrainDataset/Imgs", "TrainDataset/GT"),  # FEDER, SINet
    ("CAMO", "TestDataset/CAMO/Imgs", "TestDataset/CAMO/GT"),
    ("COD10K", "TestDataset/COD10K/Imgs", "TestDataset/COD10K/GT"),
    ("MAS3K", "MAS3K/test/Image", "MAS3K/test/Mask"),  # MASNet
    ("RMAS-TR", "RMAS/train/img", "RMAS/train/label"),
]


@pytest.mark.parametrize(("name", "images", "masks"), LAYOUTS, ids=lambda part: part.replace("/", "."))
def test_sets_are_found_in_every_layout(tmp_path, name, images, masks):
    put(tmp_path, images, masks)
    (tmp_path / "__MACOSX" / images).mkdir(parents=True)
    (found,) = find(tmp_path)
    assert (found.name, found.images, found.masks) == (name, tmp_path / images, tmp_path / masks)


def test_two_packs_in_one_root_do_not_get_mixed_up(tmp_path):
    for name, images, masks in (
        ("COD-TR", "cod/TrainDataset/Imgs", "cod/TrainDataset/GT"),
        ("Polyp-TR", "polyp/TrainDataset/image", "polyp/TrainDataset/mask"),
        ("CAMO", "cod/TestDataset/CAMO/Imgs", "cod/TestDataset/CAMO/GT"),
        ("Kvasir", "polyp/TestDataset/Kvasir/images", "polyp/TestDataset/Kvasir/masks"),
    ):
        put(tmp_path, images, masks)
    assert [found.name for found in find(tmp_path)] == ["COD-TR", "CAMO", "Polyp-TR", "Kvasir"]


def test_the_root_may_be_the_sets_own_folder_and_links_are_followed_once(tmp_path):
    put(tmp_path, "ECSSD/images", "ECSSD/masks")
    (tmp_path / "ECSSD" / "loop").symlink_to(tmp_path)
    assert [found.name for found in find(tmp_path / "ECSSD")] == ["ECSSD"]
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "ECSSD").symlink_to(tmp_path / "ECSSD")
    assert [found.name for found in find(tmp_path / "here")] == ["ECSSD"]


def test_an_unknown_folder_of_pairs_is_found_as_such(tmp_path):
    put(tmp_path, "mine/images", "mine/masks")
    (found,) = find(tmp_path)
    assert found.name is None and found.images == tmp_path / "mine" / "images"


# --- the dataset ------------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path):
    put(tmp_path, "DUTS-TR/DUTS-TR-Image", "DUTS-TR/DUTS-TR-Mask", count=6, seed=1)
    put(tmp_path, "ECSSD/images", "ECSSD/masks", count=3, seed=2)
    put(tmp_path, "HKU-IS/imgs", "HKU-IS/gt", count=2, seed=3)
    return tmp_path


def config(root, **changes):
    given = {"name": "benchmark", "root": str(root), "test": ["ECSSD", "HKU-IS"], "incomplete": "allow"}
    return DATASETS.parse({**given, **changes})


def built(root, **changes):
    return DATASETS.build(config(root, **changes), TransformConfig(size=16))


def test_trains_on_one_set_and_offers_the_others_by_name(root):
    data = built(root)
    assert list(data.tests) == ["ECSSD", "HKU-IS"] and data.test is data.tests["ECSSD"]
    assert [len(s) for s in (data.train, data.val, *data.tests.values())] == [6, 0, 3, 2]
    assert list(data.set_fingerprints) == ["DUTS-TR", "ECSSD", "HKU-IS"]
    assert data.tests["HKU-IS"].ground_truth(1).shape == (16, 20)
    assert data.fingerprint != built(root, test=["HKU-IS", "ECSSD"]).fingerprint


def test_another_number_of_pairs_than_the_papers_is_an_error_unless_allowed(root):
    with pytest.raises(DataError) as error:
        built(root, incomplete="error")
    assert len(error.value.errors) == 3
    assert "ECSSD: 3 pairs in " in str(error.value) and "the papers' set has 1,000" in str(error.value)
    assert any("ECSSD: 3 pairs" in note and "not comparable" in note for note in built(root).notes)


def test_a_complete_set_needs_no_permission(tmp_path):
    put(tmp_path, "TestDataset/CVC-300/images", "TestDataset/CVC-300/masks", count=60)
    put(tmp_path, "CHAMELEON/Imgs", "CHAMELEON/GT", count=76, seed=5)
    data = built(tmp_path, train=["CHAMELEON"], test=["CVC-300"], incomplete="error")
    assert len(data.tests["CVC-300"]) == 60 and not data.notes


def test_only_the_camouflaged_of_the_original_cod10k_are_used(tmp_path):
    put(tmp_path, "COD10K-v3/Test/Image", "COD10K-v3/Test/GT_Object", count=4)
    for i in range(4):
        kind = "CAM" if i < 3 else "NonCAM"
        for folder in (tmp_path / "COD10K-v3/Test/Image", tmp_path / "COD10K-v3/Test/GT_Object"):
            (path,) = folder.glob(f"pair {i:03d}.*")
            path.rename(folder / f"COD10K-{kind}-1-Aquatic-{i}{path.suffix}")
    put(tmp_path, "DUTS-TR/images", "DUTS-TR/masks")
    assert len(built(tmp_path, test=["COD10K"]).test) == 3


def test_a_joint_training_set_is_put_together_from_its_parts(tmp_path):
    put(tmp_path, "CAMO/train/Imgs", "CAMO/train/GT", count=2, seed=1)
    put(tmp_path, "COD10K-TR/Imgs", "COD10K-TR/GT", count=3, seed=2)
    put(tmp_path, "CAMO/test/Imgs", "CAMO/test/GT", count=2, seed=3)
    changes = {"task": "camouflage", "test": ["CAMO"]}
    assert not list(config(tmp_path, **changes).missing())
    assert len(built(tmp_path, **changes).train) == 5


def test_what_is_missing_is_said_with_where_to_get_it(root, tmp_path):
    lines = [f"{m.what} -> {m.remedy}" for m in config(root, test=["ECSSD", "PASCAL-S"]).missing()]
    assert len(lines) == 1
    assert re.search(
        r"PASCAL-S is nowhere under .* -> python -m bench.data fetch PASCAL-S prints its sources", lines[0]
    )
    (gone,) = config(tmp_path / "nowhere").missing()
    assert "is no folder" in gone.what and "dataset.root=DIR" in gone.remedy


def test_a_set_that_is_there_twice_is_refused(root):
    put(root, "more/ECSSD/image", "more/ECSSD/mask")
    with pytest.raises(DataError, match="ECSSD: under .* it is .* and .* It must be there once") as error:
        built(root)
    assert str(root / "ECSSD/images") in str(error.value) and str(root / "more/ECSSD/image") in str(error.value)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"test": ["ECSD"]}, "no benchmark set 'ECSD'. Did you mean 'ECSSD'"),
        ({"train": ["ECSSD"], "test": ["ECSSD"]}, "ECSSD stands here twice"),
        ({"task": "polyps"}, "should be 'salient', 'mirror'"),
    ],
)
def test_names_that_mean_nothing(changes, expected):
    with pytest.raises(ValidationError, match=expected):
        config("x", **changes)


def test_images_that_are_trained_on_and_tested_are_told(root):
    (image,) = (root / "ECSSD/images").glob("pair 001.*")
    (learnt,) = (root / "DUTS-TR/DUTS-TR-Image").glob("pair 004.*")
    image.write_bytes(learnt.read_bytes())
    (note,) = (note for note in built(root).notes if "trained on" in note)
    assert note == "1 images of ECSSD are also trained on, byte for byte: pair 001"


# --- the trial --------------------------------------------------------------------------------------------------------


def trial(tiny, root):
    dataset = config(root, val=0.2).model_dump()
    return TrialConfig.model_validate({**tiny.model_dump(), "dataset": dataset})


def test_one_training_is_scored_on_every_set(tiny, root, tmp_path):
    record = run_trial(trial(tiny, root))
    assert record.status == "ok", record.error
    assert list(record.test_sets) == ["ECSSD", "HKU-IS"] and record.scores == record.test_sets["ECSSD"]
    assert record.test_sets["ECSSD"] != record.test_sets["HKU-IS"]
    assert record.provenance.images == {"train": 5, "val": 1, "ECSSD": 3, "HKU-IS": 2}
    assert list(record.provenance.set_fingerprints) == ["DUTS-TR", "ECSSD", "HKU-IS"]
    (tmp_path / "results").mkdir()
    record.save(tmp_path / "results")
    table = pyarrow.parquet.read_table(tmp_path / "results" / f"{record.trial_id}.images.parquet")
    assert table["set"].to_pylist() == ["ECSSD"] * 3 + ["HKU-IS"] * 2
    for name, scores in record.test_sets.items():
        own = [m for m, s in zip(table["mae"].to_pylist(), table["set"].to_pylist()) if s == name]
        assert scores["mae"] == pytest.approx(sum(own) / len(own))
    assert load(tmp_path / "results" / f"{record.trial_id}.json").test_sets == record.test_sets


def test_data_that_change_while_a_trial_runs_fail_it(tiny, root):
    (path,) = (root / "ECSSD/masks").glob("pair 001.*")
    other = (root / "ECSSD/masks/pair 000.png").read_bytes()
    record = run_trial(trial(tiny, root), on_epoch=lambda epoch: path.write_bytes(other))
    assert record.status == "error" and record.scores is None
    assert record.error.startswith("the data changed while the trial ran:\n")
    assert "pair 001.jpg or its mask" in record.error
