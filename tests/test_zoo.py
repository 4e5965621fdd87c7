"""What ships is what its record says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from netsuke import zoo
from netsuke.artifact import Artifact
from netsuke.engine import Engine
from netsuke.errors import OptionError
from netsuke.measure.cost import cost

RECORDS = Path(__file__).resolve().parents[1] / "records"
BUDGET = {
    "digit-base": 200_000,
    "digit-micro": 2048,
    "digit-small": 16384,
    "finder": 300_000,
    "scanner": 300_000,
}
SOURCE = {"digit-small": "mnist-16384"}  # the others' records have their names


def test_the_shipped_family():
    assert zoo.names() == tuple(sorted(BUDGET))


@pytest.mark.parametrize("name", zoo.names())
def test_a_shipped_model_fits_its_budget_and_carries_its_record(name):
    artifact = Artifact.load(zoo.path(name))
    record = zoo.record(name)
    assert artifact.size_bytes <= BUDGET[name]
    assert zoo.card(name)
    source = RECORDS / SOURCE.get(name, name) / "record.json"
    assert record == json.loads(source.read_text(encoding="utf-8"))
    counted = record["results"][str(artifact.manifest["seed"])] if "results" in record else record["document"]
    assert artifact.size_bytes == counted["size_bytes"]
    assert cost(artifact)["ram_bytes"] == counted["ram_bytes"], "netsuke rerun records/NAME --recount --save"


@pytest.mark.parametrize("name", [name for name in zoo.names() if name.startswith("digit-")])
def test_a_shipped_model_is_as_right_as_it_says(mnist, name):
    artifact = Artifact.load(zoo.path(name))
    answers = Engine(artifact).run(mnist.test.images).argmax(1)
    report = artifact.manifest["report"]
    assert (answers == mnist.test.labels).mean() == pytest.approx(report["accuracy"], abs=1e-12)
    assert report["n"] == len(mnist.test)


def test_unknown_names_are_answered_with_the_known():
    with pytest.raises(OptionError, match="digit-small"):
        zoo.path("digit-huge")


def test_a_file_is_taken_before_a_shipped_model_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert zoo.file("digit-base") == zoo.path("digit-base")
    Path("digit-base").write_bytes(b"mine")
    assert zoo.file("digit-base") == Path("digit-base")
    with pytest.raises(OptionError, match=r"gone\.netsuke: does not exist.*digit-base.*digit-small"):
        zoo.file("gone.netsuke")
