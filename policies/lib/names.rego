# Names of what is called, and patterns over them.
package fulcrum.lib

# What a call is about, in one word: `files__write_file`, `prompt:files__greet`, `resource:files__file:///srv/a.md`;
# undefined for a method that is about none of them.
target_of(call) := concat("__", [call.server.name, call.tool.name])

target_of(call) := concat("", ["prompt:", call.server.name, "__", call.prompt.name])

target_of(call) := concat("", ["resource:", call.server.name, "__", call.resource.uri])

# True when `text` equals `pattern`, where each `*` in the pattern stands for any text. Case matters.
name_matches(text, pattern) if text == pattern

name_matches(text, pattern) if {
	contains(pattern, "*")
	parts := [regex.replace(part, `[.+?()|{}\[\]^$\\#&~-]`, `\$0`) | some part in split(pattern, "*")]
	regex.match(concat("", ["(?s)^", concat(".*", parts), "$"]), text)
}

# True when `text` matches at least one of `patterns`.
name_matches_any(text, patterns) if {
	some pattern in patterns
	name_matches(text, pattern)
}
