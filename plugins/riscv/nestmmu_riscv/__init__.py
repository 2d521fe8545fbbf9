"""RISC-V with the hypervisor extension (H), RV64, as a plugin of nestmmu.

Sources: the privileged architecture (version 1.13), its chapters on supervisor-level translation and on the hypervisor
extension, with Svnapot, Svpbmt, Svadu and Svade, and Svinval. 2,399 accesses recorded on QEMU agree.

Modelled:

- Sv39, Sv48 and Sv57 of satp and vsatp; Sv39x4, Sv48x4 and Sv57x4 of hgatp; Bare at either stage, or at both.
- Addresses that are not canonical (S-stage, VS-stage), and guest physical addresses wider than hgatp's mode.
- Entries: reserved bits and encodings at each level, misaligned superpages, A, D and U of directory entries.
- Svnapot: 64 KiB pages of 16 entries, at each stage; every other encoding of N is reserved.
- Svpbmt, by PBMTE of menvcfg (S-stage, G-stage) and henvcfg (VS-stage), and which stage's memory type counts.
- Svadu, by ADUE of the same registers, and Svade where it is off; a hart's own write of A and D to a VS-stage entry is
  a store at the G-stage.
- U, SUM and MXR: of vsstatus for the VS-stage; MXR of mstatus for both stages; of explicit loads alone.
- HLV, HLVX and HSV, under hstatus.SPVP.
- Exceptions 1, 5, 7 (access fault), 12, 13, 15 (page fault) and 20, 21, 23 (guest-page fault): xtval, htval or mtval2,
  htinst or mtinst with the pseudo-instructions for implicit reads and writes, GVA; as taken into M, HS or VS-mode.
- SFENCE.VMA, HFENCE.VVMA, HFENCE.GVMA and SINVAL.VMA, HINVAL.VVMA, HINVAL.GVMA: their scopes by address, ASID and VMID.
- A hypervisor under a hypervisor (HS-mode in VS-mode): L1's virtual hgatp, WARL, with a MODE as wide as L0's or
  narrower, or Bare; a shadow of its G-stage table for each VMID; L1's machine with Svadu or Svade; reflection, HFENCE
  by L1 whatever the size of L1's page, memory slots, unmapping, ageing and the dirty log of L0.
- Such hypervisors upon each other, as many as one likes (``nestmmu demo --arch riscv``).

Not modelled:

- RV32: Sv32 and Sv32x4.
- M-mode's own accesses, MPRV, PMP and ePMP; of the attributes of physical memory, only whether there is memory.
- Transformed instructions in htinst and mtinst: an explicit access writes 0, which the manual allows.
- htval of zero, which the manual allows a hart that does not know the address.
- Delegation (medeleg, hedeleg): a trap is given as each mode would see it, and the caller says which one takes it.
- Virtual-instruction exceptions: that L1's accesses to its hypervisor registers, its fences, SRET and HLV trap is taken
  as given; what L0 does for the registers, the fences and SRET is modelled, and HLV with the registers of L2.
- Shadow stacks (Zicfiss), pointer masking, Svvptc, big-endian tables (MBE, SBE, UBE), Svrsw60t59b.
- What a hart may hold between a change of a table and its fence, but for the model's TLB and page-walk cache.
- HLVX of L1 on a page of L2 that the shadow does not have yet: L0 takes the fault for a load's.
"""
