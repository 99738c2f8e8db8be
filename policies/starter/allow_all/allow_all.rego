# Everything is allowed, methods that Fulcrum does not know included. It is still recorded and held to budgets.
package fulcrum.policies.allow_all

allow := true
