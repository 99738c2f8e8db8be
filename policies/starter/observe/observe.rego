# What runs when there is no policy: everything is allowed and recorded, so that one can see what rules are needed.
package fulcrum.policies.observe

allow := true
