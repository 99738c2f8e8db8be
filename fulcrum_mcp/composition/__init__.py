"""The composition root, one module a concern: it and `bootstrap` alone import adapters."""
