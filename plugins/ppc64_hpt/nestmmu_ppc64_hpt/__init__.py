"""POWER9 hash page tables: SLB, hash table, hypercalls and shadows, as a plugin of nestmmu."""
