from conftest_cli import Run


def test_a_key_is_made_listed_and_revoked(run: Run) -> None:
    made = run("keys", "create", "ci", "--role", "reader", "--expires", "90d")
    assert made.code == 0
    assert made.out.startswith("flcrm_sk_")
    key_id = made.out.split("_")[2]
    listed = run("keys", "list")
    assert made.out.strip() not in listed.out
    assert key_id in listed.out
    assert "reader" in listed.out
    assert run("keys", "revoke", key_id).code == 0
    assert "revoked" in run("keys", "list").out
    assert run("keys", "revoke", "nobody").code == 1
