"""All tables by name."""

from collections.abc import Mapping

from fedcore.errors import UnknownName
from fedcore.tables import niid, pfllib
from fedcore.tables.flamby import BRCA, HEART
from fedcore.tables.school import SCHOOL
from fedcore.tables.table import Table

TABLES: Mapping[str, Table] = {
    table.name: table for table in (HEART, BRCA, niid.FASHION, niid.CIFAR, pfllib.FASHION, SCHOOL)
}


def named(name: str) -> Table:
    """The table of that name. Raises `UnknownName`."""
    if name not in TABLES:
        raise UnknownName("table", name, TABLES)
    return TABLES[name]
