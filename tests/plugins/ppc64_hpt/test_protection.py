"""Protection: every cell of section 3.4 of the reference, and scenarios TP13 and TP14."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestmmu.access import Access
from nestmmu_ppc64_hpt.protection import denial, execute_permissions, key_permissions, page_permissions

LOAD, STORE, FETCH = Access.LOAD, Access.STORE, Access.FETCH
NOEXEC, PROTFAULT, ISSTORE, KEYFAULT = 0x10000000, 0x08000000, 0x02000000, 0x00200000
RWX, RX, NOTHING = LOAD | STORE | FETCH, LOAD | FETCH, 0
WORDS = st.integers(0, (1 << 64) - 1)
BY_PP = {
    0b000: (RWX, NOTHING),
    0b001: (RWX, RX),
    0b010: (RWX, RWX),
    0b011: (RX, RX),
    0b100: (NOTHING, NOTHING),
    0b101: (NOTHING, NOTHING),
    0b110: (RX, NOTHING),
    0b111: (NOTHING, NOTHING),
}
"""By pp0 and pp, for key 0 and for key 1; what the table calls reserved permits nothing."""


def word(pp: int, flags: int = 0) -> int:
    return (pp >> 2) << 63 | pp & 3 | flags


@pytest.mark.parametrize(("pp", "key"), list(itertools.product(range(8), (0, 1))))
def test_each_cell_of_pp_and_key(pp: int, key: int) -> None:
    assert page_permissions(word(pp), key=bool(key)) == BY_PP[pp][key]
    assert page_permissions(word(pp, 0x7FFFFFFFFFFFFFFC), key=bool(key)) == BY_PP[pp][key], "no other bit counts"


@pytest.mark.parametrize(
    ("pp", "key", "permissions"),
    [
        pytest.param(0b010, True, RWX, id="TP13-pp2-key1"),
        pytest.param(0b000, True, NOTHING, id="TP13-pp0-key1"),
        pytest.param(0b110, False, RX, id="TP13-pp0+2-key0"),
        pytest.param(0b110, True, NOTHING, id="TP13-pp0+2-key1"),
    ],
)
def test_pages_and_keys(pp: int, key: bool, permissions: int) -> None:
    assert page_permissions(word(pp), key=key) == permissions


def test_key_5_denies_the_store_alone_tp14() -> None:
    r, amr = 0xA00 | 0b10, 0x0020000000000000
    keys = key_permissions(r, amr, 0)
    assert keys == RX
    everything = page_permissions(r, key=False), execute_permissions(r), keys
    assert denial(LOAD, *everything) == 0
    assert denial(STORE, *everything) == KEYFAULT | ISSTORE
    assert denial(FETCH, *everything) == 0


@pytest.mark.parametrize("key", range(32))
@pytest.mark.parametrize("bits", range(4))
def test_each_keys_bits_in_amr_and_iamr(key: int, bits: int) -> None:
    r = (key >> 3) << 60 | (key & 7) << 9
    field = bits << 62 - 2 * key
    others = ((1 << 64) - 1) & ~(3 << 62 - 2 * key)
    data = RWX & ~(STORE if bits & 2 else 0) & ~(LOAD if bits & 1 else 0)
    assert key_permissions(r, field, 0) == data
    assert key_permissions(r, 0, field) == (RWX & ~FETCH if bits & 1 else RWX)
    assert key_permissions(r, others, others) == RWX, "another key's bits deny nothing"
    assert key_permissions(r, others | field, others) == data


@pytest.mark.parametrize(("flags", "left"), [(0, RWX), (0x4, LOAD | STORE), (0x8, LOAD | STORE), (0xC, LOAD | STORE)])
def test_no_execute_and_guarded(flags: int, left: int) -> None:
    assert execute_permissions(flags) == left
    assert execute_permissions(flags | 0xFFFFFFFFFFFFFFF3) == left


class TestCauses:
    """What is denied says why: one case for each row of 3.4."""

    @pytest.mark.parametrize(
        ("access", "pages", "execution", "keys", "cause"),
        [
            (LOAD, NOTHING, RWX, RWX, PROTFAULT),
            (STORE, RX, RWX, RWX, PROTFAULT | ISSTORE),
            (FETCH, NOTHING, RWX, RWX, PROTFAULT),
            (FETCH, RWX, LOAD | STORE, RWX, NOEXEC),
            (LOAD, RWX, RWX, STORE | FETCH, KEYFAULT),
            (STORE, RWX, RWX, RX, KEYFAULT | ISSTORE),
            (FETCH, RWX, RWX, LOAD | STORE, KEYFAULT),
            (LOAD, NOTHING, RWX, STORE | FETCH, PROTFAULT | KEYFAULT),
            (STORE, NOTHING, RWX, RX, PROTFAULT | KEYFAULT | ISSTORE),
            (FETCH, NOTHING, LOAD | STORE, LOAD | STORE, NOEXEC | KEYFAULT),
            (FETCH, NOTHING, RWX, LOAD | STORE, PROTFAULT | KEYFAULT),
        ],
    )
    def test_denied(self, access: Access, pages: int, execution: int, keys: int, cause: int) -> None:
        assert denial(access, pages, execution, keys) == cause

    @given(st.sampled_from(list(Access)), WORDS, st.booleans(), WORDS, WORDS)
    def test_there_is_a_cause_where_any_of_them_denies(
        self, access: Access, r: int, key: bool, amr: int, iamr: int
    ) -> None:
        pages, execution = page_permissions(r, key=key), execute_permissions(r)
        keys = key_permissions(r, amr, iamr)
        cause = denial(access, pages, execution, keys)
        assert (cause == 0) == bool(access & pages & execution & keys)
        assert cause == 0 or bool(cause & ISSTORE) == (access is STORE)
