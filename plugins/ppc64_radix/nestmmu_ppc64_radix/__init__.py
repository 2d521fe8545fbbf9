"""POWER9 radix translation, and the nested behaviour of Linux's Book3S HV on it."""
