"""The performance rig: gateways side by side in front of one cheap upstream, ratios from one interleaved run.

The headline is CPU microseconds per call of the gateway's whole process tree. The load generator and the upstream are
processes of their own, kept off the gateway's core, so that neither counts. Everything stays on loopback.
"""
