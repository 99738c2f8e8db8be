# What an SQL text does. Servers differ in what they take for a comment or a string: every text that two of them could
# read differently is "unknown". A function that writes (`select setval(...)`) cannot be told from one that reads.
package fulcrum.lib

# One of "select", "insert", "update", "delete", "ddl", "multiple", "unknown".
sql_kind(text) := kind if {
	is_string(text)
	kind := _sql_kind(_sql_bare(text))
} else := "unknown"

# The text in lower case without comments and with empty strings; undefined when that cannot be said for certain.
_sql_bare(text) := bare if {
	not regex.match(`\\|\$[A-Za-z0-9_]*\$|/\*[!+]|\x00|\b[nN]?[qQ]'`, text)
	not regex.match("\\[[^\\]]*(?:['\"`]|--|/\\*)", text)
	without := regex.replace(text, "'[^']*'|\"[^\"]*\"|`[^`]*`|--(?:[ \\t][^\\r\\n]*)?(?:\\r?\\n|$)|/\\*(?:[^*]|\\*+[^*/])*\\*+/", " ")
	not regex.match("['\"`#]|/\\*|\\*/|--|[^\\t\\n\\r\\x20-\\x7e]", without)
	bare := trim(lower(without), " \t\r\n;")
	bare != ""
}

_sql_kind(bare) := "multiple" if contains(bare, ";")

_sql_kind(bare) := kind if {
	not contains(bare, ";")
	kind := _sql_verb(regex.find_n(`^[a-z]+`, bare, 1)[0], bare)
}

_sql_verb(verb, bare) := "select" if {
	verb in {"select", "with"}
	not regex.match(`\b(?:insert|update|delete|merge|upsert|drop|alter|create|truncate|grant|revoke|into|call|exec|execute|copy|attach|detach|pragma|vacuum|set|lock|do|use|load|shutdown|backup|restore|kill|declare|begin|waitfor|dbcc)\b`, bare)
	regex.match(`\bselect\b`, bare)
}

_sql_verb(verb, bare) := verb if {
	verb in {"insert", "update", "delete"}
	not regex.match(`\b(?:merge|drop|alter|create|truncate|grant|revoke|call|exec|execute|copy|use|load|shutdown|backup|restore|kill|declare|begin|waitfor|dbcc)\b`, bare)
	count(_sql_writes(bare)) == 1
}

_sql_verb(verb, _) := "ddl" if verb in {"create", "alter", "drop", "truncate", "rename", "grant", "revoke", "comment"}

# The different verbs that write: `insert ... on conflict do update` has two and so is no plain insert.
_sql_writes(bare) := {verb | some verb in regex.find_n(`\b(?:insert|update|delete)\b`, bare, -1)}
