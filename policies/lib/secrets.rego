# Texts that look like credentials. A net with known holes: it finds common forms, it cannot find all.
package fulcrum.lib

# True when `text` holds something of the form of a known kind of key, token or private key.
looks_secret(text) if {
	is_string(text)
	regex.match(_secret, text)
}

_secret := `-----BEGIN [A-Z ]*PRIVATE KEY-----|\b(?:sk-[A-Za-z0-9_-]{16}|sk_(?:live|test)_[A-Za-z0-9]{16}|gh[pousr]_[A-Za-z0-9]{20}|github_pat_[A-Za-z0-9_]{20}|glpat-[A-Za-z0-9_-]{16}|xox[abeprs]-[A-Za-z0-9-]{10}|(?:AKIA|ASIA)[A-Z0-9]{16}\b|AIza[A-Za-z0-9_-]{35}|npm_[A-Za-z0-9]{30}|hf_[A-Za-z0-9]{30}|flcrm_sk_[A-Za-z0-9_-]{16}|eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.)|[a-z][a-z0-9+.-]*://[^\s/@:]+:[^\s/@]+@`

# The JSON pointers of all strings within `value` that look secret, names of members included.
secrets_in(value) := {pointer_of(path) |
	some path, text
	walk(value, [path, text])
	is_string(text)
	regex.match(_secret, text)
} | {pointer_of(path) |
	some path, _
	walk(value, [path, _])
	name := path[count(path) - 1]
	is_string(name)
	regex.match(_secret, name)
}

# The RFC 6901 pointer of a path as `walk` gives it.
pointer_of(path) := concat("", [step |
	some part in path
	step := concat("", ["/", replace(replace(sprintf("%v", [part]), "~", "~0"), "/", "~1")])
])
