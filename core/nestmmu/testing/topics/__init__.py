"""The topics of the conformance suite, one module each."""
