"""The stubs of the C modules name the functions that they have, with as many arguments, and the constants."""

from __future__ import annotations

import ast
from pathlib import Path
from types import ModuleType

import pytest

from mvvfs import _shim
from pagestore import _native


@pytest.mark.parametrize("module", [_shim, _native], ids=lambda module: module.__name__)
def test_stub_and_module_agree(module: ModuleType) -> None:
    stub = Path(module.__file__ or "").parent / (module.__name__.rpartition(".")[2] + ".pyi")
    (lib,) = (
        node
        for node in ast.parse(stub.read_text()).body
        if isinstance(node, ast.ClassDef) and node.name == "_Lib"
    )
    promised = {
        node.name: len(node.args.posonlyargs + node.args.args) - 1  # not `self`
        for node in lib.body
        if isinstance(node, ast.FunctionDef)
    }
    constants = {
        node.target.id
        for node in lib.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    callbacks = {name for name in dir(module.lib) if name.startswith("mv_py_")}
    members = {name: getattr(module.lib, name) for name in set(dir(module.lib)) - callbacks}
    found = {
        name: len(module.ffi.typeof(member).args)
        for name, member in members.items()
        if not isinstance(member, int)
    }
    assert promised == found
    assert constants <= {name for name, member in members.items() if isinstance(member, int)}
