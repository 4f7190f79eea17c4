"""Names: one form, one script, no lookalikes, whatever Unicode has."""

import asyncio
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veko_plugins.auth.names import MAX_NAME, key_of, normalise
from veko_plugins.http import HTTPError

from .conftest import PASSWORD, managed


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("joe", "joe"),
        ("Joe.Doe-1_x@Example.COM", "joe.doe-1_x@example.com"),
        ("\uff2a\uff4f\uff45", "joe"),  # full width
        ("\u212aarl", "karl"),  # the sign for kelvin
        ("Zo\u00eb", "zo\u00eb"),
        ("Zoe\u0308", "zo\u00eb"),
        ("STRASSE", "strasse"),
        ("Stra\u00dfe", "strasse"),
        ("\ufb01nn", "finn"),  # a ligature
        ("\u0418\u0432\u0430\u043d", "\u0438\u0432\u0430\u043d"),
        ("\u03a3\u03af\u03c3\u03c5\u03c6\u03c2", "\u03c3\u03af\u03c3\u03c5\u03c6\u03c3"),
        ("\u5c71\u7530\u592a\u90ce", "\u5c71\u7530\u592a\u90ce"),
        ("\u3055\u304f\u30b5\u30af\u685c", "\u3055\u304f\u30b5\u30af\u685c"),
        ("\uae40\ucca0\uc218", "\uae40\ucca0\uc218"),
        ("\u0939\u093f\u0928\u094d\u0926\u0940", "\u0939\u093f\u0928\u094d\u0926\u0940"),
        ("\u0645\u062d\u0645\u062f", "\u0645\u062d\u0645\u062f"),
    ],
)  # fmt: skip
def test_a_name_has_one_form(name: str, form: str) -> None:
    assert normalise(name) == form
    assert normalise(form) == form


@pytest.mark.parametrize(
    "name",
    [
        "", " ", "a b", "joe ", "joe\n", "joe\0", "a/b", "a:b", "<b>", "joe\u200b", "\u202ejoe",
        "joe\u00ad", "joe\ufeff", "\u3164", "jo\u115fe", "joe\ufe0f", "joe\u034f", "\ud800", "...",
        "@", "adm\u0131\u0307n", "\u0301joe", "joe\u0489", "\u0430dmin", "j\u03bfe",
        "joe\U0001f600", "\u0661\u0662", "joe\u2028", "n" * (MAX_NAME + 1), "\ufdfa" * 20,
        "\u17b4x", "\u2160\u2028",
    ],
    ids=ascii,
)  # fmt: skip
def test_names_that_nobody_has(name: str) -> None:
    with pytest.raises(ValueError, match="a name has"):
        normalise(name)


@given(st.text(max_size=80))
def test_every_text_is_a_name_in_one_form_or_none(text: str) -> None:
    try:
        made = normalise(text)
    except ValueError:
        return
    assert normalise(made) == made
    assert 0 < len(made) <= MAX_NAME
    assert unicodedata.is_normalized("NFKC", made)
    for other in (text.upper(), text.lower(), unicodedata.normalize("NFD", text)):
        try:
            assert key_of(normalise(other)) == key_of(made)
        except ValueError:
            continue  # in capitals it is none: the letter's capital is longer
    assert len(key_of(made)) == len(made)


@pytest.mark.anyio
async def test_a_lookalike_takes_the_same_name_and_is_another_user(tmp_path: Path) -> None:
    async with managed(tmp_path) as manager:
        auth = manager.use("auth")
        await auth.register("coco", PASSWORD)
        cyrillic = "\u0441\u043e\u0441\u043e"
        for again in ("coco", "COCO", "\uff43oco", cyrillic):
            with pytest.raises(HTTPError, match="taken"):
                await auth.register(again, PASSWORD)
        with pytest.raises(HTTPError, match="wrong"):
            await auth.login(cyrillic, PASSWORD)
        assert auth.get(cyrillic) is None
        assert (await auth.verify((await auth.login("Coco", PASSWORD)).access_token)).name == "coco"
        assert [user.name for user in auth.users()] == ["coco"]


@pytest.mark.anyio
async def test_of_many_who_register_one_name_at_once_one_gets_it(tmp_path: Path) -> None:
    async with managed(tmp_path) as manager:
        auth = manager.use("auth")
        done = await asyncio.gather(
            *(auth.register("joe", f"{PASSWORD} {n}") for n in range(20)), return_exceptions=True
        )
        won = [n for n, one in enumerate(done) if not isinstance(one, BaseException)]
        assert len(won) == 1
        assert {one.status for one in done if isinstance(one, HTTPError)} == {409}
        await auth.login("joe", f"{PASSWORD} {won[0]}")


@pytest.mark.anyio
@pytest.mark.parametrize("storage", ["memory:", None])
async def test_a_registration_outlives_its_reservation(
    tmp_path: Path, storage: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("veko_plugins.auth.users._RESERVED", 0.2)
    async with managed(tmp_path, storage=storage) as manager:
        auth = manager.use("auth")
        await auth.register("joe", PASSWORD)
        kept = manager.use("storage").namespace("auth")
        await kept.set("mark", True, ttl=0.5)
        for _ in range(600):
            if "mark" not in kept:
                break
            await asyncio.sleep(0.05)
        await auth.login("joe", PASSWORD)
        kept.forget()
        await auth.login("joe", PASSWORD)
