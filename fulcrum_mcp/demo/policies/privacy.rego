# Tokens and addresses stay here: masked in every result before the agent sees it, and in the audit copy of every call.
package fulcrum.policies.privacy

import rego.v1

redact contains {"pattern": `ghp_[A-Za-z0-9]{36}`, "with": "[token]"}

redact contains {"pattern": `[A-Za-z0-9._+-]+@[A-Za-z0-9-]+\.[A-Za-z0-9.-]+`, "with": "[e-mail]"}
