# Names of what is called, and patterns over them.
package fulcrum.lib

# What the input is about, in one word: `files__write_file`, `prompt:files__greet`, `resource:files__file:///srv/a.md`;
# undefined for a method that is about none of them.
target := concat("__", [input.server.name, input.tool.name])

target := concat("", ["prompt:", input.server.name, "__", input.prompt.name])

target := concat("", ["resource:", input.server.name, "__", input.resource.uri])

# True when `text` equals `pattern`, where each `*` in the pattern stands for any text. Case matters.
name_matches(text, pattern) if {
	parts := split(pattern, "*")
	startswith(text, parts[0])
	_matches_after(text, pattern, parts)
}

_matches_after(text, pattern, parts) if {
	count(parts) == 1
	text == pattern
}

_matches_after(text, _, parts) if {
	count(parts) == 2
	endswith(text, parts[1])
	count(text) >= count(parts[0]) + count(parts[1])
}

_matches_after(text, _, parts) if {
	count(parts) > 2
	quoted := [regex.replace(part, `[.+?()|{}\[\]^$\\#&~-]`, `\$0`) | some part in parts]
	regex.match(concat("", ["(?s)^", concat(".*", quoted), "$"]), text)
}

# True when `text` matches at least one of `patterns`.
name_matches_any(text, patterns) if {
	some pattern in patterns
	name_matches(text, pattern)
}
