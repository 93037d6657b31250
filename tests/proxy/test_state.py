"""What a gateway remembers: the generation only grows, and the last good file is whole and private."""

import stat
from pathlib import Path

import pytest

from proxy.state import Kept, StateError, StateFolder, read_kept

SEAL = "5ea1"


def adopt(folder: Path, text: str) -> int:
    with StateFolder(folder) as state:
        return state.adopt(text, SEAL).generation


def test_a_changed_text_gets_the_next_number_and_the_same_text_keeps_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "state"
    assert [adopt(folder, text) for text in ("a: 1", "a: 1", "a: 2", "a: 1")] == [1, 1, 2, 3]


def test_the_kept_copy_is_the_text_as_written_for_the_owner_alone(tmp_path: Path) -> None:
    text = "key: ${SECRET}\n# Grüße\n"
    with StateFolder(tmp_path) as state:
        adopted = state.adopt(text, SEAL)
    assert adopted.path == tmp_path / "last-good.yaml"
    assert read_kept(adopted.path) == Kept(adopted.generation, SEAL, text)
    assert (
        adopted.path.read_text(encoding="utf-8") == f"# generation 1 of this gateway, sealed 5ea1: do not edit\n{text}"
    )
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["generation", "last-good.yaml", "lock"]


def test_a_stop_between_the_two_writes_skips_a_number_and_repeats_none(tmp_path: Path) -> None:
    assert adopt(tmp_path, "a: 1") == 1
    (tmp_path / "generation").write_text("2\n")  # written for a text that was never kept
    assert adopt(tmp_path, "a: 2") == 3


def test_a_lost_copy_gets_a_new_number(tmp_path: Path) -> None:
    assert adopt(tmp_path, "a: 1") == 1
    (tmp_path / "last-good.yaml").unlink()
    assert adopt(tmp_path, "a: 1") == 2


def test_another_seal_is_kept_under_the_same_number(tmp_path: Path) -> None:
    """Each start has another key to seal with."""
    with StateFolder(tmp_path) as state:
        assert [state.adopt("a: 1", seal).generation for seal in ("aa", "bb")] == [1, 1]
    assert read_kept(tmp_path / "last-good.yaml") == Kept(1, "bb", "a: 1")


def test_a_lost_number_is_found_in_the_copy(tmp_path: Path) -> None:
    assert [adopt(tmp_path, text) for text in ("a: 1", "a: 2")] == [1, 2]
    (tmp_path / "generation").unlink()
    assert [adopt(tmp_path, text) for text in ("a: 2", "a: 3")] == [2, 3]


def test_the_same_text_can_be_another_configuration(tmp_path: Path) -> None:
    with StateFolder(tmp_path) as state:
        assert [state.adopt("a: 1", SEAL, anew=anew).generation for anew in (False, False, True, False)] == [1, 1, 2, 2]


@pytest.mark.parametrize(
    "content", [b"", b"a: 1", b"# generation x of this gateway, sealed 5ea1: do not edit\n", b"\xff"]
)
def test_a_copy_that_is_none_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "last-good.yaml").write_bytes(content)
    with pytest.raises(StateError, match="is damaged"):
        read_kept(tmp_path / "last-good.yaml")
    with pytest.raises(StateError, match="cannot be read"):
        read_kept(tmp_path / "nothing")


@pytest.mark.parametrize("damaged", [b"seven", b"\xff", b"", b"-1", b"9007199254740991", b"9" * 5000])
def test_a_damaged_number_is_not_guessed(tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / "generation").write_bytes(damaged)
    with pytest.raises(StateError, match="holds no number of a generation: write a larger one") as refusal:
        adopt(tmp_path, "a: 1")
    assert "\n" not in str(refusal.value)


def test_a_damaged_copy_is_another_text(tmp_path: Path) -> None:
    assert adopt(tmp_path, "a: 1") == 1
    (tmp_path / "last-good.yaml").write_bytes(b"\xff")
    assert adopt(tmp_path, "a: 1") == 2
    assert read_kept(tmp_path / "last-good.yaml") == Kept(2, SEAL, "a: 1")


def test_one_gateway_at_a_time_uses_a_folder(tmp_path: Path) -> None:
    with StateFolder(tmp_path), pytest.raises(StateError, match="another gateway runs with"):
        StateFolder(tmp_path)
    StateFolder(tmp_path).__exit__()


def test_a_folder_that_cannot_be_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="cannot write in") as refusal:
        StateFolder(tmp_path / "file" / "state")
    assert "\n" not in str(refusal.value)
