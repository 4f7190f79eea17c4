"""Tables of many keys: as a dict, and copies share nothing that shows."""

import random

import pytest

from veko import Bus
from veko._bus.tables import Buckets, shaped


@pytest.mark.parametrize("seed", range(20))
def test_tables_are_as_dicts_and_copies_do_not_see_changes(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"SMALL": 8, "FEW": 2, "MANY": 4}.items():
        monkeypatch.setattr(f"veko._bus.tables.{name}", value)
    chance = random.Random(seed)
    table: dict[object, int] | Buckets[int] = {}
    model: dict[object, int] = {}
    older = []
    for number in range(400):
        key = chance.choice([chance.randrange(60), f"key {chance.randrange(60)}", (1, number % 7)])
        match chance.randrange(6):
            case 0:
                older.append((table, model.copy()))
                table = table.copy()
            case 1 if key in model:
                del table[key]
                del model[key]
            case _:
                table[key] = model[key] = number
                table = shaped(table)
        assert table.get(key) == model.get(key)
        assert table.get(key, "none") == model.get(key, "none")
        assert len(table) == len(model)
    for one, expected in (*older, (table, model)):
        assert dict(one.items()) == expected
        assert set(one) == set(expected)
        assert sorted(one.values()) == sorted(expected.values())
        assert all(one[key] == value for key, value in expected.items())
    assert isinstance(table, Buckets)
    for missing in (None, "none"):
        with pytest.raises(KeyError):
            table[missing]
        with pytest.raises(KeyError):
            del table[missing]


def test_keys_are_in_order_of_arrival_however_many_there_are() -> None:
    bus = Bus()
    names = [f"x{number}" for number in range(3_000)]
    subscriptions = [bus.on(name, print, priority=number % 3) for number, name in enumerate(names)]
    assert bus.registry.keys("hook") == tuple(names)
    before = bus.registry
    for subscription in subscriptions[::2]:
        subscription.cancel()
    assert bus.registry.keys("hook") == tuple(names[1::2])
    assert before.keys("hook") == tuple(names)
    assert before.get("hook", "x0") is not None
    assert bus.registry.get("hook", "x0") is None
    assert len(bus.registry.entries("hook")) == 1_500
