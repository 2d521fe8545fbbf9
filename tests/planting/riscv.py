"""The faults of the RISC-V plugin: a line each, in composition, fences, nested faults and what holds L1's guests."""

from __future__ import annotations

from planting import Line

COMPOSE = "nestmmu_riscv.composer:RiscvComposer.compose"
HOST = "nestmmu_riscv.hypervisor:RiscvHypervisor"
EDITOR = "nestmmu_riscv.hypervisor:ShadowEditor"
LADDER = "nestmmu_riscv.nested_faults:RiscvNestedFaults"
FENCES = "nestmmu_riscv.fences:decode"
EXITS = "nestmmu_riscv.exits"

ON_RISCV = (
    Line("every page is writable", COMPOSE, "permissions, accessed=leaf.accessed", "permissions | WRITE, accessed=leaf.accessed", topic="composition"),
    Line("the leaf is dirty before a store", COMPOSE, "dirty=dirty, attributes", "dirty=True, attributes", topic="composition"),
    Line("the leaf is not aligned to its page", COMPOSE, "align_down(leaf.output_address, leaf.page_shift)", "align_down(leaf.output_address, 12) + 0x1000", topic="composition"),
    Line("a page that permits nothing is a pointer", COMPOSE, "entry |= R  #", "entry |= 0  #", topic="composition"),
    Line("a fence of the page after", f"{FENCES}", "start = align_down(request.guest_address, PAGE_SHIFT)", "start = align_down(request.guest_address, PAGE_SHIFT) + 0x1000", topic="invalidation"),
    Line("a fence of a guest does nothing to its TLB", f"{HOST}.fence", "self.flush(Flush(nested.tag, FlushKind.TAG))", "pass", topic="invalidation"),
    Line("a fence of a guest leaves its shadow", f"{HOST}.fence", "nested.shadow.clear_tree()", "pass", topic="invalidation"),
    Line("a fence of all does one", f"{HOST}.fence", "chosen = guest.nested.values() if scope.every else", "chosen = list(guest.nested.values())[:1] if scope.every else", topic="invalidation"),
    Line("a fence of a page drops one leaf of its pages", f"{EDITOR}.forget", "for span in self.spans:", "for span in (12,):", topic="invalidation"),
    Line("a flag is cleared and the leaf stays", f"{EDITOR}.clear_flags", "return self.remove(address)", "return self.lookup(address)", topic="dirty"),
    Line("L1's permissions are not looked at", f"{LADDER}.walk", "if not permits(inner.permissions, access, mxr=mxr):", "if False:", topic="reflection"),
    Line("L1's A and D are not asked for", f"{LADDER}.walk", "if inner.accessed and (inner.dirty or access is not Access.STORE):", "if True:", topic="reflection"),
    Line("a store marks L0's page as read", f"{LADDER}.mark", "add_flags(outer.input_address, accessed=True, dirty=store)", "add_flags(outer.input_address, accessed=True, dirty=False)", topic="shadow"),
    Line("htval is not shifted", f"{EXITS}:decode", "record.tval2 << HTVAL_SHIFT, record.access", "record.tval2, record.access", topic="reflection"),
    Line("the low bits of the address are lost", f"{EXITS}:decode", "address |= record.tval & _LOW", "address |= 0", topic="reflection"),
    Line("another VMID's guest", f"{HOST}.enter", "AssignedTag(vmid_of(registers.hgatp))", "AssignedTag(3)", topic="references"),
)  # fmt: skip

ON_SVADU = (
    Line("stores where no one sees them", COMPOSE, "(inner.dirty and outer.dirty) or not self.svadu", "True", topic="dirty"),
    Line("stores where L0 does not see them", COMPOSE, "(inner.dirty and outer.dirty)", "inner.dirty", topic="dirty"),
    Line("stores where L1 does not see them", COMPOSE, "(inner.dirty and outer.dirty)", "outer.dirty", topic="composition"),
    Line("no stores", COMPOSE, "(inner.dirty and outer.dirty)", "False", topic="dirty"),
    Line("dirty, and not to be stored to", COMPOSE, "leaf.dirty and (bool(permissions & WRITE) or not self.svadu)", "leaf.dirty", topic="composition"),
    Line("L1's D by a load", f"{LADDER}._as_hardware", "form.dirty if fault.access is Access.STORE else 0", "form.dirty", topic="dirty"),
    Line("L1's D is left", f"{LADDER}._as_hardware", "form.dirty if fault.access is Access.STORE else 0", "0", topic="dirty"),
    Line("L1's A is left", f"{LADDER}._as_hardware", "entry |= form.accessed | (", "entry |= (", topic="dirty"),
    Line("L0's D by a load", f"{LADDER}.mark", "add_flags(outer.input_address, accessed=True, dirty=store)", "add_flags(outer.input_address, accessed=True, dirty=True)", topic="dirty"),
    Line("what lacks A and D is reflected", f"{LADDER}.walk", "if not guest.hardware_sets_flags:", "if True:", topic="dirty"),
)  # fmt: skip
