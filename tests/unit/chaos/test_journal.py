"""A journal goes on where a kill has ended its writer."""

from pathlib import Path

from tests.chaos.journal import Journal


def test_a_line_that_a_kill_has_cut_off_is_gone_when_the_journal_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"at": 1}\n{"at"')
    journal = Journal(path)
    journal.write({"at": 2})
    journal.close()
    assert path.read_bytes() == b'{"at": 1}\n{"at": 2}\n'
