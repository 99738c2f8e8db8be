# The bench's first policy: tools that only read, for everybody.
package fulcrum.policies.tools

import rego.v1

allow if input.tool.annotations.readOnlyHint == true
