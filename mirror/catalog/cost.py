"""Estimates what a mirror costs, in US dollars, from the price lists of the configuration. Pure.

The lists have no free tiers, taxes or discounts, so a bill may differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from mirror.catalog.delta_table import (
    COMMIT_GETS,
    COMMIT_LISTS,
    COMMIT_PUTS,
    OPEN_GETS,
    OPEN_LISTS,
    OPEN_PUTS,
)
from mirror.config.settings import PriceSettings

# PUTs of a new mirror: format.json, and the test that the endpoint honours conditional PUTs.
_ROOT_PUTS: Final = 2


@dataclass(frozen=True, slots=True)
class CostEstimate:
    """An upper bound of what a sync costs. Deduplication and verdicts can only lower it.

    Attributes:
        puts: PUT requests, the catalog's among them.
        requests: all requests.
        bytes: bytes to send.
        request_usd: price of the requests.
        storage_usd_month: price of storing the new bytes for a month.
        seconds: duration at the known rate; None where no rate is known.
    """

    puts: int
    requests: int
    bytes: int
    request_usd: float
    storage_usd_month: float
    seconds: float | None


def storage_usd_month(size: float, prices: PriceSettings) -> float:
    """Price of storing `size` bytes for a month."""
    return size / 1e9 * prices.storage_gb_month


def requests_usd(requests: Mapping[str, int], prices: PriceSettings) -> float:
    """Price of requests by operation: put and list cost as writes, get and head as reads, delete nothing."""
    writes = requests.get("put", 0) + requests.get("list", 0)
    reads = requests.get("get", 0) + requests.get("head", 0)
    return (writes * prices.write_million + reads * prices.read_million) / 1e6


def epoch_usd(images: int, size: float, prices: PriceSettings) -> float:
    """Price of reading every image once over the internet.

    Args:
        images: how many, with one GET request each.
        size: bytes of all together.
        prices: US dollars.
    """
    return requests_usd({"get": images}, prices) + size / 1e9 * prices.egress_gb


def sync_estimate(
    files: int, size: int, prices: PriceSettings, commit_rows: int, rate: float | None
) -> CostEstimate:
    """Upper bound of what a sync costs.

    Args:
        files: how many will be read.
        size: their bytes.
        prices: US dollars, of the bucket's provider.
        commit_rows: rows in each catalog commit.
        rate: bytes a second; None where unknown.
    """
    commits = -(-files // commit_rows)
    requests = {"put": 0, "list": 1, "get": 1}  # the log's last entry, and format.json
    if files:
        requests["put"] = _ROOT_PUTS + files + OPEN_PUTS + COMMIT_PUTS * commits
        requests["list"] = OPEN_LISTS + COMMIT_LISTS * commits
        # Each commit's data file is read once by the index.
        requests["get"] += OPEN_GETS + (COMMIT_GETS + 1) * commits
    return CostEstimate(
        puts=requests["put"],
        requests=sum(requests.values()),
        bytes=size,
        request_usd=requests_usd(requests, prices),
        storage_usd_month=storage_usd_month(size, prices),
        seconds=size / rate if rate else None,
    )
