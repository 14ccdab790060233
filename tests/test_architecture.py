"""The house itself: what no reader of one file sees."""

from __future__ import annotations

import grimp


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports within functions and for type checkers count too."""
    graph = grimp.build_graph("simsiam", exclude_type_checking_imports=False, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert sum(map(len, imports.values())) > 500  # it does see them
    # What imports nothing that is left is in no circle; take such modules away until none is left.
    while free := [module for module, names in imports.items() if not names & imports.keys()]:
        for module in free:
            del imports[module]
    assert not imports, f"in circles, or above one: {sorted(imports)}"
