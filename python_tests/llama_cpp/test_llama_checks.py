"""Every test of csrc/tests/llama_cpp, with the models that it asks for."""

from checks import run_test


def test_check(check, programs, models, table, tmp_path):
    outcome = run_test(programs / "llama_checks", models, check, tmp_path / "report.json")
    suite, _, kind = check.partition("/")
    if suite.split(".")[0] in ("KeepAll", "Pruned"):
        table.add(kind, outcome.properties)
    assert outcome.passed, outcome.output


def test_keep_hashes_are_the_same_in_every_process(programs, models, tmp_path):
    name = "Query.TheSameQuestionKeepsTheSameRows/llava"
    hashes = []
    for run in range(2):
        outcome = run_test(programs / "llama_checks", models, name, tmp_path / f"{run}.json")
        assert outcome.passed, outcome.output
        hashes.append(outcome.properties["keep_hash"])
    assert hashes[0] == hashes[1] != "0"
