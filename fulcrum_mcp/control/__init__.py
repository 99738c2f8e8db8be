"""The control plane (management): one module a resource, no framework in it."""
