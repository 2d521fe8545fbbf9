"""The hypercalls by which a hash guest changes its table, in the order in which KVM validates them.

Source: Linux's ``book3s_hv_rm_mmu.c``; the flags: PAPR.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestmmu.errors import OutsideMemoryError
from nestmmu.slots import fits
from nestmmu_ppc64_book3s import hcalls
from nestmmu_ppc64_hpt.guest import THERE
from nestmmu_ppc64_hpt.hpte import (
    GROUP_SLOTS,
    R_C,
    R_I,
    R_KEY,
    R_KEY_HI,
    R_KEY_LO,
    R_M,
    R_N,
    R_PP,
    R_PP0,
    R_R,
    R_RC,
    R_TS,
    R_W,
    R_WIMG,
    V_ABSENT,
    V_LOCKED,
    V_VALID,
)
from nestmmu_ppc64_hpt.pages import HPTE_R_RPN, page_pair
from nestmmu_ppc64_hpt.protection import is_writable, read_only

if TYPE_CHECKING:
    from nestmmu_ppc64_hpt.guest import HashGuest

H_EXACT, H_READ_4 = 1 << 39, 1 << 37
H_AVPN, H_ANDCOND = 1 << 31, 1 << 30
H_ICACHE_INVALIDATE, H_ICACHE_SYNCHRONIZE = 1 << 23, 1 << 22
H_ZERO_PAGE, H_COPY_PAGE = 1 << 15, 1 << 14
H_PAGE_SET_LOANED = 0xF << 32
PAGE_4K = 1 << 12
GUEST_RESERVED = R_TS
"""The bit of the guest's doubleword 1 that KVM keeps for itself."""
_MASK_PROTECT = R_PP0 | R_PP | R_N | R_KEY_HI | R_KEY_LO
_PAGE_INIT_FLAGS = H_ICACHE_INVALIDATE | H_ICACHE_SYNCHRONIZE | H_ZERO_PAGE | H_COPY_PAGE | H_PAGE_SET_LOANED
_WORD = (1 << 64) - 1
BULK_REQUEST, BULK_END = 1, 3
BULK_SUCCESS, BULK_NOT_FOUND, BULK_PARAMETER = 0x80, 0x90, 0xA0
_BULK_PAIRS = 4
Reply = tuple[int, ...]
"""The return code, then r4 and so on."""


