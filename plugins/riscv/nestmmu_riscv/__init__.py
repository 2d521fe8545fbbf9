"""RISC-V with the hypervisor extension, as a plugin of nestmmu."""
