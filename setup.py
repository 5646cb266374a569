"""The C modules; everything else is in pyproject.toml."""

from setuptools import setup

setup(
    cffi_modules=["native/build_store.py:ffibuilder", "native/build_shim.py:ffibuilder"],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},  # both modules keep to the stable ABI
)