class HashHcalls:
    """The hypercalls of one hash guest."""

    def __init__(self, guest: HashGuest) -> None:
        self.guest = guest

    def enter(self, flags: int, ptex: int, pteh: int, ptel: int) -> Reply:
        """Do H_ENTER: return its code, and the slot (``kvmppc_do_h_enter``)."""
        guest = self.guest
        if guest.radix:
            return (hcalls.H_FUNCTION,)
        pair = None if pteh >> 63 else page_pair(pteh, ptel)
        if pair is None:
            return (hcalls.H_PARAMETER,)
        size = 1 << pair[1]
        v, view = pteh & ~(V_LOCKED | THERE), ptel & ~GUEST_RESERVED
        address = view & HPTE_R_RPN & -size
        real = self._real(v, view, address, pair[1])
        if isinstance(real, int):
            return (real,)
        index = self._free_slot(flags, ptex)
        if index < 0:
            return (index,)
        v, r = real
        guest.guest_view[index] = view
        if v & V_VALID:
            state = guest.frame(address)
            state.slots.add(index)
            allowed = (R_R if state.referenced else 0) | (R_C if state.changed else 0)
            r &= allowed | ~R_RC
        elif r & R_KEY == R_KEY:
            guest.mmio_updates += 1
        guest.table.write(index, v, r)
        return hcalls.H_SUCCESS, index

    def _real(self, v: int, view: int, address: int, page_shift: int) -> tuple[int, int] | int:
        """Return both doublewords of the real entry, or the code of a refusal."""
        guest = self.guest
        slot = guest.slots.find(address)
        if slot is None:
            return v | V_ABSENT, view | R_KEY
        if not fits(slot, address, page_shift) or slot.base & (1 << page_shift) - 1:
            return hcalls.H_PARAMETER
        store = is_writable(view)
        page = guest.backing.page(slot, address, write=store and not slot.read_only)
        if page is None:
            return v | V_ABSENT, view
        if page.page_shift < page_shift:
            return hcalls.H_PARAMETER
        r = view if page.writable and not slot.read_only else read_only(view) if store else view
        wimg = r & R_WIMG
        if wimg not in {R_M, R_W | R_I | R_M}:
            r = r & ~R_WIMG | R_M
        return v | V_VALID, r & ~(HPTE_R_RPN & -(1 << page_shift)) | page.address

    def _free_slot(self, flags: int, ptex: int) -> int:
        """Return a slot that is free, or the code of a refusal."""
        guest = self.guest
        if ptex >= guest.table.slots:
            return hcalls.H_PARAMETER
        choice = (
            range(ptex, ptex + 1)
            if flags & H_EXACT
            else range(ptex & -GROUP_SLOTS, (ptex & -GROUP_SLOTS) + GROUP_SLOTS)
        )
        return next((index for index in choice if not guest.table.read(index)[0] & THERE), hcalls.H_PTEG_FULL)

    def remove(self, flags: int, ptex: int, avpn: int) -> Reply:
        """Do H_REMOVE: return its code, and both doublewords as the guest had them (``kvmppc_do_h_remove``)."""
        guest = self.guest
        if guest.radix:
            return (hcalls.H_FUNCTION,)
        if ptex >= guest.table.slots:
            return (hcalls.H_PARAMETER,)
        v, r = guest.table.read(ptex)
        if not v & THERE or self._differs(flags, v, avpn):
            return (hcalls.H_NOT_FOUND,)
        view = self._clear(ptex, v, r)
        return hcalls.H_SUCCESS, v & ~(V_LOCKED | V_ABSENT) | V_VALID, view & ~GUEST_RESERVED

    @staticmethod
    def _differs(flags: int, v: int, avpn: int) -> bool:
        return bool((flags & H_AVPN and v & ~0x7F != avpn) or (flags & H_ANDCOND and v & avpn))

    def _clear(self, index: int, v: int, r: int) -> int:
        """Clear a slot; return doubleword 1 as the guest had it, with R and C as hardware left them."""
        guest = self.guest
        if v & V_VALID:
            guest.table.write(index, v & ~V_VALID | V_ABSENT, r)
            guest.invalidate(index, v, r)
            r = guest.table.read(index)[1]
            self._harvest(index, r)
        elif r & R_KEY == R_KEY:
            guest.mmio_updates += 1
        guest.table.write(index, 0, 0)
        return guest.guest_view.pop(index, r)

    def _harvest(self, index: int, r: int) -> None:
        guest = self.guest
        view = guest.guest_view[index]
        shift = (page_pair(guest.table.read(index)[0], view) or (12, 12))[1]
        address = view & HPTE_R_RPN & -(1 << shift)
        guest.harvest(index, r, address, 1 << shift)
        guest.frame(address).slots.discard(index)

    def bulk_remove(self, pairs: list[tuple[int, int]]) -> Reply:
        """Do H_BULK_REMOVE: return its code, and the first doubleword of each pair as it comes back."""
        guest = self.guest
        if guest.radix:
            return (hcalls.H_FUNCTION,)
        results = [first for first, _ in pairs[:_BULK_PAIRS]]
        for number, (first, avpn) in enumerate(pairs[:_BULK_PAIRS]):
            kind, flags, index = first >> 62, first >> 56 & 3, first & (1 << 56) - 1
            if kind == BULK_END:
                break
            if kind != BULK_REQUEST or flags == 3 or index >= guest.table.slots:  # noqa: PLR2004  (both conditions)
                results[number] = (BULK_PARAMETER | flags) << 56 | index
                return hcalls.H_PARAMETER, *results
            v, r = guest.table.read(index)
            asked = (0, H_ANDCOND, H_AVPN)[flags]
            if not v & THERE or self._differs(asked, v, avpn):
                results[number] = (BULK_NOT_FOUND | flags) << 56 | index
                continue
            view = self._clear(index, v, r)
            results[number] = (BULK_SUCCESS | flags) << 56 | (view & R_RC) << 51 | index
        return hcalls.H_SUCCESS, *results

    def protect(self, flags: int, ptex: int, avpn: int) -> Reply:
        """Do H_PROTECT. A real entry never becomes writable here: the fault that follows sees to it."""
        guest = self.guest
        if guest.radix:
            return (hcalls.H_FUNCTION,)
        if ptex >= guest.table.slots:
            return (hcalls.H_PARAMETER,)
        v, old = guest.table.read(ptex)
        if not v & THERE or self._differs(flags & H_AVPN, v, avpn):
            return (hcalls.H_NOT_FOUND,)
        bits = flags << 55 & R_PP0 | flags << 48 & R_KEY_HI | flags & (R_PP | R_N | R_KEY_LO)
        guest.guest_view[ptex] = guest.guest_view.get(ptex, old) & ~_MASK_PROTECT | bits
        if v & V_VALID:
            r = old & ~_MASK_PROTECT | bits
            if is_writable(r) and not is_writable(old):
                r = read_only(r)
            if r != old:
                guest.table.write(ptex, v & ~V_VALID | V_ABSENT, old)
                guest.invalidate(ptex, v, old)
                guest.table.write(ptex, v, r | guest.table.read(ptex)[1] & R_RC)
        elif old & R_KEY == R_KEY:
            guest.mmio_updates += 1
        return (hcalls.H_SUCCESS,)

    def read(self, flags: int, ptex: int) -> Reply:
        """Do H_READ: return its code, and both doublewords of one entry, or of four, as the guest has them."""
        guest = self.guest
        if guest.radix:
            return (hcalls.H_FUNCTION,)
        if ptex >= guest.table.slots:
            return (hcalls.H_PARAMETER,)
        indices = range(ptex & ~3, (ptex & ~3) + 4) if flags & H_READ_4 else range(ptex, ptex + 1)
        found: list[int] = []
        for index in indices:
            v, r = guest.table.read(index)
            if v & THERE:
                v = v & ~V_ABSENT | V_VALID
                r = (guest.guest_view.get(index, r) | r & R_RC) & ~GUEST_RESERVED
            found += [v & ~V_LOCKED, r]
        return hcalls.H_SUCCESS, *found

    def clear_ref(self, ptex: int) -> Reply:
        """Do H_CLEAR_REF: return its code, and doubleword 1 as it was."""
        return self._clear_flag(ptex, R_R)

    def clear_mod(self, ptex: int) -> Reply:
        """Do H_CLEAR_MOD: the entry is absent meanwhile, so that C stands still."""
        return self._clear_flag(ptex, R_C)

    def _clear_flag(self, ptex: int, flag: int) -> Reply:
        guest = self.guest
        if guest.radix:
            return (hcalls.H_FUNCTION,)
        if ptex >= guest.table.slots:
            return (hcalls.H_PARAMETER,)
        v, r = guest.table.read(ptex)
        if not v & THERE:
            return (hcalls.H_NOT_FOUND,)
        view = guest.guest_view.get(ptex, r)
        guest.guest_view[ptex] = view & ~flag
        if v & V_VALID:
            view |= r & R_RC
            if r & flag:
                shift = (page_pair(v, view) or (12, 12))[1]
                address = view & HPTE_R_RPN & -(1 << shift)
                guest.table.write(ptex, v & ~V_VALID | V_ABSENT, r)
                guest.invalidate(ptex, v, r)
                guest.table.write(ptex, v, r & ~flag)
                guest.harvest(ptex, r & flag, address, 1 << shift)
                guest.guest_view[ptex] &= ~flag
        return hcalls.H_SUCCESS, view

    def page_init(self, flags: int, dest: int, src: int) -> Reply:
        """Do H_PAGE_INIT, which a radix guest has too: copy a page, or fill it with zeros."""
        if flags & ~_PAGE_INIT_FLAGS or dest % PAGE_4K or (flags & H_COPY_PAGE and src % PAGE_4K):
            return (hcalls.H_PARAMETER,)
        memory, slots = self.guest.memory, self.guest.slots
        copies = flags & H_COPY_PAGE
        if not flags & (H_COPY_PAGE | H_ZERO_PAGE):
            return (hcalls.H_SUCCESS,)
        if slots.find(dest) is None or (copies and slots.find(src) is None):
            return (hcalls.H_PARAMETER,)
        try:
            memory.write(dest, memory.read(src, PAGE_4K) if copies else bytes(PAGE_4K))
        except OutsideMemoryError:
            return (hcalls.H_TOO_HARD,)
        return (hcalls.H_SUCCESS,)
