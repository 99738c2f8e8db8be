from fulcrum_adapters.upstream.stdio.words import LastWords


def test_only_the_last_twenty_lines_are_kept() -> None:
    words = LastWords((), None)
    words.feed(b"".join(b"line %d\n" % number for number in range(50)))
    assert words.lines() == [f"line {number}" for number in range(30, 50)]


def test_configured_values_are_blotted_out_of_words_and_log() -> None:
    log: list[str] = []
    words = LastWords(("hunter2-secret", "1"), log.append)
    words.feed(b"cannot log in with hunter2-secret after 1 try\n")
    assert words.lines() == log == ["cannot log in with *** after 1 try"]


def test_secret_that_contains_another_is_blotted_out_whole() -> None:
    words = LastWords(("abcdef", "abcdefghij"), None)
    words.feed(b"token abcdefghij\n")
    assert words.lines() == ["token ***"]


def test_unfinished_line_counts_at_the_end_and_endless_ones_do_not_grow() -> None:
    words = LastWords((), None)
    for _ in range(1000):
        words.feed(b"x" * 1000)
    words.flush()
    assert [len(line) for line in words.lines()] == [300]


def test_stray_output_is_counted_and_shown_as_a_warning() -> None:
    words = LastWords((), None)
    words.stray(b"Server started")
    words.stray(b"\xffready\x1b[0m")
    assert words.lines() == ["warning: 2 lines on stdout were not JSON-RPC, the last: '\ufffdready [0m'"]


def test_silent_process_is_told_with_a_remedy() -> None:
    assert LastWords((), None).told() == "; it said nothing on stderr: run its command by hand to see why"
