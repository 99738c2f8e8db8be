package fulcrum.lib_test

import data.fulcrum.lib

test_paths_within if {
	every path in ["/srv", "/srv/", "/srv/a", "/srv/.hidden", "/srv/a..b", "/srv/ünï/a b"] {
		lib.path_within(path, "/srv")
	}
}

test_paths_outside if {
	every path in ["", "srv/a", "/srvx", "/etc", "/", "/srv/..", "/srv/../srv/a", "/srv/./a", "/srv//a", "/SRV/a", "/srv/%2E%2e", "/srv\\a", "/srv/a\u0000", "/srv/\uff0e\uff0e", "/srv/\u202ea", 5, null, ["/srv/a"]] {
		not lib.path_within(path, "/srv")
	}
}

test_a_root_that_is_none_holds_nothing if {
	every root in ["", "srv", "/srv/..", null] {
		not lib.path_within("/srv/a", root)
	}
}

test_the_root_of_all if lib.path_within("/a", "/")

test_any_root if lib.path_within_any("/b/x", ["/a", "/b"])

test_file_addresses if {
	lib.path_of_uri("file:///srv/a") == "/srv/a"
	not lib.path_of_uri("file://host/srv/a")
	not lib.path_of_uri("file:///srv/a?x")
	not lib.path_of_uri("https://example.com/")
}

test_hosts if {
	lib.host_of("https://Example.COM.:443/a?b#c") == "example.com"
	lib.host_of("http://[::1]/") == "[::1]"
	every url in ["example.com", "https://a@b.com/", "https://a.com\\@b.com", "https://a%2e.com/", "https://é.com/", "https:///a", "https://a.com/\n", 7] {
		not lib.host_of(url)
	}
}

test_host_patterns if {
	lib.host_matches("a.example.com", "*.example.com")
	not lib.host_matches("example.com", "*.example.com")
	not lib.host_matches("badexample.com", "*.example.com")
	lib.host_matches("example.com", "Example.com")
}

test_private_hosts if {
	every host in ["localhost", "printer", "127.0.0.1", "10.1.2.3", "172.31.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "[::1]", "a.internal"] {
		lib.host_is_private(host)
	}
	every host in ["example.com", "8.8.8.8", "172.32.0.1"] {
		not lib.host_is_private(host)
	}
}

test_sql_kinds if {
	every text, kind in {
		"select 1": "select",
		"Select 'a;b' -- c": "select",
		"with x as (select 1) select * from x": "select",
		"insert into t values (1);": "insert",
		"update t set a = 'delete'": "update",
		"delete from t": "delete",
		"drop table t": "ddl",
		"select 1; select 2": "multiple",
		"": "unknown",
		"explain delete from t": "unknown",
		"select 1 into t": "unknown",
		"select 'a\\'; drop table t --'": "unknown",
	} {
		lib.sql_kind(text) == kind
	}
	lib.sql_kind(7) == "unknown"
}

test_secrets if {
	lib.looks_secret("sk-abcdefghijklmnop1234")
	lib.looks_secret("x https://u:p@h/ y")
	not lib.looks_secret("a task-list, at 10:30")
	not lib.looks_secret(5)
	lib.secrets_in({"a/b": ["ok", "AKIAABCDEFGHIJKLMNOP"], "c": 1}) == {"/a~1b/1"}
}

test_names if {
	lib.name_matches("files__read", "files__*")
	lib.name_matches("files__read", "*__read")
	lib.name_matches("a.b", "a.b")
	lib.name_matches("abcab", "a*c*b")
	lib.name_matches("a\nb", "a*b")
	not lib.name_matches("axb", "a.b")
	not lib.name_matches("ab", "a*b*c")
	not lib.name_matches("a", "a*a")
	not lib.name_matches("xfiles__read", "files__*")
}

test_targets if {
	lib.target == "s__t" with input as {"server": {"name": "s"}, "tool": {"name": "t"}}
	lib.target == "prompt:s__p" with input as {"server": {"name": "s"}, "prompt": {"name": "p"}}
	lib.target == "resource:s__file:///a" with input as {"server": {"name": "s"}, "resource": {"uri": "file:///a"}}
	not lib.target with input as {"server": {"name": "s"}}
}

test_hours if {
	lib.within_hours({"weekday": "Friday", "hour": 9}, ["fri"], 9, 17)
	not lib.within_hours({"weekday": "Friday", "hour": 17}, ["fri"], 9, 17)
	not lib.within_hours({}, ["fri"], 9, 17)
}
