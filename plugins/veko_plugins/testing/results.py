"""The results of `test_plugin`, and the grade of the contract: frozen, ready for JSON."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Literal

import msgspec

from .._lib.leaks import Leak

__all__ = ["TIERS", "Check", "Grade", "Outcome", "TestResults", "Tier"]

Outcome = Literal["PASS", "FAIL", "SKIP"]


class Tier(StrEnum):
    """How far a plugin keeps the contract; each tier includes those before it."""

    NONE = "none"
    BRONZE = "bronze"
    SILVER = "silver"
    GOLD = "gold"
    PLATINUM = "platinum"


TIERS = tuple(Tier)[1:]


class TestResults(msgspec.Struct, frozen=True):
    """What `test_plugin` found.

    Attributes:
        passed: How many tests passed.
        failed: How many did not.
        errors: What failed tests raised, each with the name of its test.
        details: `PASS` or `FAIL` for each test, by name.
    """

    __test__: ClassVar[bool] = False  # pytest takes a class of this name for tests

    passed: int
    failed: int
    errors: list[str]
    details: dict[str, str]

    @property
    def ok(self) -> bool:
        """Whether no test failed."""
        return not self.failed


class Check(msgspec.Struct, frozen=True):
    """One check of the contract.

    Attributes:
        name: Its name.
        tier: The tier that needs it.
        outcome: `SKIP` if the plugin has nothing that could be checked; that counts as passed.
        promise: What it checks, as a promise of the plugin.
        problems: What was wrong, or why it was skipped.
    """

    name: str
    tier: Tier
    outcome: Outcome
    promise: str
    problems: tuple[str, ...] = ()


class Grade(msgspec.Struct, frozen=True):
    """How far a plugin keeps the contract.

    Attributes:
        plugin: The plugin's name.
        version: Its version.
        tier: The highest tier all checks of which passed, with those of the tiers before it.
        next: The tier after that; `None` if it has the highest.
        missing: The checks that the next tier lacks, with what was wrong.
        checks: All checks, in the order in which they ran.
        leaks: What still held an ended generation.
    """

    plugin: str
    version: str
    tier: Tier
    next: Tier | None
    missing: tuple[str, ...]
    checks: tuple[Check, ...]
    leaks: tuple[Leak, ...] = ()

    def reaches(self, tier: Tier) -> bool:
        """Return whether it has a tier, or a higher one."""
        order = tuple(Tier)
        return order.index(self.tier) >= order.index(tier)


def grade(plugin: str, version: str, checks: list[Check], leaks: list[Leak]) -> Grade:
    """Return the grade that checks come to."""
    reached = Tier.NONE
    following: Tier | None = None
    for tier in TIERS:
        if any(check.tier is tier and check.outcome == "FAIL" for check in checks):
            following = tier
            break
        reached = tier
    missing = tuple(
        f"{check.name}: {problem}"
        for check in checks
        if check.tier is following and check.outcome == "FAIL"
        for problem in check.problems
    )
    return Grade(plugin, version, reached, following, missing, tuple(checks), tuple(leaks))
