"""Every setting of every recipe is as it was: a change shows in the diff of tests/golden/recipes."""

from tests.golden.renew import FOLDER, snapshots, text


def test_every_recipe_holds_the_values_that_were_kept() -> None:
    found = {f"{name}.json": text(recipes) for name, recipes in snapshots().items()}
    kept = {file.name: file.read_text() for file in FOLDER.glob("*.json")}
    assert sorted(found) == sorted(kept)
    for name in found:
        assert found[name] == kept[name], f"{name}: if this is meant, run python -m tests.golden.renew"
